"""What the totals must be, counted from the log event by event with json and plain rules: no code of the pipeline.

The rules are those of docs/contract, as far as what the suite sends needs them. Repeats are told by their distance: the
suite sends an event again either at once on the same partition, which the memory of the fold reaches, or on another
partition, which it does not.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.faults.log import LogRecord, in_order

MARKER: Final = "xidmet-segment-end"
CATALOGUE: Final = Path(__file__).resolve().parents[2] / "pipeline" / "catalogue" / "demonstration.json"
_USED, _STAGE = "xidmet.service.used.v1", "xidmet.application.stage.v1"
_BINARY_MARKS: Final = {"ce_specversion", "ce_type", "ce_id"}
_CHANNELS: Final = {"web", "mobile", "centre", "call_centre", "kiosk", "api"}
_OUTCOMES: Final = {"success", "not_eligible", "failure", "abandoned"}
_PSEUDONYM: Final = re.compile(r"(?=.*[a-z])[A-Za-z0-9_-]{22,128}")
_YEAR_2000: Final = 946_684_800_000
_YEAR_2100: Final = 4_102_444_800_000
_MAX_AGE_MS: Final = 3_660 * 86_400_000
_MAX_AHEAD_MS: Final = 300_000

Pairs = frozenset[tuple[str, str]]
Group = tuple[str, str, int, bool]
"""Agency, service, start of the minute in Unix seconds, whether it is a stage."""
Place = tuple[str, int, int, int]
"""Topic id, partition, offset, place in the message."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What must be known of an event: its group, id, and duration in whole milliseconds."""

    group: Group
    event_id: str
    duration_ms: int


@dataclass(slots=True)
class Truth:
    """What a log amounts to.

    ``events`` are all events of all messages = accepted + duplicates + rejected; ``ledger`` are the distinct valid
    ones; ``minutes`` and ``durations`` are by group, with what the memory does not reach counted again.
    """

    events: int = 0
    accepted: int = 0
    duplicates: int = 0
    ledger: dict[tuple[str, str], Fact] = field(default_factory=dict)
    minutes: Counter[Group] = field(default_factory=Counter)
    durations: Counter[Group] = field(default_factory=Counter)
    rejected: dict[Place, str] = field(default_factory=dict)

    @property
    def repeats(self) -> int:
        """Accepted events that the ledger holds already."""
        return self.accepted - len(self.ledger)


def catalogue_pairs(path: Path = CATALOGUE) -> Pairs:
    """(agency, service) of a catalogue file."""
    content = json.loads(path.read_text("utf-8"))
    return frozenset(
        (agency["code"], service["code"]) for agency in content["agencies"] for service in agency["services"]
    )


def count(
    records: Iterable[LogRecord], pairs: Pairs | None = None, refused_places: Mapping[Place, str] | None = None
) -> Truth:
    """Count the records of one or several topics.

    ``pairs`` are the agencies and services of the catalogue, those of the demonstration if None. ``refused_places`` are
    places whose event is refused although it is good by these rules, with the reason.
    """
    known = catalogue_pairs() if pairs is None else pairs
    forced = refused_places or {}
    truth = Truth()
    seen: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for record in in_order(records):
        here = seen.setdefault((record.topic_id, record.partition), set())
        for index, (event, fault) in enumerate(_events_of(record)):
            truth.events += 1
            place = record.topic_id, record.partition, record.offset, index
            reason = fault or refused(event, record.timestamp, known) or forced.get(place, "")
            if reason:
                truth.rejected[place] = reason
                continue
            identity = event["source"], event["id"]
            if identity in here:
                truth.duplicates += 1
                continue
            here.add(identity)
            fact = _fact(event)
            truth.accepted += 1
            truth.ledger.setdefault(identity, fact)
            truth.minutes[fact.group] += 1
            truth.durations[fact.group] += fact.duration_ms
    return truth


def _fact(event: dict[str, Any]) -> Fact:
    data = event["data"]
    stage = event["type"] == _STAGE
    minute = _milliseconds(event["time"]) // 60_000 * 60
    duration = 0 if stage else math.floor(data["duration_ms"] + 0.5)
    return Fact((data["agency"], data["service"], minute, stage), event["id"], duration)


