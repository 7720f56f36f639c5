"""What sinks.clickhouse promises, kept by a server."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np
import pytest
from clickhouse_driver.streams import native as driver_native

from pipeline.errors import SchemaError, StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Column
from sinks.clickhouse.schema import migrate, migrations, require_schema
from tests.support import ClickHouseServer
from tests.support.pipeline_run import ROOT
from tests.support.ports import free_port
from tests.support.sink_suite.audit import TestAudit
from tests.support.sink_suite.catalogue_history import TestCatalogueHistory
from tests.support.sink_suite.client import TestClient
from tests.support.sink_suite.columns import TestColumns
from tests.support.sink_suite.data import connected, rows
from tests.support.sink_suite.estimates import TestEstimates
from tests.support.sink_suite.figures import TestFigures
from tests.support.sink_suite.migrations import TestMigrations
from tests.support.sink_suite.periods import (
    TestConvergence,
    TestLedgerVersion,
    TestPeriodAudit,
    TestPeriods,
    TestReconcile,
)
from tests.support.sink_suite.popularity import TestCatalogues, TestPopularity
from tests.support.sink_suite.positions import TestPositions
from tests.support.sink_suite.rebuild import TestRebuild
from tests.support.sink_suite.recent import TestRecent
from tests.support.sink_suite.rule_change import TestRuleChange
from tests.support.sink_suite.writer import TestWriter

__all__ = [
    "TestAudit",
    "TestCatalogueHistory",
    "TestCatalogues",
    "TestClient",
    "TestColumns",
    "TestConvergence",
    "TestEstimates",
    "TestFigures",
    "TestLedgerVersion",
    "TestMigrations",
    "TestPeriodAudit",
    "TestPeriods",
    "TestPopularity",
    "TestPositions",
    "TestRebuild",
    "TestRecent",
    "TestReconcile",
    "TestRuleChange",
    "TestWriter",
]

pytestmark = pytest.mark.servers


@pytest.fixture
def store(clickhouse_database: str) -> ClickHouseSettings:
    return ClickHouseSettings(url=clickhouse_database, query_timeout_seconds=30)


def test_workers_that_migrate_at_once_do_not_hinder_each_other(store: ClickHouseSettings) -> None:
    workers = 4
    together = threading.Barrier(workers)

    def run(_: int) -> list[str]:
        together.wait(10)
        return migrate(store)

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(run, range(workers)))
    assert {name for names in done for name in names} == {migration.name for migration in migrations()}
    with connected(store) as client:
        require_schema(client, store)
        assert rows(client, "SELECT count() FROM migrations FINAL") == [(len(migrations()),)]


MIGRATING = """
import os, signal, sys
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse import schema
from sinks.clickhouse.client import connect
left = int(sys.argv[2])
class Killed:
    def __init__(self, client):
        self.client = client
    def __getattr__(self, name):
        return getattr(self.client, name)
    def execute(self, sql):
        global left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        self.client.execute(sql)
schema.connect = lambda settings: Killed(connect(settings))
schema.migrate(ClickHouseSettings(url=sys.argv[1]))
"""
NEVER = 1_000


def migrating(store: ClickHouseSettings, statements: int = NEVER) -> subprocess.Popen[bytes]:
    """A process that migrates, and is killed after so many statements."""
    command = [sys.executable, "-c", MIGRATING, store.url, str(statements)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Exit codes of all, and what they said."""
    answers = [process.communicate(timeout=120)[1].decode() for process in processes]
    return [(process.returncode, answer) for process, answer in zip(processes, answers, strict=True)]


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("done_before", [0, 2, 5])
def test_processes_that_migrate_at_once_all_succeed(store: ClickHouseSettings, workers: int, done_before: int) -> None:
    """On an empty database and on one that is half-way there."""
    with connected(store) as client:
        if done_before:
            migrate(store)
            client.execute(f"ALTER TABLE migrations DELETE WHERE number > {done_before} SETTINGS mutations_sync = 1")
    assert ended([migrating(store) for _ in range(workers)]) == [(0, "")] * workers
    with connected(store) as client:
        require_schema(client, store)
        assert migrate(store) == []


@pytest.mark.parametrize("statements", [1, 3, 8, 12, 14])
def test_a_killed_migration_is_completed_by_others_at_once(store: ClickHouseSettings, statements: int) -> None:
    ((code, _),) = ended([migrating(store, statements)])
    assert code == -signal.SIGKILL
    with connected(store) as client, pytest.raises(SchemaError):
        require_schema(client, store)
    assert ended([migrating(store) for _ in range(2)]) == [(0, "")] * 2
    with connected(store) as client:
        require_schema(client, store)


