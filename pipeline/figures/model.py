"""A stated figure: a number of a period that somebody else counted, or what a service cost.

Each has a key: measure, period, agency, service and channel. Said again it replaces what was said before, so that a
corrected spreadsheet is imported as the first one was. Nothing adds stated figures to counted ones.
"""

import re
from datetime import date as Date
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from pipeline.catalogue.model import Code
from pipeline.contract.events import Channel, EventId, EventTime, Source, SpecVersion
from pipeline.contract.statements import Logged, Unreadable, day_fault, read_statement

FIGURE_TYPE: Final = "xidmet.figure.stated.v1"

Measure = Literal["uses", "people", "completed", "cost"]
Length = Literal["day", "month", "quarter", "half_year", "year"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
MONTHS: Final[dict[str, int]] = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
"""Length of a period in months; a day has none."""
MAX_VALUE: Final = 10**14
"""Larger than any count and any budget in hundredths that fits 64 bits."""

_FORMS: Final[tuple[tuple[re.Pattern[str], Length], ...]] = (
    (re.compile(r"(?P<year>\d{4})-(?P<month>\d\d?)-(?P<day>\d\d?)", re.ASCII), "day"),
    (re.compile(r"(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{4})", re.ASCII), "day"),
    (re.compile(r"(?P<year>\d{4})-(?P<month>\d\d?)", re.ASCII), "month"),
    (re.compile(r"(?P<month>\d\d?)\.(?P<year>\d{4})", re.ASCII), "month"),
    (re.compile(r"(?P<year>\d{4})-?Q(?P<part>[1-4])", re.ASCII), "quarter"),
    (re.compile(r"(?P<year>\d{4})-?H(?P<part>[12])", re.ASCII), "half_year"),
    (re.compile(r"(?P<year>\d{4})", re.ASCII), "year"),
)
Key = tuple[str, Date, str, str, str, str]


class Figure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stated figure.

    Without ``channel`` it is of all channels, without ``service`` of the whole agency, without ``agency`` of the state.
    """

    measure: Annotated[
        Measure,
        Meta(
            description="uses; people, distinct ones; completed, uses that ended with success or not_eligible; cost,"
            " all that providing the service cost."
        ),
    ]
    start: Annotated[Date, Meta(description="First day of the period.")]
    length: Annotated[Length, Meta(description="How long the period is.")]
    value: Annotated[Decimal, Meta(description="The number: whole, or in a currency with two decimals at most.")]
    currency: Annotated[str | None, Meta(description="Of a cost: ISO 4217 code such as AZN.")] = None
    agency: Code | None = None
    service: Code | None = None
    channel: Channel | None = None
    void: Annotated[bool, Meta(description="True takes back what was said before.")] = False

    @property
    def key(self) -> Key:
        """What it is about."""
        return (self.measure, self.start, self.length, self.agency or "", self.service or "", self.channel or "")

    @property
    def end(self) -> Date:
        """The first day after the period."""
        if self.length == "day":
            return Date.fromordinal(self.start.toordinal() + 1)
        months = self.start.year * 12 + self.start.month - 1 + MONTHS[self.length]
        return Date(months // 12, months % 12 + 1, 1)


class FigureEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag=FIGURE_TYPE):
    """CloudEvents 1.0 envelope of a stated figure."""

    specversion: SpecVersion
    id: EventId
    source: Source
    time: EventTime
    data: Figure
    subject: Any | UnsetType = UNSET
    datacontenttype: Any | UnsetType = UNSET
    dataschema: Any | UnsetType = UNSET


_DECODER: Final = msgspec.json.Decoder(FigureEvent)


def read_figure(value: bytes | None, offset: int, recorded_ms: int) -> "Logged[Figure] | Unreadable":
    """Decode a message of the topic; never raises for what it holds."""
    return read_statement(_DECODER, fault_of, value, offset, recorded_ms)


def fault_of(figure: Figure) -> str:
    """What is wrong with a figure by itself, in words; empty if nothing is."""
    months = MONTHS.get(figure.length)
    if words := day_fault("start", figure.start):
        return words
    if months and (figure.start.day != 1 or (figure.start.month - 1) % months):
        return f"start {figure.start} is not the first day of a {figure.length.replace('_', ' ')}"
    if figure.service is not None and figure.agency is None:
        return "service needs its agency"
    if not figure.value.is_finite() or not 0 <= figure.value < MAX_VALUE:
        return f"value must be from 0 to below {MAX_VALUE}"
    if figure.measure == "cost":
        if figure.currency is None or len(figure.currency) != 3 or not figure.currency.isascii():
            return "cost needs a currency, such as AZN"
        if not figure.currency.isupper():
            return "currency is three capital letters, such as AZN"
        if figure.value * 100 != int(figure.value * 100):
            return "value of a cost has two decimals at most"
    elif figure.currency is not None:
        return f"{figure.measure} has no currency"
    elif figure.value != int(figure.value):
        return f"value of {figure.measure} must be a whole number"
    return ""


def period_of(text: str) -> tuple[Date, Length]:
    """The period that a text names: 2013-07-15, 15.07.2013, 2013-07, 07.2013, 2013-Q3, 2013-H2 or 2013.

    Raises:
        ValueError: it names none.
    """
    words = text.strip().upper()
    for form, length in _FORMS:
        if found := form.fullmatch(words):
            numbers = {name: int(number) for name, number in found.groupdict().items()}
            month = numbers.get("month", (numbers.get("part", 1) - 1) * MONTHS.get(length, 1) + 1)
            try:
                return Date(numbers["year"], month, numbers.get("day", 1)), length
            except ValueError:
                break
    raise ValueError(f"period {text!r} is none; write 2013-07-15, 2013-07, 07.2013, 2013-Q3, 2013-H2 or 2013")
