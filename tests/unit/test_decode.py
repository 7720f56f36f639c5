"""Messages to events: every mode, every reason, and whatever else may arrive."""

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.columns import to_columns
from pipeline.contract.decode import Decoded, Headers, Refusal, decode, original
from pipeline.contract.events import CHANNELS, STAGE_TYPE, USED_TYPE, StageEvent, UsedEvent
from pipeline.contract.profiles import Profiles
from pipeline.contract.reasons import Reason

Json = dict[str, Any]

USE: Json = {
    "specversion": "1.0",
    "type": USED_TYPE,
    "id": "1",
    "source": "/portal",
    "time": "2025-03-14T09:26:53Z",
    "data": {
        "agency": "mia",
        "service": "id-card",
        "channel": "web",
        "outcome": "success",
        "duration_ms": 7,
    },
}
STAGE: Json = {
    **USE,
    "type": STAGE_TYPE,
    "data": {"agency": "mia", "service": "id-card", "application": "A-1", "stage": "received"},
}
E_MAIL = "aysel.memmedova@example.az"
BOM = b"\xef\xbb\xbf"
MEGABYTE = 1_000_000


def changed(event: Json = USE, data: Json | None = None, **attributes: Any) -> Json:
    event = copy.deepcopy(event)
    event.update(attributes)
    event["data"].update(data or {})
    return event


def without(event: Json, *names: str) -> Json:
    event = copy.deepcopy(event)
    for name in names:
        event.pop(name, None)
        event["data"].pop(name, None)
    return event


def encoded(content: Any) -> bytes:
    return json.dumps(content).encode()


def one(value: bytes | None, headers: Headers = ()) -> Decoded:
    return decode([value], [headers])


def refusal(value: bytes | None, headers: Headers = ()) -> Refusal:
    decoded = one(value, headers)
    assert not decoded.events
    (only,) = decoded.refusals
    assert (only.record, only.batch_index) == (0, 0)
    return only


def batch_of(*elements: bytes) -> bytes:
    return b"[" + b",".join(elements) + b"]"


def binary(event: Json = USE) -> list[tuple[str, bytes]]:
    return [(f"ce_{name}", value.encode()) for name, value in event.items() if name != "data"]


GOOD = encoded(USE)


# Modes


def test_a_structured_event_is_decoded() -> None:
    decoded = one(GOOD)
    (event,) = decoded.events
    assert isinstance(event, UsedEvent)
    assert (event.id, event.data.agency, event.data.duration_ms) == ("1", "mia", 7.0)
    assert (decoded.records, decoded.batch_indexes, decoded.refusals) == ([0], [0], [])


def test_white_space_and_a_content_type_around_a_structured_event_change_nothing() -> None:
    assert one(b" \r\n\t" + GOOD + b"\n").events == one(GOOD).events
    assert one(GOOD, [("content-type", b"application/cloudevents+json")]).events == one(GOOD).events


def test_a_batch_holds_events_of_several_types_in_order() -> None:
    decoded = one(b" \n" + encoded([USE, STAGE, changed(id="3")]))
    assert [type(event) for event in decoded.events] == [UsedEvent, StageEvent, UsedEvent]
    assert [event.id for event in decoded.events] == ["1", "1", "3"]
    assert (decoded.records, decoded.batch_indexes) == ([0, 0, 0], [0, 1, 2])


def test_a_binary_event_equals_the_structured_one() -> None:
    for event in (USE, STAGE):
        headers = [*binary(event), ("content-type", b"application/json")]
        assert one(encoded(event["data"]), headers).events == one(encoded(event)).events


def test_other_headers_do_not_make_a_message_binary() -> None:
    headers = [("traceparent", b"\xff\x00"), ("ce_subject", b"x"), ("content-type", b"text/plain")]
    assert one(GOOD, headers).events == one(GOOD).events


