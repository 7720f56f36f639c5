"""The worker's keeper of hours and days: marks, closing, sweeps, and a ClickHouse that is away."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import SettingsError, StoreError
from pipeline.runtime import periods
from pipeline.runtime.periods import Marks, PeriodKeeper, kinds_of
from pipeline.settings import ClickHouseSettings, PeriodsSettings, Settings
from sinks.clickhouse.client import Client
from sinks.clickhouse.period_sql import HOURS, Kind, Source
from sinks.clickhouse.periods import refresh
from sinks.prometheus import Metrics
from tests.support.sink_suite.data import START, Log, folded, migrated, write
from tests.support.sink_suite.periods import assert_totals, repeated, rows, use

pytestmark = pytest.mark.embedded

OLD = START - timedelta(days=100)


class Clock:
    """Unix seconds that only tests move."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Kept:
    """A keeper on an empty database, with all it needs."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.settings = settings
        self.client = client
        self.clock = Clock((START + timedelta(minutes=30)).timestamp())
        self.start()

    def start(self) -> None:
        """A keeper of a worker that has just started."""
        self.marks = Marks(kinds_of(self.settings))
        self.metrics = Metrics()
        self.keeper = PeriodKeeper(self.settings, self.marks, self.metrics, self.clock)

    def value(self, name: str) -> float:
        found = self.metrics.registry.get_sample_value(name)
        assert found is not None
        return found


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    settings = Settings(
        clickhouse=ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}"),
        # No sweep in these tests but the first and those they ask for.
        periods=PeriodsSettings(refresh_seconds=0.5, sweep_seconds=1e9),
    )
    with migrated(settings.clickhouse) as client:
        made = Kept(settings, client)
        yield made
        made.keeper.close()


def fail_with(monkeypatch: pytest.MonkeyPatch, error: StoreError) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(periods, "refresh", refuse)


def test_what_a_flush_touched_is_recomputed_and_closed_when_it_has_ended(kept: Kept) -> None:
    log, other = repeated()
    kept.keeper.step()
    for flush in folded(log) + folded(other):
        write(kept.client, [flush])
        kept.marks.written(flush)
    assert len(kept.marks) == 2
    assert kept.keeper.step() >= 0.5
    assert_totals(kept.client, log.accepted + other.accepted)
    assert (kept.value("xidmet_periods_marked"), kept.value("xidmet_periods_failures_total")) == (0, 0)
    assert kept.value("xidmet_periods_last_refresh_timestamp_seconds") == kept.clock.now
    # The hour ends, and after the grace it is closed, although nothing comes any more.
    kept.clock.now = (START + timedelta(hours=1, seconds=299)).timestamp()
    kept.keeper.step()
    assert rows(kept.client, "SELECT DISTINCT source FROM hourly") == [("minutes",)]
    kept.clock.now += 2
    kept.keeper.step()
    assert rows(kept.client, "SELECT DISTINCT source FROM hourly") == [("ledger",)]
    assert rows(kept.client, "SELECT DISTINCT source FROM daily") == [("minutes",)]
    kept.clock.now += 86_400
    kept.keeper.step()
    assert_totals(kept.client, log.accepted)
    assert rows(kept.client, "SELECT DISTINCT source FROM daily") == [("ledger",)]


def test_a_late_event_of_a_closed_period_is_counted(kept: Kept) -> None:
    log = Log()
    log.add([use(1, OLD)])
    write(kept.client, folded(log))
    for _ in range(3):
        kept.keeper.step()
    assert_totals(kept.client, log.accepted)
    log.add([use(2, OLD)])
    for flush in folded(log):
        write(kept.client, [flush])
        kept.marks.written(flush)
    kept.keeper.step()
    assert_totals(kept.client, log.accepted)
    assert rows(kept.client, "SELECT DISTINCT source FROM daily") == [("ledger",)]


def test_marks_outlast_a_clickhouse_that_is_away(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    log, _ = repeated()
    kept.keeper.step()
    for flush in folded(log):
        write(kept.client, [flush])
        kept.marks.written(flush)
    with monkeypatch.context() as patch:
        fail_with(patch, StoreError("ClickHouse does not answer"))
        kept.keeper.step()
        kept.keeper.step()
    assert len(kept.marks) == 2
    assert (kept.value("xidmet_periods_marked"), kept.value("xidmet_periods_failures_total")) == (2, 2)
    assert rows(kept.client, "SELECT count() FROM hours") == [(0,)]
    kept.keeper.step()
    assert_totals(kept.client, log.accepted)


def test_a_period_that_cannot_be_computed_does_not_keep_the_others_waiting(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    log.add([use(1, START - timedelta(days=1)), use(2, START)])
    kept.keeper.step()
    for flush in folded(log):
        write(kept.client, [flush])
        kept.marks.written(flush)
    bad = HOURS.number(START.timestamp())

    def refuse_one(client: Client, kind: Kind, source: Source, first: int, last: int) -> None:
        if kind is HOURS and first == bad:
            raise StoreError("ClickHouse refuses: memory limit exceeded")
        refresh(client, kind, source, first, last)

    with monkeypatch.context() as patch:
        patch.setattr(periods, "refresh", refuse_one)
        kept.keeper.step()
    assert kept.marks.of(HOURS) == {bad}
    assert rows(kept.client, "SELECT sum(uses) FROM hourly") == [(1,)]
    assert rows(kept.client, "SELECT sum(uses) FROM daily") == [(2,)]
    assert kept.value("xidmet_periods_failures_total") == 1
    kept.keeper.step()
    assert_totals(kept.client, log.accepted)


def test_an_hour_that_ends_while_clickhouse_is_away_is_closed_later(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = repeated()
    write(kept.client, folded(log) + folded(other))
    kept.keeper.step()
    with monkeypatch.context() as patch:

        def refuse(*arguments: object) -> None:
            raise StoreError("ClickHouse does not answer")

        patch.setattr(periods, "due", refuse)
        kept.clock.now += 2 * 86_400
        kept.keeper.step()
    kept.keeper.step()
    assert_totals(kept.client, log.accepted)


def test_what_is_marked_while_it_is_recomputed_stays_marked(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.add([use(1, START)])
    kept.keeper.step()
    (flush,) = folded(log)
    write(kept.client, [flush])
    kept.marks.written(flush)

    def meanwhile(client: Client, kind: Kind, source: Source, first: int, last: int) -> None:
        kept.marks.add(kind, [first])

    with monkeypatch.context() as patch:
        patch.setattr(periods, "refresh", meanwhile)
        kept.keeper.step()
    assert kept.marks.of(HOURS) == {int(START.timestamp())}


def test_a_sweep_finds_what_was_marked_by_a_worker_that_died(kept: Kept) -> None:
    log = Log()
    # Each in a month of its own, and the current hour.
    log.add([use(number, START - timedelta(days=35 * number)) for number in reversed(range(5))])
    write(kept.client, folded(log))
    kept.keeper.step()
    assert rows(kept.client, "SELECT count() FROM hourly") == [(1,)]
    for _ in range(6):
        kept.keeper.step()
    assert_totals(kept.client, log.accepted)


def test_a_start_finds_an_old_period_that_is_not_up_to_date(kept: Kept) -> None:
    log = Log()
    log.add([use(1, OLD), use(2, START)])
    write(kept.client, folded(log))
    for _ in range(3):
        kept.keeper.step()
    log.add([use(3, OLD)])
    write(kept.client, folded(log))
    kept.keeper.step()
    assert rows(kept.client, "SELECT sum(uses) FROM hourly") == [(2,)]
    kept.keeper.close()
    kept.start()
    for _ in range(3):
        kept.keeper.step()
    assert_totals(kept.client, log.accepted)


def test_a_keeper_that_is_stopped_leaves_its_marks_and_recomputes_them_at_its_close(kept: Kept) -> None:
    log, _ = repeated()
    kept.keeper.step()
    for flush in folded(log):
        write(kept.client, [flush])
        kept.marks.written(flush)
    kept.keeper.stop()
    kept.keeper.step()
    assert len(kept.marks) == 2
    kept.keeper.close()
    assert len(kept.marks) == 0
    assert_totals(kept.client, log.accepted)


class Stopwatch:
    """What the keeper takes for its monotonic clock; each statement takes two seconds."""

    def __init__(self, kept: Kept, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: list[tuple[str, int, int]] = []
        kept.keeper._next_sweep = 1e9
        patch.setattr(periods.time, "monotonic", lambda: self.now)
        patch.setattr(periods, "refresh", self.refresh)

    def refresh(self, client: Client, kind: Kind, source: Source, first: int, last: int) -> None:
        self.now += 2
        self.done.append((kind.table, first, last))


def test_a_round_that_took_long_is_followed_by_a_longer_rest(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.marks.add(HOURS, [3_600])
    with monkeypatch.context() as patch:
        Stopwatch(kept, patch)
        assert kept.keeper.step() == 8.0


def test_an_import_of_old_events_does_not_keep_today_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        clickhouse=ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}"), periods=PeriodsSettings(refresh_seconds=9)
    )
    with migrated(settings.clickhouse) as client:
        kept = Kept(settings, client)
        hours, days = kinds_of(settings)
        kept.marks.add(hours, range(0, 24 * 40 * 3_600, 3_600))
        kept.marks.add(days, range(40))
        with monkeypatch.context() as patch:
            watch = Stopwatch(kept, patch)
            now = hours.number(kept.clock.now)
            for _ in range(2):
                kept.marks.add(hours, [now])
                kept.marks.add(days, [days.number(kept.clock.now)])
                assert kept.keeper.step() == 40.0
                recent = [("hours", now, now), ("days", days.number(kept.clock.now), days.number(kept.clock.now))]
                assert watch.done[:2] == recent
                assert len(watch.done) == 5
                watch.done.clear()
        assert len(kept.marks) > 24 * 30
        for kind in (hours, days):
            for number in kept.marks.of(kind):
                kept.marks.discard(kind, number, number)
        kept.keeper.close()


def test_days_of_no_zone_are_refused_before_a_worker_starts() -> None:
    with pytest.raises(SettingsError, match=r"periods\.time_zone 'Nowhere'"):
        kinds_of(Settings(periods=PeriodsSettings(time_zone="Nowhere")))
