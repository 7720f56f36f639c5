"""How long a scan of the dead-letter topic takes, what it keeps in memory, and how fast letters are replayed.

Without --bootstrap it starts the embedded broker (extra ``embedded``); with it, it makes two topics of its own on that
broker and deletes them afterwards.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path

from kafka import KafkaAdminClient

from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.replaying import Dispositions
from pipeline.settings import KafkaSettings, Settings
from sinks.dead_letters import DeadLetters
from sinks.letters import read_index
from streams.topics import create_topics, topic_ids

VALUE = b'{"data":{"agency":"nobody"},"fill":"' + b"x" * 360 + b'"}'


@contextlib.contextmanager
def topics(bootstrap: str | None) -> Iterator[KafkaSettings]:
    """Two empty topics."""
    name = uuid.uuid4().hex[:8]
    with contextlib.ExitStack() as stack:
        if bootstrap is None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "broker.log"
            bootstrap = stack.enter_context(EmbeddedBroker(log)).bootstrap
        kafka = KafkaSettings(bootstrap=bootstrap, events_topic=f"events-{name}", rejected_topic=f"rejected-{name}")
        create_topics(kafka)
        try:
            yield kafka
        finally:
            admin = KafkaAdminClient(bootstrap_servers=bootstrap)
            admin.delete_topics([kafka.events_topic, kafka.rejected_topic])
            admin.close()


def write(kafka: KafkaSettings, letters: int) -> None:
    """Write dead letters as the worker does."""
    log = LogPartition(kafka.events_topic, topic_ids(kafka, [kafka.events_topic])[kafka.events_topic], 0)
    sink = DeadLetters(kafka)
    try:
        for start in range(0, letters, 10_000):
            numbers = range(start, min(start + 10_000, letters))
            sink.send(
                [
                    Reject(log, n, 0, 1_000 + n, Reason.UNKNOWN_AGENCY, "words", b"%d" % n, [], VALUE, "mia")
                    for n in numbers
                ]
            )
    finally:
        sink.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replays", type=int, default=20_000, help="letters that are replayed at the end")
    parser.add_argument("--bootstrap", help="a Kafka that is there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with topics(options.bootstrap) as kafka:
        write(kafka, options.letters)
        seconds = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            index = read_index(kafka)
            seconds.append(time.perf_counter() - began)
            if len(index.entries) != options.letters:
                raise SystemExit(f"{len(index.entries)} letters were found")
        tracemalloc.start()
        index = read_index(kafka)
        kept = tracemalloc.get_traced_memory()[0] / options.letters
        tracemalloc.stop()
        with Dispositions(Settings(kafka=kafka)) as dispositions:
            chosen = index.in_order()[: options.replays]
            began = time.perf_counter()
            done = dispositions.replay(chosen).done
            replay_seconds = time.perf_counter() - began
        if done != len(chosen):
            raise SystemExit(f"{done} letters were replayed")
    result = {
        "letters": options.letters,
        "scan_seconds": round(statistics.median(seconds), 2),
        "scan_range": [round(min(seconds), 2), round(max(seconds), 2)],
        "bytes_kept_a_letter": round(kept),
        "replayed": done,
        "replay_seconds": round(replay_seconds, 2),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<22}{value}")


if __name__ == "__main__":
    main()
