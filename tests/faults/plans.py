"""What a worker under test is to do to itself, and where in a flush."""

from typing import Final, Literal

from msgspec import Struct

CRASH_POINTS: Final = (
    "before_openings",
    "before_dead_letters",
    "before_ledger",
    "before_coordinates",
    "before_minutes",
    "before_receipts",
    "after_receipts",
)
"""Places in a flush, in their order: each comes right before the write that it names, the last after all of them."""

FIVE_POINTS: Final = ("before_dead_letters", "before_ledger", "before_minutes", "before_receipts", "after_receipts")
"""Those without the two that differ least from another."""

WRITES: Final = ("before_ledger", "before_coordinates", "before_minutes", "before_receipts")
"""Those that come before an insert into a table of that name."""

Action = Literal["kill", "terminate", "stop", "hold", "fail", "slow", "nothing"]


class Plan(Struct, frozen=True, kw_only=True):
    """One fault of one worker.

    ``action`` is done the ``nth`` time that ``point`` is reached: ``kill`` (SIGKILL), ``terminate`` (SIGTERM, then it
    goes on), ``stop`` (SIGSTOP, until the test sends SIGCONT), ``hold`` (waits with the batch in hand until the file
    ``mark`` + ".release" is there; heartbeats go on), ``fail`` (the sink fails ``times`` times from then on), ``slow``
    (waits ``seconds`` each time from then on). ``mark`` is a file that is written just before the action; ``mark`` +
    ".passed" is written when the flush that met it has ended.

    ``clock_jumps`` are seconds by which the worker's wall clock is put forward or back, one after another, a flush
    each. ``resolves`` is ``host=file``: that host is this machine while the file is there, and unknown otherwise.
    """

    point: str = "before_openings"
    nth: int = 1
    action: Action = "nothing"
    mark: str = ""
    times: int = 1
    seconds: float = 0.0
    clock_jumps: tuple[float, ...] = ()
    resolves: str = ""
