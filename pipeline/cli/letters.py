"""How dead letters are printed, for people and for programs."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import click

from pipeline.cli.output import print_json
from pipeline.contract.reasons import REASON_HELP, Reason
from pipeline.runtime.replaying import SKIPPED, Outcome
from sinks.dead_letters import HEADER_PREFIX, Letter
from sinks.letters import Entry

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def letter_json(entry: Entry, letter: Letter) -> dict[str, Any]:
    """A letter as plain data; bytes that are no UTF-8 are shown as escapes."""
    content: dict[str, Any] = {
        "letter": str(entry.coordinates),
        "reason": entry.reason,
        "help": _help(entry),
        "detail": _detail(letter),
        "agency": entry.agency,
        "time": moment(entry.timestamp),
        "state": entry.state,
        "attempt": entry.attempt,
        "masked": entry.masked,
        "key": None if letter.key is None else _text(letter.key),
        "headers": [[name, _text(value or b"")] for name, value in letter.headers],
        "value": _text(letter.value),
    }
    if entry.value_bytes is not None:
        content["value_bytes"] = entry.value_bytes
    return content


def print_letter(entry: Entry, letter: Letter) -> None:
    """A letter for people."""
    facts = {
        "letter": str(entry.coordinates),
        "reason": entry.reason,
        "what to do": _help(entry),
        "detail": _detail(letter),
        "agency": entry.agency,
        "time": moment(entry.timestamp) or "none",
        "state": entry.state,
        "attempt": str(entry.attempt),
        "key": "none" if letter.key is None else _text(letter.key),
    }
    for name, text in facts.items():
        click.echo(f"{name + ':':<12}{plain(text)}")
    for name, value in letter.headers:
        click.echo(f"{'header:':<12}{plain(name)}: {plain(_text(value or b''))}")
    if entry.value_bytes is not None:
        click.echo(f"value:      too large for a letter, {entry.value_bytes:,} bytes; it stands in the log")
    else:
        click.echo(f"value:      {len(letter.value):,} bytes" + (", identifiers masked" if entry.masked else ""))
        click.echo(plain(_text(letter.value), lines=True))


def print_outcome(
    what: str,
    chosen: int,
    outcome: Outcome,
    topic: str,
    *,
    as_json: bool,
    refused_again: dict[str, int] | None = None,
) -> None:
    """What became of the chosen letters."""
    skipped = {code: count for code, count in sorted(outcome.skipped.items()) if count}
    if as_json:
        again = {} if refused_again is None else {"would_be_refused": refused_again}
        print_json({"chosen": chosen, what: outcome.done, "skipped": skipped, **again})
        return
    click.echo(f"{what.replace('_', ' ')}: {outcome.done} of {chosen} letters, {topic}")
    for code, count in skipped.items():
        click.echo(f"skipped: {count}: {SKIPPED[code]}")
    for reason, count in sorted((refused_again or {}).items()):
        click.echo(f"would be refused again: {count}: {reason}: {REASON_HELP[Reason(reason)]}")


def _help(entry: Entry) -> str:
    """What to do about the reason; a letter of a newer version may have one that is not known here."""
    return REASON_HELP[Reason(entry.reason)] if entry.reason in list(Reason) else ""


def _detail(letter: Letter) -> str:
    name = HEADER_PREFIX + "detail"
    return next((_text(value) for key, value in reversed(letter.headers) if key == name), "")


def moment(milliseconds: int) -> str:
    """Unix milliseconds as ISO 8601, UTC; empty if negative."""
    if milliseconds < 0:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def plain(text: str, *, lines: bool = False) -> str:
    """Text for a terminal: what could steer it is shown as an escape, since agencies wrote it."""
    kept = text if lines else text.replace("\n", "\\n")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", kept)
