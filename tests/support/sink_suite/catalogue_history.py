"""The views over the history of the catalogue, against the same computed in Python."""

from datetime import date
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalogue.changes import AnyChange, Registered
from pipeline.catalogue.demonstration import demonstration_history
from pipeline.catalogue.history import Standing, catalogue_at, coverage, offered
from pipeline.contract.statements import Logged, in_force
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.catalogue_changes import store_changes
from sinks.clickhouse.client import Client
from tests.support.catalogue_changes import day, logged, logs, names, registered
from tests.support.sink_suite.data import migrated, rows


def expected(standing: Standing, offered_: bool) -> tuple[Any, ...]:
    promised = standing.promised
    return (
        standing.agency,
        standing.service,
        standing.name.az if standing.name else "",
        standing.name.en if standing.name else "",
        standing.name.ru if standing.name else "",
        standing.status,
        str(standing.since or date(1970, 1, 1)),
        str(standing.digitised),
        standing.hosting,
        (promised.days or 0) if promised else 0,
        (promised.p95_ms or 0) if promised else 0,
        (promised.success_share or 0) if promised else 0,
        standing.into_agency,
        standing.into_service,
        offered_,
    )


def found(client: Client, on: date) -> list[tuple[Any, ...]]:
    return [
        (*row[:6], str(row[6]), str(row[7]), *row[8:-1], bool(row[-1]))
        for row in rows(client, f"SELECT * FROM catalogue_at(at = '{on}') ORDER BY agency, service")
    ]


def assert_equal(client: Client, log: list[AnyChange], on: date) -> None:
    standings = catalogue_at(in_force(log), on)
    services = offered(standings)
    assert found(client, on) == [
        expected(standing, subject in services) for subject, standing in sorted(standings.items())
    ]
    covered = rows(
        client,
        "SELECT agency, services_registered, services_digitised, coverage"
        f" FROM coverage_at(at = '{on}') ORDER BY agency",
    )
    assert covered == [(one.agency, one.registered, one.digitised, one.share) for one in coverage(standings)]


class TestCatalogueHistory:
    def test_the_views_say_what_python_says(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:

            @given(log=logs(), parts=st.integers(1, 3), on=st.integers(-1, 8))
            @settings(max_examples=60, suppress_health_check=list(HealthCheck))
            def compare(log: list[AnyChange], parts: int, on: int) -> None:
                client.execute("TRUNCATE TABLE catalogue_changes")
                rows_ = logged(log)
                # In several inserts, the later ones first, and some of it twice.
                for part in reversed(range(parts)):
                    store_changes(client, "topic", rows_[part::parts])
                store_changes(client, "topic", rows_[: len(log) // 2])
                assert_equal(client, log, day(on))

            compare()

    def test_the_published_figures(self, store: ClickHouseSettings) -> None:
        log = demonstration_history()
        with migrated(store) as client:
            store_changes(client, "topic", logged(log))
            for on, figures in (("2013-07-01", (41, 417, 225)), ("2016-06-30", (41, 423, 423))):
                assert rows(
                    client,
                    f"SELECT count(), sum(services_registered), sum(services_digitised) FROM coverage_at(at = '{on}')",
                ) == [figures]
            assert_equal(client, log, date(2014, 1, 1))

    def test_of_a_topic_that_was_made_anew_the_later_word_holds(self, store: ClickHouseSettings) -> None:
        def said(word: str, offset: int, at: int) -> "Logged[AnyChange]":
            return Logged(
                Registered(agency="a", valid_from=day(0), name=names(word)), offset, at, f"{word}-{offset}", "test"
            )

        with migrated(store) as client:
            store_changes(client, "new-topic", [said("third", 0, 9_000)])
            store_changes(client, "old-topic", [said("first", 0, 1_000), said("second", 7, 2_000)])
            assert rows(client, "SELECT name_en FROM catalogue_history") == [("third",)]

    def test_nothing_is_there_before_anything_was_said(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            store_changes(client, "topic", [])
            assert rows(client, "SELECT * FROM catalogue_at(at = '2020-01-01')") == []
            assert rows(client, "SELECT * FROM coverage_at(at = '2020-01-01')") == []

    def test_every_column_of_the_views_is_the_tables_word_for_it(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            store_changes(client, "topic", logged([registered("a"), registered("a", "s")]))
            columns = {name for name, *_ in rows(client, "DESCRIBE TABLE catalogue_history")}
            table = {name for name, *_ in rows(client, "DESCRIBE TABLE catalogue_changes")}
            assert columns - table == {"rank"}
