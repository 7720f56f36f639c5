"""Hours and days: recomputed whole, from the minutes while a period is open, from the ledger when it is closed.

Any number of workers may recompute one period at once, each from what it saw, and write in any order. What decides is
the version of the rows, which the same statement computes from what it read:

    version = epoch << 105 | closed << 104 | weight

``weight`` is the sum, over all rows of the whole period, of ``next_offset + 1`` of the minutes or of ``version + 1`` of
the ledger. Rows are only added to these tables, and replaced by rows of a higher version: whoever saw more has the
higher weight, and whoever has the same weight saw the same. ``epoch`` is raised when rows are taken out on purpose, and
is read before the statement is sent. The proof is in docs/decisions/0012-hours-and-days.md.

Public: :func:`recompute` (what changed, and why), :func:`refresh` (the same for a worker, which does not ask),
:func:`due` (which periods are not up to date), :func:`raise_epoch`.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from pipeline.errors import StoreError
from pipeline.settings import PeriodsSettings
from sinks.clickhouse.client import Client
from sinks.clickhouse.period_sql import (
    CLOSED_BIT,
    EPOCH_BIT,
    HOURS,
    Kind,
    Source,
    days_of,
    found_sql,
    insert_sql,
    months_sql,
    numbers_sql,
    stored_sql,
    weights_sql,
)

Cause = Literal["never_computed", "closed", "late", "rebuilt", "incomplete", "damaged", "lost"]

GRACE_SECONDS: Final = PeriodsSettings().grace_seconds
DAMAGE: Final = ("damaged", "lost")
# A statement recomputes at most so many neighbouring hours; days one at a time.
_HOURS_AT_ONCE: Final = 24
_RAISES: Final = 100


class Change(Struct, frozen=True):
    """A period whose numbers are not what they were, or would not be if it was only tried.

    ``before`` and ``after`` are events (uses and stages); ``before`` is None if the period was not there. ``repeats``
    were counted in the minutes and not in the ledger, ``late`` are events that came since the last computation.
    """

    table: Literal["hours", "days"]
    zone: str
    start: datetime
    source: Source
    before: int | None
    after: int
    repeats: int
    late: int
    cause: Cause
    words: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A period as it is in the table; ``low`` and ``high`` are the versions of its rows, equal when it is complete."""

    low: int
    high: int
    events: int
    digest: int

    @property
    def epoch(self) -> int:
        """The epoch it was computed in."""
        return self.high >> EPOCH_BIT

    @property
    def closed(self) -> bool:
        """Whether it was computed from the ledger."""
        return bool(self.high >> CLOSED_BIT & 1)

    @property
    def weight(self) -> int:
        """How much was read for it."""
        return self.high & ((1 << CLOSED_BIT) - 1)

    def is_of(self, source: Source, weight: int) -> bool:
        """Whether it is complete and was computed from just this; a raised epoch alone changes nothing."""
        return self.low == self.high and (self.closed, self.weight) == (source == "ledger", weight)

    def lost_rows(self, source: Source, weight: int, epoch: int) -> bool:
        """Whether it was computed from more than there is, which nobody has taken out on purpose."""
        same_book = self.closed == (source == "ledger")
        return self.low == self.high and same_book and self.epoch >= epoch and self.weight > weight


@dataclass(frozen=True, slots=True)
class Found:
    """A period as minutes or ledger have it."""

    weight: int
    events: int
    digest: int


NOTHING: Final = Found(0, 0, 0)


def recompute(
    client: Client,
    start: datetime,
    end: datetime,
    zone: str,
    now: datetime,
    *,
    grace_seconds: float = GRACE_SECONDS,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Change]:
    """Recompute the hours and days that [start, end) touches; what changed, and why.

    Args:
        client: ClickHouse, for writing unless ``dry_run``.
        start: from here, aware.
        end: to before here, aware.
        zone: of the days.
        now: decides which periods are closed.
        grace_seconds: how long after its end a period stays open.
        dry_run: write nothing.
        progress: called with (periods done, periods in all) after each statement.

    Raises:
        StoreError: ClickHouse is away or refuses.
        SettingsError: there is no such zone.
    """
    todo: list[tuple[Kind, Source, int, int]] = []
    for kind in (HOURS, days_of(zone)):
        numbers = _numbers(client, kind, start, end)
        todo += [
            (kind, source, first, last) for source, first, last in runs(kind, numbers, now.timestamp(), grace_seconds)
        ]
    total = sum(_length(kind, first, last) for kind, _, first, last in todo)
    changes: list[Change] = []
    done = 0
    for kind, source, first, last in todo:
        changes += _recompute(client, kind, source, first, last, dry_run)
        done += _length(kind, first, last)
        if progress:
            progress(done, total)
    return changes


