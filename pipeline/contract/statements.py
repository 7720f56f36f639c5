"""Statements: events that say how something is, and replace what was said of it before.

Events of uses are counted, each once. A statement is not counted: it has a key, and of all statements of one key the
last one in the log holds; with ``void`` it takes the others back. They stand on topics of their own, of one partition.
"""

from collections.abc import Callable, Hashable, Iterable
from datetime import date as Date
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from pipeline.contract.decode import FAULTS


class Statement(Protocol):
    """What can be said."""

    @property
    def void(self) -> bool:
        """Whether it takes back what was said before."""

    @property
    def key(self) -> Hashable:
        """What it is about."""


S = TypeVar("S", bound=Statement)

# What ClickHouse's type Date can hold, and a year less.
_FIRST_DAY: Final = Date(1970, 1, 2)
_LAST_DAY: Final = Date(2148, 12, 31)


class Logged(Struct, Generic[S], frozen=True):
    """A statement with its place in the log. ``recorded_ms`` is the time stamp of its message, Unix milliseconds."""

    said: S
    offset: int
    recorded_ms: int
    event_id: str
    source: str


class Unreadable(Struct, frozen=True):
    """A message that is no statement, or one that contradicts itself. It has no effect."""

    offset: int
    words: str


def read_statement(
    decoder: "msgspec.json.Decoder[Any]",
    fault_of: Callable[[S], str],
    value: bytes | None,
    offset: int,
    recorded_ms: int,
) -> "Logged[S] | Unreadable":
    """Decode a message in structured mode; never raises for what it holds.

    Args:
        decoder: of the CloudEvents envelope, whose ``data`` is the statement.
        fault_of: what is wrong with a statement that decoded, in words; empty if nothing is.
        value: of the message.
        offset: of the message.
        recorded_ms: time stamp of the message, Unix milliseconds.
    """
    try:
        event = decoder.decode(value or b"")
    except FAULTS as error:
        return Unreadable(offset, str(error) or type(error).__name__)
    if words := fault_of(event.data):
        return Unreadable(offset, words)
    return Logged(event.data, offset, recorded_ms, event.id, event.source)


def day_fault(name: str, day: Date) -> str:
    """What is wrong with a day that a statement names, in words; empty if it can be stored."""
    return "" if _FIRST_DAY <= day <= _LAST_DAY else f"{name} must be from {_FIRST_DAY} to {_LAST_DAY}"


def in_force(log: Iterable[S]) -> list[S]:
    """What holds of all that was said, in the order of the log; what is void or was replaced is left out."""
    last: dict[Hashable, S] = {}
    for said in log:
        last.pop(said.key, None)
        last[said.key] = said
    return [said for said in last.values() if not said.void]


def not_said(known: Iterable[S], new: Iterable[S]) -> list[S]:
    """Those of the new ones that would make a difference to what is in force; of two of one key the later one."""
    said = {one.key: one for one in known}
    last = {one.key: one for one in new}
    return [one for one in last.values() if (one.key in said if one.void else said.get(one.key) != one)]
