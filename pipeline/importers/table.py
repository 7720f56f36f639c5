"""Aggregated history from spreadsheets: rows of agency, service, period, channel and numbers become stated figures."""

import difflib
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from pipeline.catalogue import Catalogue
from pipeline.contract.decode import FAULTS
from pipeline.contract.events import CHANNELS
from pipeline.errors import InputError
from pipeline.figures.model import MEASURES, Figure, fault_of, period_of
from pipeline.importers.spreadsheet import Sheet

PLACES: Final = ("agency", "service", "channel", "period")
FIELDS: Final = (*PLACES, *MEASURES)
"""What a column can hold: where a number belongs, and numbers by their measure."""

# Groups of three digits, as spreadsheets write them: by spaces of several kinds, apostrophes, points or commas.
_SPACES: Final = "\u0020\u00a0\u2009\u202f'\u2019"
_GROUPED: Final = re.compile(
    rf"\d{{1,3}}(?P<mark>[{_SPACES}.,])\d{{3}}(?:(?P=mark)\d{{3}})*(?P<rest>[.,]\d{{1,2}})?", re.ASCII
)
_PLAIN: Final = re.compile(r"\d+(?:[.,]\d{1,2})?", re.ASCII)


def figures_from_csv(
    text: str,
    where: str,
    catalogue: Catalogue,
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    currency: str = "",
) -> list[Figure]:
    """Read a CSV file with a heading, separated by commas, semicolons or tabs.

    Args:
        text: of the file.
        where: its name, for errors.
        catalogue: agencies and services may stand by code or by any of their names in it.
        columns: field of :data:`FIELDS` to the heading of its column; a field that is not there has its own name.
        constants: field to the value that all rows have.
        currency: of costs.

    Raises:
        InputError: the file or a row is not what it should be; the message names the line and how to mend it.
    """
    sheet = Sheet(text, where, ";\t,")
    places = _places(sheet.names, where, columns, constants)
    lookup = _Names(catalogue)
    figures: dict[Any, tuple[Figure, int]] = {}
    for line, place, row in sheet.rows():
        cells = dict(constants) | {field: row[at] for field, at in places.items()}
        for figure in _figures(cells, place, lookup, currency):
            if figure.key in figures:
                raise InputError(
                    f"{place}: {figure.measure} of the same agency, service, channel and period stands in line"
                    f" {figures[figure.key][1]} too; add the rows up, or map the column that tells them apart"
                )
            figures[figure.key] = figure, line
    return [figure for figure, _ in figures.values()]


def _places(names: list[str], where: str, columns: Mapping[str, str], constants: Mapping[str, str]) -> dict[str, int]:
    """Which column holds a field."""
    found = {}
    for field in FIELDS:
        name = columns.get(field, field)
        if names.count(name) > 1:
            raise InputError(f"{where}: line 1: column {name!r} stands twice; name each once")
        if name in names:
            if field in constants:
                raise InputError(f"{where}: {field} is given for all rows, but there is a column {name!r} as well")
            found[field] = names.index(name)
        elif field in columns:
            near = difflib.get_close_matches(name, names, n=1)
            raise InputError(
                f"{where}: line 1: no column {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, names))}")
            )
    if "period" not in found and "period" not in constants:
        raise InputError(f"{where}: line 1: no column period; name it with --map period=HEADING, or give --constant")
    if not any(measure in found or measure in constants for measure in MEASURES):
        raise InputError(
            f"{where}: line 1: no column with numbers; name it with --map, for instance --map uses=HEADING"
            f" (of {', '.join(MEASURES)})"
        )
    return found


def _figures(cells: dict[str, str], place: str, lookup: "_Names", currency: str) -> Iterator[Figure]:
    try:
        start, length = period_of(cells["period"])
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error
    agency = lookup.agency(cells.get("agency", ""), place)
    service = lookup.service(agency, cells.get("service", ""), place)
    channel = cells.get("channel") or None
    if channel is not None and channel not in CHANNELS:
        raise InputError(f"{place}: channel {channel!r} is none of {', '.join(CHANNELS)}")
    for measure in MEASURES:
        # An empty cell is a number that nobody knows, not 0.
        if text := cells.get(measure):
            fields = {
                "measure": measure,
                "start": start,
                "length": length,
                "value": number(text, place, measure),
                "currency": currency or None if measure == "cost" else None,
                "agency": agency,
                "service": service,
                "channel": channel,
            }
            try:
                figure = msgspec.convert(fields, Figure)
            except FAULTS as error:
                raise InputError(f"{place}: {error}") from error
            if words := fault_of(figure):
                raise InputError(f"{place}: {words}")
            yield figure


def number(text: str, place: str, measure: str) -> Decimal:
    """The number that a cell shows: 710981, 710 981, 710,981, 710.981, and of costs also 1234.50 or 1.234,50.

    Raises:
        InputError: it shows none, or one that can be read in two ways.
    """
    grouped = _GROUPED.fullmatch(text)
    rest = grouped["rest"] if grouped else None
    if grouped and measure == "cost" and rest is None and grouped["mark"] in ".,":
        raise InputError(f"{place}: {measure} {text!r} can be read in two ways; write 1234 or 1234.00")
    plain = text
    if grouped and not (rest and rest[0] == grouped["mark"]):
        digits = text.removesuffix(rest) if rest else text
        plain = digits.replace(grouped["mark"], "") + (rest or "").replace(",", ".")
    elif _PLAIN.fullmatch(text):
        plain = text.replace(",", ".")
    try:
        value = Decimal(plain)
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value < 0:
        raise InputError(f"{place}: {measure} {text!r} is no number; write digits, and a point before decimals")
    return value


class _Names:
    """Codes of a catalogue by code and by name, however it is written."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._agencies: dict[str, str] = {}
        self._services: dict[str, dict[str, set[str]]] = {}
        for agency in catalogue.agencies:
            for name in (agency.code, agency.name.az, agency.name.en, agency.name.ru):
                self._agencies[name.casefold()] = agency.code
            services = self._services.setdefault(agency.code, {})
            for service in agency.services:
                for name in {service.code, service.name.az, service.name.en, service.name.ru}:
                    services.setdefault(name.casefold(), set()).add(service.code)

    def agency(self, name: str, place: str) -> str | None:
        """The code of an agency, None for no name."""
        if not name:
            return None
        code = self._agencies.get(name.casefold())
        if code is None:
            raise InputError(f"{place}: the catalogue has no agency {name!r}{_near(name, self._agencies)}")
        return code

    def service(self, agency: str | None, name: str, place: str) -> str | None:
        """The code of a service of an agency, None for no name."""
        if not name:
            return None
        if agency is None:
            raise InputError(f"{place}: service {name!r} without its agency; map a column, or give --constant agency=")
        codes = self._services[agency].get(name.casefold(), set())
        if len(codes) > 1:
            which = " or ".join(sorted(codes))
            raise InputError(f"{place}: {agency} has several services named {name!r}: write {which}")
        if not codes:
            raise InputError(f"{place}: {agency} has no service {name!r}{_near(name, self._services[agency])}")
        return next(iter(codes))


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; write its code, or add it to catalogue.path"
