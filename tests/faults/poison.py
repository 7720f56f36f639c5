"""Messages that nobody should send: each invalid in a way of its own, or valid and strange."""

import copy
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.contract.reasons import Reason
from pipeline.generator import spoiled

LARGEST_BYTES: Final = 20 << 20
_LONG: Final = "x" * 10_000_000
_USE: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "type": "xidmet.service.used.v1",
    "id": "poison",
    "source": "urn:poison",
    "time": "2026-01-01T00:00:00Z",
    "data": {
        "agency": "mincom",
        "service": "phone-bill-view",
        "channel": "web",
        "outcome": "success",
        "duration_ms": 1.5,
    },
}
_DATA: Final[tuple[dict[str, Any], ...]] = (
    {"duration_ms": -1},
    {"duration_ms": 86_400_001},
    {"duration_ms": 1e308},
    {"duration_ms": "12"},
    {"duration_ms": None},
    {"duration_ms": True},
    {"duration_ms": 10**30},
    {"rating": 0},
    {"rating": 10**25},
    {"rating": 6},
    {"channel": "\0"},
    {"outcome": ["success"]},
    {"agency": 7},
    {"service": None},
    {"agency": "x" * 300},
    {"service": _LONG},
)
_ATTRIBUTES: Final[tuple[dict[str, Any], ...]] = (
    {"time": "1970-01-01T00:00:00Z"},
    {"time": "1969-12-31T23:59:59.999Z"},
    {"time": "2100-01-01T00:00:00Z"},
    {"time": "9999-12-31T23:59:59.999Z"},
    {"time": "2026-02-30T00:00:00Z"},
    {"time": "2026-01-01T00:00:00"},
    {"time": 1_700_000_000},
    {"time": ""},
    {"id": ""},
    {"id": 5},
    {"id": "x" * 257},
    {"id": _LONG},
    {"source": "x" * 1_025},
    {"source": _LONG},
    {"specversion": "2.0"},
    {"specversion": 1.0},
    {"type": 5},
    {"type": "xidmet.service.used.v2"},
    {"data": None},
    {"data": []},
    {"data": "text"},
)
_BROKEN: Final = (b'{"a": tru}', b'{"a": NaN}', b"{1: 2}", b"nonsense", b'{"id": "\xff\xfe"}', b"[[[]", b"")


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka message; ``timestamp_ms`` of None is now."""

    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None
    timestamp_ms: int | None = None


def poison(name: str) -> Iterator[Message]:
    """All of them; ``name`` makes the ids of valid ones distinct."""
    yield from _of_every_reason()
    yield from _no_events()
    yield from _numbers_and_times(name)
    yield from _large(name)
    yield from _arrays(name)
    yield from _time_stamps(name)
    yield from _binary(name)


def _event(name: str, attributes: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> dict[str, Any]:
    event = copy.deepcopy(_USE) | {"id": name} | (attributes or {})
    if data:
        event["data"] |= data
    return event


def _bytes(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _of_every_reason() -> Iterator[Message]:
    for reason in Reason:
        yield Message(spoiled(_event("spoiled"), reason))


def _no_events() -> Iterator[Message]:
    packed = gzip.compress(_bytes(_event("packed")))
    yield Message(None, key=b"null")
    yield Message(b" \r\n\t ")
    yield Message(packed)
    yield Message(packed[:-20])
    yield Message(b"\x00" * 1_000)
    yield Message(bytes(range(256)))
    yield Message(b"\xef\xbb\xbf" + _bytes(_event("bom")))
    yield Message(_bytes(_event("utf-8")).replace(b"urn:poison", b"urn:\xc3\x28\xff"))
    yield Message(_bytes(_event("utf-16")).decode().encode("utf-16"))
    yield Message(_bytes(_event("cut"))[:-30])
    yield Message(_bytes(_event("two")) * 2)
    yield Message(b"[" * 100_000)
    yield Message(b"[" * 100_000 + b"]" * 100_000)
    yield Message(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    yield Message(b'{"specversion": "1.0", "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    strange: tuple[Any, ...] = (5, "text", None, True, {}, [[]], [{}], [None, 1, "a"])
    for content in strange:
        yield Message(_bytes(content))


def _numbers_and_times(name: str) -> Iterator[Message]:
    for number, data in enumerate(_DATA):
        yield Message(_bytes(_event(f"{name}-data-{number}", data=data)))
    for number, attributes in enumerate(_ATTRIBUTES):
        yield Message(_bytes(_event(f"{name}-attribute-{number}", attributes)))
    huge = _bytes(_event(f"{name}-huge")).replace(b"1.5", b"1e400")
    yield Message(huge)
    yield Message(_bytes(_event(f"{name}-zero", data={"duration_ms": 0})))
    yield Message(_bytes(_event(f"{name}-longest", data={"duration_ms": 86_400_000})))


def _large(name: str) -> Iterator[Message]:
    yield Message(b"x" * LARGEST_BYTES)
    yield Message(_bytes(_event(f"{name}-extension", {"extension": _LONG})))
    yield Message(_bytes([_event(f"{name}-many-{number}") for number in range(20_000)]))
    yield Message(_bytes(_event("key")), key=b"\xff" * 1_000_000)
    yield Message(b"no", headers=(("long", b"\x00" * 1_000_000), ("", b""), ("ə", b"\xff")))


def _arrays(name: str) -> Iterator[Message]:
    """Good events beside broken ones; the line breaks tell the oracle where an element ends."""
    for number, broken in enumerate(_BROKEN[:-2]):
        good = [_bytes(_event(f"{name}-array-{number}-{place}")) for place in range(3)]
        yield Message(b"[\n" + b",\n".join([good[0], broken, good[1], good[2]]) + b"\n]")
    good = [_bytes(_event(f"{name}-open-{place}")) for place in range(3)]
    yield Message(b"[" + b",".join(good))
    yield Message(b"[" + b",".join(good) + b",")


def _time_stamps(name: str) -> Iterator[Message]:
    """Records whose own time stamps are of 1970 and 2100."""
    for number, stamp in enumerate((0, 1_000, 4_102_444_800_000, 4_102_444_800_001)):
        yield Message(_bytes(_event(f"{name}-stamp-{number}")), timestamp_ms=stamp)


def _binary(name: str) -> Iterator[Message]:
    data = _bytes(_USE["data"])
    marks = {key: value for key, value in _USE.items() if key != "data"} | {"id": f"{name}-binary"}
    headers = tuple((f"ce_{key}", str(value).encode()) for key, value in marks.items())
    yield Message(data, headers)
    yield Message(data[:-3], headers)
    yield Message(data, (("ce_id", b"\xff\xfe"), *headers[1:]))
    yield Message(data, tuple(header for header in headers if header[0] != "ce_time"))
    yield Message(b"[" * 100_000, headers)