def refresh(client: Client, kind: Kind, source: Source, first: int, last: int) -> None:
    """Recompute the periods ``first`` to ``last``, in one statement.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    # Before the statement: with a newer epoch it must not read the tables from before the epoch was raised.
    base = (current_epoch(client) << EPOCH_BIT) + ((source == "ledger") << CLOSED_BIT)
    client.execute(insert_sql(kind, source, first, last, base))


def runs(kind: Kind, numbers: Iterable[int], now: float, grace_seconds: float) -> Iterator[tuple[Source, int, int]]:
    """Periods as (source, first, last) for :func:`refresh`: neighbours that are all open or all closed together."""
    first_open = kind.first_open(now, grace_seconds)
    longest = _HOURS_AT_ONCE if kind is HOURS else 1
    run: list[int] = []
    for number in sorted(set(numbers)):
        if run and (
            number != run[-1] + kind.step or len(run) == longest or (run[0] < first_open) != (number < first_open)
        ):
            yield _source(run[0], first_open), run[0], run[-1]
            run = []
        run.append(number)
    if run:
        yield _source(run[0], first_open), run[0], run[-1]


def due(client: Client, kind: Kind, start: float, end: float, now: float, grace_seconds: float) -> list[int]:
    """The periods with rows in the Unix seconds [start, end) whose stored version is not that of the rows now.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    first, last = kind.number(max(0.0, start)), kind.number(max(0.0, start, end - 1))
    first_open = kind.first_open(now, grace_seconds)
    epoch = current_epoch(client)
    kept = stored(client, kind, first, last, digest=False)
    late: list[int] = []
    for source, one, other in _split(kind, first, last, first_open):
        weights = {number: int(weight) for number, weight in client.query(weights_sql(kind, source, one, other)).rows}
        for number in {*weights, *(key for key in kept if one <= key <= other)}:
            was, weight = kept.get(number), weights.get(number, 0)
            if was is not None and source == "minutes" and was.closed:
                # Another worker's clock is ahead; the period is closed here soon.
                continue
            if was is not None and was.lost_rows(source, weight, epoch):
                # Recomputing would change nothing; the audit tells it.
                continue
            if was is None or not was.is_of(source, weight):
                late.append(number)
    return sorted(late)


def stored(client: Client, kind: Kind, first: int, last: int, *, digest: bool = True) -> dict[int, Stored]:
    """What the table has of periods, by their numbers."""
    rows = client.query(stored_sql(kind, first, last, digest)).rows
    return {number: Stored(int(low), int(high), events, hashed) for number, low, high, events, hashed in rows}


def found(client: Client, kind: Kind, source: Source, first: int, last: int) -> dict[int, Found]:
    """What minutes or ledger have of periods, by their numbers."""
    rows = client.query(found_sql(kind, source, first, last)).rows
    return {number: Found(int(weight), events, digest) for number, weight, events, digest in rows}


def months(client: Client) -> list[tuple[int, int]]:
    """The months, UTC, that have rows, as Unix seconds [start, end): all that there is, in pieces.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    return [(start, end) for start, end in client.query(months_sql()).rows]


def current_epoch(client: Client) -> int:
    """The highest epoch, 0 if none was ever raised."""
    return int(client.query("SELECT max(epoch) AS epoch FROM epochs").one()[0])


def raise_epoch(client: Client, reason: str) -> int:
    """Begin a new epoch, after rows were taken out of minutes or ledger on purpose; its number.

    To be called after the tables were exchanged, and before :func:`recompute`. Two calls never get the same number:
    whoever finds another one under the number that it wrote takes the next.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    for _ in range(_RAISES):
        raiser = uuid.uuid4().hex
        client.query(
            "INSERT INTO epochs (epoch, raiser, reason) SELECT max(epoch) + 1, {raiser:String}, {reason:String}"
            " FROM epochs SETTINGS distributed_foreground_insert = 1",
            {"raiser": raiser, "reason": reason},
        )
        rows = client.query(
            "SELECT epoch, count() AS raisers FROM epochs WHERE epoch IN"
            " (SELECT epoch FROM epochs WHERE raiser = {raiser:String}) GROUP BY epoch",
            {"raiser": raiser},
        ).rows
        if [raisers for _, raisers in rows] == [1]:
            return int(rows[0][0])
    raise StoreError("the epoch of hours and days cannot be raised: too many others raise it at the same time")


