"""Dead letters as they are written, named, replayed and mended: without a broker."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.catalogue import demonstration_catalogue
from pipeline.contract.agency import agency_of
from pipeline.contract.decode import decode
from pipeline.contract.judging import judge
from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Reject
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.rules import Rules
from pipeline.runtime.mending import mended
from pipeline.runtime.replaying import _of_length, replay_message, why_not
from pipeline.settings import FoldSettings
from sinks.dead_letters import Letter, _letter
from sinks.letters import DROPPED, OPEN, REPLAYED, Coordinates, Entry, _coordinates, _entry, _text_headers, parse_name
from sinks.prometheus import Metrics

UUID = "01a20fd0-2f7f-7393-885c-4049ed9b2a06"
PLACE = Coordinates(UUID, 2, 4711, 0)
DATA: dict[str, Any] = {
    "agency": "mia",
    "service": "driving-licence-replacement",
    "channel": "web",
    "outcome": "success",
    "duration_ms": 7,
}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "xidmet.service.used.v1",
    "id": "1",
    "source": "s",
    "time": "2025-03-14T09:26:53Z",
    "data": DATA,
}
BINARY = [(f"ce_{name}", value.encode()) for name, value in EVENT.items() if name != "data"]
VALUE = json.dumps(EVENT).encode()
NOW = int(datetime(2025, 3, 14, 10, tzinfo=UTC).timestamp() * 1000)
REJECT = Reject(
    LogPartition("usage.events", UUID, 2), 4711, 0, 1_741_944_413_000, Reason.NOT_JSON, "words", b"k", [], VALUE, "mia"
)


def entry(**changes: Any) -> Entry:
    made = Entry(PLACE, "not_json", "mia", "words", 1_741_944_413_000, 0, False, None, 5, (0, 9))
    return replace(made, **changes)


def read(letter: Letter) -> Entry:
    """As a scan reads it."""
    headers = _text_headers(letter.headers)
    coordinates = _coordinates(headers)
    assert coordinates is not None
    return _entry(coordinates, headers, SimpleNamespace(value=letter.value, partition=0, offset=9))


# Names


def test_a_name_is_short_for_people_and_full_for_programs() -> None:
    assert (PLACE.short, str(PLACE)) == ("01a20fd0/2/4711/0", f"{UUID}/2/4711/0")
    assert Coordinates("usage.events", 0, 1, 2).short == "usage.events/0/1/2"
    for text in (PLACE.short, str(PLACE), f" {PLACE} \n"):
        assert PLACE.answers_to(parse_name(text))
    for text in ("01a20fd1/2/4711/0", "01a20fd0/2/4711/1", "01a20fd0/1/4711/0"):
        assert not PLACE.answers_to(parse_name(text))


@pytest.mark.parametrize("text", ["", "a", "a/1/2", "a/1/2/3/4", "/1/2/3", "a/1/-2/3", "a/1/x/3", "a/١/2/3", "a//2/3"])
def test_what_is_no_name_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="TOPIC-ID/PARTITION/OFFSET/INDEX"):
        parse_name(text)


# What is written is what is read


def test_a_letter_is_read_as_it_was_written() -> None:
    assert read(_letter(REJECT)) == entry(size=len(VALUE))
    other = replace(REJECT, agency="", batch_index=3, timestamp=-1, headers=[("xidmet-attempt", b"2")])
    assert read(_letter(other)) == entry(
        coordinates=PLACE._replace(batch_index=3), agency="other", timestamp=-1, attempt=2, size=len(VALUE)
    )


def test_nobody_but_the_pipeline_says_what_a_letter_is() -> None:
    """An agency that sends headers of our names cannot mark its letter as done, masked or of another agency."""
    names = ("disposition", "reason", "masked", "value-bytes", "agency", "offset", "topic-id", "segment-end-not")
    forged = [(f"xidmet-{name}", b"dropped") for name in names] + [("traceparent", b"00-ab")]
    letter = _letter(replace(REJECT, headers=forged, agency=""))
    assert read(letter) == entry(agency="other", size=len(VALUE))
    assert letter.headers[0] == ("traceparent", b"00-ab")
    assert b"dropped" not in [content for _, content in letter.headers]


@pytest.mark.parametrize("attempt", [b"", b"x", b"-5", b"9" * 40, "٣".encode(), b"\xff"])
def test_an_attempt_that_is_no_number_is_none(attempt: bytes) -> None:
    assert read(_letter(replace(REJECT, headers=[("xidmet-attempt", attempt)]))).attempt == 0


def test_a_header_without_a_value_is_empty_in_the_letter() -> None:
    """Kafka allows them, kafka-python does not send them: the worker would end at each of its restarts."""
    headers: Any = [("content-type", None), ("some", b"thing")]
    assert _letter(replace(REJECT, headers=headers)).headers[:2] == [("content-type", b""), ("some", b"thing")]


def test_a_masked_header_makes_a_masked_letter() -> None:
    """Else a replay would count an event whose id is made of asterisks."""
    letter = _letter(replace(REJECT, headers=[("ce_id", b"aysel@example.az")]))
    assert ("ce_id", b"*" * 16) in letter.headers
    assert read(letter).masked


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"xidmet-topic-id": "t", "xidmet-partition": "1", "xidmet-offset": "1"},
        {"xidmet-topic-id": "", "xidmet-partition": "1", "xidmet-offset": "1", "xidmet-batch-index": "0"},
        {"xidmet-topic-id": "t", "xidmet-partition": "1", "xidmet-offset": "-1", "xidmet-batch-index": "0"},
        {"xidmet-topic-id": "t", "xidmet-partition": "1", "xidmet-offset": "9" * 30, "xidmet-batch-index": "0"},
    ],
)
def test_a_message_without_coordinates_is_no_letter(headers: dict[str, str]) -> None:
    assert _coordinates(headers) is None


# The agency


@pytest.mark.parametrize(
    ("value", "agency"),
    [
        (VALUE, "mia"),
        (json.dumps({"data": {"agency": "mia", "channel": 7, "x": [[[1]]]}}).encode(), "mia"),
        (json.dumps({"data": {"agency": "aysel@example.az"}}).encode(), ""),
        (json.dumps({"data": {"agency": ["mia"]}}).encode(), ""),
        (json.dumps({"data": {"agency": {"mia": 1}}}).encode(), ""),
        (json.dumps({"data": None, "agency": "mia"}).encode(), ""),
        (b'{"data":{"agency":"mia"}', ""),
        (b"", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
        (b"[]", ""),
    ],
)
def test_the_agency_is_a_code_of_the_catalogue_or_nothing(value: bytes, agency: str) -> None:
    assert agency_of(value, [], demonstration_catalogue()) == agency


def test_the_agency_of_binary_mode_stands_in_the_value() -> None:
    catalogue = demonstration_catalogue()
    assert agency_of(json.dumps(DATA).encode(), BINARY, catalogue) == "mia"
    assert agency_of(json.dumps(DATA).encode(), [], catalogue) == ""


def test_the_fold_names_the_agency_of_what_it_refuses_and_the_metrics_count_it() -> None:
    wrong = EVENT | {"data": DATA | {"service": "none"}}
    broken = EVENT | {"data": DATA | {"channel": "pigeon"}}
    unknown = EVENT | {"data": DATA | {"agency": "5ABC1D2"}}
    values = [json.dumps(item).encode() for item in (wrong, unknown, [EVENT, broken])]
    values.append(json.dumps(DATA | {"service": "none"}).encode())
    catalogue = demonstration_catalogue()
    log = LogPartition("usage.events", UUID, 0)
    rules = Rules.of(FoldSettings(), catalogue.version)
    fold = PartitionFold(log, 0, {}, rules, {catalogue.version: catalogue}, Memory([], 2))
    count = len(values)
    headers = [[], [], [], BINARY]
    fold.add(RecordBatch(log.topic, 0, 0, count, count, range(count), [NOW] * count, [None] * count, values, headers))
    flush = fold.take()
    assert [(item.offset, item.batch_index, item.reason, item.agency) for item in flush.rejects] == [
        (0, 0, Reason.UNKNOWN_SERVICE, "mia"),
        (1, 0, Reason.UNKNOWN_AGENCY, ""),
        (2, 1, Reason.INVALID_DATA, "mia"),
        (3, 0, Reason.UNKNOWN_SERVICE, "mia"),
    ]
    metrics = Metrics(catalogue.by_code)
    metrics.flush_written(flush, 0.1, 1.0)
    lines = metrics.exposition().decode().splitlines()
    for line in (
        'xidmet_events_rejected_total{agency="mia",reason="unknown_service"} 2.0',
        'xidmet_events_rejected_total{agency="other",reason="unknown_agency"} 1.0',
        'xidmet_reject_share{agency="mia"} 0.75',
        'xidmet_reject_share{agency="other"} 0.2',
        'xidmet_reject_alarm{agency="mia"} 0.0',
    ):
        assert line in lines
    assert "5ABC1D2" not in metrics.exposition().decode()


# What is replayed


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"attempt": 2}, None),
        ({"attempt": 3}, "attempts"),
        ({"attempt": 10**9}, "attempts"),
        ({"masked": True}, "masked"),
        ({"state": REPLAYED}, "replayed"),
        ({"state": DROPPED, "masked": True}, "dropped"),
    ],
)
def test_what_speaks_against_a_replay(changes: dict[str, Any], code: str | None) -> None:
    assert entry().state == OPEN
    assert why_not(entry(**changes), 3) == code


@pytest.mark.parametrize("headers", [[], BINARY, [("content-type", b"application/cloudevents-batch+json")]])
def test_a_replayed_event_is_folded_as_the_original(headers: list[tuple[str, bytes]]) -> None:
    """Out of a batch, in structured and in binary mode; its further headers change nothing about it."""
    value = json.dumps(DATA).encode() if headers == BINARY else VALUE
    letter = _letter(replace(REJECT, headers=headers, value=value))
    message = replay_message(entry(attempt=1), letter)
    assert message.key == b"k"
    assert message.headers[-2:] == [("xidmet-attempt", b"2"), ("xidmet-replay-of", f"{UUID}/2/4711/0".encode())]
    assert all(not name.startswith("xidmet-") for name, _ in message.headers[:-2])
    first, again = decode([value], [headers]), decode([message.value], [message.headers])
    assert (again.events, again.refusals) == (first.events, [])
    assert len(again.events) == 1
    # Refused again it says for which time, and is of no letter before.
    assert read(_letter(replace(REJECT, headers=message.headers))).attempt == 2


def test_a_value_from_the_log_is_the_one_that_is_as_long_as_the_letter_says() -> None:
    batch = b"[" + VALUE + b", {}]"
    assert _of_length(VALUE, entry(value_bytes=len(VALUE))) == VALUE
    assert _of_length(batch, entry(value_bytes=len(batch))) == batch
    assert _of_length(batch, entry(value_bytes=len(VALUE))) == VALUE
    assert _of_length(batch, entry(coordinates=PLACE._replace(batch_index=1), value_bytes=2)) == b"{}"
    assert _of_length(batch, entry(coordinates=PLACE._replace(batch_index=7), value_bytes=3)) is None
    assert _of_length(b"[not json", entry(value_bytes=3)) is None


# Mending


def test_a_mended_value_takes_the_place_of_the_old_one() -> None:
    letter = Letter(b"k", b"bad", [("traceparent", b"00"), ("xidmet-reason", b"not_json")])
    assert mended(letter, VALUE) == replace(letter, value=VALUE)


def test_a_whole_event_takes_the_place_of_one_in_binary_mode() -> None:
    headers = [*BINARY, ("Content-Type", b"application/json"), ("traceparent", b"00")]
    whole = mended(Letter(b"k", b"bad", headers), VALUE)
    assert whole.headers == [("traceparent", b"00"), ("content-type", b"application/cloudevents+json")]
    data = json.dumps(DATA).encode()
    assert mended(Letter(b"k", b"bad", headers), data) == Letter(b"k", data, headers)
    for message in (whole, Letter(b"k", data, headers)):
        assert judge(message.value, message.headers, NOW, demonstration_catalogue(), FoldSettings()) == (1, [])


def test_what_was_masked_in_key_and_headers_is_left_out() -> None:
    letter = Letter(b"****", b"bad", [("ce_id", b"*" * 16), ("empty", b""), ("kept", b"a*b")])
    assert mended(letter, VALUE) == Letter(None, VALUE, [("empty", b""), ("kept", b"a*b")])


def test_judging_says_what_would_become_of_each_event() -> None:
    catalogue, fold = demonstration_catalogue(), FoldSettings()
    wrong = json.dumps(EVENT | {"data": DATA | {"agency": "nobody"}}).encode()
    good, refused = judge(b"[" + VALUE + b"," + wrong + b",{}]", [], NOW, catalogue, fold)
    assert good == 1
    assert sorted(reason for reason, _ in refused) == ["not_a_cloudevent", "unknown_agency"]
    assert judge(VALUE, [], NOW - 86_400_000, catalogue, fold)[1][0][0] == Reason.TIME_IN_FUTURE
    assert judge(b"", [], NOW, catalogue, fold) == (0, [(Reason.EMPTY_MESSAGE, "no value")])
