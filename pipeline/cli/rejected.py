"""``xidmet rejected``: look at dead letters, send them again, put them aside."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from pipeline.catalogue import load_catalogue
from pipeline.cli.choosing import JSON, NAMES, Chosen, filters
from pipeline.cli.letters import letter_json, moment, plain, print_letter, print_outcome
from pipeline.cli.main import settings_of
from pipeline.cli.output import agreed, print_json, print_rows
from pipeline.contract.judging import judge
from pipeline.errors import InputError
from pipeline.runtime.mending import mended
from pipeline.runtime.replaying import Dispositions, Outcome, contents, why_not
from pipeline.settings import Settings
from sinks.dead_letters import HEADER_PREFIX, Letter
from sinks.letters import OPEN, STATES, Entry, Index, read_index, read_letters

_PERIODS: Final = {"hour": 3_600_000, "day": 86_400_000}
_SHOWN: Final = 20


def _read(settings: Settings) -> Index:
    def progress(messages: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{messages:,} messages read", nl=False, err=True)

    index = read_index(settings.kafka, progress)
    if sys.stderr.isatty() and index.messages:
        click.echo("", err=True)
    return index


class _InOrder(click.Group):
    """Lists its commands in the order of a day's work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were defined."""
        return list(self.commands)


@click.group(cls=_InOrder, short_help="Work with dead letters: list, show, stats, replay, drop.")
def rejected() -> None:
    """Work with dead letters: the events that were refused, on the topic usage.rejected. See docs/dead-letters.md."""


@rejected.command("list", short_help="List letters, the open ones unless told otherwise.")
@NAMES
@filters
@click.option("--all", "all_states", is_flag=True, help="Also letters that were replayed or dropped.")
@JSON
@click.pass_context
def list_(context: click.Context, /, all_states: bool, as_json: bool, **choice: Any) -> None:
    """List letters by the time of the refused message, the open ones unless told otherwise."""
    entries = Chosen(**choice).of(_read(settings_of(context)), STATES if all_states else (OPEN,))
    names = ["letter", "reason", "agency", "time", "state", "attempt", "bytes", "detail"]
    rows = []
    for entry in entries:
        name = str(entry.coordinates) if as_json else entry.coordinates.short
        size = entry.size if entry.value_bytes is None else entry.value_bytes
        row = [name, entry.reason, entry.agency, moment(entry.timestamp), entry.state, entry.attempt, size]
        rows.append([*row, entry.detail if as_json else plain(entry.detail)])
    print_rows(names, rows, as_json=as_json)


@rejected.command(short_help="Show letters with everything they hold.")
@NAMES
@filters
@JSON
@click.pass_context
def show(context: click.Context, /, as_json: bool, **choice: Any) -> None:
    """Show letters: why, what to do, headers, and the value as it is stored, personal identifiers masked.

    Without a name and a filter it shows the oldest open ones, 20 at most.
    """
    settings = settings_of(context)
    chosen = Chosen(**choice)
    if chosen.everything:
        chosen.limit = _SHOWN
    entries = chosen.of(_read(settings), (OPEN,))
    if as_json:
        print_json([letter_json(entry, letter) for entry, letter in read_letters(settings.kafka, entries)])
        return
    for place, (entry, letter) in enumerate(read_letters(settings.kafka, entries)):
        if place:
            click.echo()
        print_letter(entry, letter)
    if not entries:
        click.echo("no such letters", err=True)


