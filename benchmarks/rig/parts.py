"""What becomes of parts in ClickHouse: how many inserts made, how many merges took away, how many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rig.background import looking
from tests.support import ClickHouseServer

_ACTIVE = (
    "SELECT table, sum(parts), max(parts) FROM (SELECT table, partition, count() AS parts FROM system.parts"
    " WHERE active AND database = '{database}' GROUP BY table, partition) GROUP BY table"
)
_LOG = (
    "SELECT table, countIf(event_type = 'NewPart') AS created, countIf(event_type = 'MergeParts') AS merges,"
    " sumIf(length(merged_from), event_type = 'MergeParts') AS merged, avgIf(rows, event_type = 'NewPart') AS rows"
    " FROM system.part_log WHERE database = '{database}' AND error = 0 GROUP BY table ORDER BY table"
)
_FAILURES = "SELECT name, sum(value) FROM system.errors WHERE name = 'TOO_MANY_PARTS' GROUP BY name"
_DELAYS = "SELECT event, value FROM system.events WHERE event IN ('DelayedInserts', 'RejectedInserts')"
TABLES = ("ledger", "coordinates", "minutes", "receipts", "hours", "days")


@dataclass(slots=True)
class Active:
    """The most parts that were seen at once, of a table and of one of its partitions."""

    table: int = 0
    partition: int = 0


@dataclass(slots=True)
class Sampled:
    """By table."""

    tables: dict[str, Active] = field(default_factory=dict)


def parts_of(server: ClickHouseServer, database: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Parts of each table that a worker writes, over so many seconds that the database has been there."""
    server.execute("SYSTEM FLUSH LOGS")
    active = {str(table): count for table, count, _ in server.execute(_ACTIVE.format(database=database))}
    return {
        str(table): {
            "created_per_minute": round(float(str(created)) / seconds * 60, 1),
            "merges_per_minute": round(float(str(merges)) / seconds * 60, 1),
            "merged_per_minute": round(float(str(merged)) / seconds * 60, 1),
            "rows_a_part": round(float(str(rows))),
            "active": active.get(str(table), 0),
        }
        for table, created, merges, merged, rows in server.execute(_LOG.format(database=database))
        if table in TABLES
    }


def troubles(server: ClickHouseServer) -> dict[str, int]:
    """How often the server refused or delayed an insert because of too many parts, since it started."""
    found = {"too_many_parts": 0, "delayed_inserts": 0, "rejected_inserts": 0}
    for _, count in server.execute(_FAILURES):
        found["too_many_parts"] += int(str(count))
    for name, count in server.execute(_DELAYS):
        found["delayed_inserts" if name == "DelayedInserts" else "rejected_inserts"] += int(str(count))
    return found


@contextmanager
def sampling(server: ClickHouseServer, database: str, every: float = 0.5) -> Iterator[Sampled]:
    """Look how many active parts there are until the block ends."""
    sampled = Sampled()

    def sample() -> None:
        for table, parts, most in server.execute(_ACTIVE.format(database=database)):
            active = sampled.tables.setdefault(str(table), Active())
            active.table = max(active.table, int(str(parts)))
            active.partition = max(active.partition, int(str(most)))

    with looking(sample, every, "parts") as looks:
        yield sampled
    if looks.error is not None:
        raise looks.error
