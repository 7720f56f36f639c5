"""The program on Distributed tables over two shards, which ``clickhouse.cluster`` makes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clickhouse_driver import Client as Driver

from pipeline.errors import SchemaError, SettingsError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse import shards
from sinks.clickhouse.schema import migrate, migrations
from tests.servers.test_pipeline import emit
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import PipelineRun
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

DATABASE = "sharded"


def replicas(*servers: ClickHouseServer) -> str:
    return "".join(f"<replica><host>127.0.0.1</host><port>{server.native_port}</port></replica>" for server in servers)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ClickHouseServer]]:
    """Two servers that know each other, as two shards and as a shard with two replicas."""
    made = [ClickHouseServer(memory_bytes=2 * 1024**3) for _ in range(2)]
    each = "".join(f"<shard>{replicas(server)}</shard>" for server in made)
    clusters = f"<two>{each}</two><copies><shard>{replicas(*made)}</shard></copies>"
    with ExitStack() as stack:
        for server in made:
            server.further_config = f"<remote_servers>{clusters}</remote_servers>"
            stack.enter_context(server)
        yield made


@pytest.fixture
def database(servers: list[ClickHouseServer]) -> Iterator[str]:
    yield DATABASE
    for server in servers:
        server.execute(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")


def settings(server: ClickHouseServer, cluster: str = "two") -> ClickHouseSettings:
    return ClickHouseSettings(url=server.database_url(DATABASE), cluster=cluster)


def ask(server: ClickHouseServer, sql: str) -> list[tuple[object, ...]]:
    client = Driver("127.0.0.1", port=server.native_port, database=DATABASE)
    try:
        return list(client.execute(sql))
    finally:
        client.disconnect()


def test_what_is_sent_is_counted_once_over_two_shards(
    kafka_server: KafkaServer, servers: list[ClickHouseServer], database: str, tmp_path: Path
) -> None:
    run = PipelineRun(
        kafka_server.bootstrap,
        servers[0].database_url(database),
        tmp_path,
        clickhouse__cluster="two",
        periods__refresh_seconds=0.5,
    )
    with ExitStack() as stack:
        for server in servers:
            # As a library it ends with a client that goes away in the middle of an insert.
            stack.enter_context(kept_alive(server))
        stack.callback(run.stop)
        run.run("migrate")
        worker = run.start_worker()
        emit(run, 20_000, seed=1)
        run.wait_for_events(10_000)
        worker.kill()
        worker.wait()
        # The next one asks the other server: any of them has all tables.
        run.flags["clickhouse.url"] = servers[1].database_url(database)
        run.start_worker()
        log = tmp_path / "worker-1.log"
        wait_until(lambda: "partitions assigned" in log.read_text(errors="replace"), 120, "both shards to be there")
        for _ in range(2):
            emit(run, 2_000, seed=2, batch=1)
        run.wait_for_events(24_000)
        run.assert_equal_to_log()
        for table in ("ledger", "coordinates", "minutes"):
            counts = [int(str(ask(server, f"SELECT count() FROM {table}_local FINAL")[0][0])) for server in servers]
            assert min(counts) > 0, table
            # No row has versions on both shards: they would not replace each other.
            assert [(sum(counts),)] == run.query(f"SELECT count() FROM {table} FINAL")
            assert min(counts) > sum(counts) / 4, "the rows are spread"
        wait_until(
            lambda: (
                json.loads(run.run("reconcile", "--json", "--from", "2020-01-01", "--to", "2040-01-01", "--dry-run"))[
                    "changes"
                ]
                == []
            ),
            90,
            "hours and days to follow",
        )
        assert len(json.loads(run.run("top", "--json", "--period", "7d"))["ranking"]) == 10
        assert json.loads(run.run("audit", "--json"))["findings"] == []


def test_a_server_that_joined_later_is_migrated_and_nothing_is_done_twice(
    servers: list[ClickHouseServer], database: str
) -> None:
    names = [item.name for item in migrations()]
    assert migrate(settings(servers[0])) == names
    assert migrate(settings(servers[1])) == []
    servers[1].execute(f"DROP DATABASE {database} SYNC")
    assert migrate(settings(servers[0])) == names
    kinds = [
        dict(ask(server, f"SELECT name, engine FROM system.tables WHERE database = '{database}'")) for server in servers
    ]
    assert kinds[0] == kinds[1]
    assert {name for name, engine in kinds[0].items() if engine == "Distributed"} == set(shards.SHARDING_KEYS)
    # Both have every column, in the same order.
    for name in shards.SHARDING_KEYS:
        columns = "SELECT name, type, default_expression FROM system.columns WHERE database = currentDatabase()"
        local, over = (ask(servers[1], f"{columns} AND table = '{table}'") for table in (f"{name}_local", name))
        assert local == over


def test_tables_of_one_server_are_not_taken_for_those_of_a_cluster(
    servers: list[ClickHouseServer], database: str
) -> None:
    migrate(settings(servers[0], ""))
    with pytest.raises(SchemaError, match="was made for one server"):
        migrate(settings(servers[0]))
    servers[0].execute(f"DROP DATABASE {database} SYNC")
    migrate(settings(servers[0]))
    with pytest.raises(SchemaError, match="was made for a cluster"):
        migrate(settings(servers[0], ""))


@pytest.mark.parametrize(
    ("cluster", "words"), [("three", "knows no cluster three"), ("copies", "has replicas"), ("a b", "letters, digits")]
)
def test_a_cluster_that_cannot_be_migrated_is_refused(
    servers: list[ClickHouseServer], cluster: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        migrate(settings(servers[0], cluster))
    assert ask_databases(servers[0]) == []


def ask_databases(server: ClickHouseServer) -> list[tuple[object, ...]]:
    return server.execute(f"SELECT name FROM system.databases WHERE name = '{DATABASE}'")


def test_a_rebuild_is_refused(servers: list[ClickHouseServer], tmp_path: Path) -> None:
    run = PipelineRun(
        f"127.0.0.1:{free_port()}", servers[0].database_url(DATABASE), tmp_path, clickhouse__cluster="two"
    )
    with pytest.raises(AssertionError, match="tables of one server only"):
        run.run("rebuild", "--from", "2026-01-01", "--to", "2026-02-01")
