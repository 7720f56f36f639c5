"""The arithmetic of the benchmarks of long runs."""

import json
from datetime import datetime, timedelta

import pytest

from benchmarks.endurance import judge
from benchmarks.rig.events import of_months, probe
from benchmarks.rig.figures import at, delays, furthest_apart, quantile, slope, spread
from benchmarks.rig.processes import Sample


def test_a_quantile_is_a_value_that_was_there() -> None:
    values = [30.0, 10.0, 20.0, 40.0]
    assert [quantile(values, share) for share in (0.01, 0.25, 0.26, 0.5, 0.75, 0.99, 1.0)] == [
        *(10.0, 10.0, 20.0, 20.0),
        *(30.0, 40.0, 40.0),
    ]
    assert spread(range(1, 201)) == {"p50": 100, "p90": 180, "p99": 198, "max": 200}
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_slope_is_that_of_the_nearest_line() -> None:
    assert slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)
    assert slope([(0.0, 5.0), (10.0, 5.0)]) == 0.0
    # By hand: means 1.5 and 2.5; sum of products 4, of squares 5.
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 4.0)]) == pytest.approx(0.8)
    for points in ([], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]):
        with pytest.raises(ValueError, match="two different places"):
            slope(points)


def test_between_two_looks_lies_a_straight_line() -> None:
    points = [(0.0, 0.0), (0.0, 4.0), (10.0, 8.0), (20.0, 10.0)]
    assert [at(points, x) for x in (5.0, 10.0, 15.0, 20.0)] == [6.0, 8.0, 9.0, 10.0]
    with pytest.raises(ValueError, match="outside"):
        at(points, 20.5)


def test_a_delay_ends_with_the_first_look_that_counts_the_event() -> None:
    sent = [1.0, 2.0, 3.0]
    assert delays(sent, [(1.5, 0), (2.5, 2), (4.0, 2), (5.0, 3), (6.0, 3)]) == [1.5, 0.5, 2.0]
    with pytest.raises(ValueError, match="1 of 3 events were never seen"):
        delays(sent, [(9.0, 2)])


def test_how_far_apart_values_are() -> None:
    assert furthest_apart([100.0, 95.0, 90.0]) == pytest.approx(0.1)
    assert furthest_apart([7.0]) == 0.0


def test_a_worker_that_grows_and_becomes_slower_is_found() -> None:
    """100 MB and 10 MB more for each million; the first million in 10 s, each later one in 20 s."""
    samples = [Sample(0.0, 0, 100.0, {"worker": 3.0}), Sample(5.0, 0, 100.0, {"worker": 4.0})]
    samples += [
        Sample(15.0 + 20.0 * (done - 1), done * 1_000_000, 100.0 + 10.0 * done, {"worker": 4.0 + 8.0 * done})
        for done in range(1, 5)
    ]
    found = judge(samples, 4_000_000, [2_000_000, 4_000_000])
    assert found["rss_slope_mb_per_million"] == pytest.approx(10.0)
    assert found["growth_mb"] == pytest.approx(20.0)
    of_two, of_four = found["marks"][2_000_000], found["marks"][4_000_000]
    assert (of_two["events_per_s"], of_two["events_per_s_last_million"]) == (66_667, 50_000)
    assert (of_four["events_per_s"], of_four["events_per_s_last_million"]) == (57_143, 50_000)
    assert of_two["cpu_s_per_million"] == of_four["cpu_s_per_million_last"] == {"worker": 8.0}
    assert (of_two["rss_mb"], of_four["rss_mb"]) == (120.0, 140.0)
    assert found["apart"] == {"events_per_s": 0.143, "cpu_s_per_million_worker": 0.0}


def test_probes_can_be_told_apart_and_old_events_differ_in_their_time_alone() -> None:
    probes = [probe(partition, 7 + partition) for partition in range(4)]
    events = [json.loads(value) for value in probes]
    assert [event["data"]["channel"] for event in events] == ["web", "mobile", "centre", "kiosk"]
    assert len({event["id"] for event in events}) == 4
    moved = [json.loads(value) for value in of_months(probes * 9, 36)]
    times = [datetime.fromisoformat(event["time"]) for event in moved]
    months = {(time.year, time.month) for time in times}
    now = datetime.fromisoformat(events[0]["time"])
    assert now.utcoffset() == timedelta(0)
    assert len(months) == 36
    assert (now.year - 4, 1) < min(months) <= max(months) < (now.year, now.month)
    assert [event | {"time": ""} for event in moved] == [event | {"time": ""} for event in events * 9]
