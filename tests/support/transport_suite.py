"""What the batched transport promises, checked against any broker; the test modules bind it to one."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Seen:
    """What a probe printed so far."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    assigned: list[dict[str, int]] = field(default_factory=list)

    def of(self, partition: int) -> list[dict[str, Any]]:
        return [batch for batch in self.batches if batch["partition"] == partition]

    def values(self) -> list[str]:
        return [value for batch in self.batches for value in batch["values"]]


@contextmanager
def probing(
    bootstrap: str, topic: str, session: float, *, group: str = "", positions: Mapping[int, int] | None = None
) -> Iterator[Seen]:
    """A probe on the topic; its batches arrive in what is yielded."""
    arguments = [bootstrap, topic, group or f"probe-{uuid.uuid4().hex[:8]}", str(session), json.dumps(positions or {})]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.transport_probe", *arguments], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    seen = Seen()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            content = json.loads(line) if line.startswith("{") else {}
            if "assigned" in content:
                seen.assigned.append(content["assigned"])
            elif content:
                seen.batches.append(content)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def create_topic(bootstrap: str, topic: str, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        admin.close()


def produce(bootstrap: str, topic: str, partition: int, values: list[str]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)
    try:
        futures = [
            producer.send(topic, value.encode(), partition=partition, headers=[("mark", b"1")]) for value in values
        ]
        for future in futures:
            future.get(timeout=30)
    finally:
        producer.close()


class TransportSuite:
    """Wants the fixtures ``bootstrap`` and ``session``; tests make their own topics."""

    def test_an_agent_gets_whole_batches_that_cover_each_partition_without_hole(
        self, bootstrap: str, session: float
    ) -> None:
        topic = f"transport-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 3)
        for partition in range(3):
            produce(bootstrap, topic, partition, [f"{partition}-{n}" for n in range(2_000)])
        with probing(bootstrap, topic, session) as seen:
            wait_until(lambda: len(seen.values()) >= 6_000, 60, "all records")
        for partition in range(3):
            batches = seen.of(partition)
            assert batches[0]["start"] == 0
            for batch, following in pairwise(batches):
                assert following["start"] == batch["next"]
            assert [value for batch in batches for value in batch["values"]] == [
                f"{partition}-{n}" for n in range(2_000)
            ]
            assert batches[-1]["high_water_mark"] == 2_000
            assert len(batches) < 200, "far fewer batches than records"
            assert all(head == ["mark"] for batch in batches for head in batch["headers"])
            assert all(stamp > 0 for batch in batches for stamp in batch["timestamps"])

    def test_reading_starts_where_the_authority_says(self, bootstrap: str, session: float) -> None:
        topic = f"transport-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 2)
        for partition in range(2):
            produce(bootstrap, topic, partition, [f"{partition}-{n}" for n in range(100)])
        with probing(bootstrap, topic, session, positions={0: 40, 1: 99}) as seen:
            wait_until(lambda: len(seen.values()) >= 61, 60, "the rest of both partitions")
        assert sorted(seen.values()) == sorted([f"0-{n}" for n in range(40, 100)] + ["1-99"])
        assert seen.of(0)[0]["start"] == 40

    def test_records_that_come_later_are_handed_on_as_they_come(self, bootstrap: str, session: float) -> None:
        topic = f"transport-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        produce(bootstrap, topic, 0, ["first"])
        with probing(bootstrap, topic, session) as seen:
            wait_until(lambda: seen.values() == ["first"], 60, "the first record")
            produce(bootstrap, topic, 0, ["second"])
            wait_until(lambda: seen.values() == ["first", "second"], 30, "the second record")
        assert [(batch["start"], batch["next"]) for batch in seen.of(0)] == [(0, 1), (1, 2)]

    def test_a_worker_without_partitions_is_told_so(self, bootstrap: str, session: float) -> None:
        topic, group = f"transport-{uuid.uuid4().hex[:8]}", f"probe-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        with (
            probing(bootstrap, topic, session, group=group) as first,
            probing(bootstrap, topic, session, group=group) as second,
        ):

            def told() -> bool:
                ends = [seen.assigned[-1] if seen.assigned else None for seen in (first, second)]
                return {} in ends and {"0": 0} in ends

            wait_until(told, 90, "one to have the partition, and the other to know that it has none")
