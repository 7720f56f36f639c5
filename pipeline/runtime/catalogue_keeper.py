"""Brings what is said on the topic of catalogue changes into ClickHouse, while a worker runs.

A row is an upsert that may be written again, so that every worker does it, from the beginning of the topic on; nobody
has to remember how far another one came.
"""

import logging
from contextlib import ExitStack
from typing import Any, Final

from kafka.errors import KafkaError

from pipeline.catalogue.changes import Logged, Unreadable
from pipeline.consumer import POLL_RECORDS, open_consumer
from pipeline.errors import BrokerError, StoreError
from pipeline.producer import words
from pipeline.runtime.catalogue_log import sort, the_partition
from pipeline.settings import Settings
from sinks.clickhouse.catalogue_changes import store_changes
from sinks.clickhouse.client import Client, connect
from sinks.prometheus import Metrics
from streams.topics import topic_ids

logger = logging.getLogger(__name__)

_POLL_MS: Final = 200
_PAUSE_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 10.0


class CatalogueKeeper:
    """All methods are called from one thread. Connections are made anew after a failure, and the topic read again."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._connections: ExitStack | None = None
        self._consumer: Any = None
        self._client: Client | None = None
        self._unreadable = 0

    def step(self) -> float:
        """Take what is new; the seconds to rest before the next call."""
        try:
            self._open()
            if self._take():
                return 0.0
        except (BrokerError, StoreError, KafkaError, OSError) as error:
            self._metrics.catalogue_failures.inc()
            logger.warning("changes of the catalogue wait; trying again", extra={"error": words(error)})
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
        settings = self._settings
        with ExitStack() as stack:
            consumer = stack.enter_context(
                open_consumer(settings.kafka, settings.kafka.catalogue_topic, "xidmet-worker")
            )
            partition = the_partition(consumer, settings.kafka)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            client = connect(settings.clickhouse)
            stack.callback(client.close)
            self._consumer, self._client, self._unreadable = consumer, client, 0
            self._connections = stack.pop_all()

    def _take(self) -> bool:
        """Write what a poll gives; whether that was anything."""
        assert self._client is not None
        found = self._consumer.poll(timeout_ms=_POLL_MS, max_records=POLL_RECORDS)
        records = [record for part in found.values() for record in part]
        if not records:
            return False
        topic = self._settings.kafka.catalogue_topic
        changes: list[Logged] = []
        unreadable: list[Unreadable] = []
        for record in records:
            sort(record, changes, unreadable)
        for one in unreadable:
            logger.warning(
                "a message on the topic of catalogue changes is none; it has no effect",
                extra={"topic": topic, "offset": one.offset, "error": one.words},
            )
        store_changes(self._client, topic_ids(self._settings.kafka, [topic])[topic], changes)
        self._unreadable += len(unreadable)
        self._metrics.catalogue_unreadable.set(self._unreadable)
        return True
