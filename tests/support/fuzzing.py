"""Messages made from valid ones by mutation: of their structure, where the number of events stays known, or of bytes.

Everything depends on the seed and the number of the chunk alone, so that a failure can be had again.
"""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.catalogue import demonstration_catalogue
from pipeline.generator import Generator

NOW: Final = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
NOW_MS: Final = int(NOW.timestamp() * 1000)
MARKER: Final = "xidmet-segment-end"

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Message:
    """A Kafka message. ``events`` is how many events are in it, None if only that there is something is known."""

    value: bytes | None
    headers: tuple[Header, ...] = ()
    key: bytes | None = None
    timestamp: int = NOW_MS
    events: int | None = None

    def __str__(self) -> str:
        value = repr(self.value)
        if len(value) > 3_000:
            value = f"{value[:1_500]} ... {value[-1_500:]} ({len(self.value or b'')} bytes)"
        return f"Message({value}, headers={self.headers!r}, key={self.key!r}, timestamp={self.timestamp})"


class Raw(str):
    """Text that stands in JSON as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object whose names may repeat."""


_NUMBERS: Final = [
    Raw(text)
    for line in (
        "NaN Infinity -Infinity 1e400 -1e400 1e-400 0 -0 -0.0 -1 0.5 -0.5 1.5e3 1E5 86400000 86400000.4 86400001",
        "4294967295 4294967296 9223372036854775807 9223372036854775808 18446744073709551616 -9223372036854775809",
        "1234567890123456789012345678901234567890 0x10 01 1. .5 +1 1e 1e+ --1 1_000",
    )
    for text in line.split()
]
_TEXTS: Final = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ufeff",
    "\u202eabc",
    "\u200b",
    "e\u0301",
    "\U0001f600",
    "\ud800",
    "\udfff\ud800",
    "İstanbul",
    "ﬀ",
    "ℕ",
    "\x7f",
    "\x1f",
    "\\",
    '"',
    "'",
    "`",
    " - at `$.data`",
    "$.data.user",
    "null",
    "0",
    "-1",
    "true",
    "[]",
    "{}",
    "a" * 21,
    "a" * 22,
    "a" * 128,
    "a" * 129,
    "a" * 256,
    "a" * 257,
    "a" * 1_025,
    "1" * 40,
    "0" * 40,
    "aysel@example.az",
    "+994501234567",
    "AZE12345678",
    "5ABC1D2",
    "4111111111111111",
    "AZ21NABZ00000000137010001944",
    "x'; DROP TABLE ledger; --",
    "%s%n",
    "../../etc/passwd",
    "\r\nSet-Cookie: a",
    "1970-01-01T00:00:00Z",
]
_TIMES: Final = [
    "",
    "now",
    "0",
    "1970-01-01T00:00:00Z",
    "2100-01-01T00:00:00Z",
    "2099-12-31T23:59:59.999999999Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "0000-00-00T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-03-14T24:00:00Z",
    "2026-03-14T09:30:60Z",
    "2026-03-14 09:29:00+04:00",
    "2026-03-14T09:29:00",
    "2026-03-14T09:29:00+99:99",
    "2026-03-14T09:29:00.123456789123456789Z",
    "2026-03-14t09:29:00z",
    "20260314T092900Z",
    "2026-03-14",
    "-2026-03-14T09:29:00Z",
    "1773480540000",
]
_STAMPS: Final = [-1, 0, 1, NOW_MS, NOW_MS + 3_600_000, 4_102_444_800_000, 2**53, 2**62, 2**63 - 1]
_BYTES: Final = [
    b"",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\x00",
    b"1.0",
    b"application/json",
    b"application/cloudevents-batch+json",
    b"APPLICATION/CLOUDEVENTS+JSON; charset=utf-16",
    b"aysel@example.az",
    b"xidmet.service.used.v1",
    b"9" * 400,
]
_NAMES: Final = [
    "ce_specversion",
    "ce_type",
    "ce_id",
    "ce_source",
    "ce_time",
    "ce_data",
    "ce_",
    "ce_specversion ",
    "CE_ID",
    "content-type",
    "Content-Type",
    "xidmet-reason",
    "xidmet-masked",
    "traceparent",
    "",
    "\u202e",
]


