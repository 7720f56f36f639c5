"""Working with dead letters on a real Kafka: what is found, and that a replay sends each letter once, come what may."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.settings import KafkaSettings
from sinks.dead_letters import DeadLetters
from streams.topics import create_topics, topic_ids
from tests.support import KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, events

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

COMMAND_SECONDS = 120


@pytest.fixture
def run(kafka_server: KafkaServer, tmp_path: Path) -> PipelineRun:
    """Topics of their own; no worker and no ClickHouse."""
    run = PipelineRun(kafka_server.bootstrap, f"chdb:{tmp_path / 'none'}", tmp_path, kafka__partitions=3)
    create_topics(run.settings.kafka)
    return run


def rejects(kafka: KafkaSettings, count: int, **changes: Any) -> list[Reject]:
    """Rejects of good events, as if the catalogue had been wrong."""
    topic_id = topic_ids(kafka, [kafka.events_topic])[kafka.events_topic]
    agencies = ("mia", "", "mlspp")
    made = []
    for number, event in enumerate(events(count, seed=1)):
        fields: dict[str, Any] = {
            "log": LogPartition(kafka.events_topic, topic_id, number % 3),
            "offset": number,
            "batch_index": number % 2,
            "timestamp": 1_700_000_000_000 + number * 1_000,
            "reason": Reason.UNKNOWN_SERVICE,
            "detail": "words",
            "key": None if number % 5 == 0 else event["id"].encode(),
            "headers": [("traceparent", b"00-abc"), ("content-type", b"application/cloudevents-batch+json")],
            "value": json.dumps(event).encode(),
            "agency": agencies[number % 3],
        }
        made.append(Reject(**fields | changes))
    return made


def write(kafka: KafkaSettings, letters: Sequence[Reject]) -> None:
    sink = DeadLetters(kafka)
    try:
        sink.send(letters)
    finally:
        sink.close()


def records(kafka: KafkaSettings, topic: str, isolation: str = "read_committed") -> list[Any]:
    """All records of a topic by a plain consumer."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level=isolation, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for part in consumer.poll(timeout_ms=500).values():
                found += part
        return found
    finally:
        consumer.close()


def sent_once(kafka: KafkaSettings, letters: Sequence[Reject], attempt: int = 1) -> None:
    """The topic of events holds each letter's event once, as it was, and what says that it is a replay."""
    found = {}
    for record in records(kafka, kafka.events_topic):
        headers = dict(record.headers)
        place = headers.pop("xidmet-replay-of").decode()
        assert place not in found, f"{place} was sent twice"
        assert headers.pop("xidmet-attempt") == str(attempt).encode()
        found[place] = (record.key, record.value, headers)
    kept = {"traceparent": b"00-abc", "content-type": b"application/cloudevents+json"}
    assert found == {
        f"{item.log.topic_id}/{item.log.partition}/{item.offset}/{item.batch_index}": (item.key, item.value, kept)
        for item in letters
    }


def command(run: PipelineRun, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        run.command("rejected", *arguments),
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def answer(run: PipelineRun, *arguments: str) -> Any:
    done = command(run, *arguments, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def states(run: PipelineRun) -> Counter[str]:
    return Counter(row["state"] for row in answer(run, "list", "--all"))


# A replay sends each letter once


def test_a_replay_sends_each_letter_once_as_it_was_and_a_second_one_nothing(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 1_201)
    write(kafka, letters)
    write(kafka, letters[100:200])  # a worker that died before the receipts
    assert answer(run, "replay") == {"chosen": 1_201, "sent": 1_201, "skipped": {}}
    sent_once(kafka, letters)
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}
    first = letters[0]
    name = f"{first.log.topic_id}/{first.log.partition}/{first.offset}/{first.batch_index}"
    assert answer(run, "replay", name) == {"chosen": 1, "sent": 0, "skipped": {"replayed": 1}}
    write(kafka, letters[:50])  # a segment that is folded again after the replay
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}
    sent_once(kafka, letters)
    assert states(run) == {"replayed": 1_201}


@pytest.mark.parametrize("point", ["sent", "commit", "committed"])
def test_a_replay_that_is_killed_and_repeated_sends_each_letter_once(run: PipelineRun, point: str) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 1_201)
    write(kafka, letters)
    topics = (kafka.bootstrap, kafka.events_topic, kafka.rejected_topic)
    dying = [sys.executable, "-m", "tests.support.dying_replay", *topics, point, "1"]
    done = subprocess.run(dying, cwd=ROOT, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    # The first transaction was committed; what the second had sent is there for those who read everything.
    there = len(records(kafka, kafka.events_topic, "read_uncommitted"))
    assert there == 1_000
    rest = 1_201 - (1_000 if point == "committed" else 500)
    assert answer(run, "replay") == {"chosen": rest, "sent": rest, "skipped": {}}
    sent_once(kafka, letters)
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}


def test_two_replays_at_once_send_each_letter_once(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 6_000)
    write(kafka, letters)
    both = [
        subprocess.Popen(run.command("rejected", "replay"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=COMMAND_SECONDS)[1].decode() for process in both]
    codes = sorted(process.returncode for process in both)
    # The later one takes over, unless the earlier one was done by then.
    assert codes in ([0, 0], [0, BrokerError.exit_code]), said
    assert "Traceback" not in "".join(said)
    if codes[1]:
        assert any("took over" in text for text in said), said
    sent_once(kafka, letters)
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}
    assert states(run) == {"replayed": 6_000}
