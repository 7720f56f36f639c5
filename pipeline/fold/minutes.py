"""The minute rows of one segment: totals so far by minute, agency, service, and so on, and what the rules add."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.contract.encoded import Encoded, Lists, Maps, encoded
from pipeline.contract.profiles import Profile, Profiles
from pipeline.fold.histogram import BUCKETS, ZERO_BUCKET
from pipeline.fold.records import LogPartition

_BUCKET_SPACE: Final = BUCKETS + 1
_MINUTE_MS: Final = 60_000
FIXED_DIMENSIONS: Final = ("agency", "service", "channel", "outcome", "stage")
_STAGE_PLACE: Final = FIXED_DIMENSIONS.index("stage")

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_NONE: Final[Integers] = np.zeros(0, dtype=np.int64)
_NOBODY: Final[Hashes] = np.zeros(0, dtype=np.uint64)


@dataclass(slots=True, eq=False)
class MinuteRows:
    """n rows to upsert, of one segment: the totals within it up to ``next_offset``. Arrays are never changed later.

    ``minute`` is Unix seconds. ``texts`` has the columns of the dimensions. ``histogram`` is of uses only: bucket to
    count; ``user_hashes`` are distinct.
    """

    log: LogPartition
    segment: int
    next_offset: int
    dimensions: tuple[str, ...]
    minute: Integers
    texts: dict[str, Encoded]
    events: Integers
    duration_ms_sum: Integers
    histogram: Maps
    user_hashes: Lists

    def __len__(self) -> int:
        return len(self.minute)


class SegmentMinutes:
    """Accumulates the rows of one segment and hands out those that changed.

    ``dimensions`` are those of the segment's rules, beyond the ones that every row has.
    """

    def __init__(self, log: LogPartition, segment: int, dimensions: tuple[str, ...] = ()) -> None:
        self._log = log
        self._segment = segment
        self._dimensions = dimensions
        self._names = FIXED_DIMENSIONS + dimensions
        # What came since the last take, to be grouped all at once: (table, group of each event, minute, ...).
        self._fresh: list[tuple[Profiles, npt.NDArray[np.int32], Integers, Integers, Integers, Hashes]] = []
        self._numbers: dict[tuple[int, Profile], int] = {}
        self._keys: list[tuple[int, Profile]] = []
        self._events = self._sums = _NONE
        # Pairs of (row, bucket) as one number, and of (row, user), each pair once.
        self._cells = self._counts = self._user_rows = _NONE
        self._users = _NOBODY

    def add(
        self,
        profiles: Profiles,
        profile: npt.NDArray[np.int32],
        time_ms: Integers,
        durations: Integers,
        buckets: Integers,
        users: Hashes,
    ) -> None:
        """Add n accepted events; all arrays have length n. ``users`` is 0 where there is none."""
        self._fresh.append((profiles, profile, time_ms, durations, buckets, users))

    def take(self, next_offset: int) -> MinuteRows:
        """The rows that changed since the last call, as of ``next_offset``, in the order in which they were met."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return self._rows(_NONE, next_offset, (_NONE, _NONE), (_NONE, _NOBODY))
        rows = np.concatenate([self._number(*part[:3]) for part in fresh])
        durations, buckets = (np.concatenate([part[place] for part in fresh]) for place in (3, 4))
        users = np.concatenate([part[5] for part in fresh])
        grown = len(self._keys) - len(self._events)
        counts = np.bincount(rows, minlength=len(self._keys))
        self._events = np.concatenate([self._events, np.zeros(grown, dtype=np.int64)]) + counts
        # In whole numbers: weights of bincount are floats, exact up to 2**53 milliseconds, which no segment reaches.
        sums = np.bincount(rows, weights=durations, minlength=len(self._keys)).astype(np.int64)
        self._sums = np.concatenate([self._sums, np.zeros(grown, dtype=np.int64)]) + sums
        touched = counts > 0
        is_use = np.array([not key[1][_STAGE_PLACE] for key in self._keys], dtype=np.bool_)[rows]
        cells = self._add_cells(touched, (rows * _BUCKET_SPACE + (buckets - ZERO_BUCKET))[is_use])
        return self._rows(np.flatnonzero(touched), next_offset, cells, self._add_users(touched, rows, users))

    def _number(self, profiles: Profiles, profile: npt.NDArray[np.int32], time_ms: Integers) -> Integers:
        """The row of each event."""
        group_of, groups = profiles.groups(self._names)
        both = (time_ms // _MINUTE_MS) << 32 | group_of[profile]
        distinct, places = np.unique(both, return_inverse=True)
        numbers = []
        for value in distinct.tolist():
            key = (value >> 32) * 60, groups[value & 0xFFFFFFFF]
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self._keys)
                self._keys.append(key)
            numbers.append(number)
        return np.array(numbers, dtype=np.int64)[places]

    def _add_cells(self, touched: npt.NDArray[np.bool_], fresh: Integers) -> tuple[Integers, Integers]:
        """Count histogram cells; those of the rows touched, in order, and their counts."""
        mine = touched[self._cells // _BUCKET_SPACE]
        new, counts = np.unique(fresh, return_counts=True)
        cells, places = np.unique(np.concatenate([self._cells[mine], new]), return_inverse=True)
        weights = np.concatenate([self._counts[mine], counts])
        totals = np.zeros(len(cells), dtype=np.int64)
        np.add.at(totals, places, weights)
        self._cells = np.concatenate([self._cells[~mine], cells])
        self._counts = np.concatenate([self._counts[~mine], totals])
        return cells, totals

    def _add_users(self, touched: npt.NDArray[np.bool_], rows: Integers, users: Hashes) -> tuple[Integers, Hashes]:
        """Note users; the (row, user) pairs of the rows touched, in order."""
        known = users != 0
        mine = touched[self._user_rows]
        of_rows = np.concatenate([self._user_rows[mine], rows[known]])
        of_users = np.concatenate([self._users[mine], users[known]])
        order = np.argsort(of_users)
        order = order[np.argsort(of_rows[order], kind="stable")]
        of_rows, of_users = of_rows[order], of_users[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (of_rows[1:] != of_rows[:-1]) | (of_users[1:] != of_users[:-1])
        of_rows, of_users = of_rows[new], of_users[new]
        self._user_rows = np.concatenate([self._user_rows[~mine], of_rows])
        self._users = np.concatenate([self._users[~mine], of_users])
        return of_rows, of_users

    def _rows(
        self,
        numbers: Integers,
        next_offset: int,
        cells: tuple[Integers, Integers],
        users: tuple[Integers, Hashes],
    ) -> MinuteRows:
        keys = [self._keys[number] for number in numbers.tolist()]
        columns = zip(*(key for _, key in keys), strict=True) if keys else iter([()] * len(self._names))
        of_cells, counts = cells
        of_users, hashes = users
        return MinuteRows(
            self._log,
            self._segment,
            next_offset,
            self._dimensions,
            np.array([minute for minute, _ in keys], dtype=np.int64),
            {name: encoded(column) for name, column in zip(self._names, columns, strict=True)},
            self._events[numbers],
            self._sums[numbers],
            Maps(of_cells % _BUCKET_SPACE + ZERO_BUCKET, counts, _ends(of_cells // _BUCKET_SPACE, numbers)),
            Lists(hashes, _ends(of_users, numbers)),
        )


def _ends(rows: Integers, numbers: Integers) -> Hashes:
    """Where the run of each of ``numbers`` ends in the sorted ``rows``."""
    return np.searchsorted(rows, numbers, side="right").astype(np.uint64)
