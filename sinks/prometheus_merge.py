"""One exposition from those of several processes of a worker: what each metric of them all means together.

Counters and histograms are summed, over the processes that run and over those that have ended: a sum that fell when a
process ended would look like a counter that began anew, and all its other processes would be counted twice. Of a
process that ended, what it said last is kept. A gauge says in :data:`GAUGES` how it is put together.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.settings import RejectedSettings
from sinks.prometheus import OTHER, Metrics


class How(Enum):
    """How the values of one gauge, of several processes, make one."""

    SUM = "sum"
    LARGEST = "largest"
    LEAST = "least"
    OWNER = "of the process that has the partition"
    PARENT = "of the process that started the others"
    SHARE = "share of the sums"


GAUGES: Final[Mapping[str, How]] = {
    "xidmet_pending_events": How.SUM,
    "xidmet_pending_bytes": How.SUM,
    "xidmet_back_pressure": How.LARGEST,
    "xidmet_ready": How.LEAST,
    "xidmet_stuck": How.LARGEST,
    "xidmet_stalled_seconds": How.LARGEST,
    "xidmet_position_offset": How.OWNER,
    "xidmet_durable_offset": How.OWNER,
    "xidmet_high_water_mark_offset": How.OWNER,
    "xidmet_lag_records": How.OWNER,
    "xidmet_last_event_timestamp_seconds": How.LARGEST,
    "xidmet_last_flush_timestamp_seconds": How.LARGEST,
    "xidmet_sink_up": How.LEAST,
    "xidmet_periods_refresh_seconds": How.PARENT,
    "xidmet_periods_last_refresh_timestamp_seconds": How.PARENT,
    "xidmet_periods_marked": How.PARENT,
    "xidmet_statements_unreadable": How.PARENT,
    "xidmet_audit_findings": How.PARENT,
    "xidmet_processes": How.PARENT,
    "xidmet_reject_share": How.SHARE,
    "xidmet_reject_alarm": How.SHARE,
    "xidmet_reject_window_events": How.SHARE,
}
"""Every gauge of :class:`sinks.prometheus.Metrics`; one that is not here counts as LARGEST."""

_Labels = tuple[tuple[str, str], ...]
_Values = dict[tuple[str, _Labels], float]
# A moment at which a counter began: the earliest holds.
_CREATED = "_created"


@dataclass(slots=True)
class _Said:
    """What one process exposed, in its order: counters and histograms, and gauges by family."""

    totals: _Values = field(default_factory=dict)
    created: _Values = field(default_factory=dict)
    gauges: dict[str, dict[_Labels, float]] = field(default_factory=dict)


class MergedMetrics:
    """Keeps what each process exposed last; ``own`` is the registry of the process that started them."""

    def __init__(self, own: Metrics, rejected: RejectedSettings) -> None:
        self._own = own
        self._rejected = rejected
        self._families: dict[str, tuple[str, str]] = {}
        self._of_sample: dict[str, str] = {}
        self._said: dict[int, _Said] = {}
        self._ended = _Said()

    def said(self, process: int, exposition: str) -> None:
        """A process exposed this, in the text format."""
        self._said[process] = self._read(exposition)

    def ended(self, process: int) -> None:
        """A process has ended: its counters stay in the sums, its gauges go."""
        last = self._said.pop(process, None)
        if last is not None:
            _add(self._ended, last)

    def exposition(self, answering: Collection[int], expected: int) -> bytes:
        """All of them as one, in the text format.

        Args:
            answering: the processes whose gauges are of now; of others only counters and histograms count.
            expected: how many there should be; ready is 0 if one is missing.
        """
        self._own.processes.set(len(answering))
        own = self._read(self._own.exposition().decode())
        totals = _Said()
        for said in (self._ended, *(self._said[number] for number in sorted(self._said)), own):
            _add(totals, said)
        gauges = {number: self._said[number].gauges for number in sorted(answering) if number in self._said}
        merged: dict[str, dict[_Labels, float]] = {}
        for name, (kind, _) in self._families.items():
            if kind == "gauge" and not name.endswith(_CREATED):
                merged[name] = self._gauge(name, gauges, own.gauges)
        self._shares(merged, gauges.values())
        if len(gauges) < expected:
            merged["xidmet_ready"] = {(): 0.0}
        return generate_latest(_registry(self._metrics(totals, merged)))

    def _read(self, exposition: str) -> _Said:
        said = _Said()
        for family in text_string_to_metric_families(exposition):
            self._families.setdefault(family.name, (family.type, family.documentation))
            for sample in family.samples:
                labels = tuple(sample.labels.items())
                if family.type != "gauge":
                    said.totals[sample.name, labels] = sample.value
                elif family.name.endswith(_CREATED):
                    said.created[sample.name, labels] = sample.value
                else:
                    said.gauges.setdefault(family.name, {})[labels] = sample.value
                self._of_sample[sample.name] = family.name
        return said

    def _gauge(
        self,
        name: str,
        gauges: Mapping[int, Mapping[str, Mapping[_Labels, float]]],
        own: Mapping[str, dict[_Labels, float]],
    ) -> dict[_Labels, float]:
        how = GAUGES.get(name, How.LARGEST)
        if how is How.PARENT:
            return own.get(name, {})
        if how is How.OWNER:
            owners = _owners(gauges)
            return {
                labels: value
                for number, said in gauges.items()
                for labels, value in said.get(name, {}).items()
                if owners.get(labels) == number
            }
        merged: dict[_Labels, float] = {}
        for said in gauges.values():
            for labels, value in said.get(name, {}).items():
                before = merged.get(labels)
                if before is None:
                    merged[labels] = value
                elif how is How.SUM:
                    merged[labels] = before + value
                else:
                    merged[labels] = min(before, value) if how is How.LEAST else max(before, value)
        return merged

    def _shares(
        self, merged: dict[str, dict[_Labels, float]], gauges: Iterable[Mapping[str, Mapping[_Labels, float]]]
    ) -> None:
        """The share of refused events of each agency, from the sums of refused ones and of all."""
        events: dict[_Labels, float] = {}
        refused: dict[_Labels, float] = {}
        for said in gauges:
            shares = said.get("xidmet_reject_share", {})
            for labels, count in said.get("xidmet_reject_window_events", {}).items():
                events[labels] = events.get(labels, 0.0) + count
                refused[labels] = refused.get(labels, 0.0) + shares.get(labels, 0.0) * count
        other = (("agency", OTHER),)
        if other in refused:
            # Its share is of all events, also of those of processes that refused none of it.
            events[other] = refused[other] + sum(count for labels, count in events.items() if labels != other)
        share = {labels: refused[labels] / count for labels, count in events.items() if count}
        limit, least = self._rejected.alarm_share, self._rejected.alarm_events
        merged["xidmet_reject_window_events"] = events
        merged["xidmet_reject_share"] = share
        merged["xidmet_reject_alarm"] = {
            labels: float(value > limit and events[labels] >= least) for labels, value in share.items()
        }

    def _metrics(self, totals: _Said, gauges: Mapping[str, Mapping[_Labels, float]]) -> list[Metric]:
        metrics = {name: Metric(name, words, kind) for name, (kind, words) in self._families.items()}
        for values in (totals.totals, totals.created):
            for (sample, labels), value in values.items():
                metrics[self._of_sample[sample]].add_sample(sample, dict(labels), value)
        for name, of_name in gauges.items():
            for labels, value in of_name.items():
                metrics[name].add_sample(name, dict(labels), value)
        return list(metrics.values())


def _add(sums: _Said, said: _Said) -> None:
    """Add counters and histograms; of when they began, the earliest holds."""
    for key, value in said.totals.items():
        sums.totals[key] = sums.totals.get(key, 0.0) + value
    for key, value in said.created.items():
        sums.created[key] = min(sums.created.get(key, value), value)


def _owners(gauges: Mapping[int, Mapping[str, Mapping[_Labels, float]]]) -> dict[_Labels, int]:
    """Partition to process: while partitions are assigned anew two may name one; who has more of it written has it."""
    best: dict[_Labels, tuple[float, float, int]] = {}
    for number, said in gauges.items():
        durable = said.get("xidmet_durable_offset", {})
        for labels, position in said.get("xidmet_position_offset", {}).items():
            rank = (durable.get(labels, -1.0), position, number)
            best[labels] = max(best.get(labels, rank), rank)
    return {labels: number for labels, (_, _, number) in best.items()}


def _registry(metrics: list[Metric]) -> CollectorRegistry:
    class Fixed(Collector):
        def collect(self) -> Iterable[Metric]:
            return metrics

    registry = CollectorRegistry()
    registry.register(Fixed())
    return registry
