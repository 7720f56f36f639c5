"""The figures behind the page, against a count by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.settings import ClickHouseSettings
from pipeline.web.overview import Cached, overview
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import write_openings, write_results
from tests.support.fold_model import BASE_MS, CATALOGUE, Item, LogRecord, Store, batch_of
from tests.unit.test_fold import LOGS, RULES

pytestmark = pytest.mark.embedded

START = datetime.fromtimestamp(BASE_MS / 1000, UTC)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = ClickHouseSettings(url=f"chdb:{tmp_path}")
    migrate(settings)
    opened = connect(settings)
    yield opened
    opened.close()


def write(client: Client, items: list[Item]) -> None:
    fold = Store().resume(LOGS[0], RULES)
    log = [LogRecord(number, BASE_MS, (item,)) for number, item in enumerate(items)]
    fold.add(batch_of(LOGS[0], log, 0, len(log)))
    flush = fold.take()
    write_openings(client, flush)
    write_results(client, flush)


def test_before_the_first_event_everything_is_zero_and_every_agency_silent(client: Client) -> None:
    answer = overview(client, CATALOGUE, 60, START)
    assert answer["data_as_of"] is None
    assert answer["agencies"] == []
    assert answer["totals"]["uses"] == answer["totals"]["people"] == answer["totals"]["uses_per_second"] == 0
    assert [(item["agency"], item["last_minute"]) for item in answer["silent"]] == [("a1", None), ("a2", None)]


def test_the_figures_are_those_of_the_period(client: Client) -> None:
    now = START + timedelta(minutes=100, seconds=30)
    uses = [Item(n, agency="a1", minute=99, user=n % 3 + 1, duration=100) for n in range(60)]
    uses += [Item(n, agency="a1", minute=100, user=4, duration=100) for n in range(60, 90)]
    uses.append(Item(100, agency="a2", minute=10))
    uses.append(Item(101, agency="a1", minute=39))
    uses.append(Item(102, good=False))
    write(client, uses)
    answer = overview(client, CATALOGUE, 60, now)
    (first,) = answer["agencies"]
    assert (first["agency"], first["uses"], first["people"], first["previous_uses"]) == ("a1", 90, 4, 1)
    assert first["p50_ms"] == pytest.approx(100, rel=0.01)
    assert first["trend"][-2:] == [60, 30]
    assert sum(first["trend"]) == 90
    assert answer["totals"]["uses_per_second"] == pytest.approx(1.0)
    assert (answer["totals"]["accepted"], answer["totals"]["rejected"]) == (92, 1)
    assert (answer["totals"]["agencies_reporting"], answer["totals"]["agencies_registered"]) == (1, 2)
    assert answer["data_as_of"] == "2027-01-15T09:40:00.000Z"
    ((silent, last),) = [(item["agency"], item["last_minute"]) for item in answer["silent"]]
    assert (silent, last) == ("a2", "2027-01-15T08:10:00.000Z")


def test_an_event_time_ahead_of_now_does_not_make_the_data_look_fresher(client: Client) -> None:
    write(client, [Item(1, minute=2)])
    assert overview(client, CATALOGUE, 60, START)["data_as_of"] == "2027-01-15T08:00:00.000Z"


def test_answers_are_kept_for_a_moment_for_each_period(client: Client) -> None:
    cached = Cached(seconds=1_000)
    first, other = cached.overview(client, CATALOGUE, 60), cached.overview(client, CATALOGUE, 15)
    assert cached.overview(client, CATALOGUE, 60) is first
    assert cached.overview(client, CATALOGUE, 15) is other
    never = Cached(seconds=-1)
    assert never.overview(client, CATALOGUE, 60) is not never.overview(client, CATALOGUE, 60)
