"""The metrics of a worker: one registry, every metric with its meaning, unit and labels here.

Label values come from the catalogue and from closed lists; anything else is counted under ``other``, so that the
number of series is bounded. Counters count what this process folded and wrote; after a restart an open segment is
folded again and counted again. The totals that hold are in ClickHouse.
"""

import contextlib
from collections import Counter as CountOf
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from pipeline.contract.events import MAX_DURATION_MS
from pipeline.errors import BrokerError
from pipeline.fold.flush import Flush
from pipeline.fold.histogram import bucket_of, quantile
from pipeline.fold.ledger import LedgerColumns
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.settings import RejectedSettings
from sinks.reject_share import RejectShares

OTHER: Final = "other"
SINKS: Final = ("clickhouse", "dead_letters")
LATENCY_BOUNDS_MS: Final = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000)
FRESHNESS_BOUNDS_MS: Final = (
    100,
    250,
    500,
    750,
    1_000,
    1_500,
    2_500,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    3_600_000,
)


class _Buckets:
    """Counts below upper bounds, filled with arrays; the client's own histogram takes one observation at a time."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> None:
        """Add n observations."""
        places = np.searchsorted(self._bounds, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str], unit: float) -> None:
        """Add the series to a metric family, bounds and sum multiplied by ``unit``."""
        names = [*(repr(bound * unit) for bound in self._bounds), "+Inf"]
        totals = np.cumsum(self._counts).tolist()
        family.add_metric(labels, list(zip(names, totals, strict=True)), self._sum * unit)


class AgencyLatency(Collector):
    """Duration of uses per agency, in milliseconds inside, in seconds outside."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Buckets] = {}

    def add(self, agency: str, durations_ms: npt.NDArray[np.int64]) -> None:
        """Add n durations of one agency."""
        self._buckets.setdefault(agency, _Buckets(LATENCY_BOUNDS_MS)).add(durations_ms)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """See the client library."""
        family = HistogramMetricFamily(
            "xidmet_service_duration_seconds", "Duration of uses as told by the agency", labels=["agency"]
        )
        for agency, buckets in list(self._buckets.items()):
            buckets.add_to(family, [agency], 0.001)
        yield family


