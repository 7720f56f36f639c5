"""X-Road operational monitoring records become uses: two records of an exchange are one."""

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.contract.decode import decode
from pipeline.errors import InputError
from pipeline.importers.xroad import catalogue_with, read_xroad, read_xroad_file
from pipeline.importers.xroad_records import MAX_LINE_BYTES, PAIR_MS

BASE_MS = 1_700_000_000_000
Record = dict[str, Any]


def record(side: str, number: int = 0, *, start: int = 0, took: int = 100, **more: Any) -> Record:
    """A record of exchange ``number``; a field given as None is left out."""
    begins = BASE_MS + number * 1_000 + start
    fields: Record = {
        "monitoringDataTs": begins // 1000,
        "securityServerType": side,
        "securityServerInternalIp": "192.0.2.1",
        "requestInTs": begins,
        "requestOutTs": begins + 1,
        "responseInTs": begins + took - 1,
        "responseOutTs": begins + took,
        "clientXRoadInstance": "AZ",
        "clientMemberClass": "GOV",
        "clientMemberCode": "1000",
        "clientSubsystemCode": "portal",
        "serviceXRoadInstance": "AZ",
        "serviceMemberClass": "GOV",
        "serviceMemberCode": "2000",
        "serviceSubsystemCode": "register",
        "serviceCode": "getPerson",
        "messageId": f"message-{number}",
        "messageProtocolVersion": "4.0",
        "succeeded": True,
        "xRequestId": f"request-{number}",
        **more,
    }
    return {name: value for name, value in fields.items() if value is not None}


def pair(number: int = 0, **more: Any) -> list[Record]:
    return [record("Client", number, took=150, **more), record("Producer", number, start=20, took=90, **more)]


def text(records: list[Record]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in records)


def events_of(records: list[Record]) -> list[dict[str, Any]]:
    return list(read_xroad(io.BytesIO(text(records))).events())


def test_a_pair_is_one_use_with_the_producers_figures() -> None:
    result = read_xroad(io.BytesIO(text(pair())))
    assert (result.lines, result.records, result.client_records, result.producer_records) == (2, 2, 1, 1)
    assert (result.uses, result.pairs, result.repeated, result.skipped) == (1, 1, 0, {})
    assert result.agencies == ("AZ/GOV/2000",)
    assert result.services == (("AZ/GOV/2000", "getPerson"),)
    (event,) = result.events()
    assert event.pop("id").startswith("xroad-")
    assert event == {
        "specversion": "1.0",
        "source": "xroad:AZ",
        "type": "xidmet.service.used.v1",
        "time": "2023-11-14T22:13:20.020Z",
        "data": {
            "agency": "AZ/GOV/2000",
            "service": "getPerson",
            "channel": "api",
            "outcome": "success",
            "duration_ms": 90,
            "consumer": "AZ/GOV/1000/portal",
        },
    }


def test_a_single_record_is_a_use_too() -> None:
    client, producer = pair()
    assert events_of([client])[0]["data"]["duration_ms"] == 150
    assert events_of([client])[0]["time"] == "2023-11-14T22:13:20.000Z"
    assert events_of([producer])[0]["data"]["duration_ms"] == 90


def test_the_id_is_the_same_whichever_half_is_there() -> None:
    client, producer = pair()
    ids = {events_of(records)[0]["id"] for records in ([client], [producer], [client, producer])}
    assert len(ids) == 1


def test_order_does_not_matter() -> None:
    records = [item for number in range(200) for item in pair(number)]
    records += [item for number in range(200, 260) for item in pair(number, xRequestId=None)]
    expected = events_of(records)
    assert len(expected) == 260
    times = [event["time"] for event in expected]
    assert times == sorted(times)
    for seed in range(3):
        shuffled = records.copy()
        random.Random(seed).shuffle(shuffled)
        assert events_of(shuffled) == expected


