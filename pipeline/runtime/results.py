"""The sink that the ingest writes to: ClickHouse and the dead letters, with positions from the receipts."""

from collections.abc import Mapping
from dataclasses import replace

from faust.types import TP

from pipeline.catalogue import Catalogue
from pipeline.fold.flush import Flush
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.settings import Settings
from sinks.clickhouse.catalogues import store_catalogue, stored_catalogue
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.positions import resume
from sinks.clickhouse.recent import recent_receipts
from sinks.clickhouse.rules import first_rules, store_rules, stored_rules
from sinks.clickhouse.schema import require_schema
from sinks.clickhouse.writer import write_openings, write_results
from sinks.dead_letters import DeadLetters, parts
from streams.topics import topic_ids, write_marker


class Results:
    """Implements :class:`streams.interfaces.ResultSink`. Calls block; all from one thread."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._connected: Client | None = None
        self._dead_letters = DeadLetters(settings.kafka)
        self._lettered: Flush | None = None

    @property
    def _client(self) -> Client:
        if self._connected is None:
            self._connected = connect(self._settings.clickhouse)
        return self._connected

    def prepare(self, rules: Rules) -> None:
        """Check the schema, keep catalogue and rules, check that the topics are there."""
        require_schema(self._client, self._settings.clickhouse)
        store_catalogue(self._client, self._catalogue)
        store_rules(self._client, rules)
        kafka = self._settings.kafka
        topic_ids(kafka, [kafka.events_topic, kafka.rejected_topic])

    def resume(self, log_starts: Mapping[TP, int], next_rules: Rules) -> dict[TP, ResumePoint]:
        """Where each partition goes on. A schema that was changed under a running worker ends it here."""
        require_schema(self._client, self._settings.clickhouse)
        ids = topic_ids(self._settings.kafka, [tp.topic for tp in log_starts])
        points = {
            tp: resume(self._client, LogPartition(tp.topic, ids[tp.topic], tp.partition), log_start, next_rules)
            for tp, log_start in log_starts.items()
        }
        begun = first_rules(
            self._client, [point.log for point in points.values() if point.in_force is None], next_rules
        )
        points = {tp: replace(point, inherited=begun.get(point.log, point.inherited)) for tp, point in points.items()}
        window = self._settings.rejected.window_events
        return {
            tp: replace(point, recent=recent_receipts(self._client, point.log, next_rules, window))
            for tp, point in points.items()
        }

    def catalogue(self, version: int) -> Catalogue:
        """A catalogue that a receipt names."""
        return stored_catalogue(self._client, version)

    def known_rules(self, text: str) -> Rules | None:
        """The rules that a marker asks for, if a worker ever had them."""
        return stored_rules(self._client, text)

    def write(self, flush: Flush) -> None:
        """Openings, dead letters, results, receipts: see :mod:`streams.ingest`."""
        write_openings(self._client, flush)
        # ClickHouse may refuse the rest for hours; a flush that is tried again has its letters acknowledged already.
        if self._lettered is not flush:
            for part in parts(flush.rejects):
                self._dead_letters.send(part)
            self._lettered = flush
        write_results(self._client, flush)
        self._lettered = None

    def want_segment_end(self, log: LogPartition, rules: Rules) -> None:
        """Write a marker to the partition."""
        write_marker(self._settings.kafka, log, rules)

    def close(self) -> None:
        """Give connections back."""
        self._dead_letters.close()
        if self._connected is not None:
            self._connected.close()
            self._connected = None
