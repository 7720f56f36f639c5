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
from kafka import KafkaProducer

from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError, InputError
from pipeline.fold.flush import Reject
from pipeline.fold.records import LogPartition
from pipeline.settings import KafkaSettings
from sinks.dead_letters import DeadLetters
from streams.topics import create_topics, topic_ids
from tests.support import KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, events
from tests.support.ports import free_port
from tests.support.skipping import need_program
from tests.support.topic import records

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


def test_a_replay_and_a_drop_at_once_do_one_of_both_to_each_letter(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 4_000)
    write(kafka, letters)
    both = [
        subprocess.Popen(run.command("rejected", *words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words in (["replay"], ["drop", "--yes", "--from", "2000-01-01"])
    ]
    for process in both:
        said = process.communicate(timeout=COMMAND_SECONDS)[1].decode()
        assert process.returncode in (0, BrokerError.exit_code), said
    replayed = {row["letter"] for row in answer(run, "list", "--all") if row["state"] == "replayed"}
    sent_once(kafka, [item for item in letters if name_of(item) in replayed])
    assert states(run).keys() <= {"replayed", "dropped"}


def name_of(item: Reject) -> str:
    return f"{item.log.topic_id}/{item.log.partition}/{item.offset}/{item.batch_index}"


def test_a_broker_that_dies_under_a_replay_is_an_error_and_the_next_one_goes_on(
    run: PipelineRun, kafka_server: KafkaServer
) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 1_201)
    write(kafka, letters)
    topics = (kafka.bootstrap, kafka.events_topic, kafka.rejected_topic)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.dying_replay", *topics, "pause", "1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "before the commit\n"
        kafka_server.kill()
        _, said = process.communicate("\n", timeout=COMMAND_SECONDS)
    finally:
        process.kill()
        kafka_server.start()
    assert process.returncode == BrokerError.exit_code, said
    assert "run it again" in said
    assert answer(run, "replay") == {"chosen": 701, "sent": 701, "skipped": {}}
    sent_once(kafka, letters)


# What can be seen


def test_letters_are_listed_shown_and_counted_by_every_filter(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 300)
    write(kafka, [*letters, *letters[:30]])
    write(kafka, rejects(kafka, 301, reason=Reason.INVALID_DATA, detail="data.channel\twrong\x1b[31m")[300:])
    rows = answer(run, "list")
    assert [row["letter"] for row in rows] == [name_of(item) for item in letters] + [rows[-1]["letter"]]
    assert rows[0] == {
        "letter": name_of(letters[0]),
        "reason": "unknown_service",
        "agency": "mia",
        "time": "2023-11-14T22:13:20.000Z",
        "state": "open",
        "attempt": 0,
        "bytes": len(letters[0].value),
        "detail": "words",
    }
    by_agency = Counter(row["agency"] for row in rows)
    assert by_agency == {"mia": 101, "other": 100, "mlspp": 100}
    assert len(answer(run, "list", "--agency", "mia", "--agency", "other")) == 201
    assert len(answer(run, "list", "--reason", "invalid_data")) == 1
    assert len(answer(run, "list", "--limit", "7")) == 7
    period = ("--from", "2023-11-14T22:13:30", "--to", "2023-11-14T22:13:40")
    assert [row["time"][17:19] for row in answer(run, "list", *period)] == [str(second) for second in range(30, 40)]

    lines = command(run, "list", "--reason", "invalid_data").stdout.decode().splitlines()
    assert lines[0].split("\t") == ["letter", "reason", "agency", "time", "state", "attempt", "bytes", "detail"]
    assert lines[1].split("\t")[0] == f"{letters[0].log.topic_id[:8]}/0/300/0"
    assert lines[1].endswith("data.channel\\twrong\\\\x1b[31m")

    (shown,) = answer(run, "show", f"{letters[1].log.topic_id[:8]}/1/1/1")
    assert shown["value"].encode() == letters[1].value
    assert (shown["reason"], shown["detail"], shown["key"]) == ("unknown_service", "words", letters[1].key.decode())  # type: ignore[union-attr]
    assert "have it registered" in shown["help"]
    assert ["traceparent", "00-abc"] in shown["headers"]
    text = command(run, "show", name_of(letters[1]), name_of(letters[2])).stdout.decode()
    assert text.count("what to do:") == 2
    assert letters[1].value.decode() in text
    assert "\x1b" not in command(run, "show", "--reason", "invalid_data").stdout.decode()

    assert command(run, "drop", "--agency", "mlspp", "--yes").returncode == 0
    assert answer(run, "replay", "--agency", "mia", "--limit", "40")["sent"] == 40
    stats = {(row["reason"], row["agency"]): row for row in answer(run, "stats")}
    assert {key: (row["open"], row["replayed"], row["dropped"]) for key, row in stats.items()} == {
        ("unknown_service", "mia"): (60, 40, 0),
        ("unknown_service", "other"): (100, 0, 0),
        ("unknown_service", "mlspp"): (0, 0, 100),
        ("invalid_data", "mia"): (1, 0, 0),
    }
    assert stats["unknown_service", "mia"]["first"] == "2023-11-14T22:13:20.000Z"
    assert stats["unknown_service", "mia"]["last"] == "2023-11-14T22:18:17.000Z"
    days = answer(run, "stats", "--by", "hour")
    assert {row["hour"] for row in days} == {"2023-11-14T22:00:00.000Z"}
    assert len(answer(run, "stats", "--limit", "1")) == 1


def test_nothing_is_dropped_without_a_filter_or_an_answer(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    write(kafka, rejects(kafka, 5))
    done = command(run, "drop", "--yes")
    assert (done.returncode, b"say which" in done.stderr) == (2, True)
    for stdin in (b"n\n", b""):
        done = command(run, "drop", "--reason", "unknown_service", stdin=stdin)
        assert (done.returncode, b"nothing was dropped" in done.stderr) == (2, True)
    assert states(run) == {"open": 5}
    done = command(run, "drop", "--agency", "mia", stdin=b"y\n")
    assert (done.returncode, done.stdout.decode()) == (0, f"dropped: 2 of 2 letters, {kafka.rejected_topic}\n")
    assert states(run) == {"open": 3, "dropped": 2}
    assert records(kafka, kafka.events_topic) == []


def test_what_is_no_letter_is_told_from_letters(run: PipelineRun) -> None:
    """Dispositions have no reason; messages of others have no coordinates; and a whole read of the topic shows both."""
    kafka = run.settings.kafka
    write(kafka, rejects(kafka, 4))
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        producer.send(kafka.rejected_topic, b"something else").get(timeout=30)
        forged = [("xidmet-disposition", b"dropped"), ("xidmet-partition", b"x")]
        producer.send(kafka.rejected_topic, b"", headers=forged).get(timeout=30)
    finally:
        producer.close()
    assert answer(run, "replay")["sent"] == 4
    found = [dict(record.headers) for record in records(kafka, kafka.rejected_topic)]
    assert sum("xidmet-reason" in headers for headers in found) == 4
    done = [headers for headers in found if headers.get("xidmet-disposition") == b"replayed"]
    assert len(done) == 4
    assert all("xidmet-reason" not in headers for headers in done)


# What is not replayed, and mending


def test_a_letter_that_cannot_be_replayed_is_skipped_with_the_reason(run: PipelineRun) -> None:
    kafka = run.settings.kafka
    letters = rejects(kafka, 6)
    masked = rejects(kafka, 7, value=b'{"user":"aysel@example.az"}')[6:]
    often = rejects(kafka, 8, headers=[("xidmet-attempt", b"3")])[7:]
    write(kafka, [*letters, *masked, *often])
    assert answer(run, "replay", "--dry-run") == {
        "chosen": 8,
        "would_be_sent": 6,
        "skipped": {"attempts": 1, "masked": 1},
        "would_be_refused": {},
    }
    assert states(run) == {"open": 8}
    text = command(run, "replay").stdout.decode()
    assert text.splitlines()[0] == f"sent: 6 of 8 letters, {kafka.events_topic}"
    assert "skipped: 1: was replayed rejected.max_attempts times" in text
    assert "skipped: 1: personal identifiers are masked" in text
    sent_once(kafka, letters)
    assert states(run) == {"open": 2, "replayed": 6}
    run.flags["rejected.max_attempts"] = 4
    assert answer(run, "replay")["sent"] == 1


def test_a_mended_value_is_checked_and_sent(run: PipelineRun, tmp_path: Path) -> None:
    kafka = run.settings.kafka
    (item,) = rejects(kafka, 1, value=b'{"user":"aysel@example.az"}', key=b"+994501234567")
    write(kafka, [item])
    (event,) = events(1, seed=5)
    path = tmp_path / "mended.json"
    wrong = event | {"data": event["data"] | {"channel": "pigeon"}}
    for content, words in (
        (json.dumps(wrong), "invalid_data: channel must be one of"),
        (json.dumps([event, event]), "holds 2 events"),
        ("", "empty_message"),
    ):
        path.write_text(content)
        done = command(run, "replay", name_of(item), "--value", str(path))
        assert done.returncode == InputError.exit_code
        assert words in done.stderr.decode()
    assert (states(run), records(kafka, kafka.events_topic)) == ({"open": 1}, [])
    path.write_text(json.dumps(event))
    dry = answer(run, "replay", name_of(item), "--value", str(path), "--dry-run")
    assert (dry["would_be_sent"], states(run)) == (1, {"open": 1})
    assert answer(run, "replay", name_of(item), "--value", str(path))["sent"] == 1
    again = answer(run, "replay", name_of(item), "--value", str(path))
    assert again == {"chosen": 1, "sent": 0, "skipped": {"replayed": 1}}
    (record,) = records(kafka, kafka.events_topic)
    assert (record.key, json.loads(record.value)) == (None, event)
    done = command(run, "replay", "--value", str(path))
    assert (done.returncode, b"--value needs the name of one letter" in done.stderr) == (2, True)


def test_a_value_that_was_too_large_for_a_letter_comes_from_the_log(run: PipelineRun) -> None:
    """Of a whole message and of an element of a batch; what the log does not have is skipped."""
    kafka = run.settings.kafka
    single, one, two = (json.dumps({"a": str(n) * 900}).encode() for n in range(3))
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        sent = [
            producer.send(kafka.events_topic, value, partition=1).get(timeout=30).offset
            for value in (single, b"[" + one + b", " + two + b"]")
        ]
    finally:
        producer.close()
    topic_id = topic_ids(kafka, [kafka.events_topic])[kafka.events_topic]
    letters = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    places = [(topic_id, sent[0], 0), (topic_id, sent[1], 1), (topic_id, 99, 0), ("gone", sent[0], 0)]
    try:
        for place, offset, index in places:
            headers = {"reason": "invalid_attribute", "topic-id": place, "partition": "1", "offset": str(offset)}
            headers |= {"batch-index": str(index), "timestamp": "5", "value-bytes": str(len(single))}
            named = [(f"xidmet-{name}", text.encode()) for name, text in headers.items()]
            letters.send(kafka.rejected_topic, b"", headers=named).get(timeout=30)
    finally:
        letters.close()
    assert answer(run, "replay") == {"chosen": 4, "sent": 2, "skipped": {"not_in_log": 2}}
    replayed = [record for record in records(kafka, kafka.events_topic) if record.headers]
    assert sorted(record.value for record in replayed) == sorted([single, two])
    assert states(run) == {"open": 2, "replayed": 2}


def test_a_letter_that_is_too_large_with_more_headers_does_not_keep_others_back(
    run: PipelineRun, kafka_server: KafkaServer
) -> None:
    kafka = run.settings.kafka
    large = rejects(kafka, 1, value=b"x" * 1_048_500)
    others = rejects(kafka, 4)[1:]
    write(kafka, [*large, *others])
    assert answer(run, "replay") == {"chosen": 4, "sent": 3, "skipped": {"too_large": 1}}
    sent_once(kafka, others)


# Round and round


def test_an_event_that_is_refused_again_and_again_is_replayed_three_times(
    kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path
) -> None:
    """Through the whole pipeline: also the agency of a letter, and a header without a value, which kcat can send."""
    pipeline = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path)
    pipeline.run("migrate")
    try:
        worker = pipeline.start_worker()
        (event,) = events(1, seed=1)
        event["data"]["channel"] = "pigeon"
        kcat = [need_program("kcat"), "-P", "-b", kafka_server.bootstrap, "-t", pipeline.settings.kafka.events_topic]
        subprocess.run([*kcat, "-H", "empty"], input=json.dumps(event).encode(), check=True, timeout=60)
        for attempt in range(4):
            pipeline.wait_for_events(attempt + 1)
            (row,) = answer(pipeline, "list")
            assert (row["attempt"], row["agency"]) == (attempt, event["data"]["agency"])
            (dry,) = [answer(pipeline, "replay", "--dry-run")]
            assert dry["would_be_refused"] == ({"invalid_data": 1} if attempt < 3 else {})
            done = answer(pipeline, "replay")
            assert done == {
                "chosen": 1,
                "sent": int(attempt < 3),
                "skipped": {} if attempt < 3 else {"attempts": 1},
            }
        assert states(pipeline) == {"open": 1, "replayed": 3}
        assert worker.poll() is None
        report = pipeline.audit()
        assert (report.findings, report.rejected) == ([], 4)
    finally:
        pipeline.stop()


# Nothing there


def test_an_empty_topic_is_no_error(run: PipelineRun) -> None:
    assert answer(run, "list") == answer(run, "stats") == answer(run, "show") == []
    assert answer(run, "replay") == {"chosen": 0, "sent": 0, "skipped": {}}
    assert answer(run, "drop", "--limit", "5", "--yes") == {"chosen": 0, "dropped": 0, "skipped": {}}
    done = command(run, "show", "01a20fd0/2/4711/0")
    assert (done.returncode, b"there is no letter 01a20fd0/2/4711/0" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [["list"], ["stats"], ["replay"], ["drop", "--yes", "--limit", "1"]], ids=str)
def test_a_missing_topic_and_a_missing_broker_are_exit_code_6(run: PipelineRun, words: list[str]) -> None:
    run.flags["kafka.rejected_topic"] = "absent"
    done = command(run, *words)
    assert (done.returncode, b"absent" in done.stderr) == (BrokerError.exit_code, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    run.flags["kafka.bootstrap"] = f"127.0.0.1:{free_port()}"
    done = command(run, *words)
    assert done.returncode == BrokerError.exit_code
    assert b"check kafka.bootstrap" in done.stderr
    assert len(done.stderr.splitlines()) == 1
