"""Brings what is said on the topics of statements into ClickHouse, while a worker runs.

A row is an upsert that may be written again, so that every worker does it, from the beginning of the topics on; nobody
has to remember how far another one came.
"""

import logging
from collections import Counter
from contextlib import ExitStack
from typing import Any, Final

from kafka import TopicPartition
from kafka.errors import KafkaError

from pipeline.consumer import POLL_RECORDS, open_consumer
from pipeline.contract.statements import Logged, Unreadable
from pipeline.errors import BrokerError, StoreError
from pipeline.producer import words
from pipeline.runtime.statements import KINDS, Kind, sort, the_partition
from pipeline.settings import Settings
from sinks.clickhouse.client import Client, connect
from sinks.prometheus import Metrics
from streams.topics import topic_ids

logger = logging.getLogger(__name__)

_POLL_MS: Final = 200
_PAUSE_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 10.0


class StatementKeeper:
    """All methods are called from one thread. Connections are made anew after a failure, and the topics read again."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._connections: ExitStack | None = None
        self._consumer: Any = None
        self._client: Client | None = None
        self._kinds: dict[TopicPartition, Kind[Any]] = {}
        self._unreadable: Counter[str] = Counter()

    def step(self) -> float:
        """Take what is new; the seconds to rest before the next call."""
        try:
            self._open()
            if self._take():
                return 0.0
        except (BrokerError, StoreError, KafkaError, OSError) as error:
            self._metrics.statement_failures.inc()
            logger.warning("statements wait; trying again", extra={"error": words(error)})
            self.close()
            return _AGAIN_SECONDS
        return _PAUSE_SECONDS

    def close(self) -> None:
        """Give the connections back."""
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def _open(self) -> None:
        if self._connections is not None:
            return
        kafka = self._settings.kafka
        topics = {kind.topic(kafka): kind for kind in KINDS}
        with ExitStack() as stack:
            consumer = stack.enter_context(open_consumer(kafka, ", ".join(topics), "xidmet-worker"))
            kinds = {the_partition(consumer, kafka, topic): kind for topic, kind in topics.items()}
            consumer.assign(list(kinds))
            consumer.seek_to_beginning()
            client = connect(self._settings.clickhouse)
            stack.callback(client.close)
            self._consumer, self._client, self._kinds, self._unreadable = consumer, client, kinds, Counter()
            self._connections = stack.pop_all()

    def _take(self) -> bool:
        """Write what a poll gives; whether that was anything."""
        found = self._consumer.poll(timeout_ms=_POLL_MS, max_records=POLL_RECORDS)
        for partition, records in found.items():
            self._write(partition.topic, self._kinds[partition], records)
        return bool(found)

    def _write(self, topic: str, kind: Kind[Any], records: list[Any]) -> None:
        assert self._client is not None
        statements: list[Logged[Any]] = []
        unreadable: list[Unreadable] = []
        for record in records:
            sort(kind, record, statements, unreadable)
        for one in unreadable:
            logger.warning(
                "a message on a topic of statements is none; it has no effect",
                extra={"topic": topic, "offset": one.offset, "error": one.words},
            )
        kind.store(self._client, topic_ids(self._settings.kafka, [topic])[topic], statements)
        self._unreadable[kind.name] += len(unreadable)
        self._metrics.statements_unreadable.labels(kind.name).set(self._unreadable[kind.name])
