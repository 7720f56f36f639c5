"""Measures how much memory a worker takes while ClickHouse is away and events keep coming.

A worker of its own process folds what is sent, its writes go to a port where nobody listens, and the events are sent
in batches of 100. When all are sent and the worker holds back, its peak of resident memory (VmHWM) is read, and what
``/readyz`` says. One round for each bound: a tenth of the default, the default, and none.

Without ``--bootstrap`` the embedded broker is used, which keeps all events in memory (of its own process).
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faust.types import TP
from kafka import KafkaProducer

from pipeline.app import create_app
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.results import Results
from pipeline.runtime.worker import run_worker
from pipeline.settings import WorkerSettings, load_settings
from streams.topics import create_topics

BATCH = 100
DEFAULT_EVENTS = WorkerSettings().max_pending_events
BOUNDS = {
    "a tenth": ["worker.max_pending_events=40000", "worker.max_pending_bytes=26843545"],
    "default": [],
    "none": ["worker.max_pending_events=1000000000", "worker.max_pending_bytes=1000000000000"],
}


class AwayResults(Results):
    """As after a start with ClickHouse, which then went away: positions are known, no write succeeds."""

    def prepare(self, rules: Rules) -> None:
        """It was there."""

    def resume(self, log_starts: Mapping[TP, int], next_rules: Rules) -> dict[TP, ResumePoint]:
        """Every partition from its start."""
        return {
            tp: ResumePoint(LogPartition(tp.topic, tp.topic, tp.partition), start) for tp, start in log_starts.items()
        }


def batches(events: int) -> Iterator[bytes]:
    """Batches of valid events of 350 bytes each, every event with an id, a person and a duration of its own."""
    time_ = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for start in range(0, events, BATCH):
        texts = []
        for number in range(start, min(start + BATCH, events)):
            text = (
                f'{{"specversion":"1.0","id":"{number:032x}","source":"https://portal.example/","time":"{time_}",'
                f'"type":"xidmet.service.used.v1","data":{{"agency":"agriculture","service":"farm-machinery-deregistration","channel":"web",'
                f'"outcome":"success","duration_ms":{number % 5_000},"user":"user-{number % 100_000:032d}"'
            )
            texts.append(text + "}}" + " " * (349 - len(text) - 2))
        yield ("[" + ",".join(texts) + "]").encode()


def send(bootstrap: str, topic: str, events: int) -> None:
    """Send all and wait until the broker has them."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=1, enable_idempotence=False, linger_ms=20)
    try:
        for number, value in enumerate(batches(events)):
            producer.send(topic, value, partition=number % 4)
        producer.flush(timeout=600)
    finally:
        producer.close()


def measure(bootstrap: str, events: int, bound: list[str]) -> dict[str, Any]:
    """One round: peak memory in MiB and what the worker says of itself."""
    name = uuid.uuid4().hex[:8]
    port = free_port()
    flags = [
        f"kafka.bootstrap={bootstrap}",
        f"kafka.group=group-{name}",
        f"kafka.events_topic=events-{name}",
        f"kafka.rejected_topic=rejected-{name}",
        "kafka.session_timeout_seconds=6",
        f"clickhouse.url=clickhouse://default@127.0.0.1:{free_port()}/xidmet",
        f"web.port={port}",
        *bound,
    ]
    create_topics(load_settings(environment={}, flags=flags).kafka)
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen([sys.executable, __file__, "--worker", *flags], stderr=log, stdout=log)
        try:
            wait_for(port, worker, lambda found: found["assigned"] == 4)
            before = peak_mib(worker.pid)
            send(bootstrap, f"events-{name}", events)
            limit = next((int(flag.partition("=")[2]) for flag in bound), DEFAULT_EVENTS)
            found = wait_for(port, worker, lambda found: found["pending_events"] >= min(limit, events))
            # What is fetched ahead comes on top; the fetches are done when the peak rests.
            peaks = [0.0, peak_mib(worker.pid)]
            deadline = time.monotonic() + 60
            while peaks[-1] > peaks[-2] and time.monotonic() < deadline:
                time.sleep(3)
                peaks.append(peak_mib(worker.pid))
            return {"before_mib": before, "peak_mib": peaks[-1]} | {
                key: found[key] for key in ("state", "pending_events", "pending_bytes")
            }
        finally:
            worker.kill()
            worker.wait()


def wait_for(port: int, worker: subprocess.Popen[bytes], condition: Any) -> dict[str, Any]:
    """What /readyz says as soon as the condition holds."""
    deadline = time.monotonic() + 600
    found: dict[str, Any] = {}
    while time.monotonic() < deadline:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
        with contextlib.suppress(ConnectionError, TimeoutError, urllib.error.URLError):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
                    found = json.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    found = json.loads(error.read())
            if condition(found):
                return found
        time.sleep(0.2)
    raise TimeoutError(f"waited 600 s in vain for the worker, which says {found}")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_mib(pid: int) -> float:
    """VmHWM of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--bootstrap", help="a Kafka broker; the embedded one if it is not given")
    parser.add_argument("--bounds", nargs="+", choices=list(BOUNDS), default=list(BOUNDS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        bootstrap = arguments.bootstrap
        if bootstrap is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            bootstrap = stack.enter_context(EmbeddedBroker(Path(directory) / "broker.log")).bootstrap
        results = {bound: measure(bootstrap, arguments.events, BOUNDS[bound]) for bound in arguments.bounds}
    if arguments.json:
        print(json.dumps({"events": arguments.events, "cores": os.cpu_count(), "bounds": results}))
        return
    print(f"{arguments.events} events, {BATCH} a message, sent while ClickHouse is away")
    print(f"{'bound':10} {'pending events':>15} {'pending MiB':>12} {'peak MiB':>9} {'at start':>9}  state")
    for bound, one in results.items():
        print(
            f"{bound:10} {one['pending_events']:>15} {one['pending_bytes'] / 2**20:>12.0f}"
            f" {one['peak_mib']:>9.0f} {one['before_mib']:>9.0f}  {one['state']}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        settings = load_settings(environment={}, flags=sys.argv[2:])
        sys.exit(1 if run_worker(create_app(settings, AwayResults)) else 0)
    main()
