"""Events to send: those of the generator with an id and a time of their own each, and probes that can be told apart.

A probe is a use of one service that no other event here is of, and the channel says which partition it was sent to. A
partition is read in its order, so that the k-th probe of a partition is there when its channel counts k.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.support.pipeline_run import events

PROBE_AGENCY = "agriculture"
PROBE_SERVICE = "farm-machinery-deregistration"
PROBE_CHANNELS = ("web", "mobile", "centre", "kiosk")
_TEMPLATES = 20_000


class Events:
    """Makes events; every number gives another id."""

    def __init__(self, seed: int = 1, templates: int = _TEMPLATES) -> None:
        found = [event for event in events(templates, seed) if event["data"]["service"] != PROBE_SERVICE]
        self._templates = [_cut(event) for event in found]
        probe = {"agency": PROBE_AGENCY, "service": PROBE_SERVICE, "outcome": "success", "duration_ms": 120}
        frame = found[0]
        self._probes = [_cut(frame | {"data": probe | {"channel": channel}}) for channel in PROBE_CHANNELS]

    def event(self, number: int, time_text: bytes) -> bytes:
        """A valid event; ``time_text`` as :func:`time_text` gives it."""
        return _join(self._templates[number % len(self._templates)], b"%032x" % number, time_text)

    def probe(self, partition: int, number: int, time_text: bytes) -> bytes:
        """A probe for a partition."""
        return _join(self._probes[partition], b"probe-%026x" % number, time_text)


def time_text(unix_ms: int) -> bytes:
    """RFC 3339 with milliseconds, UTC."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


def _cut(event: dict[str, object]) -> Sequence[bytes]:
    text = json.dumps(event | {"id": "\x01", "time": "\x02"}, ensure_ascii=False, separators=(",", ":"))
    first, rest = text.split('"\\u0001"')
    second, third = rest.split('"\\u0002"')
    parts = (first, second, third) if first.find("\\u0002") < 0 else ()
    if not parts:
        raise ValueError("the generator puts the time before the id; this cuts it the other way round")
    return [part.encode() for part in parts]


def _join(parts: Sequence[bytes], id_: bytes, time_: bytes) -> bytes:
    first, second, third = parts
    return b'%s"%s"%s"%s"%s' % (first, id_, second, time_, third)
