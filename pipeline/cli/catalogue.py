"""``xidmet catalogue``: the history of agencies and services, as it is said on its topic."""

import sys
from datetime import date as Date
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
import msgspec

from pipeline.catalogue import catalogue_from_json
from pipeline.catalogue.changes import AnyChange, Merged, Moved, Promised, Registered, Renamed, order
from pipeline.catalogue.demonstration import demonstration_history
from pipeline.catalogue.files import changes_from_csv, changes_from_json_lines, changes_to_csv
from pipeline.catalogue.history import Standing, catalogue_at, check, coverage, differences, offered
from pipeline.cli.main import settings_of
from pipeline.cli.output import agreed, print_json, print_rows, read_text
from pipeline.contract.statements import in_force, not_said
from pipeline.errors import InputError
from pipeline.runtime.periods import kinds_of
from pipeline.runtime.statements import CATALOGUE, StatementLog, read_log, say
from pipeline.settings import Settings

_DAY = click.DateTime(["%Y-%m-%d"])
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_AT = click.option("--at", type=_DAY, help="On this day; default today in periods.time_zone.")
DEMONSTRATION = "demonstration"
SOURCE = "urn:xidmet:catalogue"
_NAMES = ["agency", "service", "change", "valid_from", "what"]


@click.group(short_help="The history of agencies and services, for any day.")
def catalogue() -> None:
    """The history of agencies and services: when registered, digitised, moved, renamed, merged, withdrawn.

    It stands on a topic of its own; workers bring it into ClickHouse (catalogue_at, coverage_at). What events may name
    is in the catalogue file, catalogue.path. See docs/catalogue.md.
    """


