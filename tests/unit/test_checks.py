"""The checks against the catalogue, the record's time stamp and the form of texts."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalogue import Agency, Catalogue, Names, Service
from pipeline.contract.checks import EARLIEST_MS, LATEST_MS, check
from pipeline.contract.columns import EventColumns, to_columns
from pipeline.contract.decode import decode
from pipeline.contract.events import STAGE_TYPE, USED_TYPE
from pipeline.contract.identifiers import code_fault, pseudonym_fault
from pipeline.contract.profiles import PROFILE_FIELDS, Profiles, profiles_of
from pipeline.contract.reasons import Reason

NAMES = Names("a", "a", "a")
CATALOGUE = Catalogue(
    version=7,
    agencies=(
        Agency("mia", NAMES, (Service("id-card", NAMES), Service("shared", NAMES))),
        Agency("tax", NAMES, (Service("vat", NAMES), Service("shared", NAMES))),
        Agency("empty", NAMES, ()),
    ),
)
NOW = 1_741_944_413_000
DAY = 86_400_000
MAX_AGE_DAYS = 30
MAX_AHEAD_SECONDS = 300
PSEUDONYM = base64.urlsafe_b64encode(hashlib.sha256(b"person").digest()).rstrip(b"=").decode()

GOOD: dict[str, Any] = {
    "event_id": "1",
    "source": "/portal",
    "time_ms": NOW,
    "agency": "mia",
    "service": "id-card",
    "channel": "web",
    "outcome": "success",
    "stage": "",
    "duration_ms": 7.0,
    "user": PSEUDONYM,
    "application": "",
    "centre": "",
    "district": "",
    "hosting": "",
    "sign_in": "",
    "consumer": "",
    "initiator": "",
    "rating": 0,
}
STAGE = {"outcome": "", "stage": "received", "application": "A-1"}


def columns(*events: dict[str, Any]) -> EventColumns:
    """Columns of good events but for what is given, each in a message of its own."""
    rows = [{**GOOD, "record": place, "batch_index": 0, **event} for place, event in enumerate(events)]

    def of(name: str) -> list[Any]:
        return [row[name] for row in rows]

    profiles, profile = profiles_of(map(of, PROFILE_FIELDS))
    return EventColumns(
        record=np.array(of("record"), dtype=np.int64),
        batch_index=np.array(of("batch_index"), dtype=np.int64),
        event_id=of("event_id"),
        source=of("source"),
        time_ms=np.array(of("time_ms"), dtype=np.int64),
        duration_ms=np.array(of("duration_ms"), dtype=np.float64),
        user=of("user"),
        application=of("application"),
        rating=np.array(of("rating"), dtype=np.uint8),
        profile=profile,
        profiles=profiles,
    )


def faults(*events: dict[str, Any], timestamps: Sequence[int] | None = None) -> dict[int, tuple[Reason, str]]:
    given_columns = columns(*events)
    stamps = [NOW] * len(events) if timestamps is None else timestamps
    return check(given_columns, stamps, CATALOGUE, MAX_AGE_DAYS, MAX_AHEAD_SECONDS)


def reasons(*events: dict[str, Any], timestamps: Sequence[int] | None = None) -> dict[int, Reason]:
    return {place: reason for place, (reason, _) in faults(*events, timestamps=timestamps).items()}


def test_no_events_have_no_faults() -> None:
    assert faults() == {}


def test_good_events_have_no_faults() -> None:
    assert faults({}, STAGE, {"user": ""}, {"agency": "tax", "service": "vat"}) == {}


# Catalogue


def test_an_agency_that_the_catalogue_does_not_have_is_refused() -> None:
    found = faults({}, {"agency": "mfa"}, {"agency": "", "service": ""}, {"agency": "MIA"}, {"agency": " mia"})
    assert {place: reason for place, (reason, _) in found.items()} == dict.fromkeys(range(1, 5), Reason.UNKNOWN_AGENCY)
    assert found[1][1] == "data.agency 'mfa' is not in catalogue version 7"


def test_a_service_counts_only_with_its_own_agency() -> None:
    found = faults({"service": "vat"}, {"agency": "tax", "service": "vat"}, {"agency": "empty"}, {"service": "shared"})
    assert {place: reason for place, (reason, _) in found.items()} == dict.fromkeys((0, 2), Reason.UNKNOWN_SERVICE)
    assert found[0][1] == "agency mia has no service 'vat' in catalogue version 7"


@pytest.mark.parametrize(
    "value", ["aysel@example.az", "5ABC1D2", "AZE12345678", "050-123-45-67", "x" * 65, "Aysel Məmmədova", "a\nb", "a\0"]
)
def test_an_unknown_code_is_not_shown_if_it_may_be_personal_or_is_no_code(value: str) -> None:
    for event in ({"agency": value}, {"service": value}):
        ((_, words),) = faults(event).values()
        assert value not in words
        assert "(not shown)" in words


# Time


@pytest.mark.parametrize(
    ("ahead_ms", "reason"),
    [
        (0, None),
        (MAX_AHEAD_SECONDS * 1000, None),
        (MAX_AHEAD_SECONDS * 1000 + 1, Reason.TIME_IN_FUTURE),
        (-MAX_AGE_DAYS * DAY, None),
        (-MAX_AGE_DAYS * DAY - 1, Reason.TIME_TOO_EARLY),
    ],
)
def test_time_is_compared_with_the_time_stamp_of_the_record(ahead_ms: int, reason: Reason | None) -> None:
    assert reasons({"time_ms": NOW + ahead_ms}).get(0) is reason


def test_each_event_is_compared_with_the_time_stamp_of_its_own_message() -> None:
    stamps = [NOW - 100 * DAY, NOW]
    events = [{"record": record, "time_ms": NOW} for record in (0, 1, 0, 1)]
    assert reasons(*events, timestamps=stamps) == dict.fromkeys((0, 2), Reason.TIME_IN_FUTURE)


def test_a_record_without_time_stamp_only_has_to_be_of_this_century() -> None:
    times = [0, EARLIEST_MS - 1, EARLIEST_MS, NOW, LATEST_MS - 1, LATEST_MS]
    assert reasons(*({"time_ms": time} for time in times), timestamps=[-1] * 6) == {
        0: Reason.TIME_TOO_EARLY,
        1: Reason.TIME_TOO_EARLY,
        5: Reason.TIME_IN_FUTURE,
    }


@given(st.integers(EARLIEST_MS + 31 * DAY, LATEST_MS - DAY), st.integers(-40 * DAY, DAY), st.integers(0, 1 << 40))
def test_the_verdict_depends_on_the_difference_and_not_on_the_clock(stamp: int, ahead: int, later: int) -> None:
    later = min(later, LATEST_MS - DAY - stamp)
    first = reasons({"time_ms": stamp + ahead}, timestamps=[stamp])
    assert reasons({"time_ms": stamp + later + ahead}, timestamps=[stamp + later]) == first


def test_the_clock_is_not_asked() -> None:
    # A record of long ago, and one from a time yet to come, are judged as they were and will be.
    for year in (2001, 2099):
        stamp = int(datetime(year, 1, 31, tzinfo=UTC).timestamp() * 1000)
        assert reasons({"time_ms": stamp - DAY}, timestamps=[stamp]) == {}
        assert reasons({"time_ms": stamp + DAY}, timestamps=[stamp]) == {0: Reason.TIME_IN_FUTURE}


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("0001-01-01T00:00:00+14:00", Reason.TIME_TOO_EARLY),
        ("1970-01-01T00:00:00Z", Reason.TIME_TOO_EARLY),
        ("1999-12-31T23:59:59.999Z", Reason.TIME_TOO_EARLY),
        ("2100-01-01T00:00:00Z", Reason.TIME_IN_FUTURE),
        ("9999-12-31T23:59:59.999999-14:00", Reason.TIME_IN_FUTURE),
    ],
)
@pytest.mark.parametrize("stamp", [-1, NOW])
def test_the_ends_of_the_calendar_are_refused(time: str, reason: Reason, stamp: int) -> None:
    data = {name: GOOD[name] for name in ("agency", "service", "channel", "outcome", "duration_ms")}
    event = {"specversion": "1.0", "type": USED_TYPE, "id": "1", "source": "s", "time": time, "data": data}
    decoded = to_columns(decode([msgspec.json.encode(event)], [()]), Profiles())
    found = check(decoded, [stamp], CATALOGUE, MAX_AGE_DAYS, MAX_AHEAD_SECONDS)
    assert [words[0] for words in found.values()] == [reason]


def test_milliseconds_are_rounded_not_cut() -> None:
    data = {"agency": "mia", "service": "id-card", "application": "A-1", "stage": "received"}
    time = (datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(microseconds=999_999)).isoformat()
    event = {"specversion": "1.0", "type": STAGE_TYPE, "id": "1", "source": "s", "time": time, "data": data}
    assert to_columns(decode([msgspec.json.encode(event)], [()]), Profiles()).time_ms.tolist() == [NOW + 1000]


# Texts


def test_an_identifier_as_user_is_refused_and_its_neighbours_are_not() -> None:
    found = faults({}, {"user": "5ABC1D2"}, {"user": ""}, {"user": "aysel@example.az"}, {})
    assert found == {
        1: (Reason.PERSONAL_IDENTIFIER, "data.user looks like a FIN code"),
        3: (Reason.PERSONAL_IDENTIFIER, "data.user looks like an e-mail address"),
    }


@pytest.mark.parametrize("name", ["application", "centre", "district", "sign_in", "consumer"])
def test_a_code_that_looks_personal_and_one_that_is_none_are_told_apart(name: str) -> None:
    found = faults({name: "A-1"}, {name: "AZE12345678"}, {name: "a b"}, {name: "A-1"})
    assert {place: reason for place, (reason, _) in found.items()} == {
        1: Reason.PERSONAL_IDENTIFIER,
        2: Reason.INVALID_DATA,
    }
    for _, words in found.values():
        assert words.startswith(f"data.{name} ")


def test_only_an_application_may_not_look_like_a_fin_code() -> None:
    assert reasons({"centre": "5ABC1D2"}) == {}
    assert reasons({"application": "5ABC1D2"}) == {0: Reason.PERSONAL_IDENTIFIER}


def test_a_stage_needs_an_application_and_a_use_does_not() -> None:
    assert reasons({**STAGE, "application": ""}, {"application": ""}) == {0: Reason.INVALID_DATA}


def test_an_event_with_several_faults_is_refused_once() -> None:
    bad = {"user": "5ABC1D2", "centre": "a b", "agency": "nobody", "time_ms": 0}
    assert reasons(bad, {}) == {0: Reason.PERSONAL_IDENTIFIER}


# The whole column at once, and value by value

FRAGMENTS = [*"\n\r\0\x85\u2028 -_09aZ@.ə٣", "aze", "AZE", "994"]
EDGES = [
    "",
    "\n",
    "\n\n",
    PSEUDONYM,
    PSEUDONYM + "\n",
    "\n" + PSEUDONYM,
    PSEUDONYM + "\n" + PSEUDONYM,
    PSEUDONYM + "\r\n",
    PSEUDONYM[:21],
    PSEUDONYM[:22],
    PSEUDONYM * 3,
    "5ABC1D2",
    "aze" + "-" * 20 + "12345678",
    "AZE" + "-" * 20 + "12345678",
    "AZ21NABZ00000000137010001944",
    "0" * 22,
    "9" * 31,
    "9" * 32,
    "A" * 22,
    "-" * 22,
    "a" + "-" * 21,
]
USERS = st.lists(
    st.sampled_from(EDGES)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
    | st.text(max_size=30)
    | st.from_regex(r"[A-Za-z0-9_-]{20,130}", fullmatch=True),
    max_size=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(USERS)
def test_a_column_of_users_is_judged_as_its_values_are(users: list[str]) -> None:
    expected = {}
    for place, user in enumerate(users):
        fault = pseudonym_fault(user) if user else None
        if fault is not None:
            expected[place] = (Reason.PERSONAL_IDENTIFIER, f"data.user {fault[1]}")
    assert faults(*({"user": user} for user in users)) == expected


@pytest.mark.parametrize("value", EDGES)
def test_the_verdict_on_a_value_does_not_depend_on_its_neighbours(value: str) -> None:
    alone = faults({"user": value}).get(0)
    assert faults({"user": value}, {}, {"user": ""}).get(0) == alone
    # A neighbour that makes the whole column be walked.
    assert faults({"user": value}, {"user": "5ABC1D2"}).get(0) == alone


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([*EDGES, "A-1", "a b", "AA1234567"]) | st.text(max_size=12), max_size=5))
def test_a_column_of_codes_is_judged_as_its_values_are(codes: list[str]) -> None:
    for name in ("application", "centre", "consumer"):
        expected = {}
        for place, code in enumerate(codes):
            fault = code_fault(code, fin=name == "application") if code else None
            if fault is not None:
                reason = Reason.PERSONAL_IDENTIFIER if fault[0] else Reason.INVALID_DATA
                expected[place] = (reason, f"data.{name} {fault[1]}")
        assert faults(*({name: code} for code in codes)) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "user": st.sampled_from(EDGES),
                "application": st.sampled_from(["A-1", "5ABC1D2", ""]),
                "agency": st.sampled_from(["mia", "tax", "nobody"]),
                "service": st.sampled_from(["vat", "shared"]),
                "time_ms": st.sampled_from([0, NOW, LATEST_MS]),
                "stage": st.sampled_from(["", "received"]),
            },
        ),
        max_size=6,
    )
)
def test_events_are_judged_alike_alone_and_together(events: list[dict[str, Any]]) -> None:
    alone = {place: fault[0] for place, event in enumerate(events) if (fault := faults(event))}
    assert faults(*events) == alone
