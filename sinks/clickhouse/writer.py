"""Writes a flush to ClickHouse. Every insert is an upsert of what the log says, so any of them may be repeated."""

from collections.abc import Sequence
from typing import Final

from pipeline.fold.flush import Flush
from pipeline.fold.ledger import LedgerColumns
from pipeline.fold.minutes import MinuteRow
from pipeline.fold.receipt import Receipt
from pipeline.fold.rules import DIMENSIONS
from sinks.clickhouse.client import Client, Column

_LEDGER_TYPES: Final = {
    "agency": "String",
    "service": "String",
    "time_ms": "Int64",
    "event_hash": "UInt64",
    "event_id": "String",
    "channel": "String",
    "outcome": "String",
    "stage": "String",
    "duration_ms": "UInt32",
    "user_hash": "UInt64",
    "application": "String",
    "centre": "String",
    "district": "String",
    "hosting": "String",
    "sign_in": "String",
    "consumer": "String",
    "initiator": "String",
    "rating": "UInt8",
    "topic_id": "String",
    "partition": "UInt32",
    "offset": "UInt64",
    "batch_index": "UInt32",
}
_COORDINATES: Final = ("topic_id", "partition", "offset", "batch_index", "event_hash")


def write_openings(client: Client, flush: Flush) -> None:
    """Fix the rules of the segments that start with this flush, before any row of them exists."""
    if flush.openings:
        client.insert("receipts", _receipt_columns(flush.openings))


def write_results(client: Client, flush: Flush) -> None:
    """Write ledger, coordinates and minutes, and last the receipts that vouch for them."""
    write_rows(client, flush)
    if flush.receipts:
        client.insert("receipts", _receipt_columns(flush.receipts))


def write_rows(client: Client, flush: Flush, suffix: str = "") -> None:
    """Write ledger, coordinates and minutes, into the tables whose names end with ``suffix``."""
    if len(flush.ledger):
        client.insert(f"ledger{suffix}", _ledger_columns(flush.ledger, tuple(_LEDGER_TYPES)))
        client.insert(f"coordinates{suffix}", _ledger_columns(flush.ledger, _COORDINATES))
    if flush.minutes:
        client.insert(f"minutes{suffix}", _minute_columns(flush.minutes))


def write_receipts(client: Client, receipts: Sequence[Receipt]) -> None:
    """Write receipts alone: of a segment that ends because the log no longer reaches back to its start."""
    client.insert("receipts", _receipt_columns(receipts))


def _ledger_columns(ledger: LedgerColumns, names: Sequence[str]) -> list[Column]:
    return [Column(name, _LEDGER_TYPES[name], getattr(ledger, name)) for name in names]


def _minute_columns(rows: Sequence[MinuteRow]) -> list[Column]:
    return [
        Column("agency", "String", [row.key.agency for row in rows]),
        Column("service", "String", [row.key.service for row in rows]),
        Column("minute", "UInt32", [row.key.minute for row in rows]),
        Column("channel", "String", [row.key.channel for row in rows]),
        Column("outcome", "String", [row.key.outcome for row in rows]),
        Column("stage", "String", [row.key.stage for row in rows]),
        Column("topic_id", "String", [row.log.topic_id for row in rows]),
        Column("partition", "UInt32", [row.log.partition for row in rows]),
        Column("segment", "UInt64", [row.segment for row in rows]),
        Column("next_offset", "UInt64", [row.next_offset for row in rows]),
        Column("events", "UInt64", [row.events for row in rows]),
        Column("duration_ms_sum", "UInt64", [row.duration_ms_sum for row in rows]),
        Column("histogram", "Map(Int16, UInt64)", [row.histogram for row in rows]),
        Column("user_hashes", "Array(UInt64)", [row.users.tolist() for row in rows]),
        *_further_columns(rows),
    ]


def _further_columns(rows: Sequence[MinuteRow]) -> list[Column]:
    """The dimensions that the rules of some of the segments add; those of the others are empty there."""
    named = {name for row in rows for name in row.dimensions}
    return [
        Column(
            name,
            "String",
            [row.key.further[row.dimensions.index(name)] if name in row.dimensions else "" for row in rows],
        )
        for name in DIMENSIONS
        if name in named
    ]


def _receipt_columns(receipts: Sequence[Receipt]) -> list[Column]:
    rejected = [{reason.value: count for reason, count in item.rejected.items()} for item in receipts]
    return [
        Column("topic", "String", [item.log.topic for item in receipts]),
        Column("topic_id", "String", [item.log.topic_id for item in receipts]),
        Column("partition", "UInt32", [item.log.partition for item in receipts]),
        Column("segment", "UInt64", [item.segment for item in receipts]),
        Column("next_offset", "UInt64", [item.next_offset for item in receipts]),
        Column("closed", "Bool", [item.closed for item in receipts]),
        Column("records", "UInt64", [item.records for item in receipts]),
        Column("value_bytes", "UInt64", [item.value_bytes for item in receipts]),
        Column("events", "UInt64", [item.events for item in receipts]),
        Column("accepted", "UInt64", [item.accepted for item in receipts]),
        Column("duplicates", "UInt64", [item.duplicates for item in receipts]),
        Column("rejected", "Map(String, UInt64)", rejected),
        Column("event_hash_sum", "UInt64", [item.event_hash_sum for item in receipts]),
        Column("first_timestamp", "Int64", [item.first_timestamp for item in receipts]),
        Column("last_timestamp", "Int64", [item.last_timestamp for item in receipts]),
        Column("rules", "String", [item.rules.to_json() for item in receipts]),
        Column("next_rules", "String", [item.next_rules.to_json() if item.next_rules else "" for item in receipts]),
        Column("version", "UInt64", [item.version for item in receipts]),
    ]
