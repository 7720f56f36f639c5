"""Reads a topic with a plain consumer: what the log holds, as readers of committed records see it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

READ_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it stands in the log; ``timestamp`` in Unix milliseconds, -1 for none."""

    topic_id: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def topic_id(bootstrap: str, topic: str) -> str:
    """The id that the broker gave the topic."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        (described,) = admin.describe_topics([topic])
    finally:
        admin.close()
    return str(described["topic_id"])


def read_log(bootstrap: str, topic: str) -> list[LogRecord]:
    """All records of a topic that are readable now, partition after partition.

    Raises:
        TimeoutError: the end was not reached in time.
    """
    id_ = topic_id(bootstrap, topic)
    records: list[LogRecord] = []
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        group_id=None,
        fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=16 << 20,
        max_poll_records=10_000,
    )
    deadline = time.monotonic() + READ_SECONDS
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(place) < ends[place] for place in partitions):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its end within {READ_SECONDS:g} s")
            for place, polled in consumer.poll(timeout_ms=500).items():
                records += (
                    LogRecord(
                        id_,
                        place.partition,
                        record.offset,
                        record.timestamp,
                        record.key,
                        record.value,
                        tuple(record.headers),
                    )
                    for record in polled
                )
    finally:
        consumer.close()
    return records


def in_order(records: Iterable[LogRecord]) -> list[LogRecord]:
    """By topic, partition and offset."""
    return sorted(records, key=lambda record: (record.topic_id, record.partition, record.offset))


def without(records: Iterable[LogRecord], gone: Callable[[LogRecord], bool]) -> list[LogRecord]:
    """The records that are left when some were deleted by right."""
    return [record for record in records if not gone(record)]
