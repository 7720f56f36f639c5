"""The checks that need the catalogue, the record's time stamp, or the form of a text.

They look at distinct profiles or at a whole column at once; only a column that fails is walked event by event. All
they decide by is in the log or in the arguments, never the clock, so that a replay decides alike.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from pipeline.catalogue import Catalogue
from pipeline.contract.columns import EventColumns
from pipeline.contract.events import CODE_PATTERN, PSEUDONYM_PATTERN
from pipeline.contract.identifiers import code_fault, identifier_kind, pseudonym_fault
from pipeline.contract.profiles import PROFILE_FIELDS, Fault, Profile
from pipeline.contract.reasons import Reason

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01: before it no service of any state was online in this sense; 1970 is an emitter without a clock."""
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: the tables' times end at 2106, and no log is that long."""

_DAY_MS: Final = 86_400_000
# A column of pseudonyms, joined by line breaks, in one pass. A lower-case letter in each keeps out IBANs and numbers.
# What a run of letters took is never given back (*+, }+).
_PLAIN_PSEUDONYMS: Final = re.compile(rf"(?:(?:(?=[^a-z\n]*+[a-z]){PSEUDONYM_PATTERN[1:-1]}+)?\n)*")

# A code that is no identifier, so that they need not be looked for one by one: it has a mark that none of them has, or
# a hyphen and a letter, which only documents have, and is no document.
_PLAIN_CODE: Final = re.compile(
    rf"(?:(?=[^._:/]*[._:/])|(?!(?i:AZE|AA|MYI|DYI|[CP])-*(?i:No?)?-*\d+\Z)(?=[^-]*-)(?=[^A-Za-z]*[A-Za-z]))"
    rf"{CODE_PATTERN[1:-1]}"
)


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
    if len(columns):
        _check_users(columns, faults)
        _check_ids(columns, faults)
        _check_applications(columns, faults)
        _check_profiles(columns, catalogue, faults)
        _check_times(columns, timestamps, max_age_days, max_ahead_seconds, faults)
    return faults


def _check_users(columns: EventColumns, faults: dict[int, Fault]) -> None:
    joined = "\n".join(columns.user) + "\n"
    # As many lines as events: a line break inside a value must not make two good ones of a bad one.
    if joined.count("\n") != len(columns) or not _PLAIN_PSEUDONYMS.fullmatch(joined):
        for place, value in enumerate(columns.user):
            if value and (fault := pseudonym_fault(value)) is not None:
                faults[place] = _text_fault("user", fault)


def _check_ids(columns: EventColumns, faults: dict[int, Fault]) -> None:
    """Ids are stored. Only an address is refused in them: numbers of any kind are what ids are usually made of."""
    if "@" not in "".join(columns.event_id):
        return
    for place, value in enumerate(columns.event_id):
        if "@" in value and identifier_kind(value, fin=False) is not None and place not in faults:
            faults[place] = Reason.PERSONAL_IDENTIFIER, "id looks like an e-mail address"


def _check_applications(columns: EventColumns, faults: dict[int, Fault]) -> None:
    stages = columns.text("stage")
    is_stage = np.array([bool(word) for word in stages.words], dtype=np.bool_)[stages.codes]
    for place in np.flatnonzero(is_stage).tolist():
        if not columns.application[place] and place not in faults:
            faults[place] = Reason.INVALID_DATA, "data.application is empty"
    if not all(map(_PLAIN_CODE.fullmatch, filter(None, columns.application))):
        for place, value in enumerate(columns.application):
            if not value or _PLAIN_CODE.fullmatch(value) or place in faults:
                continue
            if (fault := code_fault(value, fin=True)) is not None:
                faults[place] = _text_fault("application", fault)


def _check_profiles(columns: EventColumns, catalogue: Catalogue, faults: dict[int, Fault]) -> None:
    found = columns.profiles.faults(catalogue.version, lambda profile: _profile_fault(profile, catalogue))
    if found:
        for place in np.flatnonzero(np.isin(columns.profile, list(found))).tolist():
            faults.setdefault(place, found[int(columns.profile[place])])


def _profile_fault(profile: Profile, catalogue: Catalogue) -> Fault | None:
    fields = dict(zip(PROFILE_FIELDS, profile, strict=True))
    for name in ("centre", "district", "sign_in", "consumer"):
        if fields[name] and (fault := code_fault(fields[name])) is not None:
            return _text_fault(name, fault)
    agency, service = fields["agency"], fields["service"]
    if (agency, service) in catalogue.pairs:
        return None
    if agency not in catalogue.by_code:
        words = f"data.agency {_shown(agency)} is not in catalogue version {catalogue.version}"
        return Reason.UNKNOWN_AGENCY, words
    words = f"agency {agency} has no service {_shown(service)} in catalogue version {catalogue.version}"
    return Reason.UNKNOWN_SERVICE, words


def _text_fault(name: str, fault: tuple[bool, str]) -> Fault:
    personal, words = fault
    return Reason.PERSONAL_IDENTIFIER if personal else Reason.INVALID_DATA, f"data.{name} {words}"


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
    times = columns.time_ms
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
