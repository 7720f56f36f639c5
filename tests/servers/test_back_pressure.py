"""A worker whose ClickHouse is away or frozen, one that is wedged, and one whose topic grows."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewPartitions

from pipeline.emitter import Emitter
from tests.support import ClickHouseServer, KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, events
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path, kafka__partitions=2)
    run.run("migrate")
    yield run
    run.stop()


def emit(run: PipelineRun, count: int, seed: int) -> None:
    kafka = run.settings.kafka
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=20) as emitter:
        for event in events(count, seed):
            emitter.emit(event)
        emitter.flush()


def answer(run: PipelineRun, path: str) -> tuple[int, Any]:
    """Status and content of an address of the worker that was started last; 0 as long as it does not listen."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{run.flags['web.port']}{path}", timeout=30) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    except OSError:
        return 0, {"state": "", "ready": False}
    return status, body.decode() if path == "/metrics" else json.loads(body)


def health(run: PipelineRun) -> dict[str, Any]:
    """What /readyz says; its status and /healthz agree with it."""
    status, ready = answer(run, "/readyz")
    assert status in (0, 200 if ready["ready"] else 503)
    if status:
        alive, content = answer(run, "/healthz")
        assert (alive, content["alive"]) == (200, True)
    found: dict[str, Any] = ready
    return found


def metric(run: PipelineRun, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", answer(run, "/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


def members(run: PipelineRun) -> list[tuple[str, str]]:
    """Who is in the group, and the state of the group."""
    kafka = run.settings.kafka
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        group = admin.describe_groups([kafka.group])[kafka.group]
    finally:
        admin.close()
    return [(member["member_id"], group["group_state"]) for member in group["members"]]


def log_of(run: PipelineRun, words: str) -> int:
    return sum(path.read_text(errors="replace").count(words) for path in run.directory.glob("worker-*.log"))


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_worker_without_clickhouse_holds_a_bounded_amount_stays_and_catches_up(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer, fault: str
) -> None:
    """For longer than the session time-out (6 s) and several request time-outs (3 s)."""
    bound = 2_000
    pipeline.flags |= {
        "kafka.request_timeout_seconds": 3,
        "kafka.max_poll_records": 50,
        "worker.max_pending_events": bound,
        "worker.unready_seconds": 3,
        # The driver's own time-out must not be what ends the wait.
        "clickhouse.query_timeout_seconds": 60,
    }
    worker = pipeline.start_worker()
    emit(pipeline, 1_000, seed=1)
    pipeline.wait_for_events(1_000)
    wait_until(lambda: health(pipeline)["state"] == "consuming", 60, "the worker to be well")
    before = members(pipeline)
    if fault == "killed":
        clickhouse_server.kill()
    else:
        clickhouse_server.pause()
    for seed in (2, 3):
        emit(pipeline, 10_000, seed=seed)
    wait_until(lambda: metric(pipeline, "xidmet_back_pressure") == 1, 60, "back-pressure")
    wait_until(lambda: health(pipeline)["stalled_seconds"] > 20, 90, "an outage of 20 seconds", every=0.5)
    found = health(pipeline)
    assert (found["ready"], found["state"]) == (False, "waiting_for_clickhouse")
    assert "does not answer" in found["reason"]
    if fault == "frozen":
        assert "writing has been under way for" in found["reason"]
        assert found["write_seconds"] > 15
    # A poll of 50 messages of 20 events is what may come on top.
    assert bound <= found["pending_events"] == metric(pipeline, "xidmet_pending_events") < bound + 1_000
    assert found["pending_bytes"] == metric(pipeline, "xidmet_pending_bytes") > bound * 200
    assert metric(pipeline, "xidmet_ready") == metric(pipeline, "xidmet_stuck") == 0
    with ThreadPoolExecutor(3) as pool:
        pages = list(pool.map(lambda _: answer(pipeline, "/api/overview"), range(3)))
    for status, page in pages:
        assert status == 503
        assert "ClickHouse" in page["error"]
    assert members(pipeline) == before
    if fault == "killed":
        clickhouse_server.start()
    else:
        clickhouse_server.resume()
    pipeline.assert_equal_to_log()
    wait_until(lambda: health(pipeline)["state"] == "consuming", 60, "the worker to be well again")
    assert metric(pipeline, "xidmet_back_pressure") == metric(pipeline, "xidmet_pending_bytes") == 0
    assert worker.poll() is None
    assert members(pipeline) == before
    assert [state for _, state in before] == ["Stable"]
    assert log_of(pipeline, "partitions assigned") == 1
    assert log_of(pipeline, "back-pressure: too much") == 1
    assert log_of(pipeline, "back-pressure is over") == 1


def test_a_worker_without_the_dead_letter_topic_waits_and_catches_up(pipeline: PipelineRun) -> None:
    """The topic is deleted, for longer than the session time-out, and made again."""
    pipeline.flags |= {"worker.max_pending_events": 200, "kafka.request_timeout_seconds": 3}
    kafka = pipeline.settings.kafka
    worker = pipeline.start_worker()
    emit(pipeline, 500, seed=1)
    pipeline.wait_for_events(500)
    before = members(pipeline)
    delete_letters(pipeline)
    junk = b"[" + b",".join(b"%d" % number for number in range(150)) + b"]"
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for number in range(20):
            producer.send(kafka.events_topic, junk, partition=number % 2).get(timeout=60)
    finally:
        producer.close()
    emit(pipeline, 500, seed=2)
    wait_until(lambda: health(pipeline)["state"] == "waiting_for_kafka", 90, "the worker to wait for Kafka")
    wait_until(lambda: health(pipeline)["stalled_seconds"] > 10, 60, "an outage of ten seconds", every=0.5)
    found = health(pipeline)
    assert kafka.rejected_topic in found["reason"]
    assert 200 <= found["pending_events"] < 200 + 20 * 150
    assert members(pipeline) == before
    pipeline.run("migrate")
    pipeline.wait_for_events(500 + 20 * 150 + 500)
    wait_until(lambda: health(pipeline)["state"] == "consuming", 60, "the worker to be well again")
    report = pipeline.audit()
    assert (report.findings, report.accepted, report.rejected) == ([], 1_000, 3_000)
    places = letters(pipeline, 3_000)
    assert len(places) == 3_000
    assert worker.poll() is None


def test_a_worker_without_kafka_says_so_and_goes_on_by_itself(pipeline: PipelineRun, kafka_server: KafkaServer) -> None:
    pipeline.flags["worker.unready_seconds"] = 3
    worker = pipeline.start_worker()
    emit(pipeline, 500, seed=1)
    pipeline.wait_for_events(500)
    kafka_server.kill()
    wait_until(lambda: health(pipeline)["state"] == "waiting_for_kafka", 90, "the worker to wait for Kafka")
    assert "the group has had no coordinator for" in health(pipeline)["reason"]
    kafka_server.start()
    wait_until(lambda: health(pipeline)["state"] == "consuming", 90, "the worker to be well again")
    emit(pipeline, 500, seed=2)
    pipeline.assert_equal_to_log()
    assert worker.poll() is None


def delete_letters(run: PipelineRun) -> None:
    """Delete the dead-letter topic."""
    topic = run.settings.kafka.rejected_topic
    admin = KafkaAdminClient(bootstrap_servers=run.settings.kafka.bootstrap)
    try:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), 30, "the topic to be gone")
    finally:
        admin.close()


