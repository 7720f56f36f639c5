"""Writes a flush to ClickHouse. Every insert is an upsert of what the log says, so any of them may be repeated."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from pipeline.contract.encoded import Encoded, Lists, Maps, constant, joined
from pipeline.fold.flush import Flush
from pipeline.fold.ledger import LedgerColumns
from pipeline.fold.minutes import MinuteRows
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
    if any(map(len, flush.minute_parts)):
        client.insert(f"minutes{suffix}", _minute_columns(flush.minute_parts))


def write_receipts(client: Client, receipts: Sequence[Receipt]) -> None:
    """Write receipts alone: of a segment that ends because the log no longer reaches back to its start."""
    client.insert("receipts", _receipt_columns(receipts))


def _ledger_columns(ledger: LedgerColumns, names: Sequence[str]) -> list[Column]:
    return [Column(name, _LEDGER_TYPES[name], getattr(ledger, name)) for name in names]


def _minute_columns(parts: Sequence[MinuteRows]) -> list[Column]:
    def numbers(of: Callable[[MinuteRows], Any]) -> Any:
        return np.concatenate([of(part) for part in parts])

    def every(of: Callable[[MinuteRows], int]) -> Any:
        return np.repeat([of(part) for part in parts], [len(part) for part in parts])

    def ends(of: Callable[[MinuteRows], Maps | Lists]) -> Any:
        before = np.cumsum([0, *(len(of(part).values) for part in parts)]).astype(np.uint64)
        return np.concatenate([of(part).ends + start for part, start in zip(parts, before[:-1], strict=True)])

    def texts(name: str) -> Encoded:
        return joined([part.texts[name] if name in part.texts else constant("", len(part)) for part in parts])

    histogram = Maps(
        numbers(lambda part: part.histogram.keys),
        numbers(lambda part: part.histogram.values),
        ends(lambda part: part.histogram),
    )
    users = Lists(numbers(lambda part: part.user_hashes.values), ends(lambda part: part.user_hashes))
    topics = joined([constant(part.log.topic_id, len(part)) for part in parts])
    # The dimensions that the rules of some of the segments add; those of the others are empty there.
    further = [name for name in DIMENSIONS if any(name in part.texts for part in parts)]
    return [
        Column("agency", "String", texts("agency")),
        Column("service", "String", texts("service")),
        Column("minute", "UInt32", numbers(lambda part: part.minute)),
        Column("channel", "String", texts("channel")),
        Column("outcome", "String", texts("outcome")),
        Column("stage", "String", texts("stage")),
        Column("topic_id", "String", topics),
        Column("partition", "UInt32", every(lambda part: part.log.partition)),
        Column("segment", "UInt64", every(lambda part: part.segment)),
        Column("next_offset", "UInt64", every(lambda part: part.next_offset)),
        Column("events", "UInt64", numbers(lambda part: part.events)),
        Column("duration_ms_sum", "UInt64", numbers(lambda part: part.duration_ms_sum)),
        Column("histogram", "Map(Int16, UInt64)", histogram),
        Column("user_hashes", "Array(UInt64)", users),
        *(Column(name, "String", texts(name)) for name in further),
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
