"""The checks that need the catalogue, the record's time stamp, or the form of a text.

They look at distinct values or at a whole column at once; only a column that fails is walked event by event. All
they decide by is in the log or in the arguments, never the clock, so that a replay decides alike.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from pipeline.catalogue import Catalogue
from pipeline.contract.columns import EventColumns
from pipeline.contract.events import PSEUDONYM_PATTERN
from pipeline.contract.identifiers import code_fault, identifier_kind, pseudonym_fault
from pipeline.contract.reasons import Reason

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01: before it no service of any state was online in this sense; 1970 is an emitter without a clock."""
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: the tables' times end at 2106, and no log is that long."""

_DAY_MS: Final = 86_400_000
# A column of pseudonyms, joined by line breaks, in one pass. A lower-case letter in each keeps out IBANs and numbers.
_PLAIN_PSEUDONYMS: Final = re.compile(rf"(?:(?:(?=[^\n]*[a-z]){PSEUDONYM_PATTERN[1:-1]})?\n)*")

Fault = tuple[Reason, str]


def check(
    columns: EventColumns,
    timestamps: Sequence[int],
    catalogue: Catalogue,
    max_age_days: int,
    max_ahead_seconds: int,
) -> dict[int, Fault]:
    """Find the events that are to be refused.

    Args:
        columns: n decoded events.
        timestamps: Kafka time stamp of each message of the batch, Unix milliseconds; negative where it has none.
        catalogue: the agencies and services that may be named.
        max_age_days: how far ``time`` may lie before the time stamp.
        max_ahead_seconds: how far ``time`` may lie after it.

    Returns:
        Place among the n events to (reason, words); only the faulty ones.
    """
    faults: dict[int, Fault] = {}
    if columns.record:
        _check_users(columns, faults)
        _check_ids(columns, faults)
        _check_codes(columns, faults)
        _check_catalogue(columns, catalogue, faults)
        _check_times(columns, timestamps, max_age_days, max_ahead_seconds, faults)
    return faults


def _check_users(columns: EventColumns, faults: dict[int, Fault]) -> None:
    joined = "\n".join(columns.user) + "\n"
    # As many lines as events: a line break inside a value must not make two good ones of a bad one.
    if joined.count("\n") != len(columns) or not _PLAIN_PSEUDONYMS.fullmatch(joined):
        _walk("user", columns.user, pseudonym_fault, faults)


def _check_ids(columns: EventColumns, faults: dict[int, Fault]) -> None:
    """Ids are stored. Only an address is refused in them: numbers of any kind are what ids are usually made of."""
    if "@" not in "".join(columns.event_id):
        return
    for place, value in enumerate(columns.event_id):
        if "@" in value and identifier_kind(value, fin=False) is not None and place not in faults:
            faults[place] = Reason.PERSONAL_IDENTIFIER, "id looks like an e-mail address"


def _check_codes(columns: EventColumns, faults: dict[int, Fault]) -> None:
    if any(columns.stage):
        for place, (stage, application) in enumerate(zip(columns.stage, columns.application, strict=True)):
            if stage and not application and place not in faults:
                faults[place] = Reason.INVALID_DATA, "data.application is empty"
    _walk("application", columns.application, lambda value: code_fault(value, fin=True), faults)
    for name in ("centre", "district", "sign_in", "consumer"):
        values: list[str] = getattr(columns, name)
        bad = {value: fault for value in set(values) if value and (fault := code_fault(value))}
        if bad:
            _walk(name, values, bad.get, faults)


def _walk(
    name: str,
    values: Sequence[str],
    fault_of: Callable[[str], tuple[bool, str] | None],
    faults: dict[int, Fault],
) -> None:
    for place, value in enumerate(values):
        if value and (fault := fault_of(value)) is not None and place not in faults:
            personal, words = fault
            reason = Reason.PERSONAL_IDENTIFIER if personal else Reason.INVALID_DATA
            faults[place] = reason, f"data.{name} {words}"


def _check_catalogue(columns: EventColumns, catalogue: Catalogue, faults: dict[int, Fault]) -> None:
    unknown = set(zip(columns.agency, columns.service, strict=True)) - catalogue.pairs
    if not unknown:
        return
    for place, pair in enumerate(zip(columns.agency, columns.service, strict=True)):
        if pair in unknown and place not in faults:
            agency, service = pair
            if agency not in catalogue.by_code:
                words = f"data.agency {_shown(agency)} is not in catalogue version {catalogue.version}"
                faults[place] = Reason.UNKNOWN_AGENCY, words
            else:
                words = f"agency {agency} has no service {_shown(service)} in catalogue version {catalogue.version}"
                faults[place] = Reason.UNKNOWN_SERVICE, words


def _shown(code: str) -> str:
    """A code for an error's words, unless it may be something personal or is no code at all."""
    return repr(code) if code_fault(code, fin=True) is None and len(code) <= 64 else "(not shown)"


def _check_times(
    columns: EventColumns,
    timestamps: Sequence[int],
    max_age_days: int,
    max_ahead_seconds: int,
    faults: dict[int, Fault],
) -> None:
    times = np.array(columns.time_ms, dtype=np.int64)
    sent = np.array(timestamps, dtype=np.int64)[columns.record]
    dated = sent >= 0
    early = (times < EARLIEST_MS) | (dated & (times < sent - max_age_days * _DAY_MS))
    late = (times >= LATEST_MS) | (dated & (times > sent + max_ahead_seconds * 1000))
    for place in np.flatnonzero(early | late).tolist():
        if place not in faults:
            if early[place]:
                words = f"time is before 2000 or more than {max_age_days} days before the message"
                faults[place] = Reason.TIME_TOO_EARLY, words
            else:
                words = f"time is after 2099 or more than {max_ahead_seconds} s after the message"
                faults[place] = Reason.TIME_IN_FUTURE, words
