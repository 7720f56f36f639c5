"""Hours and days: equal to a count of the events, whoever recomputes them, when, in which order and how often."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.events import MAX_DURATION_MS
from pipeline.errors import SettingsError
from pipeline.fold.histogram import bucket_of, bucket_starts
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client
from sinks.clickhouse.period_audit import CLOSED_SECONDS, DUE_SECONDS
from sinks.clickhouse.period_sql import CLOSED_BIT, EPOCH_BIT, HOURS, Kind, Source, bucket_sql, days_of, insert_sql
from sinks.clickhouse.periods import (
    Change,
    current_epoch,
    due,
    months,
    raise_epoch,
    recompute,
    refresh,
    runs,
    stored,
)
from tests.support.sink_suite.data import (
    CATALOGUE,
    LOG,
    OTHER_LOG,
    START,
    Event,
    Log,
    connected,
    duration,
    folded,
    hash_of,
    is_use,
    migrated,
    milliseconds,
    minute,
    mixed_log,
    rows,
    synthetic,
    write,
)

ZONE: Final = "Asia/Baku"
AGENCY: Final = CATALOGUE.agencies[0]
OPEN: Final = START + timedelta(minutes=30)
CLOSED: Final = START + timedelta(days=3)
FROM: Final = START - timedelta(days=2)
TO: Final = START + timedelta(days=2)
TABLES: Final = ("ledger", "coordinates", "minutes", "receipts", "hours", "days", "epochs")

# (number of the period, agency, service, channel, outcome, stage) to (events, durations, histogram, people)
Totals = dict[tuple[Any, ...], tuple[int, int, dict[int, int], int]]


def use(number: int, at: datetime, channel: str = "web", duration_ms: int = 10) -> Event:
    data = {"agency": AGENCY.code, "service": AGENCY.services[0].code, "channel": channel, "outcome": "success"}
    envelope = {"specversion": "1.0", "id": f"use-{number}", "source": "test", "type": "xidmet.service.used.v1"}
    time = at.isoformat().replace("+00:00", "Z")
    return {
        **envelope,
        "time": time,
        "data": {**data, "duration_ms": duration_ms, "user": f"person-{number % 5}".ljust(22, "x")},
    }


def expected(kind: Kind, events: Iterable[Event]) -> Totals:
    """The totals of each group in each period, counted one by one."""
    groups: dict[tuple[Any, ...], tuple[list[int], set[str]]] = {}
    for event in events:
        data = event["data"]
        if kind.table == "hours":
            period = minute(event) // 3600 * 3600
        else:
            day = datetime.fromtimestamp(minute(event), ZoneInfo(kind.zone)).date()
            period = day.toordinal() - datetime(1970, 1, 1, tzinfo=UTC).date().toordinal()
        names = [data.get(name, "") for name in ("agency", "service", "channel", "outcome", "stage")]
        durations, people = groups.setdefault((period, *names), ([], set()))
        durations.append(duration(event) if is_use(event) else -1)
        if "user" in data:
            people.add(data["user"])
    return {
        key: (
            len(durations),
            sum(max(0, one) for one in durations),
            dict(Counter(bucket_of(np.array([one for one in durations if one >= 0], dtype=np.int64)).tolist())),
            len(people),
        )
        for key, (durations, people) in groups.items()
    }


def kept(client: Client, kind: Kind) -> Totals:
    """What the table has, as the views read it, stages included."""
    zone = f" AND zone = '{kind.zone}'" if kind.table == "days" else ""
    found = rows(
        client,
        f"SELECT {kind.sql_number(kind.column)}, agency, service, channel, outcome, stage, events, duration_ms_sum,"
        f" histogram, finalizeAggregation(users) FROM {kind.table} FINAL WHERE events > 0{zone}",
    )
    return {row[:6]: row[6:] for row in found}


def reconcile(client: Client, now: datetime, zone: str = ZONE, **options: Any) -> list[Change]:
    return recompute(client, FROM, TO, zone, now, **options)


def assert_totals(client: Client, events: Iterable[Event], zone: str = ZONE) -> None:
    events = list(events)
    for kind in (HOURS, days_of(zone)):
        assert kept(client, kind) == expected(kind, events)


def spoil(client: Client, table: str, change: str, where: str) -> None:
    client.execute(f"ALTER TABLE {table} {change} WHERE {where} SETTINGS mutations_sync = 1")


def repeated() -> tuple[Log, Log]:
    """A log of 400 synthetic events, and another partition that holds seven of them again."""
    log = mixed_log(synthetic(400))
    other = Log(OTHER_LOG)
    other.add(log.accepted[:7])
    return log, other


def longer() -> Log:
    """The first of these logs, nine events later."""
    log, _ = repeated()
    log.add(synthetic(9, seed=7))
    return log


class TestPeriods:
    def test_buckets_in_sql_are_those_of_the_fold(self, store: ClickHouseSettings) -> None:
        bounds = np.array(bucket_starts()[0])
        durations = np.unique(
            np.concatenate(
                [
                    np.arange(100_000),
                    *(bounds + shift for shift in (-1, 0, 1)),
                    np.random.default_rng(1).integers(0, MAX_DURATION_MS, 20_000),
                    np.array([MAX_DURATION_MS - 1, MAX_DURATION_MS]),
                ]
            )
        )
        durations = durations[(durations >= 0) & (durations <= MAX_DURATION_MS)]
        with connected(store) as client:
            client.execute("CREATE TABLE d (duration_ms UInt32) ENGINE = MergeTree ORDER BY duration_ms")
            from sinks.clickhouse.client import Column

            client.insert("d", [Column("duration_ms", "UInt32", durations.tolist())])
            found = rows(client, f"SELECT {bucket_sql('duration_ms')} FROM d ORDER BY duration_ms")
        assert [bucket for (bucket,) in found] == bucket_of(durations).tolist()

    def test_open_periods_are_the_minutes_and_closed_ones_the_ledger(self, store: ClickHouseSettings) -> None:
        log, other = repeated()
        with migrated(store) as client:
            write(client, folded(log) + folded(other))
            reconcile(client, OPEN)
            assert_totals(client, log.accepted + other.accepted)
            assert rows(client, "SELECT DISTINCT source FROM hourly") == [("minutes",)]
            reconcile(client, CLOSED)
            assert_totals(client, log.accepted)
            assert rows(client, "SELECT DISTINCT source FROM daily") == [("ledger",)]
            # An earlier clock, or a zombie, does not open it again.
            reconcile(client, OPEN)
            assert_totals(client, log.accepted)

    def test_weeks_and_months_merge_days_and_their_people(self, store: ClickHouseSettings) -> None:
        events = [use(number, START + timedelta(days=number % 45)) for number in range(90)]
        log = Log()
        log.add(events)
        with migrated(store) as client:
            write(client, folded(log))
            recompute(client, FROM, START + timedelta(days=60), ZONE, START + timedelta(days=90))
            for view, column, first in (("weekly", "week", "toMonday"), ("monthly", "month", "toStartOfMonth")):
                merged = rows(
                    client,
                    f"SELECT toString({column}), sum(uses), uniqCombined64Merge(users), min(closed) FROM {view}"
                    f" GROUP BY {column} ORDER BY {column}",
                )
                direct = rows(
                    client,
                    f"SELECT toString({first}(time, '{ZONE}')) AS at, count(), uniqExact(user_hash), 1 FROM events"
                    " GROUP BY at ORDER BY at",
                )
                assert merged == direct
                assert len(merged) >= 2

    def test_days_are_cut_in_their_zone_and_a_changed_zone_never_mixes(self, store: ClickHouseSettings) -> None:
        late, early = datetime(2026, 3, 2, 19, 59, 59, tzinfo=UTC), datetime(2026, 3, 2, 20, 0, tzinfo=UTC)
        log = Log()
        log.add([use(1, late), use(2, early), use(3, early + timedelta(hours=5))])
        with migrated(store) as client:
            write(client, folded(log))
            for zone, cut in (("Asia/Baku", [1, 2]), ("UTC", [2, 1]), ("America/St_Johns", [3])):
                reconcile(client, CLOSED, zone)
                assert_totals(client, log.accepted, zone)
                days = rows(client, f"SELECT sum(uses) FROM daily WHERE zone = '{zone}' GROUP BY day ORDER BY day")
                assert [uses for (uses,) in days] == cut
            assert_totals(client, log.accepted, ZONE)

    def test_a_zone_that_does_not_exist_is_refused(self) -> None:
        for zone in ("Asia/Xidmet", "", "../etc/passwd", "'; DROP TABLE days; --"):
            with pytest.raises(SettingsError, match="no such time zone"):
                days_of(zone)

    def test_a_group_that_is_no_longer_there_is_left_out(self, store: ClickHouseSettings) -> None:
        first, second = use(1, START, "web"), use(1, START, "mobile")
        log, other = Log(), Log(OTHER_LOG)
        log.add([use(2, START, "kiosk")])
        log.add([first])
        other.add([second])
        with migrated(store) as client:
            write(client, folded(log))
            reconcile(client, CLOSED)
            assert_totals(client, [use(2, START, "kiosk"), first])
            write(client, folded(other))
            reconcile(client, CLOSED)
            # The copy at offset 0 of the other partition is the earlier one.
            assert_totals(client, [use(2, START, "kiosk"), second])
            assert rows(client, "SELECT channel, sum(uses) FROM hourly GROUP BY channel ORDER BY channel") == [
                ("kiosk", 1),
                ("mobile", 1),
            ]

    def test_neighbours_are_recomputed_together_unless_one_is_open(self) -> None:
        hour, now = 3_600, 100 * 3_600.0
        numbers = [hour * one for one in (95, 98, 97, 99, 100, 7)]
        assert list(runs(HOURS, numbers, now, 60)) == [
            ("ledger", 7 * hour, 7 * hour),
            ("ledger", 95 * hour, 95 * hour),
            ("ledger", 97 * hour, 98 * hour),
            ("minutes", 99 * hour, 100 * hour),
        ]
        assert [last - first for _, first, last in runs(HOURS, range(0, 50 * hour, hour), now, 60)] == [
            23 * hour,
            23 * hour,
            hour,
        ]
        assert list(runs(days_of(ZONE), [1, 2], now, 60)) == [("ledger", 1, 1), ("ledger", 2, 2)]

    def test_a_month_is_found_from_any_of_its_rows(self, store: ClickHouseSettings) -> None:
        log = Log()
        log.add([use(1, START), use(2, START + timedelta(days=31 + 30))])
        with migrated(store) as client:
            assert months(client) == []
            write(client, folded(log))
            spans = [
                (datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 1, tzinfo=UTC)) for month in (3, 5)
            ]
            assert months(client) == [(int(a.timestamp()), int(b.timestamp())) for a, b in spans]


class TestLedgerVersion:
    """Which of two copies of an event stays is told by the log, not by the order of writing."""

    COPIES: Final = ((7, 0, "one"), (7, 1, "one"), (7, 0, "two"), (9, 0, "one"), (7, 3, "two"))

    def insert(self, client: Client, offset: int, partition: int, topic_id: str, version: str = "DEFAULT") -> None:
        client.execute(
            "INSERT INTO ledger (agency, service, time_ms, event_hash, topic_id, partition, offset, version)"
            f" VALUES ('a', 's', {milliseconds(use(1, START))}, 5, '{topic_id}', {partition}, {offset}, {version})"
        )

    def winner(self, client: Client) -> tuple[Any, ...]:
        (row,) = rows(client, "SELECT offset, partition, topic_id FROM events")
        return row

    def test_any_order_of_writes_ends_with_the_same_row(self, store: ClickHouseSettings) -> None:
        random = np.random.default_rng(3)
        with migrated(store) as client:
            client.execute("SYSTEM STOP MERGES ledger")
            winners = set()
            for attempt in range(12):
                client.execute("TRUNCATE TABLE ledger")
                for place in random.permutation(len(self.COPIES)):
                    self.insert(client, *self.COPIES[place])
                winners.add(self.winner(client))
                client.execute("SYSTEM START MERGES ledger")
                if attempt % 2:
                    client.execute("OPTIMIZE TABLE ledger FINAL")
                    winners.add(self.winner(client))
            assert len(winners) == 1
            assert winners.pop()[0] == 7

    def test_a_lower_offset_stays_even_at_the_ends_of_the_range(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            for low, high in ((0, 1), (10**12, 10**12 + 1), (2**44 - 3, 2**44 - 2), (5, 2**63)):
                for order in ((low, high), (high, low)):
                    client.execute("TRUNCATE TABLE ledger")
                    for offset in order:
                        self.insert(client, offset, offset % 2, "one")
                    assert self.winner(client)[0] == low

    def test_rows_of_the_former_version_stay(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            for order in (True, False):
                client.execute("TRUNCATE TABLE ledger")
                if order:
                    self.insert(client, 3, 0, "new")
                self.insert(client, 7, 0, "old", f"bitNot(toUInt64({7}))")
                self.insert(client, 2, 1, "new")
                assert self.winner(client) == (7, 0, "old")


@dataclass
class Staged:
    """A recomputation that has read and not yet written."""

    table: str
    kind: Kind


class TestConvergence:
    """The proof of decision 0012, tried: real statements, cut between reading and writing, in any order."""

    # Two partitions with copies of one another, some in other groups, over two hours and two days of the zone.
    TIMES: Final = [datetime(2026, 3, 2, 19, 30, tzinfo=UTC) + timedelta(minutes=7 * number) for number in range(9)]

    def logs(self) -> tuple[Log, Log]:
        one, other = Log(), Log(OTHER_LOG)
        for number, at in enumerate(self.TIMES):
            one.add([use(number, at, duration_ms=number)])
        for number in (8, 3, 4, 0):
            other.add([use(number, self.TIMES[number], "mobile", 7)])
        other.add([use(20, self.TIMES[2])])
        return one, other

    def winners(self, client: Client, one: Log, other: Log) -> list[Event]:
        """Of each event the copy with the lowest offset, counted without the ledger; of equal ones as versions say."""
        ((zero, first),) = rows(
            client,
            f"SELECT bitAnd(cityHash64('{LOG.topic_id}'), 524287), bitAnd(cityHash64('{LOG.topic_id}') + 1, 524287)",
        )
        best: dict[int, tuple[tuple[int, int], Event]] = {}
        for log, tie in ((one, -zero), (other, -first)):
            for offset, event in enumerate(log.accepted):
                place = (offset, tie)
                if hash_of(event) not in best or place < best[hash_of(event)][0]:
                    best[hash_of(event)] = place, event
        return [event for _, event in best.values()]

    @pytest.fixture
    def client(self, store: ClickHouseSettings) -> Iterator[Client]:
        with migrated(store) as client:
            yield client

    @settings(
        max_examples=15,
        # Run by two modules, each with a store of its own: by two executors, as it is called.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
        deadline=None,
    )
    @given(data=st.data())
    def test_any_interleaving_ends_with_the_totals_of_the_log(self, client: Client, data: st.DataObject) -> None:
        for table in TABLES:
            client.execute(f"TRUNCATE TABLE {table}")
        one, other = self.logs()
        # Whole flushes and, from a zombie, coarser and finer ones of the same log.
        flushes = [flush for step in (1, 2, 9) for log in (one, other) for flush in folded(log, step)]
        needed = [*folded(one, 4), *folded(other, 4)]
        staged: list[Staged] = []
        steps = data.draw(
            st.lists(
                st.one_of(
                    st.tuples(st.just("flush"), st.integers(0, len(flushes) - 1)),
                    st.tuples(st.just("needed"), st.integers(0, len(needed) - 1)),
                    st.tuples(st.just("read"), st.integers(0, 3)),
                    st.tuples(st.just("write"), st.integers(0, 9)),
                ),
                max_size=14,
            )
        )
        steps += [("needed", place) for place in data.draw(st.permutations(range(len(needed))))]
        steps += data.draw(st.lists(st.tuples(st.just("write"), st.integers(0, 9)), max_size=4))
        for number, (step, choice) in enumerate(steps):
            if step == "flush":
                write(client, [flushes[choice]])
            elif step == "needed":
                write(client, [needed[choice]])
            elif step == "read":
                source: Source = "ledger" if choice % 2 else "minutes"
                staged.append(self.read(client, (HOURS, days_of(ZONE))[choice // 2], source, number))
            elif staged:
                self.write(client, staged.pop(choice % len(staged)))
        reconcile(client, CLOSED)
        while staged:
            self.write(client, staged.pop())
        truth = self.winners(client, one, other)
        for kind in (HOURS, days_of(ZONE)):
            # Zombies that write last can bring back groups that are gone, nothing else; a sweep finds these.
            assert expected(kind, truth).items() <= kept(client, kind).items()
            for number in due(client, kind, FROM.timestamp(), TO.timestamp(), CLOSED.timestamp(), 0):
                refresh(client, kind, "ledger", number, number)
            assert due(client, kind, FROM.timestamp(), TO.timestamp(), CLOSED.timestamp(), 0) == []
        assert_totals(client, truth)

    @staticmethod
    def read(client: Client, kind: Kind, source: Source, number: int) -> Staged:
        """The statement of a recomputation, its rows kept apart."""
        table = f"staged_{number}"
        client.execute(f"DROP TABLE IF EXISTS {table}")
        client.execute(f"CREATE TABLE {table} AS {kind.table}")
        first, last = kind.number(FROM.timestamp()), kind.number(TO.timestamp())
        base = (current_epoch(client) << EPOCH_BIT) + ((source == "ledger") << CLOSED_BIT)
        sql = insert_sql(kind, source, first, last, base)
        client.execute(sql.replace(f"INSERT INTO {kind.table}", f"INSERT INTO {table}", 1))
        return Staged(table, kind)

    @staticmethod
    def write(client: Client, staged: Staged) -> None:
        client.execute(f"INSERT INTO {staged.kind.table} SELECT * FROM {staged.table}")
        client.execute(f"DROP TABLE {staged.table}")

    def test_whoever_read_last_stays_whatever_is_written_after_it(self, client: Client) -> None:
        log, other = repeated()
        earlier: list[Staged] = []
        for flush in folded(log, 20):
            write(client, [flush])
            earlier.append(self.read(client, HOURS, "minutes", len(earlier)))
        write(client, folded(other))
        earlier.append(self.read(client, HOURS, "minutes", len(earlier)))
        refresh(client, HOURS, "ledger", HOURS.number(FROM.timestamp()), HOURS.number(TO.timestamp()))
        for staged in earlier:
            self.write(client, staged)
        assert kept(client, HOURS) == expected(HOURS, log.accepted)
        client.execute("OPTIMIZE TABLE hours FINAL")
        assert kept(client, HOURS) == expected(HOURS, log.accepted)

    def test_a_group_written_by_a_zombie_after_it_was_gone_is_found_and_left_out(self, client: Client) -> None:
        first, second = use(1, START, "web"), use(1, START, "mobile")
        log, other = Log(), Log(OTHER_LOG)
        log.add([use(2, START, "kiosk")])
        log.add([first])
        other.add([second])
        write(client, folded(log))
        zombie = self.read(client, HOURS, "ledger", 0)
        write(client, folded(other))
        reconcile(client, CLOSED)
        self.write(client, zombie)
        assert kept(client, HOURS) != expected(HOURS, [use(2, START, "kiosk"), second])
        (hour,) = due(client, HOURS, FROM.timestamp(), TO.timestamp(), CLOSED.timestamp(), 0)
        refresh(client, HOURS, "ledger", hour, hour)
        assert kept(client, HOURS) == expected(HOURS, [use(2, START, "kiosk"), second])

    def test_workers_that_write_and_recompute_at_once_converge(self, store: ClickHouseSettings, client: Client) -> None:
        log, other = repeated()
        flushes = [folded(log, 15) + folded(other), folded(log, 40) + folded(other)]
        first, last = HOURS.number(FROM.timestamp()), HOURS.number(TO.timestamp())
        day = days_of(ZONE)
        done = threading.Event()

        def writer(some: int) -> int:
            with connected(store) as mine:
                write(mine, flushes[some])
            return 0

        def worker(source: Source) -> int:
            rounds = 0
            with connected(store) as mine:
                while not done.is_set():
                    refresh(mine, HOURS, source, first, last)
                    refresh(mine, day, source, day.number(FROM.timestamp()), day.number(TO.timestamp()))
                    rounds += 1
            return rounds

        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(worker, "minutes"), pool.submit(worker, "ledger")]
            try:
                for future in [pool.submit(writer, 0), pool.submit(writer, 1)]:
                    future.result(120)
            finally:
                done.set()
            assert all(future.result(120) for future in workers)
        reconcile(client, CLOSED)
        assert_totals(client, log.accepted)

    def test_epochs_are_never_shared(self, store: ClickHouseSettings, client: Client) -> None:
        assert current_epoch(client) == 0
        together = threading.Barrier(3)

        def run(_: int) -> list[int]:
            with connected(store) as mine:
                together.wait(30)
                return [raise_epoch(mine, "test") for _ in range(4)]

        with ThreadPoolExecutor(3) as pool:
            numbers = [number for got in pool.map(run, range(3)) for number in got]
        assert len(set(numbers)) == 12
        assert current_epoch(client) >= max(numbers)

    def test_the_epoch_is_that_of_before_the_statement(self, client: Client) -> None:
        """Else a statement that has looked up the old tables could get the epoch of the new ones."""
        log, _ = repeated()
        write(client, folded(log))

        class Overtaken:
            """A client whose statements meet an epoch that was raised just before."""

            query, insert, close = client.query, client.insert, client.close

            def execute(self, sql: str) -> None:
                raise_epoch(client, "while the statement was on its way")
                client.execute(sql)

        hour = HOURS.number(START.timestamp())
        refresh(Overtaken(), HOURS, "ledger", hour, hour)
        assert [one.epoch for one in stored(client, HOURS, hour, hour).values()] == [0]
        refresh(client, HOURS, "ledger", hour, hour)
        assert [one.epoch for one in stored(client, HOURS, hour, hour).values()] == [1]


class TestReconcile:
    @pytest.fixture
    def client(self, store: ClickHouseSettings) -> Iterator[Client]:
        with migrated(store) as client:
            yield client

    @staticmethod
    def brief(changes: list[Change]) -> list[tuple[Any, ...]]:
        return [
            (item.table, item.source, item.before, item.after, item.repeats, item.late, item.cause) for item in changes
        ]

    def both(self, *rest: Any) -> list[tuple[Any, ...]]:
        return [(table, *rest) for table in ("hours", "days")]

    def test_it_says_what_changed_and_why(self, client: Client) -> None:
        log, other = repeated()
        first, *rest = folded(log, 100)
        write(client, [first])
        some = len(first.ledger)
        assert self.brief(reconcile(client, OPEN)) == self.both("minutes", None, some, 0, 0, "never_computed")
        write(client, rest + folded(other))
        late = 400 - some + 7
        assert self.brief(reconcile(client, OPEN)) == self.both("minutes", some, 407, 0, late, "late")
        assert self.brief(reconcile(client, CLOSED)) == self.both("ledger", 407, 400, 7, 0, "closed")
        assert reconcile(client, CLOSED) == []
        write(client, folded(longer()))
        assert self.brief(reconcile(client, CLOSED)) == self.both("ledger", 400, 409, 0, 9, "late")
        assert reconcile(client, CLOSED) == []
        changes = recompute(client, FROM, START, ZONE, CLOSED)
        assert changes == []

    def test_a_period_closed_with_repeats_and_late_events_names_both(self, client: Client) -> None:
        log, other = repeated()
        *most, last = folded(log, 50)
        write(client, most)
        reconcile(client, OPEN)
        write(client, [last, *folded(other)])
        (hour, day) = reconcile(client, CLOSED)
        late = len(last.ledger) + 7
        assert (hour.repeats, hour.late, hour.before, hour.after) == (7, late, 400 - len(last.ledger), 400)
        assert hour.words == f"closed: 7 repeats removed, {late} events came after the last computation"
        assert (day.start.isoformat(), day.zone) == ("2026-03-02T00:00:00+04:00", ZONE)

    def test_a_dry_run_says_the_same_and_writes_nothing(self, client: Client) -> None:
        log, other = repeated()
        write(client, folded(log) + folded(other))
        for now in (OPEN, CLOSED):
            before = rows(client, "SELECT count(), sum(events) FROM hours")
            tried = reconcile(client, now, dry_run=True)
            assert rows(client, "SELECT count(), sum(events) FROM hours") == before
            assert tried == reconcile(client, now)
            assert len(tried) == 2

    def test_damage_is_mended_and_called_so(self, client: Client) -> None:
        log, _ = repeated()
        write(client, folded(log))
        reconcile(client, CLOSED)
        ((gone,),) = rows(client, "SELECT service FROM daily LIMIT 1")
        spoil(client, "hours", "UPDATE events = events + 5", f"service = '{gone}'")
        spoil(client, "days", "DELETE", f"service = '{gone}'")
        changes = reconcile(client, CLOSED)
        assert [item.cause for item in changes] == ["damaged", "damaged"]
        assert [item.after for item in changes] == [400, 400]
        assert_totals(client, log.accepted)
        assert reconcile(client, CLOSED) == []

    def test_rows_that_were_lost_in_the_ledger_do_not_lower_the_numbers_unless_an_epoch_says_so(
        self, client: Client
    ) -> None:
        log, _ = repeated()
        write(client, folded(log))
        reconcile(client, CLOSED)
        lost = log.accepted[5]
        spoil(client, "ledger", "DELETE", f"event_hash = {hash_of(lost)}")
        assert self.brief(reconcile(client, CLOSED)) == self.both("ledger", 400, 400, 1, 0, "lost")
        assert_totals(client, log.accepted)
        assert due(client, HOURS, FROM.timestamp(), TO.timestamp(), CLOSED.timestamp(), 0) == []
        raise_epoch(client, "an event was taken out on purpose")
        rest = [event for event in log.accepted if event is not lost]
        assert len(due(client, HOURS, FROM.timestamp(), TO.timestamp(), CLOSED.timestamp(), 0)) == 1
        assert self.brief(reconcile(client, CLOSED)) == self.both("ledger", 400, 399, 1, 0, "rebuilt")
        assert_totals(client, rest)

    def test_a_period_of_which_all_was_taken_out_is_empty(self, client: Client) -> None:
        log, _ = repeated()
        write(client, folded(log))
        reconcile(client, CLOSED)
        for table in ("ledger", "minutes"):
            client.execute(f"TRUNCATE TABLE {table}")
        raise_epoch(client, "all of it")
        assert self.brief(reconcile(client, CLOSED)) == self.both("ledger", 400, 0, 0, 0, "rebuilt")
        assert_totals(client, [])

    def test_progress_ends_with_everything_done(self, client: Client) -> None:
        log, _ = repeated()
        write(client, folded(log))
        said: list[tuple[int, int]] = []
        reconcile(client, CLOSED, progress=lambda done, total: said.append((done, total)))
        assert said == [(1, 2), (2, 2)]


class TestPeriodAudit:
    NOW: Final = CLOSED.timestamp()

    @pytest.fixture
    def client(self, store: ClickHouseSettings) -> Iterator[Client]:
        with migrated(store) as client:
            log, other = repeated()
            write(client, folded(log) + folded(other))
            reconcile(client, CLOSED)
            report = audit(client, self.NOW)
            assert (report.findings, report.hours, report.days) == ([], 1, 1)
            yield client

    def findings(self, client: Client, now: float = NOW) -> list[tuple[str, str, str]]:
        return [(item.check, item.where, item.words) for item in audit(client, now).findings]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("UPDATE events = events + 5", " events, the ledger has 400"),
            ("UPDATE duration_ms_sum = duration_ms_sum + 1", "but other groups, durations or people"),
            ("UPDATE histogram = mapFromArrays([toInt16(7)], [events])", "but other groups, durations or people"),
            ("DELETE", " events, the ledger has 400"),
        ],
    )
    def test_numbers_that_are_not_the_ledgers_are_found(self, client: Client, change: str, words: str) -> None:
        ((agency,),) = rows(client, "SELECT agency FROM hourly LIMIT 1")
        spoil(client, "hours", change, f"agency = '{agency}' AND stage = ''")
        ((check, where, said),) = self.findings(client)
        assert (check, where) == ("hours", "hours 2026-03-02 09:00 UTC")
        assert words in said
        reconcile(client, CLOSED)
        assert self.findings(client) == []

    def test_a_day_is_named_with_its_zone(self, client: Client) -> None:
        spoil(client, "days", "UPDATE events = events + 5", "1")
        ((check, where, _),) = self.findings(client)
        assert (check, where) == ("days", "days 2026-03-02 00:00 Asia/Baku")

    def test_rows_lost_in_the_ledger_are_found_here_too(self, client: Client) -> None:
        ((lost,),) = rows(client, "SELECT event_hash FROM events LIMIT 1")
        spoil(client, "ledger", "DELETE", f"event_hash = {lost}")
        found = self.findings(client)
        assert {check for check, _, _ in found} == {"ledger", "hours", "days"}
        assert "rows that the ledger has no longer" in found[-1][2]

    def test_what_is_due_is_no_finding_until_it_was_due_for_long(self, client: Client) -> None:
        write(client, folded(longer()))
        ((written,),) = rows(client, "SELECT max(toUnixTimestamp(written_at)) FROM receipts")
        assert self.findings(client, written + DUE_SECONDS - 60) == []
        found = self.findings(client, written + DUE_SECONDS + 60)
        assert [check for check, _, _ in found] == ["hours", "days"]
        assert found[0][2] == "400 events, not recomputed since the ledger changed; it has 409"

    def test_a_period_that_was_never_computed_is_found_when_it_has_ended_long_ago(self, client: Client) -> None:
        client.execute("TRUNCATE TABLE hours")
        ((written,),) = rows(client, "SELECT max(toUnixTimestamp(written_at)) FROM receipts")
        assert self.findings(client, written) == []
        ((check, _, words),) = self.findings(client, written + DUE_SECONDS + 60)
        assert (check, words) == ("hours", "never computed, the ledger has 400 events")

    def test_an_open_period_is_nobodys_finding(self, client: Client) -> None:
        client.execute("TRUNCATE TABLE hours")
        client.execute("TRUNCATE TABLE days")
        reconcile(client, OPEN)
        spoil(client, "hours", "UPDATE events = events + 5", "1")
        client.execute(
            "ALTER TABLE receipts UPDATE written_at = '2026-03-02 10:00:00' WHERE 1 SETTINGS mutations_sync = 1"
        )
        ended = (START + timedelta(hours=1)).timestamp()
        assert self.findings(client, ended + CLOSED_SECONDS - 60) == []
        ((check, _, words),) = self.findings(client, ended + CLOSED_SECONDS + 60)
        assert check == "hours"
        assert "not recomputed since" in words

    def test_days_of_a_zone_that_is_no_longer_set_are_left_alone(self, client: Client) -> None:
        reconcile(client, CLOSED, "UTC")
        spoil(client, "days", "UPDATE events = events + 5", f"zone = '{ZONE}'")
        assert self.findings(client) == []