def _milliseconds(time: str) -> int:
    moment = datetime.fromisoformat(time)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _events_of(record: LogRecord) -> Iterable[tuple[Any, str]]:
    """Events of a record, each with what is wrong with its bytes, if anything."""
    names = {name for name, _ in record.headers}
    if MARKER in names:
        return []
    value = record.value or b""
    if not value.strip():
        return [(None, "empty_message")]
    try:
        content = _parse(value)
        if names & _BINARY_MARKS:
            envelope = {name[3:]: text.decode() for name, text in record.headers if name.startswith("ce_")}
            return [(envelope | {"data": content}, "")]
    except (ValueError, RecursionError):
        return [(None, "not_json")] if names & _BINARY_MARKS else _split(value)
    if isinstance(content, list):
        return [(event, "") for event in content] or [(None, "empty_batch")]
    return [(content, "")]


def _split(value: bytes) -> list[tuple[Any, str]]:
    """A message that is not JSON as a whole. In an array that is complete, elements are told apart by the line
    breaks that the suite puts between them when it puts something broken in."""
    if not (value.startswith(b"[\n") and value.endswith(b"\n]")):
        return [(None, "not_json")]
    found: list[tuple[Any, str]] = []
    for line in value[2:-2].split(b",\n"):
        try:
            found.append((_parse(line), ""))
        except (ValueError, RecursionError):
            found.append((None, "not_json"))
    return found


def _parse(value: bytes) -> Any:
    return json.loads(value.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def refused(event: Any, timestamp: int, pairs: Pairs) -> str:
    """The reason for which an event is refused; empty if it is good."""
    for check in (_envelope, _data):
        reason = check(event)
        if reason:
            return reason
    data = event["data"]
    if not _is_pseudonym(data.get("user")):
        return "personal_identifier"
    if (data["agency"], data["service"]) not in pairs:
        return "unknown_service" if any(agency == data["agency"] for agency, _ in pairs) else "unknown_agency"
    time = _milliseconds(event["time"])
    if time < _YEAR_2000 or (timestamp >= 0 and time < timestamp - _MAX_AGE_MS):
        return "time_too_early"
    if time >= _YEAR_2100 or (timestamp >= 0 and time > timestamp + _MAX_AHEAD_MS):
        return "time_in_future"
    return ""


def _envelope(event: Any) -> str:
    if not isinstance(event, dict) or event.get("specversion") != "1.0":
        return "not_a_cloudevent"
    if not isinstance(event.get("type"), str):
        return "invalid_attribute"
    if event["type"] not in (_USED, _STAGE):
        return "unknown_type"
    for name, longest in (("id", 256), ("source", 1024)):
        if not isinstance(event.get(name), str) or not 1 <= len(event[name]) <= longest:
            return "invalid_attribute"
    try:
        aware = datetime.fromisoformat(event["time"]).tzinfo is not None
    except (KeyError, TypeError, ValueError):
        aware = False
    return "" if aware else "invalid_attribute"


def _data(event: dict[str, Any]) -> str:
    data = event.get("data")
    if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in ("agency", "service")):
        return "invalid_data"
    if event["type"] == _STAGE:
        return "" if data.get("channel") in {*_CHANNELS, None} else "invalid_data"
    duration = data.get("duration_ms")
    if not isinstance(duration, (int, float)) or isinstance(duration, bool) or not 0 <= duration <= 86_400_000:
        return "invalid_data"
    rating = data.get("rating")
    if rating is not None and not (type(rating) is int and 1 <= rating <= 5):
        return "invalid_data"
    known = _one_of(data.get("channel"), _CHANNELS) and _one_of(data.get("outcome"), _OUTCOMES)
    return "" if known else "invalid_data"


def _one_of(value: object, allowed: set[str]) -> bool:
    return isinstance(value, str) and value in allowed


def _is_pseudonym(user: object) -> bool:
    return user is None or user == "" or (isinstance(user, str) and _PSEUDONYM.fullmatch(user) is not None)
