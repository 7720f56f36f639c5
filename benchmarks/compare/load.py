"""The events of the comparison: many, valid, skewed, unique, the same for the same seed; rendered fast.

Each event is one of 65,536 templates that the project's generator draws from the catalogue of :mod:`catalogue`, with an
id, a time and a person of its own. So the shares are the generator's: three agencies have 96 % of all uses (published
for December 2015), the first services of the first two an eighth each (first half of 2016). Three quarters carry the
pseudonym of one of 120,000 people, of whom few are seen often. The uses of a quarter of the less popular services
start an application; its first stage, an event of its own, follows within seconds; the later stages take days and do
not come: 14 % of the events name an application, half of them are stages. Services that the templates missed get one
template each, so that all 400 occur.

As JSON without spaces an event has 350 bytes on average, 270 to 460. The initiator is left out unless it is the state.
Event times grow steadily, 5,000 a second, and end
with ``until_ms``. Blocks of events are drawn one after the other, so that memory does not grow with their number.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.compare.catalogue import catalogue
from pipeline.contract.events import USED_TYPE
from pipeline.generator import Generator
from pipeline.generator.people import draw_people, pseudonym

TEMPLATES: Final = 65_536
BLOCK_EVENTS: Final = 50_000
BATCH_EVENTS: Final = 100
EVENTS_PER_SECOND: Final = 5_000

Dict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive events: their JSON, the ``agency/service`` of each, and whether it is a use or else a stage."""

    values: list[bytes]
    keys: list[bytes]
    is_use: list[bool]

    def first(self, count: int) -> "Block":
        """The first ``count`` events, or all if there are not more."""
        return Block(self.values[:count], self.keys[:count], self.is_use[:count])

    def batches(self, size: int = BATCH_EVENTS) -> list[bytes]:
        """The same events as JSON batches of ``size``, the last one shorter if need be."""
        return [b"[" + b",".join(self.values[at : at + size]) + b"]" for at in range(0, len(self.values), size)]


@dataclass(slots=True)
class Truth:
    """What a topic holds: what every side has to come to."""

    events: int = 0
    uses: int = 0
    value_bytes: int = 0
    services: Counter[str] = field(default_factory=Counter)

    def add(self, block: Block) -> None:
        """Count a block."""
        self.events += len(block.values)
        self.uses += sum(block.is_use)
        self.value_bytes += sum(map(len, block.values))
        self.services.update(key.decode() for key in block.keys)

    def as_json(self) -> Dict:
        """As JSON has it; :meth:`from_json` reads it."""
        return {
            "events": self.events,
            "uses": self.uses,
            "value_bytes": self.value_bytes,
            "services": dict(self.services),
        }

    @classmethod
    def from_json(cls, content: Dict) -> "Truth":
        """What :meth:`as_json` wrote."""
        return cls(content["events"], content["uses"], content["value_bytes"], Counter(content["services"]))

    @property
    def agencies(self) -> Counter[str]:
        """Events by agency."""
        found: Counter[str] = Counter()
        for key, count in self.services.items():
            found[key.partition("/")[0]] += count
        return found


@dataclass(frozen=True, slots=True)
class _Templates:
    """Pieces around what is an event's own: id, time, person, application."""

    before_time: list[bytes]
    before_user: list[bytes]
    keys: list[bytes]
    is_use: npt.NDArray[np.bool_]
    has_user: npt.NDArray[np.bool_]
    has_application: npt.NDArray[np.bool_]


class Load:
    """``events`` events up to ``until_ms``; the same arguments give the same bytes (for one version of numpy)."""

    def __init__(self, events: int, until_ms: int, seed: int = 1, events_per_second: int = EVENTS_PER_SECOND) -> None:
        """``until_ms`` is the time of the last event in Unix milliseconds.

        Raises:
            ValueError: no events, or none a second.
        """
        if events < 1 or events_per_second < 1:
            raise ValueError("a load has at least one event, and one a second")
        self.events = events
        self._until_ms = until_ms
        self._seed = seed
        self._per_second = events_per_second
        self._templates = _templates(seed)
        self._people = [b',"user":"%s"' % pseudonym(person).encode() for person in range(120_000)]

    def blocks(self) -> Iterator[Block]:
        """All events in order of time, from the start at each call."""
        rng = np.random.default_rng([self._seed, 11])
        for first in range(0, self.events, BLOCK_EVENTS):
            yield self._block(rng, first, min(BLOCK_EVENTS, self.events - first))

    def _block(self, rng: np.random.Generator, first: int, count: int) -> Block:
        templates = self._templates
        chosen = rng.integers(0, TEMPLATES, count)
        places = chosen.tolist()
        numbers = np.arange(first - self.events + 1, first - self.events + 1 + count)
        times = self._until_ms + numbers * 1000 // self._per_second
        random = rng.bytes(8 * count).hex()
        ids = [b"%s-%012x" % (random[16 * at : 16 * at + 16].encode(), first + at) for at in range(count)]
        people = draw_people(rng, count).tolist()
        extras = [
            self._people[person] if known else b""
            for person, known in zip(people, templates.has_user[chosen].tolist(), strict=True)
        ]
        for place in np.flatnonzero(templates.has_application[chosen]).tolist():
            extras[place] += b',"application":"app-%s"' % ids[place]
        pieces = zip(
            ids,
            map(templates.before_time.__getitem__, places),
            np.datetime_as_string(times.astype("M8[ms]")).astype("S").tolist(),
            map(templates.before_user.__getitem__, places),
            extras,
            strict=True,
        )
        values = [b'{"specversion":"1.0","id":"%s%s%sZ%s%s}}' % each for each in pieces]
        keys = list(map(templates.keys.__getitem__, places))
        return Block(values, keys, templates.is_use[chosen].tolist())


@lru_cache(maxsize=2)
def _templates(seed: int) -> _Templates:
    rendered = [_around(event) for event in _drawn(seed)]
    before_time, before_user, keys, is_use, has_user, has_application = zip(*rendered, strict=True)
    return _Templates(
        list(before_time),
        list(before_user),
        list(keys),
        np.array(is_use),
        np.array(has_user),
        np.array(has_application),
    )


def _drawn(seed: int) -> list[Dict]:
    """Events of the generator, of a working morning; the last ones give way to the services that none of them names."""
    services = [(agency.code, service.code) for agency in catalogue().agencies for service in agency.services]
    start, end = (datetime(2025, 3, 12, hour, tzinfo=UTC) for hour in (6, 7))
    events = list(Generator(catalogue(), seed).events(start, end, TEMPLATES))
    named = {(event["data"]["agency"], event["data"]["service"]) for event in events}
    missing = [pair for pair in services if pair not in named]
    for place, (agency, service) in enumerate(missing):
        like = events[place]
        events[-1 - place] = like | {"data": like["data"] | {"agency": agency, "service": service}}
    return events


def _around(event: Dict) -> tuple[bytes, bytes, bytes, bool, bool, bool]:
    data = dict(event["data"])
    key = f"{data['agency']}/{data['service']}"
    known = data.pop("user", None) is not None
    applied = data.pop("application", None) is not None
    if data.get("initiator") == "citizen":
        del data["initiator"]
    envelope = f'","source":"urn:{data["agency"]}:portal","type":"{event["type"]}","time":"'
    after_time = ',"data":' + json.dumps(data, separators=(",", ":"))[:-1]
    return envelope.encode(), b'"' + after_time.encode(), key.encode(), event["type"] == USED_TYPE, known, applied
