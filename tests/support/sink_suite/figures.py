"""Stated figures: what holds of what was said, and that they stand apart from what was counted."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.statements import Logged, in_force
from pipeline.figures.model import MONTHS, Figure, fault_of
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.figures import store_figures
from sinks.clickhouse.periods import recompute
from tests.support.sink_suite.data import START, folded, is_use, migrated, mixed_log, rows, synthetic, write


def logged(figures: list[Figure]) -> "list[Logged[Figure]]":
    return [Logged(one, number, 1_000 * number, f"event-{number}", "test") for number, one in enumerate(figures)]


@st.composite
def figures(draw: st.DrawFn) -> Figure:
    measure = draw(st.sampled_from(["uses", "people", "completed", "cost"]))
    length: Any = draw(st.sampled_from(["day", *MONTHS]))
    agency = draw(st.sampled_from([None, "a", "b"]))
    cost = measure == "cost"
    figure = Figure(
        measure=measure,  # type: ignore[arg-type] # drawn from text
        start=date(2015, draw(st.sampled_from([1, 7])) if length != "year" else 1, 1),
        length=length,
        value=Decimal(draw(st.integers(0, 10**9))) / (100 if cost else 1),
        currency="AZN" if cost else None,
        agency=agency,
        service=draw(st.sampled_from([None, "s"])) if agency else None,
        channel=draw(st.sampled_from([None, "web", "centre"])),
        void=draw(st.integers(0, 5)) == 0,
    )
    assert fault_of(figure) == ""
    return figure


class TestFigures:
    def test_the_view_has_what_holds(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:

            @given(st.lists(figures(), max_size=30), st.integers(1, 3))
            @settings(max_examples=40, suppress_health_check=list(HealthCheck))
            def compare(said: list[Figure], parts: int) -> None:
                client.execute("TRUNCATE TABLE figures")
                log = logged(said)
                for part in reversed(range(parts)):
                    store_figures(client, "topic", log[part::parts])
                store_figures(client, "topic", log[: len(log) // 2])
                found = rows(
                    client,
                    "SELECT measure, toString(start), toString(end), length, agency, service, channel,"
                    " toString(value), currency FROM imported",
                )
                assert sorted((*row[:7], Decimal(row[7]), row[8]) for row in found) == sorted(
                    (
                        one.measure,
                        str(one.start),
                        str(one.end),
                        one.length,
                        one.agency or "",
                        one.service or "",
                        one.channel or "",
                        one.value,
                        one.currency or "",
                    )
                    for one in in_force(said)
                )

            compare()

    def test_nothing_adds_them_to_what_was_counted(self, store: ClickHouseSettings) -> None:
        log = mixed_log(synthetic(200))
        uses = sum(map(is_use, log.accepted))
        with migrated(store) as client:
            write(client, folded(log))
            recompute(client, START, START + timedelta(hours=2), "Asia/Baku", START + timedelta(hours=3))
            before = rows(client, "SELECT sum(uses) FROM monthly")
            december = Figure(measure="uses", start=date(2015, 12, 1), length="month", value=Decimal(710_981))
            store_figures(client, "topic", logged([december]))
            assert rows(client, "SELECT sum(uses) FROM monthly") == before == [(uses,)]
            assert rows(client, "SELECT sum(uses) FROM usage") == [(uses,)]
            assert rows(client, "SELECT origin, sum(uses) AS n FROM uses_by_origin GROUP BY origin ORDER BY n") == [
                ("counted", uses),
                ("imported", 710_981),
            ]
