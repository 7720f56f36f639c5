"""Which dead letters a command is about: names and filters on the command line."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar

import click
from msgspec import Struct

from pipeline.cli.main import MOMENT
from pipeline.contract.reasons import Reason
from sinks.letters import STATES, Coordinates, Entry, Index, parse_name

_F = TypeVar("_F", bound=Callable[..., Any])


class LetterName(click.ParamType):
    """The name of a letter, as ``xidmet rejected list`` shows it."""

    name = "letter"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Coordinates:
        """Parse it."""
        if isinstance(value, Coordinates):
            return value
        try:
            return parse_name(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Chosen(Struct):
    """Which letters a command is about."""

    names: tuple[Coordinates, ...] = ()
    reasons: tuple[str, ...] = ()
    agencies: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    limit: int | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing was said."""
        return not (self.names or self.reasons or self.agencies or self.start or self.end or self.limit)

    def of(self, index: Index, states: Sequence[str] = STATES) -> list[Entry]:
        """The letters in these states, oldest first. Letters that were named are taken in any state."""
        first = self.start.replace(tzinfo=UTC).timestamp() * 1000 if self.start else None
        last = self.end.replace(tzinfo=UTC).timestamp() * 1000 if self.end else None
        named = _named(index, self.names)
        found = (
            entry
            for entry in (named if self.names else index.in_order())
            if (self.names or entry.state in states)
            and (not self.reasons or entry.reason in self.reasons)
            and (not self.agencies or entry.agency in self.agencies)
            and (first is None or entry.timestamp >= max(first, 0))
            and (last is None or 0 <= entry.timestamp < last)
        )
        return list(islice(found, self.limit))


def _named(index: Index, names: Iterable[Coordinates]) -> list[Entry]:
    found = {}
    for name in names:
        entries = [entry for key, entry in index.entries.items() if key.answers_to(name)]
        if not entries:
            raise click.UsageError(f"there is no letter {name}; xidmet rejected list --all shows what there is")
        if len(entries) > 1:
            raise click.UsageError(f"letter {name} may be {' or '.join(str(entry.coordinates) for entry in entries)}")
        found[entries[0].coordinates] = entries[0]
    return list(found.values())


def filters(command: _F) -> _F:
    """Add the options that choose letters."""
    for option in (
        click.option("--limit", type=click.IntRange(1), help="At most so many, the oldest first."),
        click.option("--to", "end", type=MOMENT, help="Refused messages sent before this moment, UTC."),
        click.option("--from", "start", type=MOMENT, help="Refused messages sent from this moment on, UTC."),
        click.option("--agency", "agencies", multiple=True, help="Of this agency; other for none; repeatable."),
        click.option(
            "--reason",
            "reasons",
            multiple=True,
            metavar="CODE",
            type=click.Choice([reason.value for reason in Reason]),
            help="Of this reason (docs/contract/reasons.md); repeatable.",
        ),
    ):
        command = option(command)
    return command


NAMES: Final = click.argument("names", metavar="[LETTER]...", nargs=-1, type=LetterName())
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
