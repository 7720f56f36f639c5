"""The minute rows of one segment: totals so far by minute, agency, service, and so on, and what the rules add."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.fold.histogram import BUCKETS, ZERO_BUCKET
from pipeline.fold.records import LogPartition

_BUCKET_SPACE = BUCKETS + 1
_MINUTE_MS = 60_000


class MinuteColumns(Protocol):
    """What minutes are made of: columns of one length, of decoded events or of the ledger."""

    @property
    def time_ms(self) -> list[int]:
        """Unix milliseconds."""

    @property
    def agency(self) -> list[str]:
        """Catalogue codes."""

    @property
    def service(self) -> list[str]:
        """Catalogue codes."""

    @property
    def channel(self) -> list[str]:
        """Channels."""

    @property
    def outcome(self) -> list[str]:
        """Outcomes; empty for a stage."""

    @property
    def stage(self) -> list[str]:
        """Stages; empty for a use."""


class MinuteKey(NamedTuple):
    """The dimensions of a minute row. ``minute`` is Unix seconds, a multiple of 60.

    ``further`` are the values of the further dimensions that the rules of the segment name, in their order.
    """

    minute: int
    agency: str
    service: str
    channel: str
    outcome: str
    stage: str
    further: tuple[str, ...] = ()


@dataclass(slots=True)
class MinuteTotals:
    """Totals of one minute row. ``histogram``: bucket to count, of uses only; ``users``: distinct user hashes."""

    events: int = 0
    duration_ms_sum: int = 0
    histogram: dict[int, int] = field(default_factory=dict)
    users: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    new_users: list[npt.NDArray[np.uint64]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MinuteRow:
    """One row to upsert: the totals within its segment up to ``next_offset``. Arrays are never changed later.

    ``dimensions`` names what ``key.further`` holds.
    """

    log: LogPartition
    segment: int
    next_offset: int
    key: MinuteKey
    events: int
    duration_ms_sum: int
    histogram: dict[int, int]
    users: npt.NDArray[np.uint64]
    dimensions: tuple[str, ...] = ()


class SegmentMinutes:
    """Accumulates the rows of one segment and hands out those that changed.

    ``dimensions`` are those of the segment's rules, beyond the ones that every row has.
    """

    def __init__(self, log: LogPartition, segment: int, dimensions: tuple[str, ...] = ()) -> None:
        self._log = log
        self._segment = segment
        self._dimensions = dimensions
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._keys: list[MinuteKey] = []
        self._totals: list[MinuteTotals] = []
        self._changed: set[int] = set()

    def add(
        self,
        columns: MinuteColumns,
        durations: npt.NDArray[np.int64],
        buckets: npt.NDArray[np.int64],
        users: npt.NDArray[np.uint64],
    ) -> None:
        """Add n accepted events; all arrays have length n."""
        numbers = self._number(columns)
        counts = np.bincount(numbers)
        sums = np.bincount(numbers, weights=durations)
        for number in np.flatnonzero(counts).tolist():
            totals = self._totals[number]
            totals.events += int(counts[number])
            totals.duration_ms_sum += int(sums[number])
            self._changed.add(number)
        self._add_histograms(columns, numbers, buckets)
        self._add_users(numbers, users)

    def take(self, next_offset: int) -> list[MinuteRow]:
        """The rows that changed since the last call, as of ``next_offset``."""
        rows = []
        for number in sorted(self._changed):
            totals = self._totals[number]
            if totals.new_users:
                totals.users = np.unique(np.concatenate([totals.users, *totals.new_users]))
                totals.new_users.clear()
            rows.append(
                MinuteRow(
                    self._log,
                    self._segment,
                    next_offset,
                    self._keys[number],
                    totals.events,
                    totals.duration_ms_sum,
                    dict(totals.histogram),
                    totals.users,
                    self._dimensions,
                )
            )
        self._changed.clear()
        return rows

    def _number(self, columns: MinuteColumns) -> npt.NDArray[np.int64]:
        minutes = (np.array(columns.time_ms, dtype=np.int64) // _MINUTE_MS * 60).tolist()
        further: list[Sequence[str]] = [getattr(columns, name) for name in self._dimensions]
        keys = list(
            zip(
                minutes,
                columns.agency,
                columns.service,
                columns.channel,
                columns.outcome,
                columns.stage,
                *further,
                strict=True,
            )
        )
        numbers = self._numbers
        for key in set(keys).difference(numbers):
            numbers[key] = len(numbers)
            minute, agency, service, channel, outcome, stage, *values = key
            self._keys.append(MinuteKey(minute, agency, service, channel, outcome, stage, tuple(values)))
            self._totals.append(MinuteTotals())
        return np.fromiter(map(numbers.__getitem__, keys), dtype=np.int64, count=len(keys))

    def _add_histograms(
        self, columns: MinuteColumns, numbers: npt.NDArray[np.int64], buckets: npt.NDArray[np.int64]
    ) -> None:
        if any(columns.stage):
            uses = np.array([stage == "" for stage in columns.stage])
            numbers, buckets = numbers[uses], buckets[uses]
        cells, counts = np.unique(numbers * _BUCKET_SPACE + (buckets - ZERO_BUCKET), return_counts=True)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
            number, bucket = divmod(cell, _BUCKET_SPACE)
            histogram = self._totals[number].histogram
            bucket += ZERO_BUCKET
            histogram[bucket] = histogram.get(bucket, 0) + count

    def _add_users(self, numbers: npt.NDArray[np.int64], users: npt.NDArray[np.uint64]) -> None:
        known = np.flatnonzero(users)
        if not len(known):
            return
        numbers, users = numbers[known], users[known]
        order = np.argsort(numbers, kind="stable")
        numbers, users = numbers[order], users[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        for number, group in zip(numbers[starts].tolist(), np.split(users, starts[1:]), strict=True):
            self._totals[number].new_users.append(group)
