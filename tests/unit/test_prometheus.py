"""The metrics: a valid exposition, a bounded number of series, and numbers equal to a naive count."""

import subprocess
from collections import Counter, defaultdict

import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.flush import Flush
from pipeline.fold.ledger import LedgerColumns, ledger_from
from sinks.prometheus import FRESHNESS_BOUNDS_MS, LATENCY_BOUNDS_MS, Freshness, Metrics
from tests.support.sink_suite.data import (
    CATALOGUE,
    LOG,
    OTHER_LOG,
    duration,
    folded,
    is_use,
    milliseconds,
    typical_log,
)
from tests.support.skipping import need_program

Series = dict[tuple[tuple[str, str], ...], float]


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


def series(metrics: Metrics, name: str) -> Series:
    """The values of one sample name by their labels."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == name
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return series(metrics, name)[tuple(sorted(labels.items()))]


def ledger(*rows: tuple[str, str, int, int], stage: str = "") -> LedgerColumns:
    """Rows of (agency, outcome, duration in ms, time in ms)."""
    columns = {
        "agency": [row[0] for row in rows],
        "outcome": [row[1] for row in rows],
        "duration_ms": [row[2] for row in rows],
        "time_ms": [row[3] for row in rows],
        "stage": [stage] * len(rows),
    }
    return ledger_from(columns, len(rows))


@pytest.fixture
def busy() -> Metrics:
    """Metrics with a series in every family."""
    metrics = Metrics(CATALOGUE.by_code)
    log = typical_log()
    for flush in folded(log, 50):
        metrics.flush_written(flush, 0.02, milliseconds(log.accepted[-1]) / 1000 + 1)
    metrics.batch_folded(log.batch(0, 50), 0.003)
    metrics.pending(7, 700)
    metrics.back_pressure(True)
    metrics.health(False, True, 90.5)
    metrics.progress(LOG, 10, 8, 12)
    metrics.flush_failed(StoreError("away"))
    metrics.audit_findings.set(0)
    metrics.statements_unreadable.labels("catalogue").set(0)
    return metrics


def test_the_exposition_parses_and_every_metric_has_words(busy: Metrics) -> None:
    found = families(busy)
    assert len(found) >= 20
    for name, family in found.items():
        assert name.startswith("xidmet_")
        assert len(family.documentation) > 10
        assert family.type in ("counter", "gauge", "histogram")
        assert family.samples


def test_an_exposition_before_the_first_event_parses() -> None:
    metrics = Metrics(CATALOGUE.by_code)
    assert families(metrics)
    assert metrics.freshness.quantile_ms(0.5) is None
    assert value(metrics, "xidmet_freshness_seconds_count") == 0


def test_promtool_has_no_complaint(busy: Metrics) -> None:
    promtool = need_program("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=busy.exposition(), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_events_are_counted_by_agency_and_outcome_or_stage(busy: Metrics) -> None:
    expected: Counter[tuple[str, str]] = Counter(
        (event["data"]["agency"], event["data"].get("outcome") or event["data"]["stage"])
        for event in typical_log().accepted
    )
    found = series(busy, "xidmet_events_total")
    assert {(labels[0][1], labels[1][1]): int(count) for labels, count in found.items()} == expected


def test_refusals_are_counted_by_reason_and_repeats_in_all(busy: Metrics) -> None:
    log = typical_log()
    found = series(busy, "xidmet_events_rejected_total")
    by_reason: Counter[str] = Counter()
    for labels, count in found.items():
        by_reason[dict(labels)["reason"]] += int(count)
    assert by_reason == log.rejected
    assert value(busy, "xidmet_events_duplicate_total") == log.duplicates


def test_durations_are_counted_as_naively_without_stages(busy: Metrics) -> None:
    by_agency: dict[str, list[int]] = defaultdict(list)
    for event in typical_log().accepted:
        if is_use(event):
            by_agency[event["data"]["agency"]].append(duration(event))
    name = "xidmet_service_duration_seconds"
    assert {labels[0][1] for labels in series(busy, f"{name}_count")} == set(by_agency)
    buckets = series(busy, f"{name}_bucket")
    for agency, durations in by_agency.items():
        assert value(busy, f"{name}_count", agency=agency) == len(durations)
        assert value(busy, f"{name}_sum", agency=agency) == pytest.approx(sum(durations) / 1000)
        for bound in LATENCY_BOUNDS_MS:
            below = sum(value <= bound for value in durations)
            assert buckets[("agency", agency), ("le", repr(bound / 1000))] == below
        assert buckets[("agency", agency), ("le", "+Inf")] == len(durations)
    assert len(buckets) == len(by_agency) * (len(LATENCY_BOUNDS_MS) + 1)


def test_a_duration_on_a_bound_is_in_the_bucket_of_that_bound() -> None:
    metrics = Metrics(["a"])
    rows = ledger(*(("a", "success", value, 0) for value in (0, 10, 11, 300_000, 300_001)))
    metrics.flush_written(Flush(ledger_parts=[rows]), 0.1, 1.0)
    name = "xidmet_service_duration_seconds_bucket"
    assert [value(metrics, name, agency="a", le=le) for le in ("0.01", "0.025", "60.0", "300.0", "+Inf")] == [
        2,
        3,
        3,
        4,
        5,
    ]


def test_freshness_is_from_the_events_time_to_the_write() -> None:
    metrics = Metrics(["a"])
    delays = [0, 100, 101, 2_000, 4_000_000, -500]
    written_at = 1_800_000_000.0
    rows = ledger(*(("a", "success", 1, round(written_at * 1000) - delay) for delay in delays))
    metrics.flush_written(Flush(ledger_parts=[rows]), 0.1, written_at)
    name = "xidmet_freshness_seconds"
    assert value(metrics, f"{name}_count") == 6
    # An event from the future is as fresh as can be, not fresher.
    assert value(metrics, f"{name}_sum") == pytest.approx((100 + 101 + 2_000 + 4_000_000) / 1000)
    for bound in FRESHNESS_BOUNDS_MS:
        below = sum(max(delay, 0) <= bound for delay in delays)
        assert value(metrics, f"{name}_bucket", le=repr(bound / 1000)) == below
    assert value(metrics, "xidmet_last_event_timestamp_seconds") == written_at + 0.5
    assert value(metrics, "xidmet_last_flush_timestamp_seconds") == written_at


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_of_freshness_is_within_one_percent(share: float) -> None:
    delays = np.random.default_rng(7).lognormal(6.5, 1.2, 5_000)
    freshness = Freshness()
    for part in np.array_split(delays, 7):
        freshness.add(part)
    exact = np.sort(np.floor(delays))[max(1, int(np.ceil(share * len(delays)))) - 1]
    assert freshness.quantile_ms(share) == pytest.approx(exact, rel=0.01)


def test_a_delay_of_years_counts_as_a_day_and_none_at_all_as_zero() -> None:
    freshness = Freshness()
    freshness.add(np.array([1e12]))
    assert freshness.quantile_ms(0.5) == pytest.approx(86_400_000, rel=0.01)
    freshness.add(np.zeros(10))
    assert freshness.quantile_ms(0.5) == 0


def test_unknown_agencies_are_one_series_whatever_their_number() -> None:
    metrics = Metrics(["known"])
    rows = ledger(*((f"agency-{number}", "success", 5, 0) for number in range(1_000)), ("known", "success", 5, 0))
    metrics.flush_written(Flush(ledger_parts=[rows]), 0.1, 1.0)
    assert {labels[0][1]: count for labels, count in series(metrics, "xidmet_events_total").items()} == {
        "known": 1,
        "other": 1_000,
    }
    assert value(metrics, "xidmet_service_duration_seconds_count", agency="other") == 1_000


def test_the_number_of_series_is_bounded_by_the_catalogue_and_closed_lists(busy: Metrics) -> None:
    labels = {name for family in families(busy).values() for sample in family.samples for name in sample.labels}
    assert labels <= {"agency", "outcome", "reason", "partition", "topic", "sink", "kind", "le"}
    outcomes = {dict(key)["outcome"] for key in series(busy, "xidmet_events_total")}
    assert outcomes <= {"success", "not_eligible", "failure", "abandoned", "received", "processed", "responded"}
    reasons = {dict(key)["reason"] for key in series(busy, "xidmet_events_rejected_total")}
    assert reasons <= {reason.value for reason in Reason}


def test_batches_are_counted_by_partition() -> None:
    metrics = Metrics()
    log = typical_log()
    for start, stop in ((0, 30), (30, 35)):
        metrics.batch_folded(log.batch(start, stop), 0.004)
    assert value(metrics, "xidmet_records_total", partition="0") == 35
    assert value(metrics, "xidmet_batch_records_count") == 2
    assert value(metrics, "xidmet_batch_records_sum") == 35
    assert value(metrics, "xidmet_fold_seconds_sum") == pytest.approx(0.008)


def test_lag_counts_from_what_is_written_and_is_dropped_with_the_partition() -> None:
    metrics = Metrics()
    metrics.progress(LOG, 50, None, 100)
    assert series(metrics, "xidmet_lag_records") == {}
    metrics.progress(LOG, 50, 20, 100)
    metrics.progress(OTHER_LOG, 7, 9, 8)
    labels = {"topic": LOG.topic, "partition": "0"}
    names = ("position_offset", "durable_offset", "high_water_mark_offset", "lag_records")
    assert [value(metrics, f"xidmet_{name}", **labels) for name in names] == [50, 20, 100, 80]
    assert value(metrics, "xidmet_lag_records", topic=LOG.topic, partition="1") == 0
    metrics.revoked(LOG)
    metrics.revoked(LOG)
    for name in names:
        assert list(series(metrics, f"xidmet_{name}")) == [(("partition", "1"), ("topic", LOG.topic))]


def test_a_sink_that_fails_is_down_until_a_flush_is_written() -> None:
    metrics = Metrics()
    metrics.flush_failed(BrokerError("away"))
    metrics.flush_failed(BrokerError("away"))
    assert value(metrics, "xidmet_flush_failures_total") == 2
    assert series(metrics, "xidmet_sink_up") == {(("sink", "dead_letters"),): 0}
    metrics.flush_failed(StoreError("away"))
    assert value(metrics, "xidmet_sink_up", sink="clickhouse") == 0
    metrics.flush_written(Flush(), 0.1, 5.0)
    assert set(series(metrics, "xidmet_sink_up").values()) == {1}
    assert value(metrics, "xidmet_flush_seconds_count") == 1


def test_a_flush_of_stages_alone_has_no_durations() -> None:
    metrics = Metrics(["a"])
    metrics.flush_written(Flush(ledger_parts=[ledger(("a", "", 0, 0), stage="received")]), 0.1, 1.0)
    assert series(metrics, "xidmet_service_duration_seconds_count") == {}
    assert value(metrics, "xidmet_events_total", agency="a", outcome="received") == 1
