"""Kafka messages to events: CloudEvents in structured, batch and binary mode.

Sources: CloudEvents JSON format 1.0.2 (structured, batch) and Kafka protocol binding 1.0.2 (binary mode, ``ce_``
headers). The mode is told by what the message is, not by what its content-type claims: a ``ce_specversion`` header
means binary, a JSON array is a batch, anything else is one structured event.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from pipeline.contract.events import (
    CHANNELS,
    HOSTINGS,
    INITIATORS,
    OUTCOMES,
    STAGE_TYPE,
    STAGES,
    USED_TYPE,
    Event,
    StageEvent,
)
from pipeline.contract.reasons import Reason

Headers = Sequence[tuple[str, bytes]]

FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError)
_EVENT: Final = msgspec.json.Decoder(Event)
_BATCH: Final = msgspec.json.Decoder(list[Event])
_RAW_BATCH: Final = msgspec.json.Decoder(list[msgspec.Raw])
# Without the hook a number too large for a float, which is JSON all the same, would be called malformed.
_ANY: Final = msgspec.json.Decoder(float_hook=float)
_ALLOWED: Final = {
    "channel": CHANNELS,
    "outcome": OUTCOMES,
    "stage": STAGES,
    "hosting": HOSTINGS,
    "initiator": INITIATORS,
}
# A string, or a single mark; a quotation mark alone opens a string that does not end.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
# Greedy: the value may itself hold what looks like the path after it.
_QUOTING: Final = re.compile(r"(Invalid (?:\w+ )?value) .* - at `([^`]*)`", re.DOTALL)
BINARY_MARKS: Final = frozenset({"ce_specversion", "ce_type", "ce_id"})
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Refusal:
    """An event that is not counted. ``value`` is the event's original bytes, a slice of the message in a batch."""

    record: int
    batch_index: int
    reason: Reason
    detail: str
    value: bytes


@dataclass(slots=True)
class Decoded:
    """What a batch of messages holds, in log order.

    ``records[i]`` is the place in the batch of the message that held ``events[i]``, ``batch_indexes[i]`` the event's
    place in that message. Every event of every message is in ``events`` or in ``refusals``.
    """

    events: list[Event] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    batch_indexes: list[int] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def stages(self) -> bool:
        """Whether a stage of an application is among the events."""
        return StageEvent in set(map(type, self.events))


def decode(values: Sequence[bytes | None], headers: Sequence[Headers]) -> Decoded:
    """Decode the messages of a batch; never raises for what a message holds."""
    decoded = Decoded()
    if any(headers):
        for record, (value, head) in enumerate(zip(values, headers, strict=True)):
            _decode_message(decoded, record, value, head)
        return decoded
    events, records = decoded.events, decoded.records
    left = iter(values)
    record = 0
    while record < len(values):
        # Nearly all messages are one good event without headers. What came before one that is not stays in the list.
        before = len(events)
        try:
            events.extend(map(_EVENT.decode, left))  # type: ignore[arg-type] # no value is a TypeError
        except (*FAULTS, TypeError):
            pass
        good = len(events) - before
        records.extend(range(record, record + good))
        decoded.batch_indexes.extend([0] * good)
        record += good
        if record < len(values):
            _decode_message(decoded, record, values[record], ())
            record += 1
    return decoded


def _decode_message(decoded: Decoded, record: int, value: bytes | None, head: Headers) -> None:
    if not value or not value.strip():
        decoded.refusals.append(Refusal(record, 0, Reason.EMPTY_MESSAGE, "no value", value or b""))
        return
    if any(name in BINARY_MARKS for name, _ in head):
        _decode_binary(decoded, record, value, head)
    elif value.lstrip()[:1] == b"[":
        _decode_batch(decoded, record, value)
    else:
        _decode_one(decoded, record, 0, value)


def _decode_one(decoded: Decoded, record: int, index: int, value: bytes) -> None:
    try:
        event = _EVENT.decode(value)
    except FAULTS as error:
        decoded.refusals.append(Refusal(record, index, *diagnose(value, error), value))
    else:
        decoded.events.append(event)
        decoded.records.append(record)
        decoded.batch_indexes.append(index)


