"""The schema: made once, checked always."""

import pytest

from pipeline.errors import SchemaError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Client, Column
from sinks.clickhouse.schema import migrate, migrations, require_schema
from tests.support.sink_suite.data import connected, folded, migrated, mixed_log, synthetic, write

# What analysts read, by the table behind it. The coordinates and the list of migrations are for the program alone.
VIEWS = {
    "ledger": "events",
    "minutes": "usage",
    "receipts": "segments",
    "catalogues": "agencies",
}
INTERNAL = {"coordinates", "migrations", "rebuilds", "rebuild_segments"}


def kinds(client: Client) -> dict[str, str]:
    found = client.query("SELECT name, engine FROM system.tables WHERE database = currentDatabase()").rows
    return dict(found)


def note(client: Client, number: int, name: str, checksum: str) -> None:
    values = {"number": ("UInt32", number), "name": ("String", name), "checksum": ("String", checksum)}
    client.insert("migrations", [Column(key, type_, [value]) for key, (type_, value) in values.items()])


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
            before = self.sizes(client)
            for _ in range(2):
                write(client, flushes)
            assert self.sizes(client) == before
            assert all(before[view] for view in ("events", "usage", "segments", "agency_hours"))

    @staticmethod
    def sizes(client: Client) -> dict[str, int]:
        views = [name for name, engine in kinds(client).items() if engine == "View"]
        return {view: client.query(f"SELECT count() AS size FROM {view}").one()[0] for view in sorted(views)}