def test_events_can_be_taken_twice_and_decode() -> None:
    result = read_xroad(io.BytesIO(text([item for number in range(20) for item in pair(number)])))
    first = list(result.events())
    assert first == list(result.events())
    assert not decode([msgspec.json.encode(event) for event in first], [()] * 20).refusals


def test_records_of_the_same_half_count_once() -> None:
    for request in ("request", None):
        result = read_xroad(io.BytesIO(text(pair(xRequestId=request) * 3)))
        assert (result.uses, result.repeated, result.records) == (1, 4, 6)


def test_a_message_id_used_again_is_another_use() -> None:
    again = [item for number in range(3) for item in pair(number, messageId="same")]
    assert len({event["id"] for event in events_of(again)}) == 3
    # Without xRequestId the time tells them apart, if there is enough of it between them.
    far = [item | {"messageId": "same"} for number in (0, 200, 400) for item in pair(number, xRequestId=None)]
    assert len({event["id"] for event in events_of(far)}) == 3


def test_other_clients_and_services_are_other_uses() -> None:
    records = pair() + pair(clientSubsystemCode="other") + pair(serviceCode="other")
    records += pair(serviceSubsystemCode="other")
    for item in records:
        item.pop("xRequestId")
    assert len(events_of(records)) == 4


def test_halves_of_different_versions_are_paired() -> None:
    client, producer = pair()
    del client["xRequestId"]
    assert len(events_of([client, producer])) == 1
    del producer["xRequestId"]
    assert len(events_of([client, producer])) == 1
    producer["requestInTs"] += PAIR_MS + 1
    producer["responseOutTs"] += PAIR_MS + 1
    assert len(events_of([client, producer])) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"requestSoapSize": 1847, "responseSoapSize": 1861, "responseMimeSize": 2420},
        {"requestRestSize": 240, "responseRestSize": 421, "statusCode": 200, "messageProtocolVersion": "1"},
        {"requestSize": 240, "responseSize": 421, "serviceType": "REST", "xRoadVersion": "7.6.0", "restMethod": "GET"},
    ],
)
def test_field_names_of_all_versions(fields: Record) -> None:
    assert len(events_of(pair(**fields))) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"succeeded": False},
        {"succeeded": False, "faultCode": "Server.ServerProxy.ServiceFailed", "faultString": "no answer"},
        {"succeeded": False, "soapFaultCode": "Client.UnknownService", "soapFaultString": "unknown"},
        {"soapFaultCode": "Client"},
        {"faultCode": "Client"},
    ],
)
def test_failures(fields: Record) -> None:
    assert events_of(pair(**fields))[0]["data"]["outcome"] == "failure"


def test_a_failure_that_only_the_client_saw_is_one() -> None:
    client, producer = pair()
    client["succeeded"] = False
    assert events_of([client, producer])[0]["data"]["outcome"] == "failure"


def test_a_version_is_part_of_the_service_code() -> None:
    assert events_of(pair(serviceVersion="v2"))[0]["data"]["service"] == "getPerson.v2"


def test_a_client_without_subsystem() -> None:
    assert events_of(pair(clientSubsystemCode=None))[0]["data"]["consumer"] == "AZ/GOV/1000"


def test_personal_fields_are_never_in_the_output() -> None:
    secret = "EE37701010101"
    personal: Record = dict.fromkeys(
        ("messageUserId", "userId", "representedPartyCode", "representedPartyClass", "messageIssue", "restPath"),
        secret,
    )
    (event,) = events_of(pair(faultString=secret, **personal))
    assert secret not in json.dumps(event)
    assert event == events_of(pair())[0]


def test_personal_fields_may_be_of_any_type() -> None:
    assert len(events_of(pair(messageUserId=37701010101, messageIssue=["x"]))) == 1


