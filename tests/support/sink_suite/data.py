"""A log made of synthetic events, its fold, and figures counted from the events as naively as can be."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.generator import Generator
from pipeline.generator.spoiled import spoiled
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.schema import migrate
from sinks.clickhouse.writer import write_openings, write_results

Event = dict[str, Any]

CATALOGUE: Final = demonstration_catalogue()
LOG: Final = LogPartition("usage.events", "first-topic", 0)
OTHER_LOG: Final = LogPartition("usage.events", "first-topic", 1)
START: Final = datetime(2026, 3, 2, 9, tzinfo=UTC)
RULES: Final = Rules(
    segment_records=40,
    segment_bytes=16_777_216,
    memory_segments=2,
    max_age_days=3_660,
    max_ahead_seconds=300,
    catalogue_version=CATALOGUE.version,
)


@contextmanager
def connected(store: ClickHouseSettings) -> Iterator[Client]:
    """A client of the database."""
    client = connect(store)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def migrated(store: ClickHouseSettings) -> Iterator[Client]:
    """A client of the database, with the schema in it."""
    with connected(store) as client:
        migrate(store)
        yield client


def synthetic(count: int, seed: int = 1, start: datetime = START, minutes: int = 50) -> list[Event]:
    """Events of the demonstration's catalogue, in order of time."""
    return list(Generator(CATALOGUE, seed).events(start, start + timedelta(minutes=minutes), count))


@dataclass
class Log:
    """Messages of one partition, and what of them must be counted."""

    log: LogPartition = LOG
    values: list[bytes] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    accepted: list[Event] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0

    @property
    def end(self) -> int:
        """Offset of the next message."""
        return len(self.values)

    def add(self, events: Sequence[Event]) -> None:
        """One message: a single event or a batch of them, none of which was added before."""
        self.accepted += events
        self._append(msgspec.json.encode(events[0] if len(events) == 1 else events), milliseconds(events[-1]))

    def repeat(self, events: Sequence[Event]) -> None:
        """One message with events that the fold has just seen."""
        self.duplicates += len(events)
        self._append(msgspec.json.encode(events), milliseconds(events[-1]))

    def spoil(self, event: Event, reason: Reason) -> None:
        """One message that is refused."""
        self.rejected[reason.value] += 1
        self._append(spoiled(event, reason), milliseconds(event))

    def batch(self, start: int, stop: int) -> RecordBatch:
        """The messages [start, stop), as the transport would hand them over."""
        size = stop - start
        return RecordBatch(
            topic=self.log.topic,
            partition=self.log.partition,
            start_offset=start,
            next_offset=stop,
            high_water_mark=self.end,
            offsets=range(start, stop),
            timestamps=self.timestamps[start:stop],
            keys=[None] * size,
            values=self.values[start:stop],
            headers=[()] * size,
        )

    def _append(self, value: bytes, timestamp: int) -> None:
        self.values.append(value)
        self.timestamps.append(timestamp)


def mixed_log(events: Sequence[Event], log: LogPartition = LOG) -> Log:
    """Single events, batches, refused events of every kind and repeats, in a fixed pattern."""
    made = Log(log)
    reasons = list(Reason)
    place = number = 0
    while place < len(events):
        size = (1, 1, 5, 1, 3)[number % 5]
        part = events[place : place + size]
        made.add(part)
        if number % 7 == 3:
            made.spoil(part[0], reasons[(number // 7) % len(reasons)])
        if number % 11 == 5:
            made.repeat(part)
        place += size
        number += 1
    return made


@cache
def typical_log() -> Log:
    """A log with all that there is; nobody changes it."""
    log = mixed_log(synthetic(400))
    # Otherwise tests with it would show little.
    assert all([log.duplicates, len(log.rejected) > 5, not all(map(is_use, log.accepted))])
    return log


@cache
def whole_segments() -> Log:
    """Four whole segments and half of one, with more events in ``accepted`` than in it; nobody changes it."""
    log = mixed_log(synthetic(600))
    del log.values[RULES.segment_records * 9 // 2 :]
    return log


def new_fold(log: LogPartition = LOG, rules: Rules = RULES, point: ResumePoint | None = None) -> PartitionFold:
    """A fold from the start of the log, or from where ``point`` says."""
    start, opened, before = (point.start, point.opened, point.memory) if point else (0, {}, [])
    memory = Memory(before, opened.get(start, rules).memory_segments)
    return PartitionFold(log, start, opened, rules, {CATALOGUE.version: CATALOGUE}, memory)


def folded(log: Log, step: int = 60, fold: PartitionFold | None = None) -> list[Flush]:
    """The flushes of a fold that is asked for one every ``step`` messages."""
    fold = fold or new_fold(log.log)
    flushes = []
    for start in range(fold.next_offset, log.end, step):
        fold.add(log.batch(start, min(start + step, log.end)))
        flushes.append(fold.take())
    return flushes


def write(client: Client, flushes: Iterable[Flush]) -> None:
    """Write flushes as the worker does."""
    for flush in flushes:
        write_openings(client, flush)
        write_results(client, flush)


def rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    """Answer of a query with map keys as numbers, which JSON has only as texts."""
    return [tuple(_plain(value) for value in row) for row in client.query(sql).rows]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {int(key) if str(key).lstrip("-").isdigit() else key: item for key, item in value.items()}
    return value


def milliseconds(event: Event) -> int:
    """Time of an event, Unix milliseconds."""
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1000)


def minute(event: Event) -> int:
    """Start of its minute, Unix seconds."""
    return milliseconds(event) // 60_000 * 60


def duration(event: Event) -> int:
    """Whole milliseconds, halves up."""
    return math.floor(float(event["data"]["duration_ms"]) + 0.5)


def is_use(event: Event) -> bool:
    """Whether it is a use and not a stage."""
    return bool(event["type"] == "xidmet.service.used.v1")


def hash_of(event: Event) -> int:
    """Its identity."""
    return xxh3_64_intdigest(f"{event['source']}\0{event['id']}".encode())


@dataclass
class Figures:
    """Figures of one group of uses."""

    uses: int = 0
    failures: int = 0
    people: set[str] = field(default_factory=set)
    durations: list[int] = field(default_factory=list)

    def quantile(self, share: float) -> int:
        """The exact quantile: the value that at least that share does not exceed."""
        return sorted(self.durations)[max(1, math.ceil(share * len(self.durations))) - 1]


def count(events: Iterable[Event], *by: str) -> dict[tuple[Any, ...], Figures]:
    """Figures of the uses among the events, grouped by ``agency``, ``service``, ``minute`` or ``hour``."""
    groups: dict[tuple[Any, ...], Figures] = defaultdict(Figures)
    for event in events:
        if not is_use(event):
            continue
        data = event["data"]
        names = {
            "agency": data["agency"],
            "service": data["service"],
            "minute": minute(event),
            "hour": minute(event) // 3600 * 3600,
        }
        group = groups[tuple(names[name] for name in by)]
        group.uses += 1
        group.failures += data["outcome"] == "failure"
        group.durations.append(duration(event))
        if "user" in data:
            group.people.add(data["user"])
    return dict(groups)
