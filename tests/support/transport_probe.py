"""A Faust worker of nothing but the transport: prints every batch as a line of JSON. Run as a program by its tests.

Arguments: bootstrap, topic, group, session time-out in seconds, JSON object of positions by partition number.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import faust
from faust.types import TP

from pipeline.fold.records import RecordBatch
from streams.transport import BatchSchema


class Probe:
    """Positions as the test says; durable is what the agent saw."""

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self._wanted = wanted
        self.seen: dict[TP, int] = {}

    async def load(self, log_starts: Mapping[TP, int]) -> Mapping[TP, int]:
        positions = {tp: self._wanted.get(str(tp.partition), start) for tp, start in log_starts.items()}
        self.seen = {}
        say(assigned={str(tp.partition): offset for tp, offset in positions.items()})
        return positions

    def durable(self) -> Mapping[TP, int]:
        return self.seen


def say(**content: Any) -> None:
    sys.__stdout__.write(json.dumps(content) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def main(bootstrap: str, topic_name: str, group: str, session: str, positions: str) -> None:
    app = faust.App(
        group,
        broker=f"kafkabatch://{bootstrap}",
        broker_session_timeout=float(session),
        broker_heartbeat_interval=float(session) / 4,
        broker_commit_interval=0.5,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        store="memory://",
        datadir=tempfile.gettempdir(),
        web_enabled=False,
        autodiscover=False,
    )
    probe = Probe(json.loads(positions))
    app.positions = probe  # type: ignore[attr-defined]
    topic = app.topic(topic_name, schema=BatchSchema())

    @app.agent(topic)
    async def show(batches: Any) -> None:
        batch: RecordBatch
        async for batch in batches:
            say(
                partition=batch.partition,
                start=batch.start_offset,
                next=batch.next_offset,
                high_water_mark=batch.high_water_mark,
                offsets=list(batch.offsets),
                values=[(value or b"").decode() for value in batch.values],
                headers=[[name for name, _ in head] for head in batch.headers],
                timestamps=list(batch.timestamps),
                truncated=batch.truncated,
            )
            probe.seen[TP(batch.topic, batch.partition)] = batch.next_offset

    worker = faust.Worker(app, loglevel="ERROR", redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it writes to standard output
    worker.execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
