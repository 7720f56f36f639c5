"""Measures how fresh answers are at a steady rate of events: from being sent to being seen by SELECT.

Events are sent singly at a steady rate to a real Kafka, by a process of its own. One in fifty is a probe: its time is
taken before it is handed to the producer. Two pollers count the probes again and again, one through the view
``events``, one through the view ``usage``; a probe is seen when the answer that counts it is there. So a figure is too
high by up to the pause of the poller and the time of its query, which are both given.

First a worker at its default settings writes to ClickHouse, then, on the same servers and at the same rate,
ClickHouse's own Kafka engine, with two consumers, views into the same ledger and minutes, and its default flush.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clickhouse_driver import Client

from benchmarks.compare.catalogue import write_catalogue
from benchmarks.rig.engine import kafka_engine
from benchmarks.rig.events import PARTITIONS, PROBE_AGENCY, PROBE_CHANNELS, PROBE_SERVICE, probe, timed
from benchmarks.rig.figures import delays, spread
from benchmarks.rig.processes import cpu_seconds
from benchmarks.rig.stage import Stage, pressure, stage, start_worker
from pipeline.producer import connect_producer
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

PROBE_EVERY = 50
TARGET_MS = {"p50": 700.0, "p99": 1_500.0}
TICK_SECONDS = 0.002
# The engine's default flush is 7.5 s.
SEEN_SECONDS = 60.0
_WHERE = f"agency = '{PROBE_AGENCY}' AND service = '{PROBE_SERVICE}'"
QUERIES = {
    "events": f"SELECT channel, count() FROM {{database}}.events WHERE {_WHERE} GROUP BY channel",
    "usage": f"SELECT channel, sum(uses) FROM {{database}}.usage WHERE {_WHERE} GROUP BY channel",
}


@dataclass(slots=True)
class Poller:
    """Counts probes by channel through one view, every ``every`` seconds or as fast as the answers come."""

    port: int
    query: str
    every: float
    looks: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    query_ms: list[float] = field(default_factory=list)
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until ``ended``."""
        client = Client("127.0.0.1", port=self.port)
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                counts = dict(client.execute(self.query))
                now = time.monotonic()
                self.looks.append((now, counts))
                self.query_ms.append((now - began) * 1000)
                self.ended.wait(max(0.0, began + self.every - now))
        except Exception as error:
            self.error = error
        finally:
            client.disconnect()

    def seen(self) -> int:
        """How many probes the last answer counted."""
        return sum(self.looks[-1][1].values()) if self.looks else 0

    def delays_ms(self, sent: list[list[float]], warm_up_until: float) -> list[float]:
        """Delay of each probe that was sent after the warm-up."""
        found: list[float] = []
        for channel, times in zip(PROBE_CHANNELS, sent, strict=True):
            seen = [(when, counts.get(channel, 0)) for when, counts in self.looks]
            taken = delays(times, seen)
            found += [delay * 1000 for delay, when in zip(taken, times, strict=True) if when >= warm_up_until]
        return found


@contextmanager
def pollers(stage_: Stage, database: str, every: float) -> Iterator[dict[str, Poller]]:
    """One for each view, each in a thread of its own."""
    all_ = {
        view: Poller(stage_.clickhouse.native_port, query.format(database=database), every)
        for view, query in QUERIES.items()
    }
    threads = [threading.Thread(target=poller.run, name=view) for view, poller in all_.items()]
    for thread in threads:
        thread.start()
    try:
        yield all_
    finally:
        for poller in all_.values():
            poller.ended.set()
        for thread in threads:
            thread.join()


def send(bootstrap: str, topic: str, rate: float, seconds: float) -> None:
    """Send events at a rate; print when the probes of each partition were sent, on the monotonic clock."""
    # Made before, so that the rate is steady; the times are those at which the events will be sent.
    lead = 5.0 + rate * seconds * 2e-5
    start = time.monotonic() + lead
    values = timed(rate, seconds, int((time.time() + lead + seconds) * 1000))
    producer = connect_producer(bootstrap, topic, "xidmet-steady", None)
    sent: list[list[float]] = [[] for _ in range(PARTITIONS)]
    late = 0.0
    time.sleep(max(0.0, start - time.monotonic()))
    began = time.monotonic()
    number = probes = 0
    while number < len(values):
        due = min(len(values), int((time.monotonic() - began) * rate) + 1)
        while number < due:
            if number % PROBE_EVERY:
                producer.send(topic, values[number], partition=number % PARTITIONS)
            else:
                partition = probes % PARTITIONS
                value = probe(partition, probes)
                probes += 1
                now = time.monotonic()
                late = max(late, now - (began + number / rate))
                sent[partition].append(now)
                producer.send(topic, value, partition=partition)
            number += 1
        time.sleep(TICK_SECONDS)
    took = time.monotonic() - began
    producer.flush(timeout=60)
    producer.close()
    print(json.dumps({"sent": sent, "events": number, "seconds": took, "late_ms": late * 1000}), flush=True)