class Freshness(Collector):
    """From event time to queryable, in milliseconds inside, in seconds outside; with quantiles for the program."""

    def __init__(self) -> None:
        self._buckets = _Buckets(FRESHNESS_BOUNDS_MS)
        self._histogram: dict[int, int] = {}

    def add(self, delays_ms: npt.NDArray[np.float64]) -> None:
        """Add n delays."""
        self._buckets.add(delays_ms)
        whole = np.minimum(delays_ms, MAX_DURATION_MS).astype(np.int64)
        buckets, counts = np.unique(bucket_of(whole), return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self._histogram[bucket] = self._histogram.get(bucket, 0) + count

    @property
    def histogram(self) -> dict[int, int]:
        """All delays since the start: bucket, see :mod:`pipeline.fold.histogram`, to count."""
        return dict(self._histogram)

    def quantile_ms(self, share: float) -> float | None:
        """A quantile of all delays since the start, within 1 % (delays over a day count as a day); None if none."""
        return quantile(self._histogram, share) if self._histogram else None

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """See the client library."""
        family = HistogramMetricFamily(
            "xidmet_freshness_seconds", "From the event's time to its result being queryable"
        )
        self._buckets.add_to(family, [], 0.001)
        yield family


class Metrics:
    """All metrics of a worker; ``known_agencies`` are the label values allowed for agencies."""

    def __init__(self, known_agencies: Iterable[str] = (), rejected: RejectedSettings | None = None) -> None:
        self._agencies = frozenset(known_agencies)
        self.registry = CollectorRegistry()
        registry = self.registry
        self.events = Counter(
            "xidmet_events",
            "Events accepted, after their results were written",
            ["agency", "outcome"],
            registry=registry,
        )
        self.rejected = Counter("xidmet_events_rejected", "Events refused", ["reason", "agency"], registry=registry)
        self.reject_shares = RejectShares(rejected or RejectedSettings(), OTHER)
        registry.register(self.reject_shares)
        self.duplicates = Counter("xidmet_events_duplicate", "Events seen before", registry=registry)
        self.records = Counter("xidmet_records", "Kafka messages folded", ["partition"], registry=registry)
        self.latency = AgencyLatency()
        registry.register(self.latency)
        self.freshness = Freshness()
        registry.register(self.freshness)
        self.batch_records = Histogram(
            "xidmet_batch_records",
            "Kafka messages in a batch handed to the fold",
            buckets=(1, 10, 100, 500, 1_000, 5_000, 10_000),
            registry=registry,
        )
        self.fold_seconds = Histogram(
            "xidmet_fold_seconds",
            "Time to fold one batch",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self.flush_seconds = Histogram(
            "xidmet_flush_seconds",
            "Time to write one flush, dead letters to receipts",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self.flush_events = Histogram(
            "xidmet_flush_events",
            "Events in one flush",
            buckets=(1, 10, 100, 1_000, 10_000, 50_000, 100_000, 500_000),
            registry=registry,
        )
        self.flush_failures = Counter(
            "xidmet_flush_failures", "Flushes that failed and are tried again", registry=registry
        )
        self.pending_events = Gauge("xidmet_pending_events", "Events folded but not yet written", registry=registry)
        self.pending_bytes = Gauge(
            "xidmet_pending_bytes", "Size of the messages folded but not yet written", registry=registry
        )
        self.held = Gauge(
            "xidmet_back_pressure", "1 while folding waits because too much is unwritten", registry=registry
        )
        self.ready = Gauge("xidmet_ready", "1 if /readyz answers 200", registry=registry)
        self.stuck = Gauge("xidmet_stuck", "1 if nothing gets on although nothing known hinders it", registry=registry)
        self.stalled = Gauge(
            "xidmet_stalled_seconds",
            "For how long there has been something to do and nothing became durable",
            registry=registry,
        )
        self.position = Gauge(
            "xidmet_position_offset", "Offset after the last record folded", ["topic", "partition"], registry=registry
        )
        self.durable = Gauge(
            "xidmet_durable_offset",
            "Offset after the last record whose results are written",
            ["topic", "partition"],
            registry=registry,
        )
        self.high_water_mark = Gauge(
            "xidmet_high_water_mark_offset",
            "High-water mark as of the last fetch",
            ["topic", "partition"],
            registry=registry,
        )
        self.lag = Gauge(
            "xidmet_lag_records",
            "Records between the results written and the high-water mark",
            ["topic", "partition"],
            registry=registry,
        )
        self.last_event_time = Gauge(
            "xidmet_last_event_timestamp_seconds", "Latest event time written, Unix seconds", registry=registry
        )
        self.last_flush = Gauge(
            "xidmet_last_flush_timestamp_seconds", "When a flush was last written, Unix seconds", registry=registry
        )
        self.sink_up = Gauge("xidmet_sink_up", "1 if the last write to the sink succeeded", ["sink"], registry=registry)
        self.periods_seconds = Gauge(
            "xidmet_periods_refresh_seconds", "Time of the last round over hours and days", registry=registry
        )
        self.periods_last = Gauge(
            "xidmet_periods_last_refresh_timestamp_seconds",
            "When hours and days were last brought up to date, Unix seconds",
            registry=registry,
        )
        self.periods_marked = Gauge(
            "xidmet_periods_marked", "Hours and days that wait for being recomputed", registry=registry
        )
        self.periods_failures = Counter(
            "xidmet_periods_failures", "Rounds over hours and days that failed and are tried again", registry=registry
        )
        self.statements_unreadable = Gauge(
            "xidmet_statements_unreadable",
            "Messages on a topic of statements that are none",
            ["kind"],
            registry=registry,
        )
        self.statement_failures = Counter(
            "xidmet_statement_failures",
            "Times that statements could not be read or written and waited",
            registry=registry,
        )
        self.audit_findings = Gauge("xidmet_audit_findings", "Findings of the last audit", registry=registry)
        self.processes = Gauge("xidmet_processes", "Processes of this worker that run and answer", registry=registry)
        self.processes.set(1)
        self.process_restarts = Counter(
            "xidmet_process_restarts", "Processes of this worker that ended and were started again", registry=registry
        )

    def exposition(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def label(self, agency: str) -> str:
        """The agency's code if the catalogue has it, else ``other``."""
        return agency if agency in self._agencies else OTHER

    def flush_written(self, flush: Flush, seconds: float, written_at: float) -> None:
        """Count a flush that was written completely, ``seconds`` after it was begun, at Unix time ``written_at``."""
        ledger = flush.ledger
        rejected = CountOf((reject.reason.value, self.label(reject.agency)) for reject in flush.rejects)
        for labels, count in rejected.items():
            self.rejected.labels(*labels).inc(count)
        labels_of, by_agency = self._by_agency(ledger)
        counts = np.bincount(by_agency, minlength=len(labels_of)).tolist()
        accepted = CountOf({label: count for label, count in zip(labels_of, counts, strict=True) if count})
        refused = CountOf[str]()
        for (_, agency), count in rejected.items():
            refused[agency] += count
        self.reject_shares.add(accepted, refused)
        self.duplicates.inc(flush.duplicates)
        self.flush_seconds.observe(seconds)
        self.flush_events.observe(flush.events)
        self.last_flush.set(written_at)
        for sink in SINKS:
            self.sink_up.labels(sink).set(1)
        if not len(ledger):
            return
        stages, outcomes = ledger.stage, ledger.outcome
        kinds = stages.codes.astype(np.int64) * len(outcomes.words) + outcomes.codes
        pairs, counts = np.unique(kinds * len(labels_of) + by_agency, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            kind, number = divmod(pair, len(labels_of))
            stage, outcome = divmod(kind, len(outcomes.words))
            self.events.labels(labels_of[number], outcomes.words[outcome] or stages.words[stage]).inc(count)
        no_stage = [not word for word in stages.words]
        uses = np.array(no_stage, dtype=np.bool_)[stages.codes]
        order = np.argsort(by_agency[uses], kind="stable")
        numbers, durations = by_agency[uses][order], ledger.duration_ms[uses][order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for start, end in pairwise([*starts, len(numbers)]):
            self.latency.add(labels_of[numbers[start]], durations[start:end])
        self.freshness.add(np.maximum(written_at * 1000 - ledger.time_ms, 0))
        self.last_event_time.set(int(ledger.time_ms.max()) / 1000)

    def _by_agency(self, ledger: LedgerColumns) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Labels, and for each event of the ledger the place of its agency's."""
        labels: dict[str, int] = {}
        words = list(ledger.agency.words)
        places = np.array([labels.setdefault(self.label(word), len(labels)) for word in words], dtype=np.int64)
        return list(labels), places[ledger.agency.codes] if words else np.zeros(0, dtype=np.int64)

    def flush_failed(self, error: Exception) -> None:
        """A flush failed and will be tried again."""
        self.flush_failures.inc()
        self.sink_up.labels("dead_letters" if isinstance(error, BrokerError) else "clickhouse").set(0)

    def batch_folded(self, batch: RecordBatch, seconds: float) -> None:
        """A batch was folded."""
        self.records.labels(str(batch.partition)).inc(len(batch))
        self.batch_records.observe(len(batch))
        self.fold_seconds.observe(seconds)

    def pending(self, events: int, value_bytes: int) -> None:
        """Events folded and not yet written, and the size of their messages in bytes."""
        self.pending_events.set(events)
        self.pending_bytes.set(value_bytes)

    def back_pressure(self, held: bool) -> None:
        """Whether folding waits because too much is unwritten."""
        self.held.set(held)

    def health(self, ready: bool, stuck: bool, stalled_seconds: float) -> None:
        """The last verdict on the worker."""
        self.ready.set(ready)
        self.stuck.set(stuck)
        self.stalled.set(stalled_seconds)

    def progress(self, log: LogPartition, position: int, durable: int | None, high_water_mark: int) -> None:
        """Set the offsets of a partition; lag counts from what is written, not from what was read."""
        labels = (log.topic, str(log.partition))
        self.high_water_mark.labels(*labels).set(high_water_mark)
        self.position.labels(*labels).set(position)
        if durable is not None:
            self.durable.labels(*labels).set(durable)
            self.lag.labels(*labels).set(max(0, high_water_mark - durable))

    def revoked(self, log: LogPartition) -> None:
        """Drop the series of a partition that another worker has now."""
        for gauge in (self.position, self.durable, self.high_water_mark, self.lag):
            with contextlib.suppress(KeyError):
                gauge.remove(log.topic, str(log.partition))
