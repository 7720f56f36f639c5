"""Changes of the catalogue from files that people keep: CSV from a spreadsheet, or JSON lines of the same fields."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from pipeline.catalogue.changes import KINDS, AnyChange, fault_of
from pipeline.contract.decode import FAULTS
from pipeline.errors import InputError
from pipeline.importers.spreadsheet import Sheet

COLUMNS: Final = (
    "change",
    "agency",
    "service",
    "valid_from",
    "name_az",
    "name_en",
    "name_ru",
    "hosting",
    "days",
    "p95_ms",
    "success_share",
    "into_agency",
    "into_service",
    "void",
)
"""Columns of a CSV file of changes. Those that no row needs may be missing; their order does not matter."""

_NAMES: Final = ("name_az", "name_en", "name_ru")
_NUMBERS: Final[dict[str, Callable[[str], Any]]] = {"days": int, "p95_ms": int, "success_share": float}
_YES: Final = ("1", "true", "yes")
_NO: Final = ("0", "false", "no")


def changes_from_csv(text: str, where: str) -> list[AnyChange]:
    """Read a CSV file with a heading of :data:`COLUMNS`, separated by commas or semicolons.

    Raises:
        InputError: a row is not a change; the message names the line and how to mend it.
    """
    sheet = Sheet(text, where, ";,")
    names = sheet.names
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            raise InputError(f"{where}: line 1: column {name!r}; the columns are {', '.join(COLUMNS)}, each once")
    for name in ("change", "agency", "valid_from"):
        if name not in names:
            raise InputError(f"{where}: line 1: there is no column {name}")
    return [_change(_fields(dict(zip(names, cells, strict=True)), place), place) for _, place, cells in sheet.rows()]


def changes_from_json_lines(text: str, where: str) -> list[AnyChange]:
    """Read JSON lines, each the ``data`` of a change.

    Raises:
        InputError: a line is not a change.
    """
    changes = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.strip():
            place = f"{where}: line {number}"
            try:
                content = msgspec.json.decode(line)
            except FAULTS as error:
                raise InputError(f"{place}: not JSON: {error}") from error
            changes.append(_change(content, place))
    return changes


def changes_to_csv(changes: Sequence[AnyChange]) -> str:
    """The changes as :func:`changes_from_csv` reads them."""
    rows = [_cells(change) for change in changes]
    used = [name for name in COLUMNS if any(row.get(name) for row in rows) or name in COLUMNS[:4]]
    out = io.StringIO()
    writer = csv.DictWriter(out, used, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _fields(cells: dict[str, str], place: str) -> dict[str, Any]:
    """The fields of a change from the cells of a row; what is empty is left out."""
    fields: dict[str, Any] = {name: text for name, text in cells.items() if text and name not in _NAMES}
    if any(cells.get(name) for name in _NAMES):
        fields["name"] = {name.removeprefix("name_"): cells[name] for name in _NAMES if cells.get(name)}
    for name, number in _NUMBERS.items():
        if name in fields:
            try:
                fields[name] = number(fields[name])
            except ValueError:
                raise InputError(f"{place}: {name} {fields[name]!r} is not a number") from None
    if "void" in fields:
        word = fields["void"].lower()
        if word not in _YES + _NO:
            raise InputError(f"{place}: void {word!r}; write yes or no")
        fields["void"] = word in _YES
    return fields


def _change(content: Any, place: str) -> AnyChange:
    if isinstance(content, dict):
        kind = content.get("change")
        if kind not in KINDS:
            raise InputError(f"{place}: change {kind!r} is none of {', '.join(KINDS)}")
    try:
        change: AnyChange = msgspec.convert(content, AnyChange)
    except FAULTS as error:
        raise InputError(f"{place}: {error}; see docs/catalogue.md for the fields of each change") from error
    given = {name for name, value in content.items() if value is not None and name != "change"}
    unknown = given - {field.name for field in msgspec.structs.fields(change)}
    if unknown:
        raise InputError(f"{place}: {change.kind} has no {', '.join(sorted(unknown))}; leave it out")
    if words := fault_of(change):
        raise InputError(f"{place}: {words}")
    return change


def _cells(change: AnyChange) -> dict[str, Any]:
    fields = msgspec.to_builtins(change)
    names = fields.pop("name", {})
    fields["void"] = "yes" if change.void else ""
    return {name: "" if value is None else value for name, value in fields.items()} | {
        f"name_{language}": text for language, text in names.items()
    }