def test_messages_keep_their_places() -> None:
    bad = encoded(changed(id=""))
    values = [GOOD, None, encoded([USE, changed(id=""), USE]), bad, encoded(USE["data"]), b"[]", GOOD]
    heads: list[Headers] = [(), (), (), (), binary(), (), ()]
    decoded = decode(values, heads)
    assert list(zip(decoded.records, decoded.batch_indexes, strict=True)) == [(0, 0), (2, 0), (2, 2), (4, 0), (6, 0)]
    assert [(r.record, r.batch_index, r.reason) for r in decoded.refusals] == [
        (1, 0, Reason.EMPTY_MESSAGE),
        (2, 1, Reason.INVALID_ATTRIBUTE),
        (3, 0, Reason.INVALID_ATTRIBUTE),
        (5, 0, Reason.EMPTY_BATCH),
    ]


def test_no_messages_give_nothing() -> None:
    decoded = decode([], [])
    assert not decoded.events
    assert not decoded.refusals


# Neighbours in a batch

BAD_ELEMENTS = {
    "wrong data": (encoded(changed(data={"channel": "pigeon"})), Reason.INVALID_DATA),
    "foreign type": (encoded(changed(type="com.example.someevent")), Reason.UNKNOWN_TYPE),
    "null": (b"null", Reason.NOT_A_CLOUDEVENT),
    "nested array": (b"[1, [2, 3], {}]", Reason.NOT_A_CLOUDEVENT),
    "not UTF-8": (GOOD.replace(b'"1"', b'"\xff"'), Reason.NOT_JSON),
    "lone surrogate": (GOOD.replace(b'"1"', b'"\\ud800"'), Reason.NOT_JSON),
    "NaN": (GOOD.replace(b": 7", b": NaN"), Reason.NOT_JSON),
    "Python's None": (GOOD.replace(b": 7", b": None"), Reason.NOT_JSON),
    "control character": (GOOD.replace(b'"1"', b'"\n"'), Reason.NOT_JSON),
    "bad escape": (GOOD.replace(b'"1"', b'"\\x"'), Reason.NOT_JSON),
    "brackets and commas in text": (GOOD.replace(b'"1"', b'"],}{\\"[\\x"'), Reason.NOT_JSON),
    "trailing comma": (GOOD[:-1] + b",}", Reason.NOT_JSON),
    "number out of range": (GOOD.replace(b": 7", b": 1e999"), Reason.INVALID_DATA),
    "nesting": (GOOD[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.NOT_JSON),
    "nothing": (b"", Reason.NOT_JSON),
}


@pytest.mark.parametrize("name", BAD_ELEMENTS)
def test_the_neighbours_of_a_bad_event_survive(name: str) -> None:
    bad, reason = BAD_ELEMENTS[name]
    first, last = encoded(changed(id="first")), encoded(changed(id="last"))
    decoded = one(batch_of(first, b" " + bad + b" ", last))
    assert [event.id for event in decoded.events] == ["first", "last"]
    assert decoded.batch_indexes == [0, 2]
    (only,) = decoded.refusals
    assert (only.record, only.batch_index, only.reason, only.value) == (0, 1, reason, bad)


@pytest.mark.parametrize("name", BAD_ELEMENTS)
def test_the_original_of_a_good_neighbour_can_be_had(name: str) -> None:
    value = batch_of(b" " + GOOD, BAD_ELEMENTS[name][0], GOOD + b"\n")
    assert original(value, 0) == original(value, 2) == GOOD


def test_the_original_of_a_single_event_is_the_message() -> None:
    assert original(b" " + GOOD, 0) == b" " + GOOD
    assert original(None, 0) == b""


@pytest.mark.parametrize(
    "value",
    [
        batch_of(GOOD, GOOD)[:-1],
        batch_of(GOOD, GOOD)[:-20],
        b"[" + GOOD + b", " + GOOD[:-1] + b"]",
        batch_of(GOOD) + b"x",
        batch_of(GOOD) + batch_of(GOOD),
        b"[" + GOOD + b"}",
        batch_of(GOOD, b'"unfinished'),
        b"[" * 100_000,
    ],
)
def test_a_batch_whose_brackets_or_quotes_do_not_pair_is_refused_whole(value: bytes) -> None:
    refused = refusal(value)
    assert (refused.reason, refused.value) == (Reason.NOT_JSON, value)


# Reasons

STRUCTURED = {
    "no value": (None, Reason.EMPTY_MESSAGE, "no value"),
    "empty": (b"", Reason.EMPTY_MESSAGE, "no value"),
    "white space": (b" \r\n\t ", Reason.EMPTY_MESSAGE, "no value"),
    "text": (b"hello", Reason.NOT_JSON, "malformed"),
    "cut off": (GOOD[:-1], Reason.NOT_JSON, "truncated"),
    "two events": (GOOD + GOOD, Reason.NOT_JSON, "trailing"),
    "not UTF-8": (GOOD.replace(b'"1"', b'"\xff"'), Reason.NOT_JSON, "not UTF-8"),
    "encoded surrogate": (GOOD.replace(b'"1"', b'"\xed\xa0\x80"'), Reason.NOT_JSON, "not UTF-8"),
    "lone surrogate": (GOOD.replace(b'"1"', b'"\\ud800"'), Reason.NOT_JSON, "surrogate"),
    "UTF-16": (json.dumps(USE).encode("utf-16"), Reason.NOT_JSON, "malformed"),
    "byte order mark": (BOM + GOOD, Reason.NOT_JSON, "byte order mark"),
    "batch after byte order mark": (BOM + batch_of(GOOD), Reason.NOT_JSON, "byte order mark"),
    "NUL before": (b"\0" + GOOD, Reason.NOT_JSON, "malformed"),
    "NUL behind": (GOOD + b"\0", Reason.NOT_JSON, "trailing"),
    "NaN": (GOOD.replace(b": 7", b": NaN"), Reason.NOT_JSON, "malformed"),
    "Avro": (b"\x00\x00\x00\x00\x07\x02hello", Reason.NOT_JSON, "malformed"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", Reason.NOT_JSON, "malformed"),
    "open brackets": (b"[" * 100_000, Reason.NOT_JSON, "nested too deeply"),
    "nesting": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Reason.NOT_JSON, "nested too deeply"),
    "null": (b"null", Reason.NOT_A_CLOUDEVENT, "expected a JSON object"),
    "number": (b"1", Reason.NOT_A_CLOUDEVENT, "expected a JSON object"),
    "string": (b'"x"', Reason.NOT_A_CLOUDEVENT, "expected a JSON object"),
    "empty object": (b"{}", Reason.NOT_A_CLOUDEVENT, "specversion"),
    "no specversion": (encoded(without(USE, "specversion")), Reason.NOT_A_CLOUDEVENT, "specversion"),
    "old specversion": (encoded(changed(specversion="0.3")), Reason.NOT_A_CLOUDEVENT, "specversion"),
    "specversion a number": (encoded(changed(specversion=1.0)), Reason.NOT_A_CLOUDEVENT, "specversion"),
    "empty batch": (b"[]", Reason.EMPTY_BATCH, "the array is empty"),
    "blank batch": (b" [ \n ] ", Reason.EMPTY_BATCH, "the array is empty"),
    "no type": (encoded(without(USE, "type")), Reason.INVALID_ATTRIBUTE, "type is missing"),
    "type a number": (encoded(changed(type=1)), Reason.INVALID_ATTRIBUTE, "type is missing or not a string"),
    "foreign type": (encoded(changed(type="com.example")), Reason.UNKNOWN_TYPE, USED_TYPE),
    "next version": (encoded(changed(type="xidmet.service.used.v2")), Reason.UNKNOWN_TYPE, STAGE_TYPE),
    "empty type": (encoded(changed(type="")), Reason.UNKNOWN_TYPE, USED_TYPE),
    "no id": (encoded(without(USE, "id")), Reason.INVALID_ATTRIBUTE, "`id`"),
    "empty id": (encoded(changed(id="")), Reason.INVALID_ATTRIBUTE, "$.id"),
    "long id": (encoded(changed(id="x" * 257)), Reason.INVALID_ATTRIBUTE, "$.id"),
    "id a number": (encoded(changed(id=5)), Reason.INVALID_ATTRIBUTE, "$.id"),
    "no source": (encoded(without(USE, "source")), Reason.INVALID_ATTRIBUTE, "`source`"),
    "long source": (encoded(changed(source="x" * 1025)), Reason.INVALID_ATTRIBUTE, "$.source"),
    "no time": (encoded(without(USE, "time")), Reason.INVALID_ATTRIBUTE, "`time`"),
    "null time": (encoded(changed(time=None)), Reason.INVALID_ATTRIBUTE, "$.time"),
    "no time zone": (encoded(changed(time="2025-03-14T09:26:53")), Reason.INVALID_ATTRIBUTE, "timezone"),
    "no time of day": (encoded(changed(time="2025-03-14")), Reason.INVALID_ATTRIBUTE, "$.time"),
    "no such day": (encoded(changed(time="2025-02-30T00:00:00Z")), Reason.INVALID_ATTRIBUTE, "$.time"),
    "Unix time": (encoded(changed(time=1741944413)), Reason.INVALID_ATTRIBUTE, "$.time"),
    "no data": (encoded({name: USE[name] for name in USE if name != "data"}), Reason.INVALID_DATA, "`data`"),
    "null data": (encoded({**USE, "data": None}), Reason.INVALID_DATA, "$.data"),
    "text as data": (encoded({**USE, "data": "x"}), Reason.INVALID_DATA, "$.data"),
    "array as data": (encoded({**USE, "data": [1]}), Reason.INVALID_DATA, "$.data"),
    "no agency": (encoded(without(USE, "agency")), Reason.INVALID_DATA, "`agency`"),
    "null service": (encoded(changed(data={"service": None})), Reason.INVALID_DATA, "$.data.service"),
    "no outcome": (encoded(without(USE, "outcome")), Reason.INVALID_DATA, "`outcome`"),
    "wrong channel": (encoded(changed(data={"channel": "Web"})), Reason.INVALID_DATA, ", ".join(CHANNELS)),
    "negative duration": (encoded(changed(data={"duration_ms": -1})), Reason.INVALID_DATA, "$.data.duration_ms"),
    "duration of days": (encoded(changed(data={"duration_ms": 86_400_001})), Reason.INVALID_DATA, "86400000"),
    "duration as text": (encoded(changed(data={"duration_ms": "7"})), Reason.INVALID_DATA, "$.data.duration_ms"),
    "boolean duration": (encoded(changed(data={"duration_ms": True})), Reason.INVALID_DATA, "$.data.duration_ms"),
    "400 digits": (encoded(changed(data={"duration_ms": 10**400})), Reason.INVALID_DATA, "out of range"),
    "exponent": (GOOD.replace(b": 7", b": 1e999"), Reason.INVALID_DATA, "out of range"),
    "rating 0": (encoded(changed(data={"rating": 0})), Reason.INVALID_DATA, "$.data.rating"),
    "rating 6": (encoded(changed(data={"rating": 6})), Reason.INVALID_DATA, "$.data.rating"),
    "rating 4.5": (encoded(changed(data={"rating": 4.5})), Reason.INVALID_DATA, "$.data.rating"),
    "huge rating": (encoded(changed(data={"rating": 10**30})), Reason.INVALID_DATA, "$.data.rating"),
    "wrong hosting": (encoded(changed(data={"hosting": "cloud"})), Reason.INVALID_DATA, "government_cloud, own"),
    "wrong initiator": (encoded(changed(data={"initiator": "x"})), Reason.INVALID_DATA, "citizen, state"),
    "user an object": (encoded(changed(data={"user": {}})), Reason.INVALID_DATA, "$.data.user"),
    "wrong stage": (encoded(changed(STAGE, {"stage": "lost"})), Reason.INVALID_DATA, "received, processed, responded"),
    "no application": (encoded(without(STAGE, "application")), Reason.INVALID_DATA, "`application`"),
    "stage data as use": (encoded(changed(STAGE, type=USED_TYPE)), Reason.INVALID_DATA, "$.data"),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_structured_event_is_refused_for_the_right_reason(name: str) -> None:
    value, reason, words = STRUCTURED[name]
    refused = refusal(value)
    assert refused.reason is reason, refused.detail
    assert words in refused.detail
    assert refused.value == (value or b"")


DATA = encoded(USE["data"])
BINARY: dict[str, tuple[bytes | None, list[tuple[str, Any]], Reason]] = {
    "no value": (None, binary(), Reason.EMPTY_MESSAGE),
    "not JSON": (b"<much wow/>", binary(), Reason.NOT_JSON),
    "header not UTF-8": (DATA, [*binary(), ("ce_comment", b"\xff")], Reason.NOT_JSON),
    "nesting": (b"[" * 100_000, binary(), Reason.NOT_JSON),
    "no specversion": (DATA, binary(without(USE, "specversion")), Reason.NOT_A_CLOUDEVENT),
    "specversion without value": (
        DATA,
        [*binary(without(USE, "specversion")), ("ce_specversion", None)],
        Reason.NOT_A_CLOUDEVENT,
    ),
    "no type": (DATA, binary(without(USE, "type")), Reason.INVALID_ATTRIBUTE),
    "foreign type": (DATA, binary(changed(type="com.example.someevent")), Reason.UNKNOWN_TYPE),
    "no id": (DATA, binary(without(USE, "id")), Reason.INVALID_ATTRIBUTE),
    "id without value": (DATA, [*binary(without(USE, "id")), ("ce_id", None)], Reason.INVALID_ATTRIBUTE),
    "time": (DATA, binary(changed(time="yesterday")), Reason.INVALID_ATTRIBUTE),
    "data null": (b"null", binary(), Reason.INVALID_DATA),
    "data an array": (b"[1]", binary(), Reason.INVALID_DATA),
    "data incomplete": (encoded(without(USE, "channel")["data"]), binary(), Reason.INVALID_DATA),
    "number out of range": (DATA.replace(b": 7", b": 1e999"), binary(), Reason.INVALID_DATA),
    "the whole event as data": (GOOD, binary(), Reason.INVALID_DATA),
}


@pytest.mark.parametrize("name", BINARY)
def test_a_binary_event_is_refused_for_the_right_reason(name: str) -> None:
    value, headers, reason = BINARY[name]
    refused = refusal(value, headers)
    assert refused.reason is reason, refused.detail
    assert refused.value == (value or b"")


def test_each_reason_that_decoding_can_give_is_tested() -> None:
    met = {reason for _, reason, _ in STRUCTURED.values()} | {reason for _, _, reason in BINARY.values()}
    by_checks = {
        Reason.PERSONAL_IDENTIFIER,
        Reason.TIME_TOO_EARLY,
        Reason.TIME_IN_FUTURE,
        Reason.UNKNOWN_AGENCY,
        Reason.UNKNOWN_SERVICE,
    }
    assert met == set(Reason) - by_checks


# Details

TRICKY = [
    E_MAIL,
    f"o'{E_MAIL}",
    f'"{E_MAIL}"',
    f"'\"{E_MAIL}\\",
    f"\n{E_MAIL}\0",
    f"{E_MAIL}' - at `$.type`",
    f"{E_MAIL}` - at `$.id`\n'",
    E_MAIL * 50,
]
PLACES = [
    ("type",),
    ("specversion",),
    ("id",),
    ("source",),
    ("time",),
    ("data",),
    *(("data", name) for name in ("channel", "outcome", "duration_ms", "hosting", "initiator", "rating", "stage")),
]


@pytest.mark.parametrize("value", TRICKY)
@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("wrapped", [False, True])
def test_details_never_show_the_offending_value(place: tuple[str, ...], value: str, wrapped: bool) -> None:
    event = changed(STAGE if place == ("data", "stage") else USE)
    target = event
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = [value] if wrapped else value * 20 if place[-1] in ("id", "source") else value
    messages: list[tuple[bytes, Headers]] = [(encoded(event), ()), (encoded([event]), ())]
    if place[0] == "data":
        messages.append((encoded(event["data"]), binary(event)))
    for message, headers in messages:
        for refused in one(message, headers).refusals:
            assert "memmedova" not in refused.detail
            assert "\n" not in refused.detail
            if place[0] == "data":
                assert refused.reason is Reason.INVALID_DATA, refused.detail
                assert place[-1] in refused.detail


def test_details_are_short() -> None:
    for value in ("x" * (10 * MEGABYTE), "'" * MEGABYTE):
        assert len(refusal(encoded(changed(data={"channel": value}))).detail) < 300


# What is tolerated


def test_unknown_fields_and_extension_attributes_are_tolerated() -> None:
    event = changed(
        data={"new_field": {"a": [1, None]}, "another": 1.5},
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        comexampleothervalue=5,
        unsetextension=None,
        data_base64="YQ==",
    )
    assert one(encoded(event)).events == one(encoded(USE)).events


@pytest.mark.parametrize("value", ["text", None, 5, {"a": 1}])
def test_optional_attributes_of_cloudevents_are_tolerated_in_any_form(value: Any) -> None:
    event = changed(subject=value, datacontenttype=value, dataschema=value)
    assert one(encoded(event)).refusals == []


def test_null_means_unset_for_optional_fields() -> None:
    optional = ("user", "application", "centre", "district", "hosting", "sign_in", "consumer", "initiator", "rating")
    event = changed(data=dict.fromkeys(optional))
    assert one(encoded(event)).events == one(encoded(USE)).events
    assert one(encoded(changed(STAGE, {"channel": None, "user": None}))).events == one(encoded(STAGE)).events


@pytest.mark.parametrize(
    "time",
    [
        "2025-03-14T13:26:53+04:00",
        "2025-03-14T09:26:53.000Z",
        "2025-03-14T09:26:53.000000000Z",
        "2025-03-14t09:26:53z",
        "2025-03-14 09:26:53Z",
        "2025-03-14T09:26:53-00:00",
    ],
)
def test_times_are_read_in_all_forms_of_rfc_3339(time: str) -> None:
    (event,) = one(encoded(changed(time=time))).events
    (usual,) = one(encoded(USE)).events
    assert event.time == usual.time


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"])
def test_the_ends_of_the_calendar_do_not_overflow(time: str) -> None:
    decoded = one(encoded(changed(time=time)))
    assert decoded.refusals == []
    assert len(to_columns(decoded, Profiles()).time_ms) == 1


def test_control_characters_in_text_arrive_as_they_were_sent() -> None:
    decoded = one(encoded(changed(id="a\0b\n", data={"agency": "m\0"})))
    (event,) = decoded.events
    assert (event.id, event.data.agency) == ("a\0b\n", "m\0")


def test_lengths_are_counted_in_characters() -> None:
    assert one(encoded(changed(id="\N{GRINNING FACE}" * 256))).refusals == []


# The CloudEvents specification's own examples: formats/json-format.md 1.0.2, 3.2 and 4.3, and spec.md 1.0.2.

EXTENDED: Json = {"time": "2018-04-05T17:31:00Z", "comexampleextension1": "value", "comexampleothervalue": 5}
OF_THE_SPECIFICATION: list[Json] = [
    {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext",
        "id": "A234-1234-1234",
        **EXTENDED,
        "datacontenttype": "application/vnd.apache.thrift.binary",
        "data_base64": "... base64 encoded string ...",
    },
    {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext",
        "id": "B234-1234-1234",
        **EXTENDED,
        "unsetextension": None,
        "datacontenttype": "application/xml",
        "data": '<much wow="xml"/>',
    },
    {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext",
        "subject": None,
        "id": "C234-1234-1234",
        **EXTENDED,
        "datacontenttype": "application/json",
        "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
    },
    {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext",
        "subject": None,
        "id": "D234-1234-1234",
        **EXTENDED,
        "data": "I'm just a string",
    },
    {
        "specversion": "1.0",
        "type": "com.github.pull_request.opened",
        "source": "https://github.com/cloudevents/spec/pull",
        "subject": "123",
        "id": "A234-1234-1234",
        **EXTENDED,
        "datacontenttype": "text/xml",
        "data": '<much wow="xml"/>',
    },
    # The example of nesting in primer.md.
    {"specversion": "1.0", "type": "coolevent", "id": "xxxx-xxxx-xxxx", "source": "bigco.com", "data": {}},
]


@pytest.mark.parametrize("event", OF_THE_SPECIFICATION, ids=lambda event: event["id"])
def test_the_examples_of_the_specification_are_cloudevents_of_another_type(event: Json) -> None:
    assert refusal(encoded(event)).reason is Reason.UNKNOWN_TYPE
    assert refusal(json.dumps(event, indent=4).encode()).reason is Reason.UNKNOWN_TYPE
    # As one of ours they lack what our data must have, or data itself, or the time.
    refused = refusal(encoded({**event, "type": USED_TYPE}))
    assert refused.reason in (Reason.INVALID_DATA, Reason.INVALID_ATTRIBUTE)


def test_the_batch_of_the_specification_is_read_event_by_event() -> None:
    decoded = one(encoded(OF_THE_SPECIFICATION))
    assert [r.reason for r in decoded.refusals] == [Reason.UNKNOWN_TYPE] * len(OF_THE_SPECIFICATION)
    assert [r.batch_index for r in decoded.refusals] == list(range(len(OF_THE_SPECIFICATION)))


def test_an_event_nested_in_a_binary_one_is_data() -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_type", b"myevent"), ("ce_id", b"1"), ("ce_source", b"example.com")]
    assert refusal(encoded(OF_THE_SPECIFICATION[-1]), headers).reason is Reason.UNKNOWN_TYPE


# Poison

LARGE = {
    "id": (encoded(changed(id="x" * 10 * MEGABYTE)), 1),
    "unknown field": (encoded(changed(data={"x": "y" * 10 * MEGABYTE})), 0),
    "unfinished string": (b'{"id": "' + b"x" * 10 * MEGABYTE, 1),
    "unfinished escapes": (b'["' + b'\\"' * MEGABYTE, 1),
    "quotation marks": (b"[" + b'"' * MEGABYTE + b"]", 1),
    "open brackets": (b"[" * MEGABYTE, 1),
    "digits": (GOOD.replace(b": 7", b": 7" + b"0" * MEGABYTE), 1),
    "white space": (b" " * 10 * MEGABYTE, 1),
    "objects": (b'{"a":' * MEGABYTE, 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_messages_are_decided_quickly(name: str) -> None:
    value, refused = LARGE[name]
    decoded = one(value)
    assert (len(decoded.events), len(decoded.refusals)) == (1 - refused, refused)


def test_originals_of_a_large_batch_are_found_in_linear_time() -> None:
    count = 3_000
    value = encoded([changed(id=str(number)) for number in range(count)])
    assert {json.loads(original(value, index))["id"] for index in range(count)} == {str(n) for n in range(count)}


def fuzzed(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def whole(values: list[bytes | None], headers: list[Headers]) -> Decoded:
    """Decode; each message must give an event or a refusal, and nothing may be out of place."""
    decoded = decode(values, headers)
    assert len(decoded.events) == len(decoded.records) == len(decoded.batch_indexes)
    met = list(zip(decoded.records, decoded.batch_indexes, strict=True))
    met += [(refused.record, refused.batch_index) for refused in decoded.refusals]
    assert len(set(met)) == len(met)
    assert {record for record, _ in met} == set(range(len(values)))
    for record in range(len(values)):
        indexes = sorted(index for place, index in met if place == record)
        assert indexes == list(range(len(indexes)))
    for refused in decoded.refusals:
        assert refused.value in (values[refused.record] or b"")
        assert re.fullmatch(r"[^\r\n]{1,300}", refused.detail)
    for record, index in zip(decoded.records, decoded.batch_indexes, strict=True):
        assert original(values[record], index)
    assert len(to_columns(decoded, Profiles())) == len(decoded.events)
    return decoded


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HEADER_NAMES = ["ce_specversion", "ce_type", "ce_id", "ce_source", "ce_time", "ce_data", "content-type", ""]
HEADERS: st.SearchStrategy[Any] = st.lists(
    st.tuples(st.sampled_from(HEADER_NAMES), st.none() | st.sampled_from([b"1.0", USED_TYPE.encode()]) | st.binary()),
    max_size=6,
)
BYTES = st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ \n\t\x000123456789.eE+-abntruefalsNI\ud800\ufeff').map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message that was good: some values replaced, then some bytes."""
    events = draw(st.lists(st.sampled_from([USE, STAGE]).map(copy.deepcopy), min_size=1, max_size=4))
    for event in events:
        for target in draw(st.lists(st.sampled_from([event, event["data"]]), max_size=2)):
            target[draw(st.sampled_from([*USE, *USE["data"], "user", "rating", "stage", "x"]))] = draw(JSON)
    content = events if draw(st.booleans()) else events[0]
    value = bytearray(json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(value)))
        value[start : start + draw(st.integers(0, 6))] = draw(BYTES.map(lambda piece: piece[:6]))
    return bytes(value)


@fuzzed(100)
@given(st.lists(st.tuples(st.none() | BYTES | mutated(), st.just([]) | HEADERS), min_size=1, max_size=4))
def test_nothing_that_arrives_raises_or_gets_lost(messages: list[tuple[bytes | None, Headers]]) -> None:
    whole([value for value, _ in messages], [headers for _, headers in messages])


@fuzzed(40)
@given(st.lists(mutated() | st.sampled_from([GOOD, b"1", b"[[]]"]), min_size=1, max_size=4), BYTES)
def test_a_batch_of_anything_does_not_raise(elements: list[bytes], rest: bytes) -> None:
    whole([batch_of(*elements), batch_of(*elements) + rest], [(), ()])


@fuzzed(40)
@given(JSON, HEADERS)
def test_any_json_as_binary_data_does_not_raise(content: Any, headers: Headers) -> None:
    value = json.dumps(content).encode("utf-8", "surrogatepass")
    whole([value, value], [[*binary(), *headers], headers])


@fuzzed(40)
@given(st.lists(st.sampled_from([value for value, _, _ in STRUCTURED.values() if value]) | st.just(GOOD), max_size=6))
def test_messages_are_judged_alike_alone_and_together(values: list[bytes]) -> None:
    together = decode(values, [()] * len(values))
    alone = [one(value) for value in values]
    assert together.events == [event for decoded in alone for event in decoded.events]
    assert [(r.reason, r.detail) for r in together.refusals] == [
        (r.reason, r.detail) for decoded in alone for r in decoded.refusals
    ]
