"""A log, a naive oracle of its totals, and a store that keeps upserts as ClickHouse does; for tests of the fold.

The oracle shares no code with the fold: it walks single events as they were meant, never as bytes, and knows the
segment rule only as prose says it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from pipeline.catalogue import Agency, Catalogue, Names, Service
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.fold.segment import MARKER_HEADER
from tests.support.minute_rows import MinuteKey, MinuteRow, minute_rows

HOUR_MS = 3_600_000
STEPS = ("openings", "dead letters", "ledger", "coordinates", "minutes", "receipts")


def _names(text: str) -> Names:
    return Names(az=text, en=text, ru=text)


CATALOGUE = Catalogue(
    version=1,
    agencies=tuple(
        Agency(code, _names(code), tuple(Service(one, _names(one)) for one in ("s1", "s2"))) for code in ("a1", "a2")
    ),
)
BASE_MS = 1_800_000_000_000 // HOUR_MS * HOUR_MS


@dataclass(frozen=True)
class Item:
    """One event as it was meant. ``good`` is False for one that names an unknown agency."""

    id: int
    agency: str = "a1"
    service: str = "s1"
    minute: int = 0
    duration: int = 0
    user: int = 0
    good: bool = True

    def to_json(self) -> dict[str, Any]:
        """The event as a CloudEvent."""
        data: dict[str, Any] = {
            "agency": self.agency if self.good else "unknown-agency",
            "service": self.service,
            "channel": "web",
            "outcome": "success",
            "duration_ms": self.duration,
        }
        if self.user:
            data["user"] = f"pseudonym-of-person-{self.user:06d}"
        time = datetime.fromtimestamp(BASE_MS / 1000 + self.minute * 60, UTC)
        return {
            "specversion": "1.0",
            "id": f"id-{self.id}",
            "source": "https://a.example/",
            "type": "xidmet.service.used.v1",
            "time": time.isoformat().replace("+00:00", "Z"),
            "data": data,
        }


@dataclass(frozen=True)
class LogRecord:
    """One message: a batch of items (one item is sent alone), at an offset, with a time stamp; or a marker."""

    offset: int
    timestamp: int
    items: tuple[Item, ...]
    junk: bool = False
    marker: Rules | None = None

    @property
    def value(self) -> bytes:
        """The bytes on the log."""
        if self.marker:
            return b""
        if self.junk:
            return b"\xff not json"
        events = [item.to_json() for item in self.items]
        return json.dumps(events[0] if len(events) == 1 else events).encode()


@dataclass
class Totals:
    """What must come out: minute rows by key, identities in the ledger, counts of the receipts."""

    uses: Counter[MinuteKey] = field(default_factory=Counter)
    durations: Counter[MinuteKey] = field(default_factory=Counter)
    people: dict[MinuteKey, set[int]] = field(default_factory=dict)
    ledger: set[str] = field(default_factory=set)
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


def oracle(logs: Iterable[Sequence[LogRecord]], rules: Rules) -> Totals:
    """The totals, by walking each log event by event."""
    totals = Totals()
    for log in logs:
        memory: list[set[int]] = [set()]
        records, weight, hour_end = 0, 0, 0
        for record in log:
            late = records > 0 and record.timestamp >= hour_end
            if late or records >= rules.segment_records or weight >= rules.segment_bytes:
                memory.append(set())
                records, weight = 0, 0
            if records == 0:
                hour_end = (record.timestamp // HOUR_MS + 1) * HOUR_MS
            records += 1
            weight += len(record.value)
            if record.junk:
                totals.rejected += 1
                continue
            for item in record.items:
                _count(totals, item, memory[-1 - rules.memory_segments :])
    return totals


def _count(totals: Totals, item: Item, memory: list[set[int]]) -> None:
    if not item.good:
        totals.rejected += 1
        return
    if any(item.id in segment for segment in memory):
        totals.duplicates += 1
        return
    memory[-1].add(item.id)
    totals.accepted += 1
    totals.ledger.add(f"id-{item.id}")
    key = MinuteKey(BASE_MS // 1000 + item.minute * 60, item.agency, item.service, "web", "success", "")
    totals.uses[key] += 1
    totals.durations[key] += item.duration
    if item.user:
        totals.people.setdefault(key, set()).add(item.user)


class Store:
    """Keeps upserts as the tables do: of two rows with one key the higher version stays, of equal ones the later."""

    def __init__(self) -> None:
        self.ledger: dict[str, int] = {}
        self.coordinates: dict[tuple[LogPartition, int, int], int] = {}
        self.minutes: dict[tuple[LogPartition, int, MinuteKey], MinuteRow] = {}
        self.receipts: dict[tuple[LogPartition, int], Receipt] = {}
        self.letters: set[tuple[LogPartition, int, int]] = set()

    def apply(self, flush: Flush, steps: int = len(STEPS)) -> None:
        """The first ``steps`` steps of a flush: a worker that dies in between does no more."""
        logs = {receipt.log.partition: receipt.log for receipt in [*flush.openings, *flush.receipts]}
        todo: list[Callable[[], None]] = [
            lambda: self._receipts(flush.openings),
            lambda: self.letters.update((item.log, item.offset, item.batch_index) for item in flush.rejects),
            lambda: self._ledger(flush),
            lambda: self._coordinates(flush, logs),
            lambda: self._minutes(minute_rows(flush)),
            lambda: self._receipts(flush.receipts),
        ]
        for step in todo[:steps]:
            step()

    def totals(self) -> Totals:
        """What a reader of the views sees."""
        totals = Totals(ledger=set(self.ledger))
        for (_, _, key), row in self.minutes.items():
            totals.uses[key] += row.events
            totals.durations[key] += row.duration_ms_sum
        for receipt in self.receipts.values():
            totals.accepted += receipt.accepted
            totals.duplicates += receipt.duplicates
            totals.rejected += sum(receipt.rejected.values())
        return totals

    def people(self, key: MinuteKey) -> int:
        """Distinct users of a minute over all segments."""
        return len({user for (_, _, k), row in self.minutes.items() if k == key for user in row.users.tolist()})

    def in_force(self, log: LogPartition) -> Rules | None:
        """The rules that hold until a marker asks for others."""
        receipts = sorted((item for (owner, _), item in self.receipts.items() if owner == log), key=lambda r: r.segment)
        newest = receipts[-1:]
        return newest[0].next_rules or newest[0].rules if newest else None

    def resume(self, log: LogPartition, rules: Rules, known: Sequence[Rules] = ()) -> PartitionFold:
        """A fold as a worker that was just assigned the partition starts it."""
        receipts = sorted((item for (owner, _), item in self.receipts.items() if owner == log), key=lambda r: r.segment)
        opened = {item.segment: item.rules for item in receipts if not item.closed}
        start = min(opened) if opened else receipts[-1].next_offset if receipts else 0
        newest = max((item for item in receipts if item.segment < start), key=lambda r: r.segment, default=None)
        inherited = (newest.next_rules or newest.rules) if newest else rules
        depth_now = opened.get(start, inherited).memory_segments
        chain = [receipt for receipt in receipts if receipt.segment < start]
        # A worker that never restarts remembers one segment more than the one before did, at the most.
        deep = 0
        for receipt in chain:
            deep = min(receipt.rules.memory_segments, deep + 1)
        deep = min(depth_now, deep + 1)
        before = chain[-deep:]
        memory = [
            [
                hash_
                for (owner, offset, _), hash_ in self.coordinates.items()
                if owner == log and receipt.segment <= offset < receipt.next_offset
            ]
            for receipt in before
        ]
        texts = {one.to_json(): one for one in [rules, *known]}
        return PartitionFold(log, start, opened, inherited, {1: CATALOGUE}, Memory(memory, depth_now), texts)

    def check_receipts(self) -> None:
        """The audit's first two entries: no hole, no overlap, sums that hold."""
        for log in {owner for owner, _ in self.receipts}:
            chain = sorted((r for (owner, _), r in self.receipts.items() if owner == log), key=lambda r: r.segment)
            for receipt, following in pairwise(chain):
                assert receipt.closed
                assert following.segment == receipt.next_offset
            for receipt in chain:
                assert receipt.events == receipt.accepted + receipt.duplicates + sum(receipt.rejected.values())
                inside = [
                    hash_
                    for (owner, offset, _), hash_ in self.coordinates.items()
                    if owner == log and receipt.segment <= offset < receipt.next_offset
                ]
                assert len(inside) == receipt.accepted
                assert sum(inside) % (1 << 64) == receipt.event_hash_sum
                rows = [
                    row
                    for (owner, segment, _), row in self.minutes.items()
                    if (owner, segment) == (log, receipt.segment)
                ]
                assert sum(row.events for row in rows) == receipt.accepted

    def _ledger(self, flush: Flush) -> None:
        for id_, offset in zip(flush.ledger.event_id, flush.ledger.offset.tolist(), strict=True):
            self.ledger[id_] = min(offset, self.ledger.get(id_, offset))

    def _coordinates(self, flush: Flush, logs: dict[int, LogPartition]) -> None:
        ledger = flush.ledger
        for partition, offset, index, hash_ in zip(
            ledger.partition.tolist(),
            ledger.offset.tolist(),
            ledger.batch_index.tolist(),
            ledger.event_hash.tolist(),
            strict=True,
        ):
            self.coordinates[logs[partition], offset, index] = hash_

    def _minutes(self, rows: Iterable[MinuteRow]) -> None:
        for row in rows:
            key = (row.log, row.segment, row.key)
            if key not in self.minutes or self.minutes[key].next_offset <= row.next_offset:
                self.minutes[key] = row

    def _receipts(self, receipts: Iterable[Receipt]) -> None:
        for receipt in receipts:
            key = (receipt.log, receipt.segment)
            if key not in self.receipts or self.receipts[key].version <= receipt.version:
                self.receipts[key] = receipt


def batch_of(log: LogPartition, records: Sequence[LogRecord], start_offset: int, next_offset: int) -> RecordBatch:
    """Records as the transport hands them over."""
    return RecordBatch(
        topic=log.topic,
        partition=log.partition,
        start_offset=start_offset,
        next_offset=next_offset,
        high_water_mark=next_offset,
        offsets=[record.offset for record in records],
        timestamps=[record.timestamp for record in records],
        keys=[None] * len(records),
        values=[record.value for record in records],
        headers=[[(MARKER_HEADER, record.marker.to_json().encode())] if record.marker else [] for record in records],
    )


def feed(fold: PartitionFold, log: Sequence[LogRecord], count: int) -> None:
    """Give the fold the next ``count`` records of its partition."""
    rest = [record for record in log if record.offset >= fold.next_offset][:count]
    if rest:
        fold.add(batch_of(fold.log, rest, fold.next_offset, rest[-1].offset + 1))
