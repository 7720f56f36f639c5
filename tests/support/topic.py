"""All that stands on a topic, by a plain consumer."""

import time
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from pipeline.settings import KafkaSettings


def records(kafka: KafkaSettings, topic: str, isolation: str = "read_committed") -> list[Any]:
    """The records of a topic up to its end as of now, partition by partition."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level=isolation, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []

        def more() -> bool:
            """Not by the ends alone: the embedded broker gives too low ones, but true ones with the records."""
            marks = {partition: consumer.highwater(partition) for partition in partitions}
            return any(
                mark is None or consumer.position(partition) < max(ends[partition], mark)
                for partition, mark in marks.items()
            )

        deadline = time.monotonic() + 120
        while more():
            assert time.monotonic() < deadline, "the end of the topic does not come"
            for part in consumer.poll(timeout_ms=500).values():
                found += part
        return found
    finally:
        consumer.close()