class Fuzzer:
    """Makes chunks of messages."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        generator = Generator(demonstration_catalogue(), seed)
        self._events = list(generator.events(NOW - timedelta(minutes=30), NOW, 400))
        self._random = random.Random(seed)

    def chunk(self, number: int, size: int) -> list[Message]:
        """``size`` messages; the same ones for the same seed and number."""
        self._random = random.Random(f"{self.seed}/{number}")
        return [self._message() for _ in range(size)]

    def _message(self) -> Message:
        rand = self._random
        made = rand.choices([self._single, self._batch, self._binary], [5, 3, 2])[0]()
        if rand.random() < 0.3:
            made = self._broken(made)
        timestamp = rand.choice(_STAMPS) if rand.random() < 0.05 else NOW_MS
        key = rand.choice([*_BYTES, None]) if rand.random() < 0.2 else b"key"
        if rand.random() < 0.002:
            return Message(b"", ((MARKER, b"{}"),), key, timestamp, 0)
        return Message(made.value, made.headers, key, timestamp, made.events)

    # Structure

    def _event(self) -> Any:
        rand = self._random
        event = json.loads(json.dumps(rand.choice(self._events)))
        event["id"] += f"-{rand.getrandbits(40):x}" if rand.random() < 0.8 else ""
        for _ in range(rand.choices([0, 1, 2, 5], [2, 6, 2, 1])[0]):
            if not isinstance(event, dict):
                break
            event = rand.choice(self._CHANGES)(self, event)
        return event

    def _single(self) -> Message:
        event = self._event()
        return Message(self._text(event), self._headers(), events=max(1, len(event)) if type(event) is list else 1)

    def _batch(self) -> Message:
        rand = self._random
        parts = [self._text(self._event()) for _ in range(rand.choices([0, 1, 2, 3, 8], [1, 3, 5, 4, 1])[0])]
        for _ in range(rand.choice([0, 0, 0, 1, 2])):
            junk = rand.choice([b"1", b"null", b'""', b"{}", b"[]", b"[[1,2],{}]", b'"a,b]"', b"tru", b'{"a":}', b""])
            # Nothing between two commas is an element all the same, but nothing in an array is none.
            if junk or len(parts) > 1:
                parts.insert(rand.randrange(len(parts) + 1), junk)
        space = rand.choice([b"", b" ", b"\n\t"])
        value = space + b"[" + (space + b"," + space).join(parts) + b"]" + space
        return Message(value, self._headers(), events=max(1, len(parts)))

    def _binary(self) -> Message:
        rand = self._random
        event = self._event()
        data = event.pop("data", {}) if isinstance(event, dict) else event
        attributes = list(event.items()) if isinstance(event, dict) else [("specversion", "1.0")]
        headers: list[Header] = []
        for name, content in attributes:
            text = content if isinstance(content, str) else self._text(content).decode("utf-8", "replace")
            # Names come decoded from Kafka's client, so there are no surrogates in them.
            shown = name.encode("utf-8", "replace").decode()
            headers.append((f"ce_{shown}", text.encode("utf-8", "surrogatepass")))
        headers += self._headers()
        for _ in range(rand.choice([0, 0, 1, 3])):
            name = rand.choice(_NAMES)
            headers.insert(rand.randrange(len(headers) + 1), (name, rand.choice([*_BYTES, None])))
        if not any(name in ("ce_specversion", "ce_type", "ce_id") for name, _ in headers):
            headers.append(("ce_id", None))
        value = self._text(data) or b"0"
        return Message(value, tuple(headers), events=1)

    def _headers(self) -> tuple[Header, ...]:
        rand = self._random
        if rand.random() < 0.85:
            return ()
        names = [name for name in _NAMES if name not in ("ce_specversion", "ce_type", "ce_id")]
        return tuple((rand.choice(names), rand.choice([*_BYTES, None])) for _ in range(rand.choice([1, 1, 2, 5])))

    def _value(self) -> Any:
        rand = self._random
        kind = rand.randrange(8)
        if kind == 0:
            return rand.choice(_NUMBERS)
        if kind == 1:
            return rand.choice([None, True, False])
        if kind == 2:
            return rand.choice(_TIMES)
        if kind == 3:
            return [self._value() for _ in range(rand.choice([0, 1, 3]))]
        if kind == 4:
            return {rand.choice(_TEXTS): self._value()}
        if kind == 5 and rand.random() < 0.05:
            depth = rand.choice([10, 200, 1_100, 3_000])
            return Raw("[" * depth + "]" * depth if rand.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth)
        if kind == 6 and rand.random() < 0.05:
            return rand.choice(_TEXTS) * rand.choice([100, 1_000])
        return rand.choice(_TEXTS)

    def _place(self, event: dict[str, Any]) -> tuple[dict[str, Any], str]:
        rand = self._random
        data = event.get("data")
        target = data if isinstance(data, dict) and data and rand.random() < 0.6 else event
        return target, rand.choice(list(target)) if target else "id"

    def _drop(self, event: dict[str, Any]) -> Any:
        target, name = self._place(event)
        target.pop(name, None)
        return event

    def _retype(self, event: dict[str, Any]) -> Any:
        target, name = self._place(event)
        target[name] = self._value()
        return event

    def _retime(self, event: dict[str, Any]) -> Any:
        event["time"] = self._random.choice(_TIMES)
        return event

    def _recount(self, event: dict[str, Any]) -> Any:
        target, name = self._place(event)
        name = self._random.choice([name, "duration_ms", "rating"])
        target[name] = self._random.choice(_NUMBERS)
        return event

    def _rename(self, event: dict[str, Any]) -> Any:
        target, name = self._place(event)
        renamed = self._random.choice([name.upper(), name + " ", name[:-1], "\u200b" + name, *_TEXTS])
        target[renamed] = target.pop(name, None)
        return event

    def _repeat(self, event: dict[str, Any]) -> Any:
        rand = self._random
        pairs = Pairs(event.items())
        name, content = rand.choice(pairs) if pairs else ("id", "a")
        pairs.insert(rand.randrange(len(pairs) + 1), (name, content if rand.random() < 0.5 else self._value()))
        return pairs

    def _wrap(self, event: dict[str, Any]) -> Any:
        return self._random.choice([{"event": event}, {"data": event}, event | {"data": event}, event.get("data")])

    def _extend(self, event: dict[str, Any]) -> Any:
        target, _ = self._place(event)
        target[self._random.choice([*_TEXTS, "subject", "datacontenttype", "dataschema", "user"])] = self._value()
        return event

    _CHANGES: Sequence[Callable[..., Any]] = (
        _drop,
        _retype,
        _retype,
        _retype,
        _retime,
        _recount,
        _recount,
        _rename,
        _repeat,
        _wrap,
        _extend,
    )

    def _text(self, content: Any) -> bytes:
        """JSON as other encoders may write it, in UTF-8, surrogates and all."""
        ascii_only = self._random.random() < 0.5
        text = _written(content, ascii_only)
        return text.encode("utf-8", "surrogatepass")

    # Bytes

    def _broken(self, message: Message) -> Message:
        rand = self._random
        value = message.value or b""
        return Message(rand.choice(self._BREAKS)(self, value), message.headers)

    def _flip(self, value: bytes) -> bytes:
        changed = bytearray(value)
        for _ in range(self._random.choice([1, 1, 3, 20])):
            if changed:
                changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _truncate(self, value: bytes) -> bytes:
        cut = self._random.randrange(len(value) + 1)
        return value[:cut] if self._random.random() < 0.7 else value[cut:]

    def _splice(self, value: bytes) -> bytes:
        other = self._text(self._event())
        return value[: self._random.randrange(len(value) + 1)] + other[self._random.randrange(len(other) + 1) :]

    def _insert(self, value: bytes) -> bytes:
        rand = self._random
        place = rand.randrange(len(value) + 1)
        tokens = [
            *_BYTES,
            b'"',
            b'\\"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\u0000",
            b"\\ud800",
            b"\n",
            b"/*",
        ]
        return value[:place] + rand.choice(tokens) * rand.choice([1, 1, 2, 50]) + value[place:]

    def _pack(self, value: bytes) -> bytes:
        packed = gzip.compress(value, 1, mtime=0) if self._random.random() < 0.5 else b"\x28\xb5\x2f\xfd" + value
        return packed[: self._random.randrange(len(packed)) + 1]

    def _noise(self, value: bytes) -> bytes:
        rand = self._random
        return rand.choice(
            [rand.randbytes(rand.choice([1, 10, 300])), *_BYTES, b"[" * 2_000, b'{"a":' * 1_500, b'"' * 99]
        )

    def _recode(self, value: bytes) -> bytes:
        text = value.decode("utf-8", "replace")
        return self._random.choice(
            [text.encode("utf-16"), b"\xef\xbb\xbf" + value, value.replace(b'"', b"'"), value * 2]
        )

    _BREAKS: Sequence[Callable[..., bytes]] = (
        _flip,
        _flip,
        _truncate,
        _splice,
        _insert,
        _insert,
        _pack,
        _noise,
        _recode,
    )


def _written(content: Any, ascii_only: bool) -> str:
    if isinstance(content, Raw):
        return str(content)
    if isinstance(content, dict):
        content = Pairs(content.items())
    if isinstance(content, Pairs):
        inner = (f"{json.dumps(name, ensure_ascii=ascii_only)}:{_written(one, ascii_only)}" for name, one in content)
        return "{" + ",".join(inner) + "}"
    if isinstance(content, list):
        return "[" + ",".join(_written(one, ascii_only) for one in content) + "]"
    return json.dumps(content, ensure_ascii=ascii_only)