def measure(stage_: Stage, run: PipelineRun, options: argparse.Namespace, reader: int) -> dict[str, Any]:
    """Send, poll, and say how fresh the answers were. ``reader`` is the process that reads from Kafka."""
    database = run.settings.clickhouse.url.rpartition("/")[2]
    pids = stage_.pids() | {"reader": reader}
    seconds = options.warm_up + options.seconds
    command = [sys.executable, __file__, "--send", stage_.kafka.bootstrap, run.settings.kafka.events_topic]
    command += ["--rate", str(options.rate), "--seconds", str(seconds)]
    before, waited, began = {name: cpu_seconds(pid) for name, pid in pids.items()}, pressure(), time.monotonic()
    with pollers(stage_, database, options.every / 1000) as all_:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 3 + 120, check=False)
        if done.returncode:
            raise SystemExit(f"the sender failed: {done.stderr[-2000:]}")
        load = json.loads(done.stdout)
        probes = sum(map(len, load["sent"]))
        after, took = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic() - began
        waited = (pressure() - waited) / took
        wait_until(
            lambda: all(poller.error or poller.seen() >= probes for poller in all_.values()),
            SEEN_SECONDS,
            f"{probes} probes to be seen",
            every=0.1,
        )
    for view, poller in all_.items():
        if poller.error is not None:
            raise SystemExit(f"the poller of {view} failed: {poller.error}")
    warm_until = min(times[0] for times in load["sent"]) + options.warm_up
    views = {view: spread(poller.delays_ms(load["sent"], warm_until)) for view, poller in all_.items()}
    return {
        "views": views,
        "probes": sum(when >= warm_until for times in load["sent"] for when in times),
        "events_per_s": round(load["events"] / load["seconds"], 1),
        "sender_late_ms": round(load["late_ms"], 1),
        "query_ms": {view: spread(poller.query_ms) for view, poller in all_.items()},
        "looks_per_s": {
            view: round(len(poller.looks) / (poller.looks[-1][0] - poller.looks[0][0]), 1)
            for view, poller in all_.items()
        },
        "cores": {name: round((after[name] - before[name]) / took, 3) for name in pids},
        "cpu_pressure": round(waited, 3),
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both, one after the other."""
    found: dict[str, Any] = {"rate": options.rate, "seconds": options.seconds, "warm_up_seconds": options.warm_up}
    flags = dict(flag.split("=", 1) for flag in options.set)
    settings = {name.replace(".", "__"): value for name, value in flags.items()}
    with stage(options.directory) as stage_:
        settings["catalogue__path"] = write_catalogue(stage_.directory / "catalogue.json")
        with stage_.pipeline("steady_worker", **settings) as run:
            worker = start_worker(run)
            found["worker"] = measure(stage_, run, options, worker.pid)
            found["worker"]["flushes_per_s"] = flushes(run)
            worker.terminate()
            worker.wait(120)
        if not options.no_engine:
            with stage_.pipeline("steady_engine") as run, kafka_engine(stage_, run):
                found["engine"] = measure(stage_, run, options, stage_.clickhouse.pid)
    for prefix, who in (("", "worker"), ("engine_", "engine")):
        views = found.get(who, {}).get("views", {}).values()
        # An answer is as fresh as the later of the two views.
        if views:
            for name in ("p50", "p90", "p99", "max"):
                found[f"{prefix}freshness_{name}_ms"] = max(view[name] for view in views)
    found["met"] = all(
        view[name] < target for view in found["worker"]["views"].values() for name, target in TARGET_MS.items()
    )
    return found


def flushes(run: PipelineRun) -> float:
    """Inserts into the ledger a second, as ClickHouse counted them."""
    database = run.settings.clickhouse.url.rpartition("/")[2]
    run.query("SYSTEM FLUSH LOGS")
    rows = run.query(
        "SELECT count(), dateDiff('millisecond', min(event_time_microseconds), max(event_time_microseconds)) / 1000"
        f" FROM system.part_log WHERE event_type = 'NewPart' AND database = '{database}' AND table = 'ledger'"
    )
    ((count, seconds),) = rows
    return round(float(count) / max(1.0, float(seconds)), 2)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5_000.0, help="events a second (default 5000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, after the warm-up (default 60)")
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds that do not count (default 15)")
    parser.add_argument("--every", type=float, default=50.0, help="milliseconds between looks (default 50)")
    parser.add_argument("--set", action="append", default=[], help="a setting of the worker, section.key=value")
    parser.add_argument("--no-engine", action="store_true", help="leave ClickHouse's Kafka engine out")
    parser.add_argument("--directory", type=Path, help="where servers keep their data meanwhile")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--send", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        bootstrap, topic = options.send
        send(bootstrap, topic, options.rate, options.seconds)
        return
    found = compare(options)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.rate:,.0f} events/s, {options.seconds:g} s after {options.warm_up:g} s of warm-up")
    print("from sent to seen, ms")
    print(f"{'':28} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8} {'query p50':>10} {'events/s':>9}")
    for who in ("worker", "engine"):
        for view, figures in found.get(who, {}).get("views", {}).items():
            one = found[who]
            print(
                f"{who + ', through ' + view:28} {figures['p50']:>8.0f} {figures['p90']:>8.0f} {figures['p99']:>8.0f}"
                f" {figures['max']:>8.0f} {one['query_ms'][view]['p50']:>10.1f} {one['events_per_s']:>9,.0f}"
            )
        if who in found:
            cores = ", ".join(f"{name} {value:.2f}" for name, value in found[who]["cores"].items())
            print(
                f"{who}: cores {cores}; the sender was at most {found[who]['sender_late_ms']:.0f} ms late;"
                f" something waited for a CPU {found[who]['cpu_pressure']:.0%} of the time"
            )
    verdict = "met" if found["met"] else "missed"
    print(f"target: p50 < {TARGET_MS['p50']:.0f} ms and p99 < {TARGET_MS['p99']:.0f} ms: {verdict}")


if __name__ == "__main__":
    main()
