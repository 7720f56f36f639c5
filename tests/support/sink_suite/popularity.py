"""Rankings, trends and catalogues, against figures counted from the events themselves."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import pytest

from pipeline.catalogue import catalogue_from_json
from pipeline.errors import CatalogueError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.catalogues import store_catalogue, stored_catalogue
from sinks.clickhouse.cover import uses_sql
from sinks.clickhouse.periods import recompute
from sinks.clickhouse.popularity import By, Metric, counts, last_period, people, top, trends
from tests.support.sink_suite.data import (
    CATALOGUE,
    OTHER_LOG,
    START,
    Event,
    Figures,
    Log,
    count,
    folded,
    is_use,
    migrated,
    minute,
    mixed_log,
    rows,
    synthetic,
    write,
)

MIDDLE = START + timedelta(minutes=25)
END = START + timedelta(minutes=50)


def between(events: list[Event], start: datetime, end: datetime) -> list[Event]:
    return [event for event in events if start.timestamp() <= minute(event) < end.timestamp()]


def ranked(figures: dict[tuple[Any, ...], Figures], metric: Metric) -> list[tuple[Any, ...]]:
    def popularity(key: tuple[Any, ...]) -> int:
        return len(figures[key].people) if metric == "people" else figures[key].uses

    return sorted(figures, key=lambda key: (-popularity(key), key))


def use(number: int, agency: str, service: str, at: datetime, user: str = "") -> Event:
    data = {"agency": agency, "service": service, "channel": "web", "outcome": "success", "duration_ms": 10 * number}
    if user:
        data["user"] = user.ljust(22, "x")
    time = at.isoformat().replace("+00:00", "Z")
    envelope = {"specversion": "1.0", "id": f"use-{number}", "source": "test", "type": "xidmet.service.used.v1"}
    return {**envelope, "time": time, "data": data}


@cache
def two_logs() -> list[Log]:
    return [mixed_log(synthetic(900)), mixed_log(synthetic(300, seed=2), OTHER_LOG)]


class TestPopularity:
    @pytest.fixture
    def logs(self) -> list[Log]:
        return two_logs()

    @pytest.fixture
    def events(self, logs: list[Log]) -> list[Event]:
        return [event for log in logs for event in log.accepted]

    @pytest.mark.parametrize("metric", ["uses", "people"])
    @pytest.mark.parametrize("by", ["agency", "service"])
    def test_a_ranking_equals_a_count_of_the_events(
        self, store: ClickHouseSettings, logs: list[Log], events: list[Event], by: By, metric: Metric
    ) -> None:
        names = ("agency",) if by == "agency" else ("agency", "service")
        now = count(between(events, MIDDLE, END), *names)
        before = count(between(events, START, MIDDLE), *names)
        order, previous = ranked(now, metric), ranked(before, metric)
        total = sum(group.uses for group in now.values())
        with migrated(store) as client:
            for log in logs:
                write(client, folded(log, 1_000))
            ranking = top(client, MIDDLE, END, by, metric)
        assert [(item.agency, item.service)[: len(names)] for item in ranking] == order
        assert [item.rank for item in ranking] == list(range(1, len(order) + 1))
        for item, key in zip(ranking, order, strict=True):
            group, earlier = now[key], before.get(key, Figures())
            assert (item.uses, item.people) == (group.uses, len(group.people))
            assert (item.previous_uses, item.previous_people) == (earlier.uses, len(earlier.people))
            assert item.previous_rank == (previous.index(key) + 1 if key in before else 0)
            assert item.share == pytest.approx(group.uses / total)
            assert item.failure_share == pytest.approx(group.failures / group.uses)
            exact = [group.quantile(share) for share in (0.5, 0.95, 0.99)]
            assert [item.p50_ms, item.p95_ms, item.p99_ms] == pytest.approx(exact, rel=0.01)
        assert sum(item.share for item in ranking) == pytest.approx(1)

    @pytest.mark.parametrize("closed_after", [timedelta(hours=3), timedelta(hours=30), timedelta(days=9)])
    def test_a_long_period_is_read_from_closed_days_and_hours_and_says_the_same(
        self, store: ClickHouseSettings, closed_after: timedelta
    ) -> None:
        """The first hours, the first day, or all of it is closed, and the rest is read from the minutes."""
        pairs = sorted(CATALOGUE.pairs)[:7]
        log = Log()
        first, last = START - timedelta(minutes=17), START + timedelta(days=5, minutes=23)
        moments = [first + (last - first) * number / 400 for number in range(400)]
        log.add([use(number, *pairs[number % 7], at, f"user-{number % 31}") for number, at in enumerate(moments)])
        start, end = START + timedelta(minutes=11), START + timedelta(days=4, hours=7, minutes=5)
        with migrated(store) as client:
            write(client, folded(log, 1_000))
            before = [top(client, start, end, by, "people") for by in ("agency", "service")]
            number = people(client, start, end)
            recompute(client, first, last, "Asia/Baku", START + closed_after)
            sql = uses_sql(client, start, end)
            assert "FROM hours" in sql
            assert ("FROM days" in sql) == (closed_after > timedelta(days=1, hours=20))
            assert ("FROM minutes" in sql) or closed_after == timedelta(days=9)
            assert [top(client, start, end, by, "people") for by in ("agency", "service")] == before
            assert people(client, start, end) == number
            # What is read of closed periods is exact, whatever the minutes say.
            client.execute("TRUNCATE TABLE minutes")
            rest = sum(item.uses for item in top(client, start, end))
            assert 0 < rest <= sum(item.uses for item in before[0])
            assert "FROM minutes" in uses_sql(client, END - timedelta(days=1), END)

    def test_ties_are_broken_by_name(self, store: ClickHouseSettings) -> None:
        pairs = sorted(CATALOGUE.pairs)
        chosen = [pairs[0], pairs[-1], pairs[200], pairs[100]]
        log = Log()
        log.add([use(number, *pair, START) for number, pair in enumerate(chosen)])
        with migrated(store) as client:
            write(client, folded(log, 1_000))
            ranking = top(client, START, END, "service")
            assert [(item.agency, item.service) for item in ranking] == sorted(chosen)
            assert [item.rank for item in ranking] == [1, 2, 3, 4]

    def test_people_and_uses_rank_differently(self, store: ClickHouseSettings) -> None:
        (busy, busy_service), *_, (crowded, crowded_service) = sorted(CATALOGUE.pairs)
        log = Log()
        log.add([use(number, busy, busy_service, START, "same") for number in range(5)])
        log.add([use(10 + number, crowded, crowded_service, START, f"user-{number}") for number in range(3)])
        log.add([use(20, busy, busy_service, START)])
        with migrated(store) as client:
            write(client, folded(log, 1_000))
            by_uses, by_people = (top(client, START, END, "agency", metric) for metric in ("uses", "people"))
            assert [(item.agency, item.uses, item.people) for item in by_uses] == [(busy, 6, 1), (crowded, 3, 3)]
            assert [item.agency for item in by_people] == [crowded, busy]
            assert people(client, START, END) == 4

    def test_a_period_begins_with_its_first_minute_and_ends_before_its_last(self, store: ClickHouseSettings) -> None:
        pair = sorted(CATALOGUE.pairs)[0]
        log = Log()
        moments = [
            MIDDLE - timedelta(milliseconds=1),
            MIDDLE,
            END - timedelta(milliseconds=1),
            END,
        ]
        log.add([use(number, *pair, moment) for number, moment in enumerate(moments)])
        with migrated(store) as client:
            write(client, folded(log, 1_000))
            (item,) = top(client, MIDDLE, END)
            assert (item.uses, item.previous_uses) == (2, 1)

    def test_trends_have_the_uses_of_each_part(
        self, store: ClickHouseSettings, logs: list[Log], events: list[Event]
    ) -> None:
        with migrated(store) as client:
            for log in logs:
                write(client, folded(log, 1_000))
            for points in (50, 10, 1):
                width = 50 // points * 60
                expected: dict[str, list[int]] = {}
                for (agency, at), group in count(events, "agency", "minute").items():
                    part = (at - int(START.timestamp())) // width
                    expected.setdefault(agency, [0] * points)[part] += group.uses
                assert trends(client, START, END, points) == expected

    def test_counts_and_people_are_of_everything(
        self, store: ClickHouseSettings, logs: list[Log], events: list[Event]
    ) -> None:
        with migrated(store) as client:
            for log in logs:
                write(client, folded(log, 1_000))
            assert counts(client) == {
                "records": sum(log.end for log in logs),
                "events": len(events) + sum(log.rejected.total() + log.duplicates for log in logs),
                "accepted": len(events),
                "duplicates": sum(log.duplicates for log in logs),
                "rejected": sum(log.rejected.total() for log in logs),
            }
            assert people(client, START, END) == len(count(events)[()].people)

    def test_stages_are_no_uses(self, store: ClickHouseSettings, logs: list[Log], events: list[Event]) -> None:
        with migrated(store) as client:
            for log in logs:
                write(client, folded(log, 1_000))
            uses = sum(item.uses for item in top(client, START, END))
        assert uses == sum(map(is_use, events)) < len(events)

    def test_an_empty_database_has_empty_answers(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            assert top(client, START, END) == []
            assert trends(client, START, END, 10) == {}
            assert people(client, START, END) == 0
            assert counts(client) == dict.fromkeys(("records", "events", "accepted", "duplicates", "rejected"), 0)

    def test_the_last_period_ends_with_the_current_minute(self) -> None:
        now = START.replace(minute=7, second=31, microsecond=5)
        assert last_period(timedelta(minutes=5), now) == (START.replace(minute=3), START.replace(minute=8))


class TestCatalogues:
    def test_a_catalogue_is_stored_once_and_read_back(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            for _ in range(2):
                store_catalogue(client, CATALOGUE)
            assert rows(client, "SELECT count() FROM catalogues") == [(1,)]
            assert stored_catalogue(client, CATALOGUE.version) == CATALOGUE

    def test_a_version_with_other_content_is_refused(self, store: ClickHouseSettings) -> None:
        other = msgspec.structs.replace(CATALOGUE, agencies=CATALOGUE.agencies[1:])
        with migrated(store) as client:
            store_catalogue(client, CATALOGUE)
            with pytest.raises(CatalogueError, match=rf"version {CATALOGUE.version} was used before.*higher version"):
                store_catalogue(client, other)
            assert stored_catalogue(client, CATALOGUE.version) == CATALOGUE
            higher = msgspec.structs.replace(other, version=CATALOGUE.version + 1)
            store_catalogue(client, higher)
            assert stored_catalogue(client, higher.version) == higher

    def test_the_same_content_written_otherwise_is_the_same(self, store: ClickHouseSettings) -> None:
        spaced = msgspec.json.format(CATALOGUE.json, indent=2)
        with migrated(store) as client:
            store_catalogue(client, CATALOGUE)
            store_catalogue(client, catalogue_from_json(spaced, "test"))

    def test_an_unknown_version_is_an_error(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client, pytest.raises(CatalogueError, match=r"version 77 .* not stored"):
            stored_catalogue(client, 77)

    def test_the_views_show_the_newest_version(self, store: ClickHouseSettings) -> None:
        newer = msgspec.structs.replace(CATALOGUE, version=CATALOGUE.version + 1, agencies=CATALOGUE.agencies[:3])
        with migrated(store) as client:
            store_catalogue(client, newer)
            store_catalogue(client, CATALOGUE)
            agencies = rows(client, "SELECT agency, name_az, name_en, name_ru, services FROM agencies")
            assert sorted(agencies) == sorted(
                (agency.code, agency.name.az, agency.name.en, agency.name.ru, len(agency.services))
                for agency in newer.agencies
            )
            services = rows(client, "SELECT agency, service, name_en FROM services")
            assert sorted(services) == sorted(
                (agency.code, service.code, service.name.en) for agency in newer.agencies for service in agency.services
            )
