"""Connections of readers to Kafka, on kafka-python 3: whole topics, beside the workers and without their group."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pipeline.errors import BrokerError
from pipeline.producer import words
from pipeline.settings import KafkaSettings

POLL_RECORDS: Final = 5_000
"""Records of one poll at most."""
_CONNECT_MS: Final = 10_000


def polls(
    consumer: Any, ends: Mapping[TopicPartition, int], settings: KafkaSettings, *, to_the_end: bool
) -> Iterator[list[Any]]:
    """Lists of records until the given ends are reached; the assigned partitions are paused there.

    With ``to_the_end`` reading goes on to the high-water mark that came with the first records, since the embedded
    broker gives too low an end when it is asked; it stops before that where an open transaction holds back what
    follows. Without it, the end of the log may come before the given end.
    """
    left = set(ends)
    marks: dict[TopicPartition, int] = {}
    consumer.resume(*left)
    idle = False
    deadline = time.monotonic() + settings.request_timeout_seconds
    while left:
        before = {tp: consumer.position(tp) for tp in left}
        done = set()
        for tp, position in before.items():
            if tp not in marks and (known := consumer.highwater(tp)) is not None:
                marks[tp] = known
            mark = marks.get(tp)
            if to_the_end:
                ended = position >= ends[tp] and mark is not None and (idle or position >= mark)
            else:
                ended = position >= ends[tp] or (idle and mark is not None and position >= mark)
            if ended:
                done.add(tp)
        if done:
            consumer.pause(*done)
            left -= done
            continue
        found = consumer.poll(timeout_ms=500, max_records=POLL_RECORDS)
        records = [record for part in found.values() for record in part]
        if records:
            yield records
        # What stands between two records, such as the markers of transactions, is progress as well.
        idle = not records and all(consumer.position(tp) == position for tp, position in before.items())
        if not idle:
            deadline = time.monotonic() + settings.request_timeout_seconds
        elif time.monotonic() > deadline:
            raise BrokerError(
                f"Kafka at {settings.bootstrap} gives nothing more of {min(left).topic} although it is not at its end;"
                " check the broker and try again"
            )


@contextlib.contextmanager
def open_consumer(settings: KafkaSettings, topic: str, client_id: str) -> Iterator[Any]:
    """A consumer without a group, from which nothing is assigned yet; of transactions only what was committed.

    Raises:
        BrokerError: Kafka does not answer, at the beginning or inside of the context.
    """
    consumer: Any = None
    try:
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=settings.bootstrap.split(","),
                client_id=client_id,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=settings.fetch_max_bytes,
                request_timeout_ms=int(settings.request_timeout_seconds * 1000),
                bootstrap_timeout_ms=_CONNECT_MS,
                metrics_enabled=False,
            )
            yield consumer
        finally:
            if consumer is not None:
                consumer.close()
    except (KafkaError, OSError) as error:
        raise BrokerError(
            f"{settings.bootstrap}: topic {topic} cannot be read ({words(error)}); check kafka.bootstrap and the broker"
        ) from error


def partitions_of(consumer: Any, settings: KafkaSettings, topic: str) -> list[TopicPartition]:
    """The partitions of a topic.

    Raises:
        BrokerError: there is no such topic.
    """
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise BrokerError(f"{settings.bootstrap}: there is no topic {topic}; run xidmet migrate")
    return [TopicPartition(topic, number) for number in sorted(numbers)]
