"""What a rebuild makes anew: runs of closed segments, and where each run comes from."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct, json

from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from pipeline.settings import Dimension
from sinks.clickhouse.client import Client

Source = Literal["log", "ledger"]
Wanted = Literal["auto", "log", "ledger"]
Bounds = Mapping[LogPartition, tuple[int, int]]
"""First offset and end of the partitions that the broker has."""

PLACES = {"minutes": "segment", "ledger": "offset", "coordinates": "offset"}
"""The tables of a rebuild, and the column that says where in its partition a row belongs."""


class Run(Struct, frozen=True):
    """Closed segments of one partition that follow each other without a hole, all from one source.

    ``first`` is the start of the first one, ``end`` the offset after the last record of the last one.
    """

    topic: str
    topic_id: str
    partition: int
    first: int
    end: int
    source: Source
    memory_segments: int

    @property
    def log(self) -> LogPartition:
        """The partition."""
        return LogPartition(self.topic, self.topic_id, self.partition)


class Plan(Struct, frozen=True):
    """A rebuild: the period of record time stamps in Unix milliseconds, the runs, what the minutes get, what stays."""

    from_ms: int
    to_ms: int
    dimensions: tuple[Dimension, ...]
    runs: tuple[Run, ...]
    keep_old: bool = False

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that are made anew, in the order in which they are exchanged."""
        from_log = any(run.source == "log" for run in self.runs)
        return ("ledger", "coordinates", "minutes") if from_log else ("minutes",)

    def inside(self, table: str) -> str:
        """SQL condition: a row of this table is made anew. Only minutes can be made from the ledger."""
        column = PLACES[table]
        parts = [
            f"(topic_id = {_text(run.topic_id)} AND partition = {run.partition}"
            f" AND {column} >= {run.first} AND {column} < {run.end})"
            for run in self.runs
            if table == "minutes" or run.source == "log"
        ]
        return f"({' OR '.join(parts)})" if parts else "(0)"

    def to_json(self) -> str:
        """Text for the table of rebuilds."""
        return json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """A plan of the table of rebuilds."""
        return json.decode(text, type=cls)


def segments_between(client: Client, from_ms: int, to_ms: int) -> list[Receipt]:
    """Receipts of the closed segments with records whose time stamps reach into [``from_ms``, ``to_ms``)."""
    return _closed(
        client,
        "records > 0 AND greatest(first_timestamp, last_timestamp) >= {from:Int64}"
        " AND least(first_timestamp, last_timestamp) < {to:Int64}",
        {"from": from_ms, "to": to_ms},
    )


def segments_of(client: Client, run: Run) -> list[Receipt]:
    """Receipts of the segments of a run, in order."""
    return _closed(
        client,
        "topic_id = {topic_id:String} AND partition = {partition:UInt32} AND segment >= {first:UInt64}"
        " AND segment < {end:UInt64}",
        {"topic_id": run.topic_id, "partition": run.partition, "first": run.first, "end": run.end},
    )


def runs_of(segments: Iterable[Receipt], bounds: Bounds, wanted: Wanted) -> tuple[Run, ...]:
    """Put segments, in order of partition and offset, together to runs.

    A run also ends where the memory of repeats becomes longer or shorter, since the fold then looks back anew.

    Raises:
        BrokerError: the log is wanted and no longer has all of them.
    """
    runs: list[Run] = []
    for item in segments:
        source = _source(item, bounds, wanted)
        last = runs[-1] if runs else None
        memory = item.rules.memory_segments
        if (
            last is not None
            and last.log == item.log
            and last.end == item.segment
            and (last.source, last.memory_segments) == (source, memory)
        ):
            runs[-1] = Run(*_of(item.log), last.first, item.next_offset, source, memory)
        else:
            runs.append(Run(*_of(item.log), item.segment, item.next_offset, source, memory))
    return tuple(runs)


def _source(item: Receipt, bounds: Bounds, wanted: Wanted) -> Source:
    start, end = bounds.get(item.log, (0, -1))
    in_log = start <= item.segment and item.next_offset <= end
    if wanted == "log" and not in_log:
        raise BrokerError(f"{where(item)}: the log no longer has this segment; use --source auto, or a later --from")
    return "log" if in_log and wanted != "ledger" else "ledger"


def where(item: Receipt) -> str:
    """The place of a segment, for people."""
    return f"{item.log.topic}[{item.log.partition}] offsets {item.segment} to {item.next_offset}"


def _of(log: LogPartition) -> tuple[str, str, int]:
    return log.topic, log.topic_id, log.partition


def _closed(client: Client, condition: str, parameters: dict[str, Any]) -> list[Receipt]:
    rows = client.query(
        "SELECT topic, topic_id, partition, segment, next_offset, closed, records, value_bytes, events, accepted,"
        " duplicates, rejected, event_hash_sum, first_timestamp, last_timestamp, rules FROM receipts FINAL"
        f" WHERE closed AND {condition} ORDER BY topic, topic_id, partition, segment",
        parameters,
    ).dicts()
    receipts = []
    for row in rows:
        log = LogPartition(row.pop("topic"), row.pop("topic_id"), row.pop("partition"))
        row["closed"] = bool(row["closed"])
        row["rules"] = Rules.from_json(row["rules"])
        row["rejected"] = {Reason(reason): count for reason, count in row["rejected"].items()}
        receipts.append(Receipt(log=log, **row))
    return receipts


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
