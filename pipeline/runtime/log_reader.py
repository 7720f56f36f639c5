"""Reads stretches of a partition's log again, beside the workers and without their consumer group."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pipeline.errors import BrokerError
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.settings import KafkaSettings
from streams.topics import topic_ids

_POLL_MS = 500


class LogReader:
    """A plain consumer without a group; a context manager. Reads committed messages only, as the workers do."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        with self._mapped():
            self._consumer = KafkaConsumer(
                bootstrap_servers=settings.bootstrap.split(","),
                client_id="xidmet-rebuild",
                group_id=None,
                enable_auto_commit=False,
                # An offset that retention deleted is an error here, never a jump.
                auto_offset_reset="none",
                isolation_level="read_committed",
                max_partition_fetch_bytes=settings.fetch_max_bytes,
                request_timeout_ms=int(settings.request_timeout_seconds * 1000),
            )
        self._partition: TopicPartition | None = None
        self._at = 0
        self._records: deque[Any] = deque()

    def bounds(self, logs: Iterable[LogPartition]) -> dict[LogPartition, tuple[int, int]]:
        """First offset and end of those of the partitions that the broker still has, under the same topic id.

        Raises:
            BrokerError: Kafka is away, or the topic of the settings is missing.
        """
        topic = self._settings.events_topic
        id_ = topic_ids(self._settings, [topic])[topic]
        with self._mapped():
            known = self._consumer.partitions_for_topic(topic) or set()
            here = {
                log: TopicPartition(topic, log.partition)
                for log in logs
                if (log.topic, log.topic_id) == (topic, id_) and log.partition in known
            }
            starts = self._consumer.beginning_offsets(list(here.values()))
            ends = self._consumer.end_offsets(list(here.values()))
        return {log: (starts[partition], ends[partition]) for log, partition in here.items()}

    def seek(self, log: LogPartition, offset: int) -> None:
        """Go on at an offset of a partition."""
        self._partition = TopicPartition(log.topic, log.partition)
        self._at = offset
        self._records.clear()
        with self._mapped():
            self._consumer.assign([self._partition])
            self._consumer.seek(self._partition, offset)

    def read(self, stop: int) -> RecordBatch:
        """The next records, all before offset ``stop``; the batch reaches up to there if there are no more.

        Raises:
            BrokerError: Kafka is away, gives nothing, or no longer has the offset.
        """
        assert self._partition is not None
        deadline = time.monotonic() + max(60.0, 2 * self._settings.request_timeout_seconds)
        with self._mapped():
            while not self._records and self._consumer.position(self._partition) < stop:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"{self._partition.topic}[{self._partition.partition}]: nothing came from offset {self._at} on,"
                        f" though there must be records up to {stop}; check the broker and run with --resume"
                    )
                for records in self._consumer.poll(timeout_ms=_POLL_MS).values():
                    self._records.extend(records)
        taken = []
        while self._records and self._records[0].offset < stop:
            taken.append(self._records.popleft())
        start = self._at
        self._at = stop if self._records or not taken or taken[-1].offset + 1 == stop else taken[-1].offset + 1
        return RecordBatch(
            topic=self._partition.topic,
            partition=self._partition.partition,
            start_offset=start,
            next_offset=self._at,
            high_water_mark=stop,
            offsets=[record.offset for record in taken],
            timestamps=[-1 if record.timestamp is None else record.timestamp for record in taken],
            keys=[record.key for record in taken],
            values=[record.value for record in taken],
            headers=[tuple(record.headers) for record in taken],
        )

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()

    def __enter__(self) -> "LogReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise BrokerError(
                f"Kafka at {self._settings.bootstrap}: {type(error).__name__}: {error}; check kafka.bootstrap, and"
                " whether retention deleted the log meanwhile"
            ) from error
