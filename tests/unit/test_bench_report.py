"""The arithmetic of the comparison: rates, costs and ratios from given rounds."""

import os
import time

import pytest

from benchmarks.compare.measuring import Course, Sample, Watch, cpu_seconds, descendants, resident_bytes
from benchmarks.compare.report import Figures, SideReport, best, figures, ratio, summary, table
from benchmarks.compare.results import results_page


def course(*points: tuple[float, int, float], began: float = 100.0) -> Course:
    """Points are (seconds since the start, count, CPU seconds of the side)."""
    samples = [Sample(began + at, count, began + at, {"side": cpu, "broker": cpu / 2}) for at, count, cpu in points]
    return Course(began, samples, {"side": [300_000_000, 200_000_000], "broker": [500_000_000]})


def report(*rates: float | None, cpu: float = 10.0) -> SideReport:
    rounds = [
        None
        if rate is None
        else Figures(
            1_000_000, rate, rate / 2, rate, 10.0, {"side": cpu, "broker": 1.0}, {"side": 9.0}, {"side": 250.0}
        )
        for rate in rates
    ]
    return SideReport("label", "work", {"a": 1}, list(rounds), [] if None not in rates else ["round 1: it broke | off"])


def test_a_rate_counts_from_the_first_events_seen_to_the_last() -> None:
    found = figures(course((1.0, 0, 2.0), (3.0, 100_000, 3.0), (4.0, 300_000, 4.0), (5.0, 500_000, 7.0)))
    assert found.rate == pytest.approx(200_000)
    assert found.whole_rate == pytest.approx(100_000)
    assert found.seconds == pytest.approx(5)
    assert found.cpu_per_million == pytest.approx({"side": 10.0, "broker": 5.0})
    assert found.cpu_total == pytest.approx({"side": 7.0, "broker": 3.5})
    assert found.peak_mb == {"side": 300, "broker": 500}


def test_what_is_seen_all_at_once_counts_from_the_start() -> None:
    found = figures(course((1.0, 0, 1.0), (2.0, 500_000, 5.0)))
    assert found.rate == found.whole_rate == pytest.approx(250_000)
    assert found.cpu_per_million["side"] == pytest.approx(10)


def test_steps_that_come_in_pairs_do_not_look_faster_by_a_fitted_line() -> None:
    # Two readers, 100,000 each every second, one just after the other: 200,000 a second.
    points = [(0.5, 0, 0.0)]
    for second in (1, 2, 3):
        points += [(second, second * 200_000 - 100_000, 0.0), (second + 0.01, second * 200_000, 0.0)]
    found = figures(course(*points))
    assert found.rate == pytest.approx(500_000 / 2.01)
    assert found.fitted_rate == pytest.approx(200_000, rel=0.02)
    few = figures(course((1.0, 100_000, 0.0), (2.0, 300_000, 0.0)))
    assert few.fitted_rate == few.rate == pytest.approx(200_000)


def test_a_ratio_is_taken_within_rounds() -> None:
    # The machine was slow in the second round, for both: ratios of medians would say 100 / 60.
    ours, theirs = report(100, 40, 300), report(50, 20, 60)
    assert ratio(ours, theirs) == {"median": 2.0, "lowest": 2.0, "highest": 5.0}
    assert ratio(report(None, 40), report(50, 20)) == {"median": 2.0, "lowest": 2.0, "highest": 2.0}
    assert ratio(report(None), report(50)) is None
    assert ratio(None, report(50)) is None


