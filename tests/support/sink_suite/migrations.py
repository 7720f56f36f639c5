"""The schema: made once, checked always."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import SchemaError, StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse import schema
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client, Column, Parameters, Rows, connect
from sinks.clickhouse.periods import recompute
from sinks.clickhouse.schema import migrate, migrations, require_schema
from tests.support.sink_suite.data import START, connected, folded, migrated, mixed_log, synthetic, write

# What analysts read, by the table behind it. The others are for the program alone.
VIEWS = {
    "ledger": "events",
    "minutes": "usage",
    "receipts": "segments",
    "catalogues": "agencies",
    "catalogue_changes": "catalogue_history",
    "figures": "imported",
    "hours": "hourly",
    "days": "daily",
}
INTERNAL = {"coordinates", "migrations", "rules", "beginnings", "epochs", "rebuilds", "rebuild_segments"}


class VersionBefore:
    """A client that writes what the version before wrote, which had fewer columns."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        self._client.insert(table, [column for column in columns if column.name != "next_rules"])

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        return self._client.query(sql, parameters)

    def execute(self, sql: str) -> None:
        self._client.execute(sql)

    def close(self) -> None:
        self._client.close()


def kinds(client: Client) -> dict[str, str]:
    found = client.query("SELECT name, engine FROM system.tables WHERE database = currentDatabase()").rows
    return dict(found)


def note(client: Client, number: int, name: str, checksum: str) -> None:
    values = {"number": ("UInt32", number), "name": ("String", name), "checksum": ("String", checksum)}
    client.insert("migrations", [Column(key, type_, [value]) for key, (type_, value) in values.items()])


USES = "SELECT agency, sum(uses) AS n, sum(duration_ms_sum) AS ms FROM usage GROUP BY agency ORDER BY agency"


def shapes(client: Client) -> list[tuple[str, ...]]:
    """Columns, keys and settings of everything."""
    tables = (
        "SELECT name, engine, sorting_key, extract(engine_full, 'SETTINGS .*') FROM system.tables"
        " WHERE database = currentDatabase()"
    )
    columns = "SELECT table, name, type, default_kind FROM system.columns WHERE database = currentDatabase()"
    return sorted(client.query(f"{tables} UNION ALL {columns}").rows)


class Ending:
    """A client that does so many statements and inserts, and then nothing more."""

    def __init__(self, client: Client, left: int) -> None:
        self._client = client
        self._left = left

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        return self._client.query(sql, parameters)

    def execute(self, sql: str) -> None:
        self._step()
        self._client.execute(sql)

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        self._step()
        self._client.insert(table, columns)

    def close(self) -> None:
        self._client.close()

    def _step(self) -> None:
        if not self._left:
            raise StoreError("the end")
        self._left -= 1


