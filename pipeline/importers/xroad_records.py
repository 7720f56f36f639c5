"""One X-Road record: what is read of it, and how the two records of an exchange are found to be one use.

Fields that are not named in :class:`Record` are never decoded, among them messageUserId, representedPartyClass and
-Code, messageIssue, userId and restPath, which hold or can hold personal data.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.contract.events import MAX_DURATION_MS
from pipeline.contract.identifiers import code_fault

MAX_LINE_BYTES: Final = 1_048_576
PAIR_MS: Final = 60_000
"""Halves without a common xRequestId belong together if their requests came in within this time."""

CLIENT, PRODUCER, BOTH = 1, 2, 3

Text = Annotated[str, Meta(min_length=1)]
Moment = Annotated[int, Meta(ge=0, lt=253_402_300_800_000)]
Place = tuple[str, str, str, str]
"""Agency, service, consumer, instance of the agency."""


class UnusableError(Exception):
    """A record that cannot be used; its text is the reason's code."""


class Record(Struct, gc=False):
    """All that is read of a record. Times are milliseconds since 1970 in UTC."""

    side: Literal["Client", "Producer"] = msgspec.field(name="securityServerType")
    request_in: Moment = msgspec.field(name="requestInTs")
    response_out: Moment = msgspec.field(name="responseOutTs")
    message: Text = msgspec.field(name="messageId")
    client_instance: Text = msgspec.field(name="clientXRoadInstance")
    client_class: Text = msgspec.field(name="clientMemberClass")
    client_member: Text = msgspec.field(name="clientMemberCode")
    instance: Text = msgspec.field(name="serviceXRoadInstance")
    member_class: Text = msgspec.field(name="serviceMemberClass")
    member: Text = msgspec.field(name="serviceMemberCode")
    service: Text = msgspec.field(name="serviceCode")
    succeeded: bool
    client_subsystem: str | None = msgspec.field(name="clientSubsystemCode", default=None)
    subsystem: str | None = msgspec.field(name="serviceSubsystemCode", default=None)
    version: str | None = msgspec.field(name="serviceVersion", default=None)
    request_id: str | None = msgspec.field(name="xRequestId", default=None)
    fault: str | None = msgspec.field(name="faultCode", default=None)
    soap_fault: str | None = msgspec.field(name="soapFaultCode", default=None)


class Use(Struct, gc=False):
    """A use or a half of one: the producer's figures where its record is there, else the client's."""

    time: int
    duration: int
    sides: int
    success: bool
    request_id: str
    place: Place
    """The same object in all uses of one place."""


def decoded(decoder: msgspec.json.Decoder[Record], line: bytes) -> Record:
    """Decode a line.

    Raises:
        UnusableError: line_too_long, not_json, missing_field or invalid_value.
    """
    if len(line) > MAX_LINE_BYTES:
        raise UnusableError("line_too_long")
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        raise UnusableError("missing_field" if missing else "invalid_value") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusableError("not_json") from error


def use_of(record: Record, places: dict[Place, Place]) -> tuple[bytes, Use]:
    """The key of the record's message, client and service, and what the record says of the use.

    Args:
        record: as decoded.
        places: those met so far; a new one is added.

    Raises:
        UnusableError: code_not_allowed, negative_duration or too_long_duration.
    """
    agency = f"{record.instance}/{record.member_class}/{record.member}"
    service = f"{record.service}.{record.version}" if record.version else record.service
    consumer = f"{record.client_instance}/{record.client_class}/{record.client_member}"
    if record.client_subsystem:
        consumer = f"{consumer}/{record.client_subsystem}"
    place = (agency, service, consumer, record.instance)
    if place not in places:
        if any(code_fault(code) for code in place[:3]):
            raise UnusableError("code_not_allowed")
        places[place] = place
    duration = record.response_out - record.request_in
    if duration < 0:
        raise UnusableError("negative_duration")
    if duration > MAX_DURATION_MS:
        raise UnusableError("too_long_duration")
    exchange = "\0".join((record.message, consumer, agency, record.subsystem or "", service))
    return blake2b(exchange.encode("utf-8", "surrogatepass"), digest_size=16).digest(), Use(
        time=record.request_in,
        duration=duration,
        sides=PRODUCER if record.side == "Producer" else CLIENT,
        success=record.succeeded and not record.fault and not record.soap_fault,
        request_id=record.request_id or "",
        place=places[place],
    )


def _joined(one: Use, other: Use) -> Use:
    figures = one if one.sides == PRODUCER else other
    return msgspec.structs.replace(
        figures,
        sides=BOTH,
        # A fault that only the client's server saw, such as a lost connection, is a failure too.
        success=one.success and other.success,
        request_id=one.request_id or other.request_id,
    )


def add(halves: list[Use], use: Use) -> int:
    """Add a half to those of its exchange, or join it with its other half; 1 if it was there already."""
    for at, known in enumerate(halves):
        if known.request_id != use.request_id:
            continue
        if known.sides & use.sides:
            if use.request_id or (known.time, known.duration) == (use.time, use.duration):
                return 1
        elif use.request_id:
            halves[at] = _joined(known, use)
            return 0
    halves.append(use)
    return 0


def paired(halves: list[Use]) -> Iterator[Use]:
    """Join halves of which not both have an xRequestId, by time; a message id may have been used again and again."""
    waiting: Use | None = None
    for use in sorted(halves, key=lambda use: (use.time, use.sides, use.request_id)):
        if use.sides == BOTH:
            yield use
        elif waiting is None:
            waiting = use
        elif (
            waiting.sides != use.sides
            and use.time - waiting.time <= PAIR_MS
            and not (waiting.request_id and use.request_id)
        ):
            yield _joined(waiting, use)
            waiting = None
        else:
            yield waiting
            waiting = use
    if waiting is not None:
        yield waiting


def identified(key: bytes, uses: Iterable[Use]) -> Iterator[tuple[str, Use]]:
    """Give each use its id: from message id, client, service and xRequestId, or a number where that is missing."""
    unnamed = 0
    for use in uses:
        told_apart = use.request_id
        if not told_apart:
            told_apart = str(unnamed)
            unnamed += 1
        digest = blake2b(key + told_apart.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        yield f"xroad-{digest}", use