@rejected.command(short_help="Count letters by reason and agency.")
@filters
@click.option("--by", type=click.Choice(list(_PERIODS)), help="Also by hour or day of the refused message, UTC.")
@JSON
@click.pass_context
def stats(context: click.Context, /, by: str | None, as_json: bool, **choice: Any) -> None:
    """Count letters by reason and agency: open, replayed, dropped, and the first and last moment.

    --limit bounds the lines, the largest first.
    """
    chosen = Chosen(**choice)
    limit, chosen.limit = chosen.limit, None
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in chosen.of(_read(settings_of(context))):
        key: tuple[str, ...] = (entry.reason, entry.agency)
        if by is not None:
            length = _PERIODS[by]
            key = (moment(entry.timestamp // length * length) if entry.timestamp >= 0 else "", *key)
        group = groups.setdefault(key, dict.fromkeys(STATES, 0) | {"first": entry.timestamp, "last": entry.timestamp})
        group[entry.state] += 1
        group["first"] = min(group["first"], entry.timestamp)
        group["last"] = max(group["last"], entry.timestamp)
    order = sorted(groups, key=lambda key: (key[0] if by else "", -sum(groups[key][state] for state in STATES), key))
    rows = [
        [*key, *(groups[key][state] for state in STATES), moment(groups[key]["first"]), moment(groups[key]["last"])]
        for key in order[:limit]
    ]
    names = [*([by] if by else []), "reason", "agency", *STATES, "first", "last"]
    print_rows(names, rows, as_json=as_json)


@rejected.command(short_help="Send letters to the pipeline again, each once.")
@NAMES
@filters
@click.option("--value", type=click.File("rb"), help="File with a mended value for the one letter named.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent, and what of it refused again.")
@JSON
@click.pass_context
def replay(context: click.Context, /, value: BinaryIO | None, dry_run: bool, as_json: bool, **choice: Any) -> None:
    """Send the events of open letters to the topic of events again, after a fix or a change of the catalogue.

    Each letter is sent once, whatever dies and however often this runs. Without a name and a filter it takes all open
    letters.
    """
    settings = settings_of(context)
    chosen = Chosen(**choice)
    if value is not None and len(chosen.names) != 1:
        raise click.UsageError("--value needs the name of one letter")
    content = value.read() if value is not None else None
    if dry_run:
        entries = chosen.of(_read(settings), (OPEN,))
        _print_dry_run(settings, entries, content, as_json=as_json)
        return
    with Dispositions(settings) as dispositions:
        # Only now: what others did before is seen, and they can do nothing more.
        entries = chosen.of(_read(settings), (OPEN,))
        if content is not None:
            outcome = Outcome()
            open_ones = [entry for entry in entries if entry.state == OPEN]
            for entry, letter in read_letters(settings.kafka, open_ones):
                dispositions.send([(entry, _checked(settings, letter, content))], outcome)
            outcome.skipped.update(entry.state for entry in entries if entry.state != OPEN)
        else:
            outcome = dispositions.replay(entries, _telling("replayed"))
    print_outcome("sent", len(entries), outcome, settings.kafka.events_topic, as_json=as_json)


@rejected.command(short_help="Put letters aside for good; they stay on the topic.")
@NAMES
@filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
@click.pass_context
def drop(context: click.Context, /, yes: bool, as_json: bool, **choice: Any) -> None:
    """Put open letters aside: nobody will replay them. They stay on the topic until retention deletes them."""
    settings = settings_of(context)
    chosen = Chosen(**choice)
    if chosen.everything:
        raise click.UsageError("say which: name letters, or give --reason, --agency, --from, --to or --limit")
    if not yes:
        count = sum(entry.state == OPEN for entry in chosen.of(_read(settings), (OPEN,)))
        if not agreed(f"drop {count:,} letters?"):
            raise click.UsageError("not confirmed, nothing was dropped; --yes answers in advance")
    with Dispositions(settings) as dispositions:
        entries = chosen.of(_read(settings), (OPEN,))
        outcome = dispositions.drop(entries, _telling("dropped"))
    print_outcome("dropped", len(entries), outcome, settings.kafka.rejected_topic, as_json=as_json)


def _checked(settings: Settings, letter: Letter, value: bytes) -> Letter:
    """The letter with a mended value, if that is one event that would be accepted."""
    message = mended(letter, value)
    now = int(datetime.now(UTC).timestamp() * 1000)
    headers = [(name, content) for name, content in message.headers if not name.startswith(HEADER_PREFIX)]
    catalogue = load_catalogue(settings.catalogue_path)
    good, refused = judge(message.value, headers, now, catalogue, settings.fold)
    if refused:
        reason, detail = refused[0]
        raise InputError(f"the mended value would be refused: {reason.value}: {detail}; nothing was sent")
    if good != 1:
        raise InputError(f"the mended value holds {good} events; a letter is one event; nothing was sent")
    return message


def _print_dry_run(settings: Settings, entries: list[Entry], content: bytes | None, *, as_json: bool) -> None:
    outcome = Outcome()
    again: dict[str, int] = {}
    catalogue = load_catalogue(settings.catalogue_path)
    if content is not None:
        for _, letter in read_letters(settings.kafka, [entry for entry in entries if entry.state == OPEN]):
            _checked(settings, letter, content)
            outcome.done += 1
        outcome.skipped.update(entry.state for entry in entries if entry.state != OPEN)
    else:
        fit = []
        for entry in entries:
            if (code := why_not(entry, settings.rejected.max_attempts)) is not None:
                outcome.skipped[code] += 1
            else:
                fit.append(entry)
        now = int(datetime.now(UTC).timestamp() * 1000)
        for _, letter in contents(settings, fit, outcome):
            outcome.done += 1
            headers = [(name, text or b"") for name, text in letter.headers if not name.startswith(HEADER_PREFIX)]
            for reason, _ in judge(letter.value, headers, now, catalogue, settings.fold)[1]:
                again[reason.value] = again.get(reason.value, 0) + 1
    print_outcome(
        "would_be_sent", len(entries), outcome, settings.kafka.events_topic, as_json=as_json, refused_again=again
    )


def _telling(what: str) -> Callable[[int], None]:
    def tell(done: int) -> None:
        click.echo(f"{done:,} letters {what}", err=True)

    return tell