def letters(run: PipelineRun, count: int) -> set[tuple[bytes, bytes, bytes]]:
    """Places in the log of the dead letters; waits until there are so many."""
    kafka = run.settings.kafka
    places: set[tuple[bytes, bytes, bytes]] = set()
    consumer = KafkaConsumer(
        kafka.rejected_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None
    )

    def complete() -> bool:
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                headers = dict(record.headers)
                places.add(tuple(headers[f"xidmet-{name}"] for name in ("partition", "offset", "batch-index")))
        return len(places) >= count

    try:
        wait_until(complete, 60, f"{count} dead letters")
    finally:
        consumer.close()
    return places


def start_wedged(run: PipelineRun, wedges: Path) -> subprocess.Popen[bytes]:
    """A worker that the files in the directory hold up; its log is worker-wedged.log."""
    flags = [f"{key}={value}" for key, value in run.flags.items()]
    with (run.directory / "worker-wedged.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.support.wedged_worker", str(wedges), *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    run.workers.append(worker)
    return worker


def test_a_worker_that_hangs_when_it_is_to_stop_ends_all_the_same_and_loses_nothing(
    pipeline: PipelineRun, tmp_path: Path
) -> None:
    pipeline.flags |= {"web.port": free_port(), "worker.stop_seconds": 4}
    wedges = tmp_path / "wedges"
    wedges.mkdir()
    worker = start_wedged(pipeline, wedges)
    emit(pipeline, 1_000, seed=1)
    pipeline.wait_for_events(1_000)
    (wedges / "write").touch()
    emit(pipeline, 1_000, seed=2)
    wait_until(lambda: metric(pipeline, "xidmet_pending_events") > 0, 60, "the worker to have something to write")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 1
    assert "told to stop and not stopped after 4 s" in pipeline.logs() + (
        pipeline.directory / "worker-wedged.log"
    ).read_text(errors="replace")
    pipeline.start_worker()
    pipeline.assert_equal_to_log()


@pytest.mark.parametrize("wedge", ["write", "poll", "resume"])
def test_a_wedged_worker_says_that_it_is_stuck_and_where(pipeline: PipelineRun, tmp_path: Path, wedge: str) -> None:
    pipeline.flags |= {
        "web.port": free_port(),
        "worker.stuck_seconds": 6,
        "worker.unready_seconds": 100,
        "kafka.request_timeout_seconds": 7,
    }
    file = tmp_path / "wedges" / wedge
    file.parent.mkdir()
    if wedge == "resume":
        file.touch()
    worker = start_wedged(pipeline, file.parent)
    emit(pipeline, 1_000, seed=1)
    if wedge != "resume":
        pipeline.wait_for_events(1_000)
        wait_until(lambda: health(pipeline)["state"] == "consuming", 60, "the worker to be well")
        file.touch()
        emit(pipeline, 1_000, seed=2)
    wait_until(lambda: health(pipeline)["state"] == "stuck", 90, "the worker to call itself stuck")
    found = health(pipeline)
    where = r"usage\.events-\w+\[\d\]: durable offset \d+, folded to \d+, high-water mark \d+; nothing became durable"
    last = r"the last poll of Kafka came back \d+ s ago"
    words = {
        "write": rf"{where} for \d+ s; a flush has been under way for \d+ s; {last}",
        # What was fetched and not handed on can be late first.
        "poll": rf"no poll of Kafka came back for \d+ s|{where} for \d+ s; no flush is under way; {last}",
        "resume": r"the seek to the positions of an assignment has been under way for \d+ s",
    }
    assert re.fullmatch(words[wedge], found["reason"]), found["reason"]
    assert (found["ready"], metric(pipeline, "xidmet_ready"), metric(pipeline, "xidmet_stuck")) == (False, 0, 1)
    assert log_of(pipeline, "the worker is stuck") == 1
    file.unlink()
    wait_until(lambda: health(pipeline)["state"] == "consuming", 60, "the worker to be well again")
    assert log_of(pipeline, "the worker is no longer stuck") == 1
    pipeline.assert_equal_to_log()
    assert metric(pipeline, "xidmet_stuck") == 0
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_partitions_that_are_added_are_read_from_their_start_without_a_restart(pipeline: PipelineRun) -> None:
    """The topic has 2, then 5, while ``kafka.partitions`` says 3 all the time."""
    pipeline.flags |= {"kafka.partitions": 3, "kafka.metadata_seconds": 2}
    workers = [pipeline.start_worker(), pipeline.start_worker()]
    emit(pipeline, 1_000, seed=1)
    pipeline.wait_for_events(1_000)
    kafka = pipeline.settings.kafka
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        admin.create_partitions({kafka.events_topic: NewPartitions(5)})
    finally:
        admin.close()
    # At once, before the workers can know.
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        sent = [
            producer.send(kafka.events_topic, json.dumps(event).encode(), partition=2 + number % 3)
            for number, event in enumerate(events(900, seed=2))
        ]
        for one in sent:
            one.get(timeout=60)
    finally:
        producer.close()
    pipeline.wait_for_events(1_900, seconds=60)
    emit(pipeline, 1_000, seed=3)
    pipeline.assert_equal_to_log()
    assert pipeline.query("SELECT count(DISTINCT partition) FROM segments") == [(5,)]
    assert [worker.poll() for worker in workers] == [None, None]


def test_a_clickhouse_with_too_many_parts_is_waited_for_and_nothing_is_lost(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    """At the settings that make most parts, on tables that bear few, while nothing is merged."""
    pipeline.flags |= {"worker.flush_seconds": 0.05, "worker.flush_events": 1, "worker.unready_seconds": 1}
    database = pipeline.flags["clickhouse.url"].rpartition("/")[2]
    tables = [f"{database}.{table}" for table in ("ledger", "coordinates", "minutes", "receipts")]
    for table, most in zip(tables, (40, 200, 20, 200), strict=True):
        # Minutes are refused first, and the ledger later: by the flush that is tried again. Both limits are above
        # the ten parts of one size (merge_selector_base) that ClickHouse waits for before it merges.
        clickhouse_server.execute(
            f"ALTER TABLE {table} MODIFY SETTING parts_to_delay_insert = 100, parts_to_throw_insert = {most}"
        )
        clickhouse_server.execute(f"SYSTEM STOP MERGES {table}")
    pipeline.start_worker()
    sent = 0

    def refused() -> bool:
        nonlocal sent
        sent += 1
        emit(pipeline, 20, seed=sent)
        return "Code: 252." in answer(pipeline, "/readyz")[1].get("last_error", "")

    wait_until(refused, 90, "too many parts")
    wait_until(lambda: not health(pipeline)["ready"], 60, "the worker not to be ready")
    emit(pipeline, 1_000, seed=sent + 1)
    failures = metric(pipeline, "xidmet_flush_failures_total")
    wait_until(lambda: metric(pipeline, "xidmet_flush_failures_total") > failures, 60, "another try")
    ((kept,),) = pipeline.query("SELECT sum(events) FROM segments")
    assert kept < sent * 20
    for table in tables:
        clickhouse_server.execute(f"SYSTEM START MERGES {table}")
    pipeline.wait_for_events(sent * 20 + 1_000)
    wait_until(lambda: health(pipeline)["ready"], 60, "the worker to be ready again")
    pipeline.assert_equal_to_log()
