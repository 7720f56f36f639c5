"""Metrics of several processes as one: sums, owners, and what stays of a process that ended."""

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from pipeline.fold.flush import Flush
from pipeline.fold.records import LogPartition
from pipeline.settings import RejectedSettings
from sinks.prometheus import Metrics
from sinks.prometheus_merge import GAUGES, MergedMetrics

REJECTED = RejectedSettings(alarm_share=0.05, alarm_events=100)
ZERO, ONE = LogPartition("t", "id", 0), LogPartition("t", "id", 1)


def text(metrics: Metrics) -> str:
    return metrics.exposition().decode()


def values(exposition: bytes) -> dict[str, float]:
    """Sample to value; a sample is its name and its labels' values, by commas."""
    return {
        ",".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


@pytest.fixture
def processes() -> list[Metrics]:
    return [Metrics(["a"], REJECTED) for _ in range(2)]


@pytest.fixture
def own() -> Metrics:
    return Metrics(["a"], REJECTED)


@pytest.fixture
def merged(own: Metrics) -> MergedMetrics:
    return MergedMetrics(own, REJECTED)


def test_every_gauge_has_a_rule_and_no_other() -> None:
    real = {family.name for family in Metrics(["a"]).registry.collect() if family.type == "gauge"}
    assert set(GAUGES) == real


def test_counters_and_histograms_are_sums(processes: list[Metrics], merged: MergedMetrics) -> None:
    for number, metrics in enumerate(processes, 1):
        metrics.events.labels("a", "success").inc(10 * number)
        metrics.flush_seconds.observe(0.02 * number)
        metrics.flush_written(Flush(), 0.2, 1_000.0 + number)
        merged.said(number, text(metrics))
    processes[0].records.labels("7").inc(3)
    merged.said(1, text(processes[0]))
    found = values(merged.exposition([1, 2], 2))
    assert found["xidmet_events_total,a,success"] == 30
    assert found["xidmet_records_total,7"] == 3
    assert found["xidmet_flush_seconds_count"] == 4
    assert found["xidmet_flush_seconds_sum"] == pytest.approx(0.46)
    assert [found[f"xidmet_flush_seconds_bucket,{bound}"] for bound in ("0.025", "0.05", "0.25")] == [1, 2, 4]
    assert found["xidmet_last_flush_timestamp_seconds"] == 1_002
    created = [values(metrics.exposition())["xidmet_flush_seconds_created"] for metrics in processes]
    assert found["xidmet_flush_seconds_created"] <= min(created)


def test_every_series_of_one_process_is_there_and_none_is_new(processes: list[Metrics], merged: MergedMetrics) -> None:
    for number, metrics in enumerate(processes, 1):
        metrics.progress(LogPartition("t", "id", number), 5, 4, 9)
        metrics.rejected.labels("not_json", "other").inc()
        metrics.flush_failed(RuntimeError())
        merged.said(number, text(metrics))
    alone = [set(values(metrics.exposition())) for metrics in processes]
    assert set(values(merged.exposition([1, 2], 2))) == alone[0] | alone[1]


def test_gauges_add_up_or_are_the_worst(processes: list[Metrics], merged: MergedMetrics) -> None:
    for number, metrics in enumerate(processes, 1):
        metrics.pending(100 * number, 1_000 * number)
        metrics.back_pressure(number == 1)
        metrics.health(number == 1, number == 2, 7.0 * number)
        metrics.sink_up.labels("clickhouse").set(number - 1)
        merged.said(number, text(metrics))
    found = values(merged.exposition([1, 2], 2))
    assert found["xidmet_pending_events"] == 300
    assert found["xidmet_pending_bytes"] == 3_000
    assert found["xidmet_back_pressure"] == 1
    assert found["xidmet_ready"] == 0
    assert found["xidmet_stuck"] == 1
    assert found["xidmet_stalled_seconds"] == 14
    assert found["xidmet_sink_up,clickhouse"] == 0
    assert found["xidmet_processes"] == 2


def test_a_partition_is_told_by_the_process_that_has_it(processes: list[Metrics], merged: MergedMetrics) -> None:
    # The first has not heard yet that the second has partition 1 now.
    processes[0].progress(ZERO, 50, 40, 60)
    processes[0].progress(ONE, 900, 500, 1_000)
    processes[1].progress(ONE, 800, 700, 1_010)
    for number, metrics in enumerate(processes, 1):
        merged.said(number, text(metrics))
    found = values(merged.exposition([1, 2], 2))
    names = ("position_offset", "durable_offset", "high_water_mark_offset", "lag_records")
    assert [found[f"xidmet_{name},0,t"] for name in names] == [50, 40, 60, 20]
    assert [found[f"xidmet_{name},1,t"] for name in names] == [800, 700, 1_010, 310]


def test_counters_of_a_process_that_ended_stay_and_never_fall(processes: list[Metrics], merged: MergedMetrics) -> None:
    for number, metrics in enumerate(processes, 1):
        metrics.events.labels("a", "success").inc(10 * number)
        metrics.progress(LogPartition("t", "id", number), 5, 4, 9)
        metrics.health(True, False, 0.0)
        merged.said(number, text(metrics))
    before = values(merged.exposition([1, 2], 2))
    merged.ended(1)
    gone = values(merged.exposition([2], 2))
    assert gone["xidmet_events_total,a,success"] == before["xidmet_events_total,a,success"] == 30
    assert "xidmet_position_offset,1,t" in before
    assert "xidmet_position_offset,1,t" not in gone
    assert (before["xidmet_ready"], gone["xidmet_ready"], gone["xidmet_processes"]) == (1, 0, 1)
    again = Metrics(["a"], REJECTED)
    again.events.labels("a", "success").inc(2)
    merged.said(1, text(again))
    assert values(merged.exposition([1, 2], 2))["xidmet_events_total,a,success"] == 32
    assert gone["xidmet_flush_seconds_created"] == before["xidmet_flush_seconds_created"]


def test_a_process_that_does_not_answer_counts_as_it_was(processes: list[Metrics], merged: MergedMetrics) -> None:
    for number, metrics in enumerate(processes, 1):
        metrics.events.labels("a", "success").inc(10)
        metrics.pending(5, 5)
        metrics.health(True, False, 0.0)
        merged.said(number, text(metrics))
    found = values(merged.exposition([2], 2))
    assert found["xidmet_events_total,a,success"] == 20
    assert found["xidmet_pending_events"] == 5
    assert found["xidmet_ready"] == 0


def test_hours_days_and_audits_are_the_parents(processes: list[Metrics], own: Metrics, merged: MergedMetrics) -> None:
    own.audit_findings.set(3)
    own.periods_marked.set(7)
    own.periods_failures.inc()
    own.process_restarts.inc()
    for number, metrics in enumerate(processes, 1):
        merged.said(number, text(metrics))
    found = values(merged.exposition([1, 2], 2))
    assert found["xidmet_audit_findings"] == 3
    assert found["xidmet_periods_marked"] == 7
    assert found["xidmet_periods_failures_total"] == 1
    assert found["xidmet_process_restarts_total"] == 1


def test_shares_of_refused_events_are_those_of_the_sums(processes: list[Metrics], merged: MergedMetrics) -> None:
    # Each alone is below the least number of events for an alarm; together they are not.
    processes[0].reject_shares.add({"a": 60}, {"a": 10})
    processes[1].reject_shares.add({"a": 40}, {"other": 60})
    for number, metrics in enumerate(processes, 1):
        assert values(metrics.exposition())["xidmet_reject_alarm,a"] == 0
        merged.said(number, text(metrics))
    found = values(merged.exposition([1, 2], 2))
    assert found["xidmet_reject_share,a"] == pytest.approx(10 / 110)
    assert found["xidmet_reject_window_events,a"] == 110
    assert found["xidmet_reject_alarm,a"] == 1
    assert found["xidmet_reject_share,other"] == pytest.approx(60 / 170)
    assert found["xidmet_reject_window_events,other"] == 170


def test_a_gauge_of_another_version_of_the_program_is_the_largest(own: Metrics) -> None:
    merged = MergedMetrics(own, REJECTED)
    for number in (1, 2):
        metrics = Metrics(["a"], REJECTED)
        Gauge("xidmet_new", "new", registry=metrics.registry).set(number)
        merged.said(number, text(metrics))
    assert values(merged.exposition([1, 2], 2))["xidmet_new"] == 2
