"""The worker's hours and days: what its flushes touched is recomputed soon, and what has ended is closed.

The keeper has a thread and a connection of its own; a ClickHouse that is away costs it a failure and nothing else:
what is marked stays marked. Marks die with a worker, so that now and then the stored versions are compared with the
rows: the last days each time and one older month at a time; at the start of a worker, all months once.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Final

import numpy as np

from pipeline.errors import StoreError
from pipeline.fold.flush import Flush
from pipeline.settings import Settings
from sinks.clickhouse.client import Client, connect
from sinks.clickhouse.period_sql import HOURS, Kind, days_of
from sinks.clickhouse.periods import due, months, refresh, runs
from sinks.prometheus import Metrics

logger = logging.getLogger(__name__)

# The keeper rests at least so many times as long as it worked, so that it asks ClickHouse a fifth of the time at most.
_REST: Final = 4
# A round goes on after so many failures less one: a period that cannot be computed must not keep the others waiting.
_FAILURES: Final = 3
# What every sweep looks at, before one older month.
_RECENT_SECONDS: Final = 2 * 86_400
# At the stop of a worker, what is marked is recomputed as far as that goes.
_STOP_SECONDS: Final = 5.0


class Marks:
    """The periods that were touched since they were last recomputed. Any thread may mark."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Kind, set[int]] = {kind: set() for kind in kinds}

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._numbers.values()))

    def written(self, flush: Flush) -> None:
        """Mark the periods of a flush that was written."""
        minutes = {minute for part in flush.minute_parts for minute in np.unique(part.minute).tolist()}
        for kind in self._numbers:
            self.add(kind, {kind.number(minute) for minute in minutes})

    def add(self, kind: Kind, numbers: Iterable[int]) -> None:
        """Mark periods."""
        with self._lock:
            self._numbers[kind].update(numbers)

    def discard(self, kind: Kind, first: int, last: int) -> None:
        """Take the marks of [first, last] away; to be done before they are recomputed, so that none is missed."""
        with self._lock:
            self._numbers[kind].difference_update(range(first, last + 1, kind.step))

    def take(self) -> dict[str, list[int]]:
        """Take all marks away: numbers by table, without the tables that have none."""
        with self._lock:
            taken = {kind.table: sorted(numbers) for kind, numbers in self._numbers.items() if numbers}
            for numbers in self._numbers.values():
                numbers.clear()
        return {str(table): numbers for table, numbers in taken.items()}

    def of(self, kind: Kind) -> set[int]:
        """The marked periods."""
        with self._lock:
            return set(self._numbers[kind])


class PeriodKeeper:
    """Keeps hours and days up to date; all methods but :meth:`stop` are called from one thread."""

    def __init__(
        self, settings: Settings, marks: Marks, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._periods = settings.periods
        self._kinds = kinds_of(settings)
        self._marks = marks
        self._metrics = metrics
        self._clock = clock
        self._client: Client | None = None
        self._stopping = threading.Event()
        self._closed_before: dict[Kind, int] = {}
        self._months: list[tuple[int, int]] | None = None
        self._round_done = False
        self._next_sweep = 0.0

    def step(self) -> float:
        """Do what is due; the seconds to rest before the next call."""
        began = time.monotonic()
        try:
            if time.monotonic() >= self._next_sweep:
                self._sweep()
            self._close_ended()
            self._refresh(self._periods.refresh_seconds)
        except StoreError as error:
            self._metrics.periods_failures.inc()
            logger.warning("hours and days could not be recomputed; trying again", extra={"error": str(error)})
        else:
            self._metrics.periods_seconds.set(time.monotonic() - began)
            self._metrics.periods_last.set(self._clock())
        self._metrics.periods_marked.set(len(self._marks))
        return max(self._periods.refresh_seconds, _REST * (time.monotonic() - began))

    def stop(self) -> None:
        """Make a running :meth:`step` end after its current statement."""
        self._stopping.set()

    def close(self) -> None:
        """Recompute what is still marked, if ClickHouse takes it soon, and give the connection back."""
        self._stopping.clear()
        try:
            self._refresh(_STOP_SECONDS)
        except StoreError as error:
            logger.warning("hours and days are not up to date; a sweep will see to them", extra={"error": str(error)})
        finally:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _refresh(self, seconds: float) -> None:
        """Recompute what is marked, the newest first, for about so long; what fails or is left stays marked."""
        deadline = time.monotonic() + seconds
        now, grace = self._clock(), self._periods.grace_seconds
        todo = [
            [(kind, *run) for run in reversed(list(runs(kind, self._marks.of(kind), now, grace)))]
            for kind in self._kinds
        ]
        errors: list[StoreError] = []
        # An hour and a day by turns: an import of old events must not keep today waiting.
        for kind, source, first, last in (one for both in zip_longest(*todo) for one in both if one is not None):
            if self._stopping.is_set() or time.monotonic() > deadline or len(errors) == _FAILURES:
                break
            # Before the statement: what is written while it runs is marked again.
            self._marks.discard(kind, first, last)
            try:
                refresh(self._store(), kind, source, first, last)
            except StoreError as error:
                self._marks.add(kind, range(first, last + 1, kind.step))
                errors.append(error)
        if errors:
            raise errors[0]

    def _close_ended(self) -> None:
        """Mark the periods that have ended since the last call."""
        for kind in self._kinds:
            first_open = kind.first_open(self._clock(), self._periods.grace_seconds)
            before = self._closed_before.get(kind, first_open)
            if before < first_open:
                start, end = kind.start(before).timestamp(), kind.start(first_open).timestamp()
                self._mark_due(kind, start, end)
            self._closed_before[kind] = first_open

    def _sweep(self) -> None:
        """Mark what is not up to date among the last days and in one older month."""
        if self._months is None:
            self._months = months(self._store())
        now = self._clock()
        spans = [(now - _RECENT_SECONDS, now + self._settings.fold.max_ahead_seconds)]
        if self._months:
            spans.append(self._months[-1])
        for start, end in spans:
            for kind in self._kinds:
                if self._stopping.is_set():
                    return
                self._mark_due(kind, start, end)
        if self._months:
            self._months.pop()
        if not self._months:
            self._months, self._round_done = None, True
        self._next_sweep = time.monotonic() + (self._periods.sweep_seconds if self._round_done else 0.0)

    def _mark_due(self, kind: Kind, start: float, end: float) -> None:
        late = due(self._store(), kind, start, end, self._clock(), self._periods.grace_seconds)
        self._marks.add(kind, late)

    def _store(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings.clickhouse)
        return self._client


def kinds_of(settings: Settings) -> tuple[Kind, Kind]:
    """Hours, and days of the zone of the settings.

    Raises:
        SettingsError: there is no such zone.
    """
    return HOURS, days_of(settings.periods.time_zone)
