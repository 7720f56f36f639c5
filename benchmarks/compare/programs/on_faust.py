"""Counts with Faust: its own transport one message at a time, or the batched one of this project.

The same decoder and the same dictionary in both; nothing is stored.
"""

import argparse
import os
import sys
import tempfile
import time

import faust

from benchmarks.compare.programs.progress import Counting
from benchmarks.transport_speed import FromStart
from pipeline.fold.records import RecordBatch
from pipeline.runtime.worker import run_worker
from streams.transport import BatchSchema

SCHEMES = {"stock": "kafka://", "batched": "kafkabatch://"}


def application(way: str, bootstrap: str) -> faust.App:
    """A Faust application as its documentation has it, but for polls of 10,000 records and without a web server."""
    app = faust.App(
        f"bench-{way}-{time.time_ns()}",
        broker=SCHEMES[way] + bootstrap,
        broker_max_poll_records=10_000,
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=tempfile.gettempdir(),
        web_enabled=False,
        autodiscover=False,
    )
    vars(app)["positions"] = FromStart()
    return app


def main() -> int:
    """Count a topic and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=list(SCHEMES))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    app = application(options.way, options.bootstrap)
    counting = Counting(options.events)

    if options.way == "batched":

        @app.agent(app.topic(options.topic, schema=BatchSchema()))
        async def of_batches(stream: faust.StreamT[RecordBatch]) -> None:
            async for batch in stream:
                if counting.add(value for value in batch.values if value):
                    os._exit(0)

    else:

        @app.agent(
            app.topic(options.topic, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
        )
        async def of_records(stream: faust.StreamT[bytes]) -> None:
            async for value in stream:
                if counting.add((value,)):
                    os._exit(0)

    failure = run_worker(app)
    print(failure or "the worker ended before it had counted everything", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
