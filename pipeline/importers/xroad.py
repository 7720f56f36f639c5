"""X-Road operational monitoring records to events: an exchange recorded by both security servers is one use.

Format: X-Road Operational Monitoring Protocol (PR-OPMON), annex B, one record a line, plain or gzip, of any version:
what has been renamed over time is not needed, or read under both names. docs/import-xroad.md describes the mapping.
"""

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from pipeline.catalogue import Agency, Catalogue, Names, Service
from pipeline.contract.events import USED_TYPE
from pipeline.errors import InputError
from pipeline.importers.xroad_records import (
    BOTH,
    MAX_LINE_BYTES,
    PRODUCER,
    Place,
    Record,
    UnusableError,
    Use,
    add,
    decoded,
    identified,
    paired,
    use_of,
)

_KEPT_LINES: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Skipped:
    """Records that could not be used, for one reason."""

    count: int = 0
    first_lines: list[int] = field(default_factory=list)
    """Line numbers from 1 of the first of them."""


@dataclass(slots=True)
class ImportResult:
    """What was read. The events are made while they are taken, in order of time; they can be taken again."""

    lines: int = 0
    """Lines that are not blank: records and what was skipped."""
    client_records: int = 0
    producer_records: int = 0
    repeated: int = 0
    """Records of a half that was there already; they are not counted again."""
    skipped: dict[str, Skipped] = field(default_factory=dict)
    """By reason: not_json, missing_field, invalid_value, code_not_allowed, negative_duration, too_long_duration,
    line_too_long, damaged_file."""
    _uses: list[tuple[str, Use]] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records that were used."""
        return self.client_records + self.producer_records

    @property
    def uses(self) -> int:
        """Uses, each of one or two records."""
        return len(self._uses)

    @property
    def pairs(self) -> int:
        """Uses of which both records are there."""
        return sum(use.sides == BOTH for _, use in self._uses)

    @property
    def agencies(self) -> tuple[str, ...]:
        """Agency codes that occur, sorted."""
        return tuple(sorted({use.place[0] for _, use in self._uses}))

    @property
    def services(self) -> tuple[tuple[str, str], ...]:
        """(agency code, service code) that occur, sorted."""
        return tuple(sorted({use.place[:2] for _, use in self._uses}))

    def events(self) -> Iterator[dict[str, Any]]:
        """The uses as CloudEvents in structured mode, JSON-ready, in order of time."""
        for identifier, use in self._uses:
            agency, service, consumer, instance = use.place
            time = _EPOCH + timedelta(milliseconds=use.time)
            yield {
                "specversion": "1.0",
                "id": identifier,
                "source": f"xroad:{instance}",
                "type": USED_TYPE,
                "time": time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{use.time % 1000:03d}Z",
                "data": {
                    "agency": agency,
                    "service": service,
                    "channel": "api",
                    "outcome": "success" if use.success else "failure",
                    "duration_ms": use.duration,
                    "consumer": consumer,
                },
            }


def read_xroad_file(path: str) -> ImportResult:
    """Read a file, or standard input for ``-``.

    Raises:
        InputError: the file cannot be opened or read.
    """
    try:
        if path == "-":
            return read_xroad(sys.stdin.buffer)
        with Path(path).open("rb") as stream:
            return read_xroad(stream)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; name a readable file, or - for standard input") from error


def read_xroad(stream: BinaryIO) -> ImportResult:
    """Read records, one JSON object a line, gzip or not.

    A line that is not a usable record is counted by reason and never stops the rest. Memory is proportional to the
    number of uses, about half a kilobyte each: the two records of a use may stand anywhere in the file.
    """
    result = ImportResult()
    groups: dict[bytes, list[Use]] = {}
    places: dict[Place, Place] = {}
    decoder = msgspec.json.Decoder(Record)
    number = 0
    try:
        for number, line in enumerate(_lines(stream), 1):
            if not line.strip():
                continue
            result.lines += 1
            try:
                record = decoded(decoder, line)
                key, use = use_of(record, places)
            except UnusableError as fault:
                _skip(result, str(fault), number)
                continue
            if use.sides == PRODUCER:
                result.producer_records += 1
            else:
                result.client_records += 1
            result.repeated += add(groups.setdefault(key, []), use)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        # Only compressed input ends like this; what came before the damage is good.
        _skip(result, "damaged_file", number + 1)
    while groups:
        key, halves = groups.popitem()
        result._uses.extend(identified(key, paired(halves)))
    result._uses.sort(key=lambda item: (item[1].time, item[0]))
    return result


def _skip(result: ImportResult, reason: str, number: int) -> None:
    skipped = result.skipped.setdefault(reason, Skipped())
    skipped.count += 1
    if len(skipped.first_lines) < _KEPT_LINES:
        skipped.first_lines.append(number)


class _Rejoined:
    """A stream whose first bytes, read to recognise gzip, are given back first."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int) -> bytes:
        if self._first:
            first, self._first = self._first[:size], self._first[size:]
            return first
        return self._rest.read(size)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of at most :data:`MAX_LINE_BYTES`; of a longer one the first bytes only, one more than that."""
    first = stream.read(2)
    rejoined: Any = _Rejoined(first, stream)
    if first == b"\x1f\x8b":
        rejoined = gzip.GzipFile(fileobj=rejoined)
    rest = b""
    while chunk := rejoined.read(MAX_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def catalogue_with(base: Catalogue, events: Iterable[dict[str, Any]]) -> Catalogue:
    """The catalogue with the agencies and services that occur in events and are not in it, as the next version.

    New ones are named by their codes in the three languages. Where nothing is new the base itself is returned,
    because a version number stands for one content.
    """
    occurring = {(event["data"]["agency"], event["data"]["service"]) for event in events}
    new: dict[str, list[Service]] = {}
    for agency, service in sorted(occurring - base.pairs):
        new.setdefault(agency, []).append(Service(service, Names(service, service, service)))
    if not new:
        return base
    known = tuple(
        msgspec.structs.replace(agency, services=(*agency.services, *new.pop(agency.code, ())))
        for agency in base.agencies
    )
    added = tuple(Agency(code, Names(code, code, code), tuple(services)) for code, services in new.items())
    return Catalogue(version=base.version + 1, agencies=known + added, description=base.description)
