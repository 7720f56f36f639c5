"""Dead letters keep every byte but those of personal identifiers."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from sinks.dead_letters import mask, parts

PSEUDONYM = "ct3KINekytp-mvV1dI1VKmucwopDxfoH1Ppi0OpK9nE"
IDENTIFIERS = [
    "aysel@example.az",
    "+994 50 123 45 67",
    "050-123-45-67",
    "AZE12345678",
    "AA1234567",
    "4111 1111 1111 1111",
    "AZ21NABZ00000000137010001944",
]
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "xidmet.service.used.v1",
    "id": "0190b2f4-6c1e-7d5a-9f3b-2a8e4c7d1b60",
    "source": "https://portal.example/e-services",
    "time": "2025-03-14T09:26:53.589+04:00",
    "data": {"agency": "mia", "service": "id-card", "channel": "web", "duration_ms": 7.50, "user": PSEUDONYM},
}


def event(**data: Any) -> bytes:
    return json.dumps({**EVENT, "data": {**EVENT["data"], **data}}).encode()


def stars(text: str) -> str:
    return "*" * len(text.encode())


def test_a_message_without_identifiers_is_returned_byte_for_byte() -> None:
    for value in (
        event(),
        event(channel="pigeon", extra=[1, None, {"a": "b"}]),
        b"[]",
        b"null",
        b' \n{"a" : 1.0e0}\t',
        b"",
    ):
        assert mask(value) == (value, False)


@pytest.mark.parametrize("identifier", IDENTIFIERS)
@pytest.mark.parametrize("name", ["user", "application", "subject", "channel", "anything"])
def test_an_identifier_is_masked_in_any_field_and_the_rest_stays(name: str, identifier: str) -> None:
    value = event(**{name: identifier})
    assert mask(value) == (event(**{name: stars(identifier)}), True)


@pytest.mark.parametrize("user", ["5ABC1D2", "Aysel Memmedova", "aysel.m", "05012345678901"])
def test_whatever_is_no_pseudonym_is_masked_as_user(user: str) -> None:
    assert mask(event(user=user)) == (event(user=stars(user)), True)


def test_a_fin_code_is_masked_where_people_are_meant_and_a_code_elsewhere_is_not() -> None:
    assert mask(event(application="5ABC1D2")) == (event(application="*" * 7), True)
    assert mask(event(centre="5ABC1D2")) == (event(centre="5ABC1D2"), False)


def test_identifiers_are_found_in_batches_and_at_any_depth() -> None:
    value = json.dumps([EVENT, {"a": [{"b": ["aysel@example.az"]}]}, {"user": ["5ABC1D2"]}]).encode()
    expected = value.replace(b"aysel@example.az", b"*" * 16).replace(b"5ABC1D2", b"*" * 7)
    assert mask(value) == (expected, True)


def test_several_identifiers_are_all_masked() -> None:
    value = event(user="5ABC1D2", application="AZE12345678", sign_in="050-123-45-67")
    expected = event(user="*" * 7, application="*" * 11, sign_in="*" * 13)
    assert mask(value) == (expected, True)


def test_white_space_and_the_form_of_numbers_are_kept() -> None:
    value = b'{ "a" :1.50e+1,\r\n\t"user":"5ABC1D2" , "b": [ 0.10 ,-0 ] }\n'
    assert mask(value) == (value.replace(b"5ABC1D2", b"*" * 7), True)


def test_a_repeated_key_does_not_hide_an_identifier_of_the_last() -> None:
    assert mask(b'{"user":"x","user":"5ABC1D2"}') == (b'{"user":"*","user":"*******"}', True)


# Escapes


def test_a_usual_escape_within_an_identifier_is_masked_with_it() -> None:
    assert mask(b'{"user":"a\\"b\\\\c","x":"y"}') == (b'{"user":"*******","x":"y"}', True)


def test_text_in_utf_8_is_masked_byte_by_byte() -> None:
    value = '{"user":"Aysel Məmmədova","x":"ə"}'.encode()
    assert mask(value) == (f'{{"user":"{stars("Aysel Məmmədova")}","x":"ə"}}'.encode(), True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"user":"5\\u0041BC1D2","x":1}', b'{"user":"************","x":1}'),
        (b'{"user":"M\\u0259mm\\u0259d"}', b'{"user":"****************"}'),
        (b'["a\\u0040b.az"]', b'["***********"]'),
    ],
)
def test_an_identifier_written_with_other_escapes_is_masked_with_them(value: bytes, expected: bytes) -> None:
    assert mask(value) == (expected, True)


def test_an_identifier_written_once_plainly_and_once_with_escapes_is_not_left_over() -> None:
    for value in (b'["a@b.az","a\\u0040b.az"]', b'["a\\u0040b.az","a@b.az"]'):
        masked, changed = mask(value)
        assert changed
        assert b"b.az" not in masked


def test_escapes_elsewhere_do_not_matter() -> None:
    value = b'{"id":"\\u0259\\n\\/","user":"5ABC1D2"}'
    assert mask(value) == (value.replace(b"5ABC1D2", b"*" * 7), True)


# What is no JSON


@pytest.mark.parametrize("rest", [b"", b', "x": ', b", bad}", b'\xff"}', b"}}"])
def test_what_is_no_json_is_masked_by_pattern(rest: bytes) -> None:
    value = b'{"id": "\xff", "user" : "5ABC1D2", "mail": "aysel@example.az"' + rest
    expected = value.replace(b"5ABC1D2", b"*" * 7).replace(b"aysel@example.az", b"*" * 16)
    assert mask(value) == (expected, True)


def test_a_pseudonym_in_what_is_no_json_stays() -> None:
    value = event()[:-1]
    assert mask(value) == (value, False)


@pytest.mark.parametrize("value", [b"\xff\xfe\x00", b"{" * 1000, b"[" * 100_000, b'"user":"', b"@", b"a@b", b"\0"])
def test_other_bytes_stay_as_they_are(value: bytes) -> None:
    assert mask(value) == (value, False)


def test_large_messages_are_masked_quickly() -> None:
    for value in (b"a" * 1_000_000, b"a@" * 200_000, b'{"user":"' * 50_000, b'["' + b"x" * 5_000_000 + b'"]'):
        assert len(mask(value)[0]) == len(value)


# Anything

TEXT = st.text(max_size=12) | st.sampled_from([*IDENTIFIERS, PSEUDONYM, "5ABC1D2"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["user", "subject", "x", "y"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON | st.fixed_dictionaries({"data": JSON}), st.booleans())
def test_masking_only_ever_writes_asterisks_and_leaves_no_identifier(content: Any, ascii_only: bool) -> None:
    value = json.dumps(content, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    masked, changed = mask(value)
    assert len(masked) == len(value)
    assert all(after == before or after == ord("*") for before, after in zip(value, masked, strict=True))
    assert changed == (masked != value)
    for identifier in IDENTIFIERS:
        assert identifier.encode() not in masked


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=100) | st.binary(max_size=20).map(lambda tail: event(user="a@b.az")[:-2] + tail))
def test_any_bytes_can_be_masked(value: bytes) -> None:
    masked, changed = mask(value)
    assert len(masked) == len(value)
    assert changed == (masked != value)


@given(st.sampled_from(IDENTIFIERS), st.sampled_from(["user", "subject", "x"]))
def test_a_masked_message_stays_json_of_the_same_shape(identifier: str, name: str) -> None:
    content = msgspec.json.decode(mask(event(**{name: identifier}))[0])
    assert content == {**EVENT, "data": {**EVENT["data"], name: stars(identifier)}}


# Known to fall short; each passes when it is mended.


@pytest.mark.parametrize("user", ["1", "true", "mia"])
def test_a_short_user_does_not_spoil_other_fields(user: str) -> None:
    value = event(user=user, extra=True)
    assert mask(value) == (event(user=stars(user), extra=True), True)


def test_the_same_identifier_in_two_fields_leaves_the_rest_readable() -> None:
    value = event(user="aysel@example.az", sign_in="aysel@example.az")
    assert mask(value) == (event(user="*" * 16, sign_in="*" * 16), True)


@pytest.mark.parametrize("number", [994501234567, 4111111111111111])
def test_an_identifier_sent_as_a_number_is_masked(number: int) -> None:
    assert str(number).encode() not in mask(event(user=number))[0]


def test_an_identifier_as_the_name_of_a_field_is_masked() -> None:
    assert b"aysel@example.az" not in mask(b'{"aysel@example.az": 1}')[0]


def test_identifiers_in_messages_of_many_values_are_masked() -> None:
    value = event(user="aysel@example.az", extra=list(range(20_000)))
    assert b"aysel@example.az" not in mask(value)[0]


@pytest.mark.parametrize("sizes", [[], [1], [1] * 12_000, [40_000_000], [10_000_000] * 7 + [1] * 5_001])
def test_rejects_are_sent_in_parts_of_bounded_size_and_order(sizes: list[int]) -> None:
    log = LogPartition("usage.events", "id", 0)
    largest = bytes(max(sizes, default=0))
    rejects = [
        Reject(log, offset, 0, 0, Reason.NOT_JSON, "", None, (), largest if size == len(largest) else b"x")
        for offset, size in enumerate(sizes)
    ]
    found = list(parts(rejects))
    assert [reject.offset for part in found for reject in part] == list(range(len(sizes)))
    for part in found:
        assert 1 <= len(part) <= 5_000
        assert sum(len(reject.value) for reject in part[:-1]) < 32 * 1024 * 1024