def test_bad_lines_are_counted_by_reason_and_stop_nothing() -> None:
    lines = [
        *text(pair(0)).splitlines(),
        b"not json",
        b'{"cut": ',
        b"",
        b"[1, 2]",
        *text([record("Client", 1, requestInTs=None)]).splitlines(),
        *text([record("Client", 2, requestInTs="yesterday")]).splitlines(),
        *text([record("Client", 3, securityServerType="Both")]).splitlines(),
        *text([record("Client", 4, took=-5)]).splitlines(),
        *text([record("Client", 5, took=90_000_000)]).splitlines(),
        *text([record("Client", 6, serviceCode="a b")]).splitlines(),
        *text([record("Client", 7, serviceMemberCode="")]).splitlines(),
        b'{"a": "' + b"x" * (3 * MAX_LINE_BYTES) + b'"}',
        b"\xff\xfe",
        *text([record("Client", 8, requestInTs=-1)]).splitlines(),
        *text([record("Client", 9, requestInTs=10**17)]).splitlines(),
        *text(pair(10)).splitlines(),
    ]
    result = read_xroad(io.BytesIO(b"\n".join(lines)))
    found = {reason: (skipped.count, skipped.first_lines) for reason, skipped in result.skipped.items()}
    assert found == {
        "not_json": (3, [3, 4, 15]),
        "invalid_value": (6, [6, 8, 9, 13, 16]),
        "missing_field": (1, [7]),
        "negative_duration": (1, [10]),
        "too_long_duration": (1, [11]),
        "code_not_allowed": (1, [12]),
        "line_too_long": (1, [14]),
    }
    assert (result.uses, result.records, result.lines) == (2, 4, 18)


def test_a_bad_half_leaves_the_other() -> None:
    client, producer = pair()
    del producer["responseOutTs"]
    assert events_of([client, producer])[0]["data"]["duration_ms"] == 150


def test_gzip_is_recognised(tmp_path: Path) -> None:
    records = [item for number in range(300) for item in pair(number)]
    (tmp_path / "plain").write_bytes(text(records))
    (tmp_path / "packed").write_bytes(gzip.compress(text(records)))
    (tmp_path / "joined").write_bytes(gzip.compress(text(records[:100])) + gzip.compress(text(records[100:])))
    results = [list(read_xroad_file(str(tmp_path / name)).events()) for name in ("plain", "packed", "joined")]
    assert len(results[0]) == 300
    assert results[0] == results[1] == results[2]


def test_damaged_gzip_is_reported_and_gives_what_came_before(tmp_path: Path) -> None:
    records = [item for number in range(20_000) for item in pair(number)]
    packed = gzip.compress(text(records))
    result = read_xroad(io.BytesIO(packed[: len(packed) // 2]))
    assert result.skipped["damaged_file"].count == 1
    assert 0 < result.uses < 20_000


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x1f"])
def test_next_to_nothing(content: bytes) -> None:
    assert read_xroad(io.BytesIO(content)).uses == 0


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text(pair()))))
    assert read_xroad_file("-").uses == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        read_xroad_file(str(tmp_path / "absent"))


@pytest.fixture
def base() -> Catalogue:
    return demonstration_catalogue()


def test_the_catalogue_gains_what_occurs(base: Catalogue) -> None:
    events = events_of(pair(0) + pair(1, serviceCode="other"))
    widened = catalogue_with(base, events)
    assert widened.version == base.version + 1
    assert widened.pairs - base.pairs == {("AZ/GOV/2000", "getPerson"), ("AZ/GOV/2000", "other")}
    assert base.pairs < widened.pairs
    assert catalogue_with(widened, events) is widened
    assert msgspec.json.decode(widened.json, type=Catalogue) == widened


def test_a_known_agency_gains_a_service(base: Catalogue) -> None:
    event = {"data": {"agency": "taxes", "service": "new-one"}}
    widened = catalogue_with(base, [event])
    assert len(widened.agencies) == len(base.agencies)
    assert widened.pairs - base.pairs == {("taxes", "new-one")}
