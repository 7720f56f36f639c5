"""Rows of segments into the shadow tables, each segment compared with its receipt first."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from pipeline.contract.profiles import PROFILE_FIELDS, profiles_of
from pipeline.fold.flush import Flush
from pipeline.fold.histogram import bucket_of
from pipeline.fold.ledger import LEDGER_COLUMN_NAMES, LedgerColumns, ledger_from
from pipeline.fold.minutes import MinuteRows, SegmentMinutes
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from sinks.clickhouse.client import Client, Column
from sinks.clickhouse.rebuild_plan import Source, where
from sinks.clickhouse.rebuild_shadow import SUFFIX
from sinks.clickhouse.writer import write_rows

EVENTS_AT_ONCE: Final = 200_000
"""About so many events are read from the ledger at once."""

_MASK: Final = (1 << 64) - 1
_COUNTS: Final = ("next_offset", "records", "value_bytes", "events", "accepted", "duplicates", "event_hash_sum")
_PLACE: Final = ("topic_id", "partition", "offset", "batch_index", "event_hash", "time_ms")
_FROM_LEDGER: Final = tuple(name for name in LEDGER_COLUMN_NAMES if name not in _PLACE)


class Mismatch(Struct, frozen=True):
    """A segment of which other numbers came out than its receipt says."""

    where: str
    words: str


def compare(receipt: Receipt, came_out: Receipt) -> Mismatch | None:
    """What a segment that was folded again has other than its receipt says."""
    names = [name for name in _COUNTS if getattr(receipt, name) != getattr(came_out, name)]
    words = [f"{name} {getattr(receipt, name)}, now {getattr(came_out, name)}" for name in names]
    if dict(receipt.rejected) != dict(came_out.rejected):
        words.append(f"rejected {_reasons(receipt)}, now {_reasons(came_out)}")
    return Mismatch(where(receipt), "receipt says " + "; ".join(words)) if words else None


def write_folded(client: Client, id_: str, receipt: Receipt, flush: Flush) -> None:
    """Write a segment that was folded from the log, and then that it is whole."""
    write_rows(client, flush, SUFFIX)
    _mark(client, id_, [receipt], "log")


def write_from_ledger(
    client: Client, id_: str, receipts: Sequence[Receipt], dimensions: tuple[str, ...]
) -> Mismatch | None:
    """Make the minutes of segments, which follow each other, from the ledger; the first that does not fit."""
    first, last = receipts[0], receipts[-1]
    events = _events(client, first.log, first.segment, last.next_offset)
    starts = [item.segment for item in receipts]
    owners = np.searchsorted(np.array(starts, dtype=np.int64), events.offset, "right") - 1
    parts: list[MinuteRows] = []
    for number, receipt in enumerate(receipts):
        mine = events.take(np.flatnonzero(owners == number))
        hash_sum = int(mine.event_hash.sum()) & _MASK
        if (len(mine), hash_sum) != (receipt.accepted, receipt.event_hash_sum):
            words = f"receipt says {receipt.accepted} accepted, coordinates and ledger have {len(mine)}"
            if len(mine) == receipt.accepted:
                words += ", but not of the same events"
            return Mismatch(where(receipt), words)
        if not len(mine):
            continue
        minutes = SegmentMinutes(receipt.log, receipt.segment, dimensions)
        profiles, profile = profiles_of(getattr(mine, name) for name in PROFILE_FIELDS)
        minutes.add(profiles, profile, mine.time_ms, mine.duration_ms, bucket_of(mine.duration_ms), mine.user_hash)
        parts.append(minutes.take(receipt.next_offset))
    write_rows(client, Flush(minute_parts=parts), SUFFIX)
    _mark(client, id_, receipts, "ledger")
    return None


def segments_made(client: Client, id_: str) -> dict[tuple[str, int, int], str]:
    """The segments that stand whole in the shadows, and their source."""
    rows = client.query(
        "SELECT topic_id, partition, segment, source FROM rebuild_segments FINAL WHERE id = {id:String}", {"id": id_}
    ).rows
    return {(topic_id, partition, segment): source for topic_id, partition, segment, source in rows}


def _events(client: Client, log: LogPartition, first: int, end: int) -> LedgerColumns:
    """Accepted events by their coordinates in [``first``, ``end``).

    A repeat that the ledger keeps under another place is taken from there: its minutes count it as they did before.
    """
    inside = (
        "SELECT offset, batch_index, event_hash FROM coordinates FINAL WHERE topic_id = {topic_id:String}"
        " AND partition = {partition:UInt32} AND offset >= {first:UInt64} AND offset < {end:UInt64}"
    )
    names = ", ".join(f"l.{name} AS {name}" for name in _FROM_LEDGER)
    answer = client.query(
        f"SELECT c.offset AS offset, c.batch_index AS batch_index, c.event_hash AS event_hash,"
        f" toUnixTimestamp64Milli(l.time) AS time_ms, {names}"
        f" FROM ({inside}) AS c"
        f" JOIN (SELECT * FROM ledger WHERE event_hash IN (SELECT event_hash FROM ({inside}))) AS l"
        " ON c.event_hash = l.event_hash"
        " ORDER BY offset, batch_index, (l.topic_id = {topic_id:String} AND l.partition = {partition:UInt32}"
        " AND l.offset = c.offset AND l.batch_index = c.batch_index) DESC, l.offset, l.partition, l.topic_id"
        " LIMIT 1 BY offset, batch_index",
        {"topic_id": log.topic_id, "partition": log.partition, "first": first, "end": end},
    )
    columns = dict(zip(answer.names, zip(*answer.rows, strict=True), strict=True)) if answer.rows else {}
    return ledger_from(columns, len(answer.rows))


def _mark(client: Client, id_: str, receipts: Sequence[Receipt], source: Source) -> None:
    count = len(receipts)
    client.insert(
        "rebuild_segments",
        [
            Column("id", "String", [id_] * count),
            Column("topic_id", "String", [item.log.topic_id for item in receipts]),
            Column("partition", "UInt32", [item.log.partition for item in receipts]),
            Column("segment", "UInt64", [item.segment for item in receipts]),
            Column("source", "String", [source] * count),
            Column("accepted", "UInt64", [item.accepted for item in receipts]),
        ],
    )


def _reasons(receipt: Receipt) -> str:
    return ", ".join(f"{reason.value} {count}" for reason, count in sorted(receipt.rejected.items())) or "none"
