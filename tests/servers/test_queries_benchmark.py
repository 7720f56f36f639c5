"""The questions of benchmarks/queries.py on a small year, against counts of the ledger's rows made in Python."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import pytest

from benchmarks.year import fill
from benchmarks.year.measure import Asker, measure
from benchmarks.year.questions import QUESTIONS, YEAR, Parameters
from benchmarks.year.shape import BAKU, END, HOURS, PARTITIONS, catalogue
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.schema import migrate
from tests.support import ClickHouseServer

pytestmark = pytest.mark.servers

EVENTS = 400_000
LAST_DAY = date(YEAR, 12, 31)
COMPLETED = ("success", "not_eligible")


@dataclass(frozen=True)
class Event:
    """A row of the ledger; ``copies`` is how often its identity has a place in the log."""

    agency: str
    service: str
    ms: int
    channel: str
    outcome: str
    stage: str
    duration_ms: int
    user: int
    application: str
    centre: str
    district: str
    sign_in: str
    consumer: str
    copies: int

    @cached_property
    def local(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1000, BAKU)

    @property
    def by_days(self) -> int:
        """What it counts for in days: the last one is still open, and counted by minutes."""
        return self.copies if self.local.date() == LAST_DAY else 1

    @property
    def by_hours(self) -> int:
        return self.copies if self.ms >= (END.timestamp() - 3600) * 1000 else 1


class Year:
    """The year on a server, and its events in Python."""

    def __init__(self, client: Client, asker: Asker) -> None:
        self.client = client
        self.asker = asker
        copies = dict(client.query("SELECT event_hash, count() AS n FROM coordinates GROUP BY event_hash").rows)
        best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for row in client.query(
            "SELECT agency, service, toUnixTimestamp64Milli(time), event_hash, version, channel, outcome, stage,"
            " duration_ms, user_hash, application, centre, district, sign_in, consumer FROM ledger"
        ).rows:
            if row[:4] not in best or best[row[:4]][4] < row[4]:
                best[row[:4]] = row
        self.all = [Event(*row[:3], *row[5:], copies[row[3]]) for row in best.values()]
        self.uses = [event for event in self.all if not event.stage]

    def ask(self, name: str, parameters: Parameters) -> list[list[Any]]:
        """The answer, 64-bit numbers as numbers."""
        (question,) = [question for question in QUESTIONS if question.name == name]
        answer = json.loads(self.asker.ask(question.sql, parameters)[1])
        whole = [column["type"].startswith(("UInt", "Int")) for column in answer["meta"]]
        return [
            [int(value) if is_whole else value for value, is_whole in zip(row, whole, strict=True)]
            for row in answer["data"]
        ]


@pytest.fixture(scope="module")
def year(clickhouse_server: ClickHouseServer) -> Iterator[Year]:
    clickhouse_server.execute("CREATE DATABASE year_test")
    settings = ClickHouseSettings(url=clickhouse_server.database_url("year_test"), query_timeout_seconds=120)
    migrate(settings)
    with closing(connect(settings)) as client:
        fill.fill(client, EVENTS, lambda words: None)
        asker = Asker(clickhouse_server.http_url, "year_test", clickhouse_server.native_port)
        yield Year(client, asker)
        asker.close()
    clickhouse_server.execute("DROP DATABASE IF EXISTS year_test SYNC")


def count(uses: Iterable[Event], key: Callable[[Event], Any], weight: Callable[[Event], int]) -> Counter[Any]:
    counted: Counter[Any] = Counter()
    for event in uses:
        counted[key(event)] += weight(event)
    return counted


def month_of(event: Event) -> str:
    return event.local.date().replace(day=1).isoformat()


def ranked(counted: Counter[Any], limit: int) -> list[Any]:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit]


def inside(year: Year, parameters: Parameters) -> list[Event]:
    first, last = 1000 * int(parameters["from"]), 1000 * int(parameters["until"])
    return [event for event in year.uses if first <= event.ms < last]


def drawn(name: str) -> Parameters:
    (question,) = [question for question in QUESTIONS if question.name == name]
    return question.parameters(1)


def test_the_year_is_what_it_is_said_to_be(year: Year) -> None:
    events = sum(event.copies for event in year.all)
    assert events == EVENTS
    repeats = events - len(year.all)
    # Not where the earlier event would be in the chunk before.
    assert 0.8 * EVENTS // 10_000 < repeats <= EVENTS // 10_000
    report = audit(year.client, END.timestamp())
    assert report.findings == []
    assert (report.accepted, report.ledger, report.repeats) == (EVENTS, len(year.all), repeats)
    # At night an hour of a partition can be without an event.
    assert 0.95 * HOURS * PARTITIONS < report.segments <= HOURS * PARTITIONS
    assert report.hours >= HOURS - 2
    stages = [event for event in year.all if event.stage]
    assert len(stages) == EVENTS // 100


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_each_question_has_an_answer_and_its_cost_is_told(year: Year, question: Any) -> None:
    told = measure(year.asker, question, 2, None)
    assert told["rows_read"] > 0
    assert told["bytes_read"] > 0
    assert told["memory_bytes"] > 0
    # What takes less than the clock tells is told as 0.
    assert told["cpu_ms"] > 0 or told["p50_ms"] < 100
    assert 0 < told["p50_ms"] <= told["p95_ms"] <= told["max_ms"]
    assert any(year.ask(question.name, question.parameters(number)) for number in range(8))


def test_rankings(year: Year) -> None:
    parameters = drawn("top_agencies_month")
    month = [event for event in year.uses if month_of(event) == parameters["first"]]
    people = defaultdict(set)
    for event in month:
        if event.user:
            people[event.agency].add(event.user)
    answer = year.ask("top_agencies_month", parameters)
    assert [tuple(row[:2]) for row in answer] == ranked(
        count(month, lambda event: event.agency, lambda event: event.by_days), 10
    )
    for agency, _, estimate in answer:
        assert estimate == pytest.approx(len(people[agency]), rel=0.02)

    parameters = drawn("top_services_agency_month")
    chosen = [
        event for event in year.uses if month_of(event) == parameters["first"] and event.agency == parameters["agency"]
    ]
    assert [tuple(row[:2]) for row in year.ask("top_services_agency_month", parameters)] == ranked(
        count(chosen, lambda event: event.service, lambda event: event.by_days), 10
    )

    parameters = drawn("weekly_change")
    monday = date.fromisoformat(str(parameters["week"]))
    weeks = count(
        year.uses,
        lambda event: (event.agency, event.service, (event.local.date() - monday).days // 7),
        lambda event: event.by_days,
    )
    for agency, service, now, before, difference in year.ask("weekly_change", parameters):
        assert (now, before) == (weeks[agency, service, 0], weeks[agency, service, -1])
        assert difference == now - before


def test_people(year: Year) -> None:
    months = defaultdict(set)
    for event in year.uses:
        if event.user:
            months[month_of(event)].add(event.user)
    for month, estimate in year.ask("people_year", {}):
        assert estimate == pytest.approx(len(months[month]), rel=0.02)
    parameters = drawn("people_exact")
    exact = {event.user for event in inside(year, parameters) if event.user}
    assert year.ask("people_exact", parameters) == [[len(exact)]]


def test_trends_of_a_service(year: Year) -> None:
    service = {"agency": "agency-02", "service": "service-01"}
    uses = [event for event in year.uses if (event.agency, event.service) == tuple(service.values())]
    days = count(uses, lambda event: event.local.date(), lambda event: event.by_days)
    assert [(row[0], row[1]) for row in year.ask("trend_days", service)] == [
        (day.isoformat(), n) for day, n in sorted(days.items())
    ]
    weeks = count(uses, lambda e: e.local.date() - timedelta(days=e.local.weekday()), lambda e: e.by_days)
    assert [(row[0], row[1]) for row in year.ask("trend_weeks", service)] == [
        (day.isoformat(), n) for day, n in sorted(weeks.items())
    ]
    months = count(uses, month_of, lambda event: event.by_days)
    answer = year.ask("trend_months", service)
    assert [(row[0], row[1]) for row in answer] == sorted(months.items())
    for month, total, _, p95 in answer:
        durations = sorted(event.duration_ms for event in uses if month_of(event) == month)
        if month != "2025-12-01":
            assert p95 == pytest.approx(durations[-(-95 * total // 100) - 1], rel=0.0101)


def test_hours(year: Year) -> None:
    parameters = drawn("heat_map")
    chosen = inside(year, parameters)
    map_ = count(chosen, lambda e: (e.local.isoweekday(), e.local.hour), lambda e: e.by_hours)
    assert [((row[0], row[1]), row[2]) for row in year.ask("heat_map", parameters)] == sorted(map_.items())

    parameters = drawn("p99_hours_day")
    durations = defaultdict(list)
    for event in inside(year, parameters):
        hour = datetime.fromtimestamp(event.ms // 3_600_000 * 3600, UTC).strftime("%Y-%m-%d %H:%M:%S")
        durations[event.agency, event.service, hour].append(event.duration_ms)
    answer = year.ask("p99_hours_day", parameters)
    assert {tuple(row[:3]): row[3] for row in answer} == {key: len(values) for key, values in durations.items()}
    for *key, total, p99 in answer:
        assert p99 == pytest.approx(sorted(durations[tuple(key)])[-(-99 * total // 100) - 1], rel=0.0101)

    parameters = drawn("failures_24h")
    first = 1000 * (int(parameters["now"]) - 86_400)
    last = [event for event in year.uses if event.ms >= first]
    totals = count(last, lambda e: (e.agency, e.service), lambda e: e.by_hours)
    failures = count(last, lambda e: (e.agency, e.service), lambda e: e.by_hours * (e.outcome == "failure"))
    assert {tuple(row[:2]): (row[2], row[3]) for row in year.ask("failures_24h", parameters)} == {
        key: (n, failures[key]) for key, n in totals.items()
    }


def test_shares_and_coverage(year: Year) -> None:
    served = [event for event in year.uses if event.channel != "api"]
    completed = count(served, month_of, lambda e: e.by_days * (e.outcome in COMPLETED))
    digital = count(served, month_of, lambda e: e.by_days * (e.outcome in COMPLETED and e.channel in ("web", "mobile")))
    assert [row[:3] for row in year.ask("take_up_months", {})] == [
        [month, completed[month], digital[month]] for month in sorted(completed)
    ]
    parameters = drawn("coverage")
    used = {(event.agency, event.service) for event in year.uses if month_of(event) == parameters["month"]}
    assert year.ask("coverage", parameters) == [
        [agency.code, len(agency.services), sum(code == agency.code for code, _ in used)]
        for agency in catalogue().agencies
    ]
    ever = {(event.agency, event.service) for event in year.uses}
    assert [tuple(row) for row in year.ask("never_used", {})] == sorted(catalogue().pairs - ever)
    parameters = drawn("reporting")
    assert year.ask("reporting", parameters) == [[len({e.agency for e in inside(year, parameters)}), 45]]


def test_minutes(year: Year) -> None:
    parameters = drawn("live")
    last = [event for event in year.uses if event.ms >= 1000 * (int(parameters["now"]) - 3600)]
    minutes = count(last, lambda event: event.ms // 60_000, lambda event: event.copies)
    assert [row[1] for row in year.ask("live", parameters)] == [n for _, n in sorted(minutes.items())]
    service = {"agency": "agency-01", "service": "service-01"}
    parameters = drawn("minutes_day_service") | service
    chosen = [e for e in inside(year, parameters) if (e.agency, e.service) == ("agency-01", "service-01")]
    minutes = count(chosen, lambda event: event.ms // 60_000, lambda event: event.copies)
    assert [row[1] for row in year.ask("minutes_day_service", parameters)] == [n for _, n in sorted(minutes.items())]


def test_single_events(year: Year) -> None:
    parameters = drawn("centres")
    places = count(
        (event for event in inside(year, parameters) if event.centre), lambda e: (e.centre, e.district), lambda e: 1
    )
    assert [tuple(row[:3]) for row in year.ask("centres", parameters)] == [
        (*place, n) for place, n in sorted(places.items(), key=lambda item: (-item[1], item[0]))
    ]
    parameters = drawn("slow_sign_in")
    chosen = inside(year, parameters)
    uses, slow = (
        count(chosen, lambda e: e.sign_in, weight) for weight in (lambda e: 1, lambda e: int(e.duration_ms > 10_000))
    )
    assert year.ask("slow_sign_in", parameters) == [[name, uses[name], slow[name]] for name in sorted(uses)]
    parameters = drawn("systems")
    calls = count((e for e in inside(year, parameters) if e.consumer), lambda e: (e.consumer, e.agency), lambda e: 1)
    assert {tuple(row[:2]): row[2] for row in year.ask("systems", parameters)} == calls
    application = next(event.application for event in year.all if event.stage == "responded")
    stages = sorted((e.ms, e.stage) for e in year.all if e.application == application)
    assert [row[2] for row in year.ask("application", {"application": application})] == [name for _, name in stages]
