"""The whole pipeline on real Kafka and a real ClickHouse server, with processes that come, go, stall and die."""

import json
import re
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.contract.reasons import Reason
from pipeline.emitter import Emitter
from pipeline.errors import LogMismatchError
from pipeline.generator.spoiled import spoiled
from sinks.clickhouse.client import connect
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import PipelineRun, events
from tests.support.skipping import need_program
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path, fold__segment_records=40)
    run.run("migrate")
    yield run
    run.stop()


def emit(run: PipelineRun, count: int, seed: int, batch: int = 20) -> None:
    kafka = run.settings.kafka
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=batch) as emitter:
        for event in events(count, seed):
            emitter.emit(event)
        emitter.flush()


def test_what_is_sent_is_counted_once_whatever_happens_to_the_workers(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    """A join, a kill, a stall beyond the session time-out (a zombie with a batch in hand), a graceful leave."""
    with kept_alive(clickhouse_server):
        come_and_go(pipeline)
        pipeline.assert_equal_to_log()


def come_and_go(pipeline: PipelineRun) -> None:
    first = pipeline.start_worker()
    emit(pipeline, 8_000, seed=1)
    pipeline.wait_for_events(1)
    second = pipeline.start_worker()
    emit(pipeline, 8_000, seed=2)
    first.kill()
    emit(pipeline, 8_000, seed=3)
    third = pipeline.start_worker()
    pipeline.wait_for_events(20_000)
    emit(pipeline, 8_000, seed=4)
    second.send_signal(signal.SIGSTOP)
    pipeline.wait_for_events(32_000)
    emit(pipeline, 8_000, seed=5)
    second.send_signal(signal.SIGCONT)
    pipeline.wait_for_events(40_000)
    third.terminate()
    assert third.wait(30) == 0
    emit(pipeline, 4_000, seed=6)


def test_a_clickhouse_that_dies_and_returns_loses_nothing(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    worker = pipeline.start_worker()
    emit(pipeline, 5_000, seed=1)
    pipeline.wait_for_events(1)
    clickhouse_server.kill()
    emit(pipeline, 5_000, seed=2)
    page = f"http://127.0.0.1:{pipeline.flags['web.port']}"
    wait_until(lambda: not ready(page), 30, "the worker to say that it is not ready")
    clickhouse_server.start()
    wait_until(lambda: ready(page), 60, "the worker to be ready again")
    pipeline.assert_equal_to_log()
    assert worker.poll() is None


def test_a_rebalance_while_clickhouse_is_away_outlasts_every_time_out(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    """Faust bounds the handling of an assignment by the request time-out; ClickHouse may be away for longer."""
    pipeline.flags["kafka.request_timeout_seconds"] = 3
    pipeline.start_worker()
    page = f"http://127.0.0.1:{pipeline.flags['web.port']}"
    leaving = pipeline.start_worker()
    wait_until(lambda: status(page)["assigned"] == 2, 60, "the workers to share the partitions")
    emit(pipeline, 2_000, seed=1)
    pipeline.wait_for_events(2_000)
    clickhouse_server.kill()
    leaving.kill()
    emit(pipeline, 2_000, seed=2)
    wait_until(lambda: status(page)["assigned"] == 0, 60, "the assignment of all partitions to begin")
    # A try every 0.2 seconds at least: ten seconds and more, while Faust's time-out is six, the session time-out.
    tries = failures(page) + 50
    wait_until(lambda: failures(page) >= tries, 120, "fifty more tries to read the positions")
    clickhouse_server.start()
    pipeline.assert_equal_to_log()
    assert pipeline.audit().accepted == 4_000


def status(page: str) -> dict[str, Any]:
    """The worker's status; nothing assigned as long as it does not listen."""
    from pipeline.runtime.demo import fetch_json

    try:
        answer: dict[str, Any] = fetch_json(page + "/api/status")
    except OSError:
        return {"assigned": -1}
    return answer


def failures(page: str) -> float:
    with urllib.request.urlopen(page + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r"^xidmet_flush_failures_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def ready(page: str) -> bool:
    from pipeline.runtime.demo import fetch_json

    return bool(fetch_json(page + "/readyz")["ready"])


def test_committed_transactions_are_counted_and_aborted_ones_are_not(pipeline: PipelineRun) -> None:
    pipeline.start_worker()
    kafka = pipeline.settings.kafka
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"t-{uuid.uuid4().hex}")
    try:
        producer.init_transactions()
        for number, event in enumerate(events(300, seed=1)):
            if number % 10 == 0:
                producer.begin_transaction()
            producer.send(kafka.events_topic, json.dumps(event).encode(), key=event["id"].encode())
            if number % 10 == 9:
                producer.abort_transaction() if number % 20 == 9 else producer.commit_transaction()
    finally:
        producer.close()
    pipeline.assert_equal_to_log()
    assert pipeline.audit().accepted == 150


def test_refused_events_are_dead_letters_and_their_neighbours_are_counted(pipeline: PipelineRun) -> None:
    pipeline.start_worker()
    kafka = pipeline.settings.kafka
    good = list(events(40, seed=1))
    reasons = [reason for reason in Reason if reason not in (Reason.EMPTY_MESSAGE, Reason.NOT_JSON, Reason.EMPTY_BATCH)]
    array = [json.dumps(event).encode() for event in good[:20]]
    for place, reason in enumerate(reasons):
        array.insert(2 * place, spoiled(good[30], reason))
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        producer.send(kafka.events_topic, b"[" + b",".join(array) + b"]", key=b"batch").get(timeout=30)
        for reason in (Reason.EMPTY_MESSAGE, Reason.NOT_JSON, Reason.EMPTY_BATCH):
            producer.send(kafka.events_topic, spoiled(good[31], reason)).get(timeout=30)
        # As large as the broker takes: its dead letter, with headers, is larger still.
        producer.send(kafka.events_topic, b"x" * 1_040_000).get(timeout=30)
    finally:
        producer.close()
    pipeline.wait_for_events(20 + len(Reason) + 1)
    letters = dead_letters(pipeline, len(Reason) + 1)
    assert sorted(letter["xidmet-reason"].decode() for letter in letters) == sorted([*Reason, Reason.NOT_JSON])
    assert any(letter["value"] == b"x" * 1_040_000 for letter in letters)
    by_reason = {letter["xidmet-reason"].decode(): letter for letter in letters}
    kept = by_reason[Reason.UNKNOWN_AGENCY]
    assert kept["value"] == spoiled(good[30], Reason.UNKNOWN_AGENCY)
    assert kept["xidmet-topic"] == kafka.events_topic.encode()
    assert int(kept["xidmet-batch-index"]) == 2 * reasons.index(Reason.UNKNOWN_AGENCY)
    masked = by_reason[Reason.PERSONAL_IDENTIFIER]
    assert masked["xidmet-masked"] == b"true"
    assert len(masked["value"]) == len(spoiled(good[30], Reason.PERSONAL_IDENTIFIER))
    report = pipeline.audit()
    assert (report.findings, report.accepted, report.rejected) == ([], 20, len(Reason) + 1)
    ((by_sql,),) = pipeline.query("SELECT sumMap(rejected) FROM segments")
    assert by_sql == {reason.value: 1 + (reason is Reason.NOT_JSON) for reason in Reason}


def dead_letters(run: PipelineRun, count: int) -> list[dict[str, Any]]:
    kafka = run.settings.kafka
    consumer = KafkaConsumer(
        kafka.rejected_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None
    )
    letters: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    try:
        while len(letters) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                letters += [{**dict(record.headers), "key": record.key, "value": record.value} for record in records]
    finally:
        consumer.close()
    return letters


def test_events_from_kcat_in_structured_batch_and_binary_mode_are_counted(
    pipeline: PipelineRun, kafka_server: KafkaServer
) -> None:
    kcat = need_program("kcat")
    pipeline.start_worker()
    topic = pipeline.settings.kafka.events_topic
    one, two, three, four = events(4, seed=9)
    binary = ["-H", "content-type=application/json"]
    for name in ("specversion", "id", "source", "type", "time"):
        binary += ["-H", f"ce_{name}={four[name]}"]
    for content, options in (
        (json.dumps(one), []),
        (json.dumps([two, three]), ["-H", "content-type=application/cloudevents-batch+json"]),
        (json.dumps(four["data"]), binary),
    ):
        subprocess.run(
            [kcat, "-P", "-b", kafka_server.bootstrap, "-t", topic, *options],
            input=content.encode(),
            check=True,
            timeout=60,
        )
    pipeline.wait_for_events(4)
    ids = {id_ for (id_,) in pipeline.query("SELECT event_id FROM events")}
    assert ids == {event["id"] for event in (one, two, three, four)}
    assert pipeline.audit().findings == []


def test_a_topic_made_again_is_another_log(pipeline: PipelineRun) -> None:
    from kafka import KafkaAdminClient

    worker = pipeline.start_worker()
    emit(pipeline, 1_000, seed=1)
    pipeline.wait_for_events(1_000)
    worker.terminate()
    worker.wait(30)
    kafka = pipeline.settings.kafka
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        admin.delete_topics([kafka.events_topic])
        wait_until(lambda: kafka.events_topic not in admin.list_topics(), 30, "the topic to be gone")
    finally:
        admin.close()
    pipeline.run("migrate")
    pipeline.start_worker()
    emit(pipeline, 700, seed=2)
    pipeline.wait_for_events(1_700)
    report = pipeline.audit()
    assert (report.findings, report.accepted) == ([], 1_700)
    assert pipeline.query("SELECT uniqExact(topic_id) FROM segments") == [(2,)]


def test_a_new_catalogue_takes_effect_although_a_segment_is_open(pipeline: PipelineRun, tmp_path: Path) -> None:
    worker = pipeline.start_worker()
    (event,) = events(1, seed=1)
    event["data"]["agency"], event["data"]["service"] = "new-agency", "new-service"
    kafka = pipeline.settings.kafka

    def send(id_: str) -> None:
        with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=1) as emitter:
            emitter.emit(event | {"id": id_}, key=b"one partition")

    send("before")
    pipeline.wait_for_events(1)
    assert pipeline.audit().rejected == 1
    worker.terminate()
    assert worker.wait(30) == 0
    path = tmp_path / "catalogue.json"
    path.write_text(with_agency(demonstration_catalogue(), "new-agency", "new-service").json)
    pipeline.flags["catalogue.path"] = str(path)
    pipeline.start_worker()
    wait_until(
        lambda: pipeline.query("SELECT count() FROM segments WHERE NOT closed") == [(0,)], 60, "the old segment to end"
    )
    send("after")
    pipeline.wait_for_events(2)
    report = pipeline.audit()
    assert (report.findings, report.accepted, report.rejected) == ([], 1, 1)
    assert pipeline.query("SELECT event_id FROM events") == [("after",)]


def with_agency(base: Catalogue, agency: str, service: str) -> Catalogue:
    from pipeline.catalogue import Agency, Names, Service

    names = Names(az="Yeni", en="New", ru="Новое")
    added = Agency(agency, names, (Service(service, names),))
    return Catalogue(version=base.version + 1, agencies=(*base.agencies, added))


def test_imported_records_of_x_road_go_through_the_whole_pipeline(pipeline: PipelineRun, tmp_path: Path) -> None:
    lines = []
    for number in range(200):
        common = {
            "messageId": f"m-{number}",
            "clientXRoadInstance": "AZ",
            "clientMemberClass": "GOV",
            "clientMemberCode": "100",
            "clientSubsystemCode": "portal",
            "serviceXRoadInstance": "AZ",
            "serviceMemberClass": "GOV",
            "serviceMemberCode": "200",
            "serviceCode": "getPension" if number % 4 else "getIncome",
            "succeeded": number % 10 != 0,
        }
        start = 1_700_000_000_000 + number * 1_000
        for side, skew, duration in (("Client", 0, 90), ("Producer", 20, 50)):
            lines.append(
                common
                | {"securityServerType": side, "requestInTs": start + skew, "responseOutTs": start + skew + duration}
            )
    source, catalogue = tmp_path / "records.ndjson", tmp_path / "catalogue.json"
    source.write_text("\n".join(json.dumps(line) for line in lines))
    summary = json.loads(pipeline.run("import", "xroad", str(source), "--write-catalogue", str(catalogue), "--json"))
    assert (summary["records"], summary["uses"], summary["events_sent"]) == (400, 200, 200)
    pipeline.flags["catalogue.path"] = str(catalogue)
    pipeline.start_worker()
    pipeline.wait_for_events(200)
    pipeline.run("import", "xroad", str(source))
    pipeline.wait_for_events(400)
    rows = pipeline.query(
        "SELECT agency, service, count(), countIf(outcome = 'failure'), min(duration_ms), max(duration_ms),"
        " any(consumer) FROM events GROUP BY agency, service ORDER BY service"
    )
    assert rows == [
        ("AZ/GOV/200", "getIncome", 50, 10, 50, 50, "AZ/GOV/100/portal"),
        ("AZ/GOV/200", "getPension", 150, 10, 50, 50, "AZ/GOV/100/portal"),
    ]
    report = pipeline.audit()
    assert (report.findings, report.ledger) == ([], 200)


def test_a_log_that_is_shorter_than_the_receipts_stops_the_worker(pipeline: PipelineRun) -> None:
    """A broker that lost its tail, for instance by an unclean election, must not be counted on top of what it had."""
    worker = pipeline.start_worker()
    emit(pipeline, 500, seed=1, batch=1)
    pipeline.wait_for_events(500)
    worker.terminate()
    assert worker.wait(30) == 0
    client = connect(pipeline.settings.clickhouse)
    try:
        # As if more had been read than the log holds now.
        client.execute(
            "INSERT INTO receipts SELECT * REPLACE (next_offset + 100000 AS next_offset, true AS closed,"
            " (next_offset + 100000) * 2 + 1 AS version) FROM receipts FINAL"
        )
    finally:
        client.close()
    worker = pipeline.start_worker()
    assert worker.wait(60) == LogMismatchError.exit_code
    assert "truncated or replaced" in pipeline.logs()
