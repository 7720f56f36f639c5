"""Compares Faust's own Kafka transport with the batched one of this project, on the embedded broker.

The same agent counts the same records, once handed over one by one (``kafka://``) and once as whole batches
(``kafkabatch://``), in alternating rounds, each in a process of its own. The clock runs from the first record that the
agent sees to the last one, so that joining the group does not count. Nothing is decoded or stored.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import faust
from faust.types import TP
from kafka import KafkaProducer

from pipeline.fold.records import RecordBatch
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.worker import run_worker
from pipeline.settings import KafkaSettings
from streams.topics import create_topics
from streams.transport import BatchSchema

TOPIC = "transport.speed"
PARTITIONS = 4
WAYS = {"single": "kafka://", "batched": "kafkabatch://"}


class FromStart:
    """Positions for the batched transport: every partition from its start, nothing durable."""

    async def load(self, log_starts: Mapping[TP, int]) -> Mapping[TP, int]:
        """The start of each partition."""
        return log_starts

    def durable(self) -> Mapping[TP, int]:
        """Nothing."""
        return {}


def consume(way: str, bootstrap: str, records: int) -> None:
    """Run a Faust worker until it has seen all records; print the seconds between the first and the last."""
    app = faust.App(
        f"speed-{way}-{time.time_ns()}",
        broker=WAYS[way] + bootstrap,
        broker_session_timeout=2.0,
        broker_heartbeat_interval=0.5,
        broker_max_poll_records=10_000,
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=tempfile.gettempdir(),
        web_enabled=False,
        autodiscover=False,
    )
    vars(app)["positions"] = FromStart()
    batched = way == "batched"
    topic = (
        app.topic(TOPIC, schema=BatchSchema())
        if batched
        else app.topic(TOPIC, value_type=bytes, value_serializer="raw")
    )
    seen = 0
    first: list[float] = []

    def count(number: int) -> None:
        nonlocal seen
        if not first:
            first.append(time.perf_counter())
        seen += number
        if seen >= records:
            print(json.dumps({"records": seen, "seconds": time.perf_counter() - first[0]}), flush=True)
            os._exit(0)

    if batched:

        @app.agent(topic)
        async def of_batches(stream: faust.StreamT[RecordBatch]) -> None:
            async for batch in stream:
                count(len(batch))

    else:

        @app.agent(topic)
        async def of_records(stream: faust.StreamT[bytes]) -> None:
            async for _ in stream:
                count(1)

    @app.task  # type: ignore[untyped-decorator]
    async def give_up() -> None:
        await asyncio.sleep(100)
        print(json.dumps({"records": seen, "seconds": 0.0}), flush=True)
        os._exit(1)

    run_worker(app)


def fill(bootstrap: str, records: int, size: int) -> None:
    """Create the topic and write the records."""
    create_topics(KafkaSettings(bootstrap=bootstrap, events_topic=TOPIC, partitions=PARTITIONS))
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=200_000)
    for number in range(records):
        producer.send(TOPIC, value=b"%0*d" % (size, number), partition=number % PARTITIONS)
    producer.flush()
    producer.close()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both ways in alternating rounds."""
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    with (
        tempfile.TemporaryDirectory(prefix="xidmet-transport-") as directory,
        EmbeddedBroker(Path(directory) / "broker.log") as broker,
    ):
        fill(broker.bootstrap, options.records, options.size)
        for number in range(options.rounds):
            for way in sorted(WAYS, reverse=bool(number % 2)):
                speeds[way].append(options.records / _seconds(way, broker.bootstrap, options.records))
            print(f"round {number + 1} of {options.rounds}: done", file=sys.stderr)
    return {
        "records": options.records,
        "bytes_per_record": options.size,
        "rounds": options.rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "records_per_second": {
            name: {"median": median(all_), "lowest": min(all_), "highest": max(all_)} for name, all_ in speeds.items()
        },
        "batched_to_single": median(speeds["batched"]) / median(speeds["single"]),
    }


def _seconds(way: str, bootstrap: str, records: int) -> float:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--consume", way, "--bootstrap", bootstrap, "--records", str(records)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stdout}{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000, help="records (default 200000)")
    parser.add_argument("--size", type=int, default=350, help="bytes of a record (default 350)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is taken (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--consume", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.consume:
        consume(options.consume, options.bootstrap, options.records)
        return 1
    content = compare(options)
    if options.json:
        print(json.dumps(content))
        return 0
    print(f"{content['records']:,} records of {content['bytes_per_record']} bytes, {content['rounds']} rounds")
    for name, figures in content["records_per_second"].items():
        print(
            f"{name:10} {figures['median']:>10,.0f} records/s"
            f"   (from {figures['lowest']:,.0f} to {figures['highest']:,.0f})"
        )
    print(f"batched to single: {content['batched_to_single']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