def _recompute(client: Client, kind: Kind, source: Source, first: int, last: int, dry_run: bool) -> list[Change]:
    before = stored(client, kind, first, last)
    now = found(client, kind, source, first, last)
    epoch = current_epoch(client)
    if not dry_run:
        refresh(client, kind, source, first, last)
    after = stored(client, kind, first, last)
    counted: dict[int, Found] | None = None
    changes = []
    for number in sorted({*before, *now, *after}):
        was, is_, got = before.get(number), now.get(number, NOTHING), after.get(number)
        written = got is not None and got.closed == (source == "ledger") and (was is None or got.high != was.high)
        if not dry_run and written and got is not None and got.weight > is_.weight:
            # The statement saw events that came meanwhile.
            is_ = Found(got.weight, got.events, got.digest)
        if was is not None and (was.events, was.digest) == (is_.events, is_.digest):
            continue
        if was is not None and was.closed and source == "minutes":
            # Closed by a worker whose clock is ahead; it stays so.
            continue
        if counted is None and source == "ledger":
            counted = found(client, kind, "minutes", first, last)
        repeats = max(0, (counted or {}).get(number, is_).events - is_.events)
        changes.append(_change(kind, source, number, was, is_, repeats, epoch))
    return changes


def _change(
    kind: Kind, source: Source, number: int, was: Stored | None, is_: Found, repeats: int, epoch: int
) -> Change:
    cause: Cause
    late = 0
    if was is None:
        cause, words = "never_computed", "was never computed"
        if repeats:
            words += f"; {repeats} repeats in the minutes are left out"
    elif was.is_of(source, is_.weight):
        cause, words = "damaged", "had other numbers, although they were computed from the same rows: damage, mended"
    elif was.lost_rows(source, is_.weight, epoch):
        cause = "lost"
        words = f"was computed from more than the {source} holds now: rows were lost there; the numbers are kept"
    elif was.epoch < epoch:
        cause, words = "rebuilt", "was computed before the tables were rebuilt"
    elif was.low != was.high:
        cause, words = "incomplete", "was left half-way by a recomputation that was cut off"
    elif source == "ledger" and not was.closed:
        late = max(0, is_.events + repeats - was.events)
        cause, words = "closed", f"closed: {repeats} repeats removed, {late} events came after the last computation"
    else:
        late, repeats = max(0, is_.events - was.events), 0
        cause, words = "late", f"{late} events came after the last computation"
        if not late:
            words = "copies of events with an earlier place in the log took the place of later ones"
    return Change(
        table=kind.table,
        zone=kind.zone,
        start=kind.start(number),
        source=source,
        before=None if was is None else was.events,
        after=was.events if cause == "lost" and was is not None else is_.events,
        repeats=repeats,
        late=late,
        cause=cause,
        words=words,
    )


def _numbers(client: Client, kind: Kind, start: datetime, end: datetime) -> Sequence[int]:
    sql = numbers_sql(kind, max(0, int(start.timestamp())), max(0, int(end.timestamp())))
    return [number for (number,) in client.query(sql).rows]


def _split(kind: Kind, first: int, last: int, first_open: int) -> list[tuple[Source, int, int]]:
    parts: list[tuple[Source, int, int]] = []
    if first < first_open:
        parts.append(("ledger", first, min(last, first_open - kind.step)))
    if last >= first_open:
        parts.append(("minutes", max(first, first_open), last))
    return parts


def _source(number: int, first_open: int) -> Source:
    return "ledger" if number < first_open else "minutes"


def _length(kind: Kind, first: int, last: int) -> int:
    return (last - first) // kind.step + 1