def _decode_batch(decoded: Decoded, record: int, value: bytes) -> None:
    try:
        events = _BATCH.decode(value)
    except FAULTS:
        try:
            parts = _parts(value)
        except FAULTS as error:
            decoded.refusals.append(Refusal(record, 0, Reason.NOT_JSON, _json_fault(error), value))
            return
        for index, part in enumerate(parts):
            _decode_one(decoded, record, index, part)
        return
    if not events:
        decoded.refusals.append(Refusal(record, 0, Reason.EMPTY_BATCH, "the array is empty", value))
    decoded.events.extend(events)
    decoded.records.extend([record] * len(events))
    decoded.batch_indexes.extend(range(len(events)))


def _decode_binary(decoded: Decoded, record: int, value: bytes, head: Headers) -> None:
    envelope: dict[str, Any] = {}
    try:
        for name, content in head:
            # Kafka allows headers without a value, whatever the clients' types say; CloudEvents takes null for unset.
            if name.startswith("ce_") and content is not None:
                envelope[name[3:]] = content.decode("utf-8")
        envelope["data"] = _ANY.decode(value)
    except FAULTS as error:
        decoded.refusals.append(Refusal(record, 0, Reason.NOT_JSON, _json_fault(error), value))
        return
    try:
        event = msgspec.convert(envelope, Event)
    except FAULTS as error:
        decoded.refusals.append(Refusal(record, 0, *_diagnose_object(envelope, error), value))
    else:
        decoded.events.append(event)
        decoded.records.append(record)
        decoded.batch_indexes.append(0)


def diagnose(value: bytes, error: Exception) -> tuple[Reason, str]:
    """Find the reason code and the words for an event that did not decode with ``error``."""
    try:
        content = _ANY.decode(value)
    except FAULTS as fault:
        if value.startswith(_BOM):
            return Reason.NOT_JSON, "starts with a byte order mark; encode as UTF-8 without one"
        return Reason.NOT_JSON, _json_fault(fault)
    return _diagnose_object(content, error)


def _diagnose_object(content: Any, error: Exception) -> tuple[Reason, str]:
    if not isinstance(content, dict):
        return Reason.NOT_A_CLOUDEVENT, "expected a JSON object"
    if content.get("specversion") != "1.0":
        return Reason.NOT_A_CLOUDEVENT, 'specversion must be "1.0"'
    kind = content.get("type")
    if not isinstance(kind, str):
        return Reason.INVALID_ATTRIBUTE, "type is missing or not a string"
    if kind not in (USED_TYPE, STAGE_TYPE):
        return Reason.UNKNOWN_TYPE, f"expected {USED_TYPE} or {STAGE_TYPE}"
    message = str(error)
    # The path stands last; what looks like one before it may be a quoted value.
    path = message.rpartition(" - at `")[2]
    in_data = path.startswith(("$.data`", "$.data.")) or message.endswith("field `data`")
    return Reason.INVALID_DATA if in_data else Reason.INVALID_ATTRIBUTE, _without_values(message)


def _without_values(message: str) -> str:
    """msgspec quotes a value that is none of an enumeration; an identifier there must not reach logs and headers."""
    quoting = _QUOTING.fullmatch(message)
    if quoting is None:
        return message[:300]
    what, path = quoting.groups()
    name = path.rpartition(".")[2]
    if name in _ALLOWED:
        return f"{name} must be one of {', '.join(_ALLOWED[name])}"
    return f"{what} - at `{path}`"


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return _without_values(str(error))


def original(value: bytes | None, index: int) -> bytes:
    """The original bytes of the event at ``index`` of a message that decoded: a slice of it if it is a batch."""
    return _parts(value)[index] if value and value.lstrip()[:1] == b"[" else value or b""


@lru_cache(maxsize=1)
def _parts(value: bytes) -> list[bytes]:
    """The elements of a batch as they stand. One after the other is asked for when a whole batch is refused."""
    try:
        return [bytes(part) for part in _RAW_BATCH.decode(value)]
    except FAULTS:
        parts = _split(value)
        if not parts:
            raise
        return parts


def _split(value: bytes) -> list[bytes]:
    """Cut an array in which an element is malformed at its own commas; empty if its brackets or quotes do not pair."""
    parts = []
    depth = start = 0
    for token in _TOKEN.finditer(value):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == 1:
                start = token.end()
        elif mark in (b"]", b"}") or (mark == b"," and depth == 1):
            depth -= mark != b","
            if depth == 0 or mark == b",":
                parts.append(value[start : token.start()].strip())
                start = token.end()
            if depth == 0:
                return parts if mark == b"]" and not value[start:].strip() else []
        elif mark == b'"':
            return []
    return []
