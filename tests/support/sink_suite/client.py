"""The small interface: the same answers from a server and from chdb."""

import pytest

from pipeline.errors import StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Column
from tests.support.sink_suite.data import connected, rows


class TestClient:
    def test_values_go_and_come_as_they_are(self, store: ClickHouseSettings) -> None:
        columns = [
            Column("text", "String", ["", "Naxçıvan\t\\'\"\n", "\N{BLACK HEART SUIT}"]),
            Column("number", "UInt64", [0, 1, 2**64 - 1]),
            Column("signed", "Int64", [-(2**63), 0, 2**63 - 1]),
            Column("small", "UInt8", [0, 1, 255]),
            Column("flag", "Bool", [True, False, True]),
            Column("numbers", "Array(UInt64)", [[], [1], [2**64 - 1, 2]]),
            Column("places", "Map(Int16, UInt64)", [{}, {-1: 1}, {7: 2**64 - 1, 8: 1}]),
            Column("reasons", "Map(String, UInt64)", [{}, {"a'b": 1}, {"c": 2}]),
        ]
        kept = [list(column.values) for column in columns]
        with connected(store) as client:
            fields = ", ".join(f"{column.name} {column.type}" for column in columns)
            client.execute(f"CREATE TABLE things ({fields}) ENGINE = MergeTree ORDER BY number")
            client.insert("things", columns)
            assert [list(column.values) for column in columns] == kept
            answer = client.query("SELECT * FROM things")
            assert answer.names == tuple(column.name for column in columns)
            assert answer.types == tuple(column.type for column in columns)
            assert rows(client, "SELECT * FROM things ORDER BY number") == list(zip(*kept, strict=True))

    def test_parameters_are_values_never_sql(self, store: ClickHouseSettings) -> None:
        nasty = "x'; DROP TABLE t; --\\ \t{a:String}"
        with connected(store) as client:
            answer = client.query(
                "SELECT {text:String} AS text, {number:Int64} AS number", {"text": nasty, "number": -5}
            )
            assert answer.one() == (nasty, -5)

    def test_no_rows_still_have_names(self, store: ClickHouseSettings) -> None:
        with connected(store) as client:
            answer = client.query("SELECT 1 AS a, 'x' AS b WHERE 0")
            assert (answer.names, answer.rows) == (("a", "b"), [])

    @pytest.mark.parametrize("statement", ["SELEKT 1", "SELECT * FROM nowhere", "SELECT throwIf(1)"])
    def test_a_refused_statement_is_a_store_error_of_one_line_and_the_next_one_works(
        self, store: ClickHouseSettings, statement: str
    ) -> None:
        with connected(store) as client:
            for call in (client.query, client.execute):
                with pytest.raises(StoreError, match="refuses") as caught:
                    call(statement)
                assert "Stack trace" not in str(caught.value)
            assert client.query("SELECT 1 AS one").one() == (1,)

    def test_a_refused_insert_is_a_store_error(self, store: ClickHouseSettings) -> None:
        with connected(store) as client, pytest.raises(StoreError):
            client.insert("nowhere", [Column("n", "UInt64", [1])])
