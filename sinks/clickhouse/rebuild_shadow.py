"""Shadow tables beside the live ones: made, kept up with what the workers write, exchanged, dropped.

A view forwards every insert into a live table to its shadow, rows of segments that are made anew excepted; it is there
before the rest is copied, so that nothing falls between. ``EXCHANGE TABLES`` swaps the names of two tables at once.
The view keeps its names: after the exchange it forwards from the new table to the old one, which does no harm.
"""

import time
from typing import Final

from pipeline.errors import StoreError
from sinks.clickhouse.client import INSERT_SETTINGS, Client
from sinks.clickhouse.rebuild_plan import PLACES, Plan

SUFFIX: Final = "_rebuild"
KEPT: Final = "_before_rebuild"
SETTLE_SECONDS: Final = 600.0
_ANY_SIZE: Final = "SETTINGS max_table_size_to_drop = 0, max_partition_size_to_drop = 0"
_SETTINGS: Final = "SETTINGS " + ", ".join(f"{name} = {value}" for name, value in INSERT_SETTINGS.items())


def create(client: Client, plan: Plan) -> dict[str, str]:
    """Make empty shadows, after dropping what an earlier rebuild may have left; their UUIDs by table."""
    drop(client)
    for table in plan.tables:
        client.execute(f"CREATE TABLE {table}{SUFFIX} AS {table}")
    return {table: uuid for table in plan.tables if (uuid := uuid_of(client, table + SUFFIX))}


def forward(client: Client, plan: Plan) -> None:
    """From now on, what is written to a live table is written to its shadow as well.

    Returns when no insert is under way any more that began before.
    """
    for table in plan.tables:
        columns = _columns(client, table)
        client.execute(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {_view(table)} TO {table}{SUFFIX}"
            f" AS SELECT {columns} FROM {table} WHERE NOT {plan.inside(table)}"
        )
    settle(client)


def copy(client: Client, plan: Plan, table: str) -> None:
    """Copy the rows that are not made anew. May be repeated."""
    columns = _columns(client, table)
    client.execute(
        f"INSERT INTO {table}{SUFFIX} ({columns}) SELECT {columns} FROM {table}"
        f" WHERE NOT {plan.inside(table)} {_SETTINGS}"
    )


def exchange(client: Client, table: str, shadow: str) -> None:
    """Put the shadow with this UUID in the place of the live table, unless it stands there already.

    Raises:
        StoreError: the shadow is gone, or the live table was changed since it was made.
    """
    if uuid_of(client, table) == shadow:
        return
    if uuid_of(client, table + SUFFIX) != shadow:
        raise StoreError(f"{table}{SUFFIX} is not the table that the rebuild made; run xidmet rebuild --abandon")
    if _structure(client, table) != _structure(client, table + SUFFIX):
        raise StoreError(f"{table} was migrated during the rebuild; run xidmet rebuild --abandon and begin again")
    client.execute(f"EXCHANGE TABLES {table} AND {table}{SUFFIX}")


def catch_up(client: Client, plan: Plan, began_ms: int) -> None:
    """After the exchange: take over what was on its way into the old tables, and stop forwarding.

    Only segments that were written to since the rebuild began can have such rows.
    """
    settle(client)
    for table in PLACES:
        client.execute(f"DROP VIEW IF EXISTS {_view(table)} SYNC")
    moved = client.query(
        "SELECT topic_id, partition, min(segment) AS start FROM receipts FINAL"
        " WHERE NOT closed OR toUnixTimestamp64Milli(written_at) >= {began:Int64} GROUP BY topic_id, partition",
        {"began": began_ms},
    ).rows
    for table in plan.tables:
        if not moved or not uuid_of(client, table + SUFFIX):
            continue
        recent = " OR ".join(
            f"(topic_id = '{topic_id}' AND partition = {partition} AND {PLACES[table]} >= {start})"
            for topic_id, partition, start in moved
        )
        columns = _columns(client, table)
        client.execute(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}{SUFFIX}"
            f" WHERE ({recent}) AND NOT {plan.inside(table)} {_SETTINGS}"
        )


def keep(client: Client, plan: Plan) -> None:
    """Keep the old tables, in the place of those that an earlier rebuild kept."""
    for table in plan.tables:
        if uuid_of(client, table + SUFFIX):
            client.execute(f"DROP TABLE IF EXISTS {table}{KEPT} SYNC {_ANY_SIZE}")
            client.execute(f"RENAME TABLE {table}{SUFFIX} TO {table}{KEPT}")


def drop(client: Client) -> None:
    """Drop views and shadows; the views first, since an insert fails whose view has no target."""
    for table in PLACES:
        client.execute(f"DROP VIEW IF EXISTS {_view(table)} SYNC")
    for table in PLACES:
        client.execute(f"DROP TABLE IF EXISTS {table}{SUFFIX} SYNC {_ANY_SIZE}")


def settle(client: Client) -> None:
    """Wait until the inserts that are under way now have ended.

    Raises:
        StoreError: one of them takes longer than anything should.
    """
    running = (
        "SELECT query_id FROM system.processes WHERE query_kind IN ('Insert', 'AsyncInsertFlush')"
        " AND current_database = currentDatabase()"
    )
    waiting = {row[0] for row in client.query(running).rows}
    deadline = time.monotonic() + SETTLE_SECONDS
    while waiting:
        if time.monotonic() > deadline:
            raise StoreError(f"an insert runs for more than {SETTLE_SECONDS:g} s; look into system.processes")
        time.sleep(0.05)
        waiting &= {row[0] for row in client.query(running).rows}


def uuid_of(client: Client, table: str) -> str:
    """UUID of a table; empty if there is none."""
    rows = client.query(
        "SELECT toString(uuid) AS id FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        {"name": table},
    ).rows
    return str(rows[0][0]) if rows else ""


def _view(table: str) -> str:
    return f"{table}{SUFFIX}_forward"


def _columns(client: Client, table: str) -> str:
    return ", ".join(
        row[0]
        for row in client.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {name:String}"
            " AND default_kind != 'EPHEMERAL' ORDER BY position",
            {"name": table},
        ).rows
    )


def _structure(client: Client, table: str) -> list[tuple[str, ...]]:
    return client.query(
        "SELECT c.name AS name, c.type AS type, t.sorting_key AS key, t.partition_key AS parts FROM system.columns AS c"
        " JOIN system.tables AS t ON t.database = c.database AND t.name = c.table"
        " WHERE c.database = currentDatabase() AND c.table = {name:String} ORDER BY c.position",
        {"name": table},
    ).rows