def test_the_summary_takes_the_best_number_of_processes_and_like_for_like() -> None:
    sides = {
        "xidmet_single_1": report(80, 80, 80),
        "xidmet_single_2": report(120, 90, 150, cpu=12.0),
        "xidmet_batches_1": report(200),
        "xidmet_batches_2": report(None),
        "kafka_engine_single": report(60, 90, 100),
        "kafka_engine_batches": report(100),
        "faust_batched": report(160),
        "faust_stock": report(8),
        "quixstreams_plain": report(100),
        "quixstreams_windows": report(20, 10, 40),
    }
    found = summary(sides)
    assert found["xidmet_side"] == "xidmet_single_2"
    assert found["xidmet_batched_side"] == "xidmet_batches_1"
    assert found["xidmet_events_per_s"] == 120
    assert found["cpu_s_per_million"] == 13
    assert found["rss_mb"] == 250
    assert found["ratio_vs_kafka_engine"] == 1.5
    assert found["cpu_ratios"]["ratio_vs_kafka_engine"]["median"] == pytest.approx(11 / 13)
    assert found["ratio_vs_kafka_engine_batched"] == 2
    assert found["ratio_vs_stock_faust"] == 20
    assert found["ratio_vs_quixstreams"] == 1.6
    assert found["ratio_vs_quixstreams_windows"] == 4
    assert found["full_path_vs_quixstreams"] == 0.8
    assert found["ratio_vs_kafka_streams_windows"] is None


def test_nothing_measured_gives_no_figures_and_no_error() -> None:
    found = summary({"xidmet_single_1": report(None), "kafka_engine_single": report(10)})
    assert found["xidmet_events_per_s"] is None
    assert found["ratio_vs_kafka_engine"] is None
    assert best({}, ["a"]) is None


def test_the_table_tells_of_sides_that_are_missing() -> None:
    lines = table(
        {"a": report(1000, 2000, 4000), "b": report(None), "c": SideReport("gone", "w", unavailable="no\nnet")}
    )
    assert "| label | 2,000 | 1,000 to 4,000 | 1,000 | 10.0 | 1.0 | - | 250 |" in lines[2]
    assert "not measured: round 1: it broke / off" in lines[3]
    assert "not measured: no net" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_the_page_has_the_table_the_ratios_and_the_failures() -> None:
    sides = {"xidmet_single_1": report(100, 200), "kafka_engine_single": report(None, 100)}
    content = summary(sides) | {
        "date": "2026-01-02",
        "freshness_p50_ms": None,
        "freshness_p99_ms": None,
        "freshness_reason": "not asked",
        "load": {
            "events": 2_000_000,
            "prefix_events": 300_000,
            "bytes_per_event": 350.2,
            "agencies": 45,
            "services": 400,
            "partitions": 4,
            "compression": "none",
            "share_of_three_agencies": 0.961,
            "share_of_first_service": 0.115,
            "share_of_stages": 0.07,
        },
        "options": {"rounds": 2, "events": 2_000_000},
        "machine": {"cores": "2"},
        "versions": {"kafka": "4.4.0"},
    }
    page = results_page(content, sides)
    cells = "2.00 | 2.00 to 2.00 | 2.00 | 1.00 | 1.00 to 1.00"
    assert f"| xidmet, full path, to the Kafka engine, one event a message | {cells} |" in page
    assert "2,000,000 events of 350 bytes" in page
    assert "Not measured: not asked" in page
    assert "- label: round 1: it broke" in page
    assert "| kafka | 4.4.0 |" in page
    assert max(map(len, page.split("\n## Rates")[0].splitlines())) <= 120


def test_a_process_is_watched_from_the_start_of_the_round() -> None:
    me = os.getpid()
    before = cpu_seconds(me)
    watch = Watch({"broker": [me]})
    until = time.process_time() + 0.2
    while time.process_time() < until:
        continue
    watch.sample([], time.time(), 7)
    (sample,) = watch.course.samples
    assert sample.count == 7
    assert 0.1 <= sample.cpu["broker"] <= cpu_seconds(me) - before + 0.1
    assert watch.course.peak_bytes["broker"][0] >= 0.5 * resident_bytes(me)
    assert me in descendants(os.getppid())


def test_what_is_gone_costs_nothing() -> None:
    gone = 2**22 + 1
    assert (cpu_seconds(gone), resident_bytes(gone), descendants(gone)) == (0.0, 0, [gone])
