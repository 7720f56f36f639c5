"""The share of refused events by agency: its window, its alarm, what is logged, and when it ends."""

import logging
from collections.abc import Iterable

import pytest
from prometheus_client.core import GaugeMetricFamily

from pipeline.settings import RejectedSettings
from sinks.reject_share import RejectShares

SETTINGS = RejectedSettings(alarm_share=0.05, alarm_events=100, alarm_minutes=15)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> RejectShares:
    return RejectShares(SETTINGS, "other", clock)


def values(families: Iterable[GaugeMetricFamily]) -> dict[str, dict[str, float]]:
    return {family.name: {s.labels["agency"]: s.value for s in family.samples} for family in families}


def test_the_share_is_of_the_agencys_own_events_and_of_all_for_those_without_agency(shares: RejectShares) -> None:
    shares.add({"a": 90, "b": 100}, {"a": 10, "other": 50})
    assert values(shares.collect()) == {
        "xidmet_reject_share": {"a": 0.1, "b": 0.0, "other": 0.2},
        "xidmet_reject_alarm": {"a": 1.0, "b": 0.0, "other": 1.0},
        "xidmet_reject_window_events": {"a": 100.0, "b": 100.0, "other": 250.0},
    }


@pytest.mark.parametrize(
    ("good", "bad", "alarm"), [(95, 5, 0.0), (94, 6, 1.0), (0, 99, 0.0), (93, 6, 0.0), (0, 100, 1.0)]
)
def test_the_alarm_is_above_the_limit_from_the_least_number_of_events_on(
    shares: RejectShares, good: int, bad: int, alarm: float
) -> None:
    shares.add({"a": good}, {"a": bad})
    assert values(shares.collect())["xidmet_reject_alarm"] == {"a": alarm}


def test_entering_and_leaving_are_logged_once_each(
    shares: RejectShares, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[tuple[str, str, float]]:
        found = [(r.levelname, r.__dict__["agency"], r.__dict__["share"]) for r in caplog.records]
        caplog.clear()
        return found

    caplog.set_level(logging.INFO)
    shares.add({"a": 90}, {"a": 10})
    assert said() == [("WARNING", "a", 0.1)]
    shares.add({"a": 9}, {"a": 1})
    list(shares.collect())
    assert said() == []
    shares.add({"a": 890}, {})
    assert said() == [("WARNING", "a", 0.011)]
    shares.add({"a": 0}, {"a": 900})
    assert said() == [("WARNING", "a", 0.4795)]
    clock.now += 16 * 60
    list(shares.collect())
    assert said() == [("WARNING", "a", 0.0)]


def test_a_series_ends_when_the_agency_has_nothing_in_the_window(shares: RejectShares, clock: Clock) -> None:
    shares.add({"a": 100}, {"a": 100})
    clock.now += 14 * 60
    shares.add({"b": 1}, {})
    assert values(shares.collect())["xidmet_reject_share"] == {"a": 0.5, "b": 0.0}
    clock.now += 60
    assert values(shares.collect()) == {
        "xidmet_reject_share": {"b": 0.0},
        "xidmet_reject_alarm": {"b": 0.0},
        "xidmet_reject_window_events": {"b": 1.0},
    }


def test_the_pieces_kept_are_bounded_by_the_window(shares: RejectShares, clock: Clock) -> None:
    for _ in range(1_000):
        shares.add({"a": 1}, {"a": 1})
        clock.now += 20
    assert len(shares._pieces) <= 16
    ((share, events),) = shares.shares().values()
    assert share == 0.5
    assert 2 * 3 * 14 <= events <= 2 * 3 * 15
