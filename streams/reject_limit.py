"""The hard limit: a worker that refuses nearly everything stops, rather than turn the log into dead letters.

Looked at are the last ``rejected.window_events`` events of this worker's partitions, of all agencies. When more than
``rejected.stop_share`` of them were refused, the flush that would cross the limit is not written: the worker ends, and
the log still has everything.

The window outlives the worker. It is made again from the receipts when partitions are assigned, so that a supervisor
that starts the worker again does not grant it another window of refusals: what was folded before is not counted again,
and however often it is started, no more than about one window of events is refused in a row. Refusals under rules that
are no longer the worker's own do not count: they end with their segment, by the marker that the worker writes, and
nothing is mended by stopping for them.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.contract.reasons import Reason
from pipeline.errors import RejectLimitError
from pipeline.fold.flush import Flush
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.settings import RejectedSettings

_MOST_SEGMENTS: Final = 10_000
_LEADING: Final = 3


@dataclass(slots=True)
class _Counted:
    """Events and refusals by reason: of a segment so far, or of a piece of it."""

    events: int
    rejected: Counter[Reason]


class RejectLimit:
    """Counts what the flushes hold, and says when it is too much."""

    def __init__(self, settings: RejectedSettings, rules: Rules) -> None:
        self._settings = settings
        self._rules = rules
        self._window: deque[_Counted] = deque()
        self._events = 0
        self._refused = 0
        # How much of a segment is in the window or was: a segment may be folded, or its receipt read, again.
        self._seen: OrderedDict[tuple[LogPartition, int], _Counted] = OrderedDict()
        self._exceeded: RejectLimitError | None = None

    def resume(self, points: Iterable[ResumePoint]) -> None:
        """Take over what the receipts of newly assigned partitions say of their last events."""
        recent = [receipt for point in points for receipt in point.recent]
        for receipt in sorted(recent, key=lambda item: item.last_timestamp):
            self._push(self._new_in(receipt))

    def check(self, flush: Flush) -> None:
        """Count a flush that is about to be written.

        Raises:
            RejectLimitError: with it, too large a share of the last events would have been refused; nothing of it may
                be written, now or later.
        """
        if self._exceeded is not None:
            raise self._exceeded
        new = _Counted(0, Counter())
        for receipt in flush.receipts:
            piece = self._new_in(receipt)
            new.events += piece.events
            new.rejected += piece.rejected
        self._push(new)
        limit = self._settings.stop_share
        full = self._events >= self._settings.window_events
        # A flush that is better than the limit is what everybody waits for, whatever was before.
        if full and self._refused > limit * self._events and new.rejected.total() > limit * new.events:
            self._exceeded = RejectLimitError(self._words())
            raise self._exceeded

    def _new_in(self, receipt: Receipt) -> _Counted:
        """What a receipt says beyond what was counted of its segment before; nothing if it has other rules."""
        if receipt.rules != self._rules:
            return _Counted(0, Counter())
        key = receipt.log, receipt.segment
        before = self._seen.get(key, _Counted(0, Counter()))
        if receipt.events <= before.events:
            return _Counted(0, Counter())
        now = _Counted(receipt.events, Counter(receipt.rejected))
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > _MOST_SEGMENTS:
            self._seen.popitem(last=False)
        return _Counted(now.events - before.events, now.rejected - before.rejected)

    def _push(self, piece: _Counted) -> None:
        if not piece.events:
            return
        self._window.append(piece)
        self._events += piece.events
        self._refused += piece.rejected.total()
        while self._events - self._window[0].events >= self._settings.window_events:
            oldest = self._window.popleft()
            self._events -= oldest.events
            self._refused -= oldest.rejected.total()

    def _words(self) -> str:
        reasons = sum((piece.rejected for piece in self._window), Counter[Reason]())
        leading = ", ".join(f"{reason.value} {count:,}" for reason, count in reasons.most_common(_LEADING))
        version = self._rules.catalogue_version
        return (
            f"of the last {self._events:,} events {self._refused:,} were or would be refused, more than"
            f" rejected.stop_share = {self._settings.stop_share:g}; the reasons: {leading}; the worker stops before it"
            " writes them, and the log keeps them;"
            f" if catalogue version {version} or the settings of fold are at fault,"
            " mend them (a new catalogue needs a higher version), let them begin here with xidmet rules apply, and"
            " start again; if the events are, raise rejected.stop_share (1 never stops) to let them become dead"
            " letters; see docs/dead-letters.md"
        )