def test_a_database_that_does_not_exist_is_created_by_migrating(
    clickhouse_server: ClickHouseServer, store: ClickHouseSettings
) -> None:
    name = store.url.rpartition("/")[2] + "_absent"
    absent = ClickHouseSettings(url=clickhouse_server.database_url(name))
    try:
        assert migrate(absent)
        with connected(absent) as client:
            require_schema(client, absent)
    finally:
        clickhouse_server.execute(f"DROP DATABASE IF EXISTS {name} SYNC")


def test_a_server_that_is_away_is_a_store_error_that_names_it() -> None:
    port = free_port()
    store = ClickHouseSettings(url=f"clickhouse://default:secret@127.0.0.1:{port}/x", connect_timeout_seconds=1)
    with connected(store) as client, pytest.raises(StoreError, match=rf"127\.0\.0\.1:{port} does not answer") as caught:
        client.query("SELECT 1")
    assert "secret" not in str(caught.value)


def test_a_client_answers_again_after_the_server_was_restarted(
    clickhouse_server: ClickHouseServer, store: ClickHouseSettings
) -> None:
    with connected(store) as client:
        assert client.query("SELECT 1").one() == (1,)
        clickhouse_server.kill()
        with pytest.raises(StoreError, match="does not answer"):
            client.query("SELECT 1")
        clickhouse_server.start()
        assert client.query("SELECT 2").one() == (2,)


def test_a_time_out_is_a_store_error_and_the_connection_is_made_anew(
    clickhouse_server: ClickHouseServer, store: ClickHouseSettings
) -> None:
    hasty = ClickHouseSettings(url=store.url, query_timeout_seconds=0.5, connect_timeout_seconds=1)
    with connected(hasty) as client:
        assert client.query("SELECT 1").one() == (1,)
        clickhouse_server.pause()
        with pytest.raises(StoreError, match="does not answer"):
            client.query("SELECT 2")
        clickhouse_server.resume()
        assert client.query("SELECT 3").one() == (3,)


class Interrupted(Sequence[str]):
    """Texts; something happens when they are read, thus when the columns before them are on the wire."""

    def __init__(self, texts: list[str], interrupt: Callable[[], None]) -> None:
        self._texts = texts
        self._interrupt = interrupt

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._texts[place]

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        self._interrupt()
        return iter(self._texts)


def test_a_server_killed_in_the_middle_of_an_insert_is_a_store_error_and_nothing_is_there(
    clickhouse_server: ClickHouseServer, store: ClickHouseSettings
) -> None:
    count = 400_000
    texts = [f"{number:032}" for number in range(count)]
    numbers = Column("n", "UInt64", np.arange(count))
    with connected(store) as client:
        client.execute("CREATE TABLE cut (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
        with pytest.raises(StoreError, match="does not answer"):
            client.insert("cut", [numbers, Column("text", "String", Interrupted(texts, clickhouse_server.kill))])
        clickhouse_server.start()
        assert rows(client, "SELECT count() FROM cut") == [(0,)]
        client.insert("cut", [numbers, Column("text", "String", texts)])
        assert rows(client, "SELECT count(), countIf(toUInt64(text) = n) FROM cut") == [(count, count)]


@pytest.fixture
def blocks_written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows of the blocks that the driver itself wrote."""
    written: list[int] = []
    own = driver_native.BlockOutputStream.write

    def write(stream: Any, block: Any) -> None:
        written.append(block.num_rows)
        own(stream, block)

    monkeypatch.setattr(driver_native.BlockOutputStream, "write", write)
    return written


COLUMNS = [
    Column("n", "UInt64", np.arange(3)),
    Column("word", "String", ["a", "", "a"]),
]


@pytest.mark.parametrize("whole", [True, False])
def test_blocks_are_written_whole_and_by_the_driver_where_that_is_not_possible(
    store: ClickHouseSettings, blocks_written: list[int], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(store) as client:
        client.execute("CREATE TABLE plain (n UInt64, word LowCardinality(String)) ENGINE = MergeTree ORDER BY n")
        if not whole:
            monkeypatch.setattr("sinks.clickhouse.columnar.supported", lambda: False)
        blocks_written.clear()
        client.insert("plain", COLUMNS)
        assert [count for count in blocks_written if count] == ([] if whole else [3])
        assert rows(client, "SELECT n, word FROM plain ORDER BY n") == [(0, "a"), (1, ""), (2, "a")]
