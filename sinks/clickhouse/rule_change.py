"""Which rules are in force in a partition, and how others begin where it stands instead of at a marker.

A change writes the newest receipt again. At an equal version ClickHouse keeps the receipt that was inserted last. A
segment that is closed where it stands has a higher version than its open receipt. Whoever resumes then finds the new
rules as those that the next segment inherits, or as those of a segment that was opened and not begun.

It is safe only while nobody folds the partition, and if nothing was written beyond the receipt: such rows were made by
the old rules, and would be made again by the new ones with another result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client
from sinks.clickhouse.positions import open_and_newest
from sinks.clickhouse.rules import begin_with, beginnings
from sinks.clickhouse.writer import write_receipts

Step = Literal["first", "next", "close", "open"]
"""How rules begin: the first segment of all inherits them, or the next one; the open one is closed before; the one that
was just opened gets them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition stands: its newest receipt, if there is one, and how many segments are open.

    ``begun`` are the rules that the first segment inherits; only looked for where there is no receipt.
    """

    log: LogPartition
    newest: Receipt | None
    open_segments: int = 0
    begun: Rules | None = None

    @property
    def in_force(self) -> Rules | None:
        """The rules that hold until a marker asks for others; None if no worker ever had the partition."""
        if self.newest is None:
            return self.begun
        return (self.newest.next_rules if self.newest.closed else None) or self.newest.rules

    @property
    def step(self) -> Step:
        """How other rules can begin here."""
        if self.newest is None:
            return "first"
        if self.newest.closed:
            return "next"
        return "close" if self.newest.next_offset > self.newest.segment else "open"


def place_of(client: Client, log: LogPartition) -> Place:
    """Where a partition stands, as its receipts say."""
    receipts = open_and_newest(client, log)
    if not receipts:
        return Place(log, None, begun=beginnings(client, [log]).get(log))
    opened = [receipt for receipt in receipts if not receipt.closed]
    return Place(log, receipts[-1], len(opened))


def obstacles(client: Client, places: Sequence[Place]) -> dict[LogPartition, str]:
    """Why rules cannot begin in some of the partitions, in words."""
    found = {}
    for place in places:
        receipt = place.newest
        if receipt is not None and place.open_segments > (not receipt.closed):
            found[place.log] = f"an older segment than the newest is open, {place.open_segments} in all"
            continue
        reached = receipt.next_offset if receipt is not None else 0
        beyond = _written_beyond(client, place.log, reached)
        if beyond:
            found[place.log] = (
                f"{beyond} has rows from offset {reached} on, which no receipt vouches for: a worker died"
                " in the middle of a flush"
            )
    return found


def begin(client: Client, place: Place, rules: Rules) -> None:
    """Let rules begin where the partition stands. May be repeated."""
    if place.newest is None:
        begin_with(client, place.log, rules)
        return
    if place.step == "open":
        receipt = replace(place.newest, rules=rules)
    else:
        receipt = replace(place.newest, closed=True, next_rules=rules)
    write_receipts(client, [receipt])


def newest_topic_id(client: Client, topic: str) -> str | None:
    """The id under which a topic was folded last, for when Kafka cannot be asked."""
    rows = client.query(
        "SELECT topic_id FROM receipts WHERE topic = {topic:String} ORDER BY written_at DESC LIMIT 1", {"topic": topic}
    ).rows
    return rows[0][0] if rows else None


def partitions_folded(client: Client, topic_id: str) -> list[int]:
    """The partitions of a topic that have receipts."""
    rows = client.query(
        "SELECT DISTINCT partition FROM receipts WHERE topic_id = {id:String} ORDER BY partition", {"id": topic_id}
    ).rows
    return [partition for (partition,) in rows]


def _written_beyond(client: Client, log: LogPartition, offset: int) -> str:
    """The first table with rows of the partition from an offset on; empty if there is none."""
    for table, condition in (
        ("coordinates", "offset >= {offset:UInt64}"),
        ("ledger", "offset >= {offset:UInt64}"),
        ("minutes", "next_offset > {offset:UInt64}"),
    ):
        found = client.query(
            f"SELECT 1 FROM {table} WHERE topic_id = {{id:String}} AND partition = {{partition:UInt32}}"
            f" AND {condition} LIMIT 1",
            {"id": log.topic_id, "partition": log.partition, "offset": offset},
        ).rows
        if found:
            return table
    return ""
