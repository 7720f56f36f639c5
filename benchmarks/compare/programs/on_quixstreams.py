"""Counts with quixstreams: a dictionary by agency and service, or its tumbling windows of one minute with state.

Runs in the virtual environment of the peers. Values come as bytes and are decoded by msgspec into the same structures
as on the other sides, which is faster than quixstreams' own JSON.

The windows are keyed by the message's key, which is ``agency/service``, so that no topic for regrouping is needed.
Their state is a RocksDB with a changelog topic, as by default. ``current()`` hands on each change: the last one of each
window is kept, so that the totals can be checked.
"""

import argparse
import sys
import tempfile
import time
from typing import Any, Final

import msgspec
from quixstreams import Application, message_context
from quixstreams.dataframe.windows import Count, Sum
from quixstreams.models.serializers import Deserializer

from benchmarks.compare.programs.progress import Counting, Progress, Totals
from pipeline.contract.events import Event, UsedEvent

WINDOW_MS: Final = 60_000


class Events(Deserializer):  # type: ignore[misc]
    """Decodes each value once, for the time and for the duration."""

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(Event).decode

    def __call__(self, value: bytes, ctx: object) -> Event:
        """The event."""
        event: Event = self._decode(value)
        return event


def application(name: str, bootstrap: str, directory: str) -> Any:
    """An application as its documentation has it."""
    return Application(
        broker_address=bootstrap,
        consumer_group=f"bench-{name}-{time.time_ns()}",
        auto_offset_reset="earliest",
        auto_create_topics=True,
        state_dir=directory,
        loglevel="WARNING",
    )


def plain(app: Any, topic: str, events: int) -> None:
    """Decode and add up in a dictionary."""
    counting = Counting(events)

    def count(value: bytes) -> None:
        if counting.add((value,)):
            app.stop()

    source = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(source).update(count)
    app.run()


def windows(app: Any, topic: str, events: int) -> None:
    """Count and sum of durations by agency, service and minute of the event, in windows with state."""
    last: dict[tuple[int, bytes, int], tuple[int, float]] = {}
    progress = Progress(events)

    def event_time(event: Event, *_: object) -> int:
        return int(event.time.timestamp() * 1000)

    def duration(event: Event) -> float:
        return event.data.duration_ms if type(event) is UsedEvent else 0.0

    seen = 0

    def keep(value: dict[str, Any], key: bytes, timestamp: int, headers: object) -> None:
        nonlocal seen
        last[message_context().partition, key, value["start"]] = value["count"], value["duration_ms"]
        seen += 1
        if progress.add(1, totals(last) if seen >= events else {}):
            app.stop()

    source = app.topic(topic, key_deserializer="bytes", value_deserializer=Events(), timestamp_extractor=event_time)
    (
        app.dataframe(source)
        .apply(duration)
        .tumbling_window(WINDOW_MS)
        .agg(count=Count(), duration_ms=Sum())
        .current()
        .update(keep, metadata=True)
    )
    app.run()


def totals(last: dict[tuple[int, bytes, int], tuple[int, float]]) -> Totals:
    """The windows added up by agency and service."""
    found: Totals = {}
    for (_, key, _), (count, duration_ms) in last.items():
        agency, _, service = key.decode().partition("/")
        total = found.setdefault((agency, service), [0, 0.0])
        total[0] += count
        total[1] += duration_ms
    return found


def main() -> int:
    """Count a topic and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=["plain", "windows"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xidmet-bench-") as directory:
        app = application(options.way, options.bootstrap, directory)
        {"plain": plain, "windows": windows}[options.way](app, options.topic, options.events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