class TestMigrations:
    def test_the_first_run_creates_everything_and_the_second_nothing(self, store: ClickHouseSettings) -> None:
        assert migrate(store) == [migration.name for migration in migrations()]
        with connected(store) as client:
            before = kinds(client)
            require_schema(client, store)
            assert migrate(store) == []
            assert kinds(client) == before
        assert {name for name, engine in before.items() if engine != "View"} == {*VIEWS, *INTERNAL}

    def test_a_run_that_was_cut_off_is_completed(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            client.execute("ALTER TABLE migrations DELETE WHERE number > 2 SETTINGS mutations_sync = 1")
            client.execute("DROP VIEW segments")
            with pytest.raises(SchemaError, match=r"lacks 0003_minutes\.sql.*xidmet migrate"):
                require_schema(client, store)
            assert migrate(store) == [migration.name for migration in migrations() if migration.number > 2]
            require_schema(client, store)
            assert kinds(client)["segments"] == "View"

    def test_a_missing_schema_is_told_with_its_cure(self, store: ClickHouseSettings) -> None:
        with connected(store) as client, pytest.raises(SchemaError, match="has no schema; run xidmet migrate"):
            require_schema(client, store)

    def test_a_changed_migration_is_refused(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            first = migrations()[0]
            note(client, first.number, first.name, "0" * 64)
            with pytest.raises(SchemaError, match=rf"{first.name} was applied with other content"):
                require_schema(client, store)
            with pytest.raises(SchemaError, match="other content"):
                migrate(store)

    def test_a_newer_database_is_refused(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            note(client, 9_999, "9999_future.sql", "0" * 64)
            with pytest.raises(SchemaError, match=r"9999_future\.sql.*newer xidmet"):
                require_schema(client, store)
            with pytest.raises(SchemaError, match="newer xidmet"):
                migrate(store)

    def test_one_that_ends_after_any_statement_is_completed(
        self, store: ClickHouseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with migrated(store) as client:
            whole = shapes(client)
        steps = 1 + sum(len(migration.statements) + 1 for migration in migrations())
        for step in range(steps):
            with connected(store) as client:
                # Without the views nothing is left of the time before.
                for name, kind in kinds(client).items():
                    client.execute(f"DROP {'VIEW' if kind == 'View' else 'TABLE'} {name} SYNC")
            with monkeypatch.context() as patch:
                patch.setattr(schema, "connect", lambda settings, left=step: Ending(connect(settings), left))
                with pytest.raises(StoreError, match="the end"):
                    migrate(store)
            migrate(store)
            with connected(store) as client:
                require_schema(client, store)
                assert shapes(client) == whole, f"after statement {step}"

    def test_large_tables_are_merged_less_often(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            rows = client.query(
                "SELECT name FROM system.tables WHERE database = currentDatabase()"
                " AND engine_full LIKE '%merge_selector_base = 10%' ORDER BY name"
            ).rows
        assert rows == [("coordinates",), ("ledger",), ("minutes",)]

    def test_minutes_of_the_time_before_dimensions_go_on(
        self, store: ClickHouseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its rows keep their totals, rows of segments that were open then are replaced by later ones."""
        flushes = folded(mixed_log(synthetic(300)), step=30)
        half = len(flushes) // 2
        # And without what names the columns that came then.
        later = ["0007_dimensions.sql", "0010_views.sql"]
        before = tuple(migration for migration in migrations() if migration.name not in later)
        with monkeypatch.context() as patch:
            patch.setattr(schema, "migrations", lambda: before)
            with migrated(store) as client:
                write(VersionBefore(client), flushes[:half])
                old = client.query(USES).rows
        assert migrate(store) == later
        with connected(store) as client:
            assert client.query(USES).rows == old
            write(client, flushes)
            client.execute("OPTIMIZE TABLE minutes FINAL")
            assert sum(row[1] for row in client.query(USES).rows) > sum(row[1] for row in old)
            total = sum(len(flush.ledger) for flush in flushes)
            assert client.query("SELECT sum(events) AS n FROM minutes FINAL").one() == (total,)
            assert audit(client).findings == []

    def test_every_table_and_every_column_that_is_stored_has_a_comment(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            tables = sorted(name for name, engine in kinds(client).items() if engine != "View")
            bare = [
                f"{table}.{column['name']}"
                for table in tables
                for column in client.query(f"DESCRIBE TABLE {table}").dicts()
                # An ephemeral column takes values of an insert and cannot be read.
                if not column["comment"] and column["default_type"] != "EPHEMERAL"
            ]
            assert bare == []
            silent = client.query(
                "SELECT name FROM system.tables"
                " WHERE database = currentDatabase() AND engine != 'View' AND comment = ''"
            ).rows
            assert silent == []

    def test_every_table_is_read_through_a_view_that_needs_no_final(self, store: ClickHouseSettings) -> None:
        with migrated(store) as client:
            found = kinds(client)
            assert {name for name, engine in found.items() if engine != "View"} - INTERNAL == set(VIEWS)
            client.execute("INSERT INTO catalogues (version, checksum, content) VALUES (1, 'x', '{\"agencies\": []}')")
            flushes = folded(mixed_log(synthetic(120)))
            write(client, flushes)
            recompute(client, START, START + timedelta(hours=1), "Asia/Baku", datetime.now(UTC))
            before = self.sizes(client)
            for _ in range(2):
                write(client, flushes)
                recompute(client, START, START + timedelta(hours=1), "Asia/Baku", datetime.now(UTC))
            assert self.sizes(client) == before
            assert all(before[view] for view in ("events", "usage", "segments", "agency_hours"))
            assert all(before[view] for view in ("hourly", "daily", "weekly", "monthly"))

    @staticmethod
    def sizes(client: Client) -> dict[str, int]:
        # The views of the catalogue's history that are asked for a day.
        asked = {view: f"{view}(at = '2026-03-02')" for view in ("catalogue_at", "coverage_at")}
        views = [name for name, engine in kinds(client).items() if engine == "View"]
        return {
            view: client.query(f"SELECT count() AS size FROM {asked.get(view, view)}").one()[0]
            for view in sorted(views)
        }