@catalogue.command()
@click.argument("file", metavar="FILE")
@click.option("--valid-from", type=_DAY, help="Day of the changes that a catalogue file makes; default today.")
@click.option("--dry-run", is_flag=True, help="Say what would be said, and say nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before services are withdrawn.")
@_JSON
@click.pass_context
def load(
    context: click.Context, file: str, valid_from: datetime | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Say the changes that FILE makes: a catalogue (.json), or changes as CSV or JSON lines (- for standard input).

    The word demonstration stands for the history of the demonstration catalogue.

    Of a catalogue, what differs from the history on the day of --valid-from is said. What was said before is not said
    again, so that a file can be loaded twice. A file is loaded as a whole or not at all.
    """
    settings = settings_of(context)
    log = read_log(settings.kafka, CATALOGUE)
    changes = _new_changes(settings, log, file, valid_from.date() if valid_from else _today(settings))
    withdrawn = sum(change.kind in ("withdrawn", "merged") and not change.void for change in changes)
    if not dry_run and withdrawn and not yes:
        print_rows(_NAMES, [_row(change) for change in changes], as_json=False)
        if not agreed(f"{withdrawn} agencies or services end. Say it?"):
            raise click.UsageError("not confirmed, nothing was said; --yes answers in advance")
    said = 0 if dry_run or not changes else say(settings.kafka, CATALOGUE, SOURCE, changes)
    if as_json:
        print_json({"dry_run": dry_run, "said": said, "changes": changes})
    else:
        print_rows(_NAMES, [_row(change) for change in changes], as_json=False)
    would = "would be said" if dry_run else "said"
    click.echo(f"{len(changes)} changes {would} on {settings.kafka.catalogue_topic}", err=True)


@catalogue.command()
@click.argument("file", metavar="FILE")
@_AT
@_JSON
@click.pass_context
def diff(context: click.Context, file: str, at: datetime | None, as_json: bool) -> None:
    """Show what differs between FILE and the history on a day; exit code 1 if anything does."""
    settings = settings_of(context)
    changes = _new_changes(settings, read_log(settings.kafka, CATALOGUE), file, at.date() if at else _today(settings))
    if as_json:
        print_json(changes)
    else:
        print_rows(_NAMES, [_row(change) for change in changes], as_json=False)
    if changes:
        sys.exit(1)


@catalogue.command()
@_AT
@click.option("--agency", help="Its services, one by one.")
@click.option("--language", type=click.Choice(["az", "en", "ru"]), default="en", show_default=True, help="Of names.")
@_JSON
@click.pass_context
def show(context: click.Context, at: datetime | None, agency: str | None, language: str, as_json: bool) -> None:
    """Show the catalogue on a day: of each agency how many services are registered and digitised."""
    settings = settings_of(context)
    day = at.date() if at else _today(settings)
    standings = catalogue_at(read_log(settings.kafka, CATALOGUE).in_force, day)
    if agency is not None:
        _show_agency(standings, agency, day, language, as_json=as_json)
        return
    found = coverage(standings)
    names = ["agency", "name", "services_registered", "services_digitised", "coverage"]
    rows = [
        (one.agency, _name(standings[one.agency, ""], language), one.registered, one.digitised, one.share)
        for one in found
    ]
    registered, digitised = sum(one.registered for one in found), sum(one.digitised for one in found)
    total = {
        "at": day,
        "agencies": len(found),
        "services_registered": registered,
        "services_digitised": digitised,
        "coverage": digitised / registered if registered else None,
    }
    if as_json:
        print_json(total | {"by_agency": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    print_rows(names, rows, as_json=False, title=f"Catalogue on {day}")
    click.echo(f"{day}: {len(found)} agencies, {digitised} of {registered} services digitised", err=True)


@catalogue.command()
@click.argument("subject", metavar="[AGENCY[/SERVICE]]", required=False)
@click.option("--all", "everything", is_flag=True, help="Also what was replaced or taken back.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, as xidmet catalogue load reads it.")
@_JSON
@click.pass_context
def history(context: click.Context, subject: str | None, everything: bool, as_csv: bool, as_json: bool) -> None:
    """Show what was said, of everything or of one agency or service, by the day from which on it is so."""
    log = read_log(settings_of(context).kafka, CATALOGUE)
    agency, _, service = (subject or "").partition("/")
    logged = [one for one in log.statements if _about(one.said, agency, service)]
    if subject and not logged:
        raise InputError(f"nothing was said of {subject}; xidmet catalogue history shows all there is")
    said = [one.said for one in logged]
    changes = said if everything else sorted(in_force(said), key=order)
    if as_csv:
        click.echo(changes_to_csv(changes), nl=False)
    elif as_json:
        print_json(logged if everything else changes)
    elif everything:
        rows = [(one.offset, *_row(one.said), datetime.fromtimestamp(one.recorded_ms // 1000)) for one in logged]
        print_rows(["offset", *_NAMES, "said"], rows, as_json=False)
    else:
        print_rows(_NAMES, [_row(change) for change in changes], as_json=False)


def _new_changes(settings: Settings, log: "StatementLog[AnyChange]", file: str, day: Date) -> list[AnyChange]:
    """What a file says and the log does not say yet, checked against the log."""
    known = log.in_force
    if file == DEMONSTRATION:
        new = not_said(known, demonstration_history())
    else:
        text, where = read_text(file)
        if _is_catalogue(text):
            new = differences(catalogue_at(known, day), catalogue_from_json(text, where), day)
        else:
            read = changes_from_json_lines(text, where) if text.lstrip()[:1] == "{" else changes_from_csv(text, where)
            new = not_said(known, read)
    check(in_force([*known, *new]), new)
    return new


def _is_catalogue(text: str) -> bool:
    try:
        return "agencies" in msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError):
        return False


def _today(settings: Settings) -> Date:
    zone = kinds_of(settings)[1].zone
    return datetime.now(ZoneInfo(zone)).date()


def _about(change: AnyChange, agency: str, service: str) -> bool:
    return not agency or (change.agency == agency and (not service or change.service == service))


def _row(change: AnyChange) -> tuple[Any, ...]:
    match change:
        case Registered() | Renamed():
            what = change.name.en
        case Moved():
            what = change.hosting
        case Merged():
            what = "/".join(filter(None, (change.into_agency, change.into_service)))
        case Promised():
            promises = {"days": change.days, "p95_ms": change.p95_ms, "success_share": change.success_share}
            what = ", ".join(f"{name} {value}" for name, value in promises.items() if value is not None)
        case _:
            what = ""
    return (
        change.agency,
        change.service or "",
        change.kind,
        change.valid_from.isoformat(),
        f"taken back: {what}".rstrip(": ") if change.void else what,
    )


def _name(standing: Standing, language: str) -> str:
    return getattr(standing.name, language) if standing.name else ""


def _show_agency(
    standings: dict[tuple[str, str], Standing], agency: str, day: Date, language: str, *, as_json: bool
) -> None:
    if (agency, "") not in standings:
        raise InputError(f"agency {agency} was not registered on {day}; xidmet catalogue show lists those that were")
    services = offered(standings)
    names = ["service", "name", "status", "since", "digitised", "hosting", "into"]
    rows = [
        (
            one.service,
            _name(one, language),
            one.status if subject in services or not one.registered else "agency ended",
            one.since,
            one.digitised,
            one.hosting,
            "/".join(filter(None, (one.into_agency, one.into_service))),
        )
        for subject, one in sorted(standings.items())
        if subject[0] == agency and subject[1]
    ]
    print_rows(names, rows, as_json=as_json, title=f"{_name(standings[agency, ''], language)} on {day}")
