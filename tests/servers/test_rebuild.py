"""``xidmet rebuild`` on real Kafka and a real ClickHouse server, beside workers that go on, killed at every step."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from pipeline.catalogue import demonstration_catalogue
from pipeline.emitter import Emitter
from pipeline.generator import Generator
from sinks.clickhouse.client import connect
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import ROOT, PipelineRun, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

NOW = datetime.now(UTC)
PERIOD = ["--from", f"{NOW - timedelta(days=1):%Y-%m-%d}", "--to", f"{NOW + timedelta(days=2):%Y-%m-%d}"]
STEPS = ["tables", "forward", "copy", "fill", "check", "exchange", "exchanged", "catch up", "periods", "drop"]
EXCHANGING = STEPS[STEPS.index("exchanged") :]

# What a process that is killed runs: the command, and an end at the n-th report of a step.
KILLED = """
import os, signal, sys
import pipeline.cli.rebuild as command
from pipeline.cli.main import main
step, number = sys.argv[1], int(sys.argv[2])
run = command.work_on.run
def until(client, settings, work, report):
    left = number
    def reported(at, words):
        nonlocal left
        report(at, words)
        if at == step:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    return run(client, settings, work, reported)
command.work_on.run = until
sys.argv[1:] = sys.argv[3:]
main()
"""


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path, fold__segment_records=25)
    run.run("migrate")
    yield run
    run.stop()


def emit(run: PipelineRun, count: int, seed: int, batch: int = 5) -> None:
    kafka = run.settings.kafka
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=batch) as emitter:
        for event in events(count, seed):
            emitter.emit(event)
        emitter.flush()


def folded(run: PipelineRun, count: int = 4_000) -> None:
    """Events in many closed segments, a tenth of them sent a second time, to whatever partition."""
    run.start_worker()
    emit(run, count, seed=1)
    emit(run, count // 10, seed=1)
    run.wait_for_events(count + count // 10)


def rebuild(run: PipelineRun, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run.run("rebuild", *arguments, "--json"))
    return answer


def refused(run: PipelineRun, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(run.command("rebuild", *arguments), capture_output=True, timeout=120, cwd=ROOT)
    return done.returncode, done.stderr.decode()


def state(run: PipelineRun) -> dict[str, list[tuple[Any, ...]]]:
    """All that readers see, without the versions and identities of tables that writers may choose."""
    tables = {
        "minutes": "SELECT agency, service, minute, channel, outcome, stage, topic_id, partition, segment, hosting,"
        " events, duration_ms_sum, histogram, finalizeAggregation(users) FROM minutes FINAL ORDER BY ALL",
        "ledger": "SELECT * FROM ledger FINAL ORDER BY ALL",
        "coordinates": "SELECT * FROM coordinates FINAL ORDER BY ALL",
        "receipts": "SELECT * EXCEPT written_at FROM receipts FINAL ORDER BY ALL",
    }
    return {
        table: run.query(sql.replace("histogram,", "toString(mapSort(histogram)),")) for table, sql in tables.items()
    }


def leftovers(run: PipelineRun) -> set[str]:
    names = run.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%rebuild%'")
    return {name for (name,) in names} - {"rebuilds", "rebuild_segments"}


def damage(run: PipelineRun, *statements: str) -> None:
    client = connect(run.settings.clickhouse)
    for statement in statements:
        client.execute(f"{statement} SETTINGS mutations_sync = 1")
    client.close()


def closed_segment(run: PipelineRun) -> tuple[str, int, int, int]:
    """A closed segment in the middle: topic id, partition, start, end."""
    rows = run.query(
        "SELECT topic_id, partition, segment, next_offset FROM segments WHERE closed ORDER BY partition, segment"
    )
    assert len(rows) > 5
    return rows[len(rows) // 2]


def test_what_is_rebuilt_equals_what_was_there(pipeline: PipelineRun) -> None:
    folded(pipeline)
    before = state(pipeline)
    planned = rebuild(pipeline, *PERIOD, "--dry-run")
    assert planned["state"] == "planned"
    assert state(pipeline) == before
    outcome = rebuild(pipeline, *PERIOD)
    assert outcome["state"] == "done"
    assert outcome["segments"] == outcome["from_log"] == planned["segments"] > 10
    assert outcome["differences"] == []
    assert outcome["tables"] == ["ledger", "coordinates", "minutes"]
    assert state(pipeline) == before
    assert leftovers(pipeline) == set()
    assert pipeline.query("SELECT state FROM rebuilds FINAL") == [("done",)]
    emit(pipeline, 500, seed=2)
    pipeline.assert_equal_to_log()


def test_a_rebuild_under_load_is_seen_by_nobody(pipeline: PipelineRun) -> None:
    """The totals that a reader sees while tables are copied, filled and exchanged never go down."""
    folded(pipeline)
    stop = threading.Event()
    totals: list[tuple[int, int, int]] = []
    errors: list[Exception] = []

    def read() -> None:
        client = connect(pipeline.settings.clickhouse)
        try:
            while not stop.is_set():
                totals.append(
                    (
                        client.query("SELECT sum(uses) AS n FROM usage").one()[0],
                        client.query("SELECT count() AS n FROM events").one()[0],
                        client.query("SELECT count() AS n FROM coordinates FINAL").one()[0],
                    )
                )
        except Exception as error:
            errors.append(error)
        finally:
            client.close()

    def send() -> None:
        for seed in range(100, 200):
            if stop.is_set():
                return
            emit(pipeline, 200, seed)

    threads = [threading.Thread(target=work) for work in (read, send)]
    for thread in threads:
        thread.start()
    try:
        outcomes = [rebuild(pipeline, *PERIOD) for _ in range(3)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert all(outcome["state"] == "done" and outcome["differences"] == [] for outcome in outcomes)
    assert outcomes[2]["segments"] > outcomes[0]["segments"]
    assert len(set(totals)) > 3
    for earlier, later in pairwise(totals):
        assert all(a <= b for a, b in zip(earlier, later, strict=True)), (earlier, later)
    pipeline.assert_equal_to_log()
    assert leftovers(pipeline) == set()


@pytest.mark.parametrize("table", ["minutes", "ledger", "coordinates", "all"])
def test_damage_is_mended_and_told(pipeline: PipelineRun, table: str) -> None:
    folded(pipeline)
    before = state(pipeline)
    topic_id, partition, segment, end = closed_segment(pipeline)
    place = f"topic_id = '{topic_id}' AND partition = {partition}"
    inside = f"{place} AND offset >= {segment} AND offset < {end}"
    statements = {
        "minutes": f"ALTER TABLE minutes DELETE WHERE {place} AND segment = {segment} AND channel = 'web'",
        "ledger": f"ALTER TABLE ledger DELETE WHERE {inside} AND offset % 2 = 0",
        "coordinates": f"ALTER TABLE coordinates DELETE WHERE {inside} AND batch_index = 1",
    }
    damage(pipeline, *([statements[table]] if table in statements else statements.values()))
    assert {item.check for item in pipeline.audit().findings} <= set(statements)
    assert pipeline.audit().findings != []
    outcome = rebuild(pipeline, *PERIOD)
    named = {item["table"] for item in outcome["differences"]}
    assert named == ({table} if table in statements else set(statements))
    assert all(f"[{partition}] segment {segment}" in item["where"] for item in outcome["differences"])
    assert state(pipeline) == before
    assert pipeline.audit().findings == []
    assert rebuild(pipeline, *PERIOD)["differences"] == []
    pipeline.assert_equal_to_log()


def test_rows_of_no_segment_are_removed(pipeline: PipelineRun) -> None:
    folded(pipeline)
    before = state(pipeline)
    topic_id, partition, segment, _ = closed_segment(pipeline)
    values = f"'x', 'y', 60, '{topic_id}', {partition}, {segment + 1}, {segment + 2}, 7"
    damage_sql = "INSERT INTO minutes (agency, service, minute, topic_id, partition, segment, next_offset, events)"
    client = connect(pipeline.settings.clickhouse)
    client.execute(f"{damage_sql} SELECT {values}")
    client.close()
    assert [item.check for item in pipeline.audit().findings] == ["orphan_minutes"]
    rebuild(pipeline, *PERIOD)
    assert state(pipeline) == before
    assert pipeline.audit().findings == []


def test_a_further_dimension_is_rolled_out_to_the_past(pipeline: PipelineRun) -> None:
    folded(pipeline)
    totals = "SELECT agency, service, minute, channel, outcome, sum(uses), sum(duration_ms_sum) FROM usage GROUP BY ALL"
    before = Counter(pipeline.query(totals))
    pipeline.stop()
    pipeline.flags["fold.dimensions"] = "initiator,hosting"
    pipeline.start_worker()
    # The marker ends the open segments, so that the past is closed.
    markers = "SELECT count() FROM segments WHERE NOT closed AND rules NOT LIKE '%dimensions%' AND records > 0"
    wait_until(lambda: pipeline.query(markers) == [(0,)], 60, "the segments of the old rules to end", every=0.2)
    assert Counter(pipeline.query(totals)) == before
    assert pipeline.query("SELECT count() FROM usage WHERE hosting != ''") == [(0,)]
    emit(pipeline, 1_000, seed=5)
    pipeline.wait_for_events(5_400)
    outcome = rebuild(pipeline, *PERIOD)
    assert outcome["dimensions"] == ["hosting", "initiator"]
    assert outcome["differences"] == []
    report = pipeline.audit()
    assert report.findings == []
    for dimension in ("hosting", "initiator"):
        usage = Counter(dict(pipeline.query(f"SELECT {dimension}, sum(uses) FROM usage GROUP BY {dimension}")))
        # The minutes count repeats of other partitions again; by their places they are counted from the coordinates.
        by_place = (
            f"SELECT e.{dimension}, count() FROM coordinates AS c FINAL JOIN events AS e USING (event_hash)"
            " WHERE e.stage = '' GROUP BY 1"
        )
        assert usage == Counter(dict(pipeline.query(by_place)))
        assert len(usage) > 1
    pipeline.assert_equal_to_log()


@pytest.mark.parametrize(("step", "number"), [(step, 1) for step in STEPS] + [("copy", 3), ("exchanged", 2)])
def test_killed_at_any_step_it_leaves_the_live_tables_and_goes_on(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer, step: str, number: int
) -> None:
    folded(pipeline, 1_500)
    before = state(pipeline)
    closed = set(pipeline.query("SELECT topic_id, partition, segment FROM segments WHERE closed"))
    with kept_alive(clickhouse_server):
        topic_id, partition, segment, _ = closed_segment(pipeline)
        damage(
            pipeline,
            "ALTER TABLE minutes DELETE WHERE"
            f" topic_id = '{topic_id}' AND partition = {partition} AND segment = {segment}",
        )
        damaged = state(pipeline)
        flags = pipeline.command("rebuild", *PERIOD)[3:]
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, step, str(number), *flags], cwd=ROOT, capture_output=True, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        exchanging = step in EXCHANGING
        # Ledger and coordinates first: readers of minutes see the change at the third exchange, not before.
        seen = state(pipeline)
        assert seen == (before if step in ("catch up", "periods", "drop") else damaged)
        emit(pipeline, 300, seed=7)
        pipeline.wait_for_events(1_650 + 300)
        if not exchanging:
            code, words = refused(pipeline, *PERIOD)
            assert code == 7
            assert "--resume or --abandon" in words
        elif step == "catch up":
            code, words = refused(pipeline, "--abandon")
            assert code == 7
            assert "can only be finished" in words
        outcome = rebuild(pipeline, "--resume") if step != "drop" else rebuild(pipeline, *PERIOD)
    assert outcome["state"] == "done"
    after = state(pipeline)["minutes"]
    assert {row for row in before["minutes"] if row[6:9] in closed} <= set(after)
    pipeline.assert_equal_to_log()
    assert leftovers(pipeline) == set()
    code, words = refused(pipeline, "--resume")
    assert (code, "no unfinished rebuild" in words) == (7, True)


def delete_records(run: PipelineRun, before: dict[int, int]) -> None:
    """Retention, at once: the log of each partition begins at the given offset."""
    kafka = run.settings.kafka
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        admin.delete_records({TopicPartition(kafka.events_topic, number): offset for number, offset in before.items()})
    finally:
        admin.close()


def test_past_the_retention_minutes_come_from_the_ledger(pipeline: PipelineRun) -> None:
    folded(pipeline)
    before = state(pipeline)
    topic_id, partition, segment, _ = closed_segment(pipeline)
    rows = pipeline.query("SELECT partition, max(segment) FROM segments WHERE closed GROUP BY partition")
    newest = dict(rows)
    # -1 is the end: of this partition the log has nothing left.
    delete_records(pipeline, {number: newest[number] for number in newest if number != partition} | {partition: -1})
    damage(
        pipeline,
        f"ALTER TABLE minutes DELETE WHERE topic_id = '{topic_id}' AND partition = {partition} AND segment = {segment}",
    )
    code, words = refused(pipeline, *PERIOD, "--source", "log")
    assert code == 6
    assert "the log no longer has this segment" in words
    pipeline.flags["fold.dimensions"] = "hosting"
    outcome = rebuild(pipeline, *PERIOD)
    assert outcome["from_log"] == len(newest) - 1
    assert outcome["from_ledger"] == outcome["segments"] - outcome["from_log"] > 5
    assert [item["table"] for item in outcome["differences"]] == ["minutes"]
    assert pipeline.audit().findings == []
    by_place = (
        "SELECT e.hosting, count() FROM coordinates AS c FINAL JOIN events AS e USING (event_hash)"
        " JOIN (SELECT topic_id, partition, max(next_offset) AS closed_to FROM segments WHERE closed GROUP BY ALL) AS s"
        " ON s.topic_id = c.topic_id AND s.partition = c.partition WHERE e.stage = '' AND c.offset < s.closed_to"
        " GROUP BY 1"
    )
    usage = (
        "SELECT hosting, sum(events) FROM minutes FINAL WHERE stage = '' AND (topic_id, partition, segment) IN"
        " (SELECT topic_id, partition, segment FROM segments WHERE closed) GROUP BY hosting"
    )
    assert Counter(dict(pipeline.query(usage))) == Counter(dict(pipeline.query(by_place)))
    del pipeline.flags["fold.dimensions"]
    again = rebuild(pipeline, *PERIOD, "--source", "ledger")
    assert again["tables"] == ["minutes"]
    assert again["from_log"] == 0
    assert state(pipeline) == before


def test_segments_that_differ_from_their_receipts_are_not_exchanged(pipeline: PipelineRun) -> None:
    folded(pipeline)
    topic_id, partition, segment, _ = closed_segment(pipeline)
    # A receipt that says something else than the log, as after a restored backup.
    client = connect(pipeline.settings.clickhouse)
    client.execute(
        "INSERT INTO receipts SELECT * REPLACE (accepted + 1 AS accepted, events + 1 AS events, version + 2 AS version)"
        f" FROM receipts FINAL WHERE topic_id = '{topic_id}' AND partition = {partition} AND segment = {segment}"
    )
    client.close()
    before = state(pipeline)
    for source in ("log", "ledger"):
        code, words = refused(pipeline, *PERIOD, "--source", source)
        assert code == 10
        assert f"[{partition}] offsets {segment} to" in words
        assert "nothing was exchanged" in words
        assert state(pipeline) == before
        assert leftovers(pipeline) == set()
    assert pipeline.query("SELECT DISTINCT state FROM rebuilds FINAL") == [("abandoned",)]


def test_a_second_rebuild_is_refused_while_the_first_lives(pipeline: PipelineRun) -> None:
    folded(pipeline)
    stalled = subprocess.Popen(
        pipeline.command("rebuild", *PERIOD), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert stalled.stderr is not None
    for line in stalled.stderr:
        if line.startswith(b"forward"):
            break
    stalled.send_signal(signal.SIGSTOP)
    try:
        for arguments in (PERIOD, ["--resume"], ["--abandon"]):
            code, words = refused(pipeline, *arguments)
            assert code == 7
            assert "is being worked on by" in words
        assert leftovers(pipeline) != set()
    finally:
        stalled.send_signal(signal.SIGCONT)
        stalled.stderr.read()
        assert stalled.wait(60) == 0
        stalled.stderr.close()
    assert leftovers(pipeline) == set()
    pipeline.assert_equal_to_log()


def test_an_abandoned_rebuild_leaves_nothing_and_old_tables_are_kept_if_asked(pipeline: PipelineRun) -> None:
    folded(pipeline, 1_500)
    before = state(pipeline)
    flags = pipeline.command("rebuild", *PERIOD)[3:]
    killed = subprocess.run([sys.executable, "-c", KILLED, "check", "1", *flags], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert refused(pipeline, "--abandon")[0] == 0
    assert state(pipeline) == before
    assert leftovers(pipeline) == set()
    for _ in range(2):
        rebuild(pipeline, *PERIOD, "--keep-old")
        assert leftovers(pipeline) == {f"{table}_before_rebuild" for table in ("minutes", "ledger", "coordinates")}
    assert state(pipeline) == before
    pipeline.assert_equal_to_log()


def test_offsets_without_records_are_folded_again_alike(pipeline: PipelineRun) -> None:
    """Transactions leave markers and aborted messages in the log, which no reader sees."""
    kafka = pipeline.settings.kafka
    pipeline.start_worker()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id="t-" + kafka.events_topic)
    try:
        producer.init_transactions()
        for number in range(120):
            producer.begin_transaction()
            for event in events(4, seed=number):
                producer.send(kafka.events_topic, json.dumps(event).encode(), partition=number % 2)
            producer.flush()
            if number % 3:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    finally:
        producer.close()
    pipeline.wait_for_events(320)
    before = state(pipeline)
    outcome = rebuild(pipeline, *PERIOD)
    assert outcome["from_log"] > 5
    assert outcome["differences"] == []
    assert state(pipeline) == before
    pipeline.assert_equal_to_log()


def hours_with_repeats(run: PipelineRun, now: datetime) -> list[datetime]:
    """Four hours in two partitions; each hour but the first begins with the last events of the hour before, again."""
    kafka = run.settings.kafka
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=back) for back in (4, 3, 2, 1)]
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for partition in (0, 1):
            last: list[dict[str, Any]] = []
            for number, hour in enumerate(hours):
                made = list(
                    Generator(demonstration_catalogue(), 10 * number + partition).events(
                        hour, hour + timedelta(minutes=50), 60
                    )
                )
                for place, event in enumerate([*last, *made]):
                    stamp = round(hour.timestamp() * 1000) + 51 * 60_000 + place
                    producer.send(
                        kafka.events_topic, json.dumps(event).encode(), partition=partition, timestamp_ms=stamp
                    )
                last = made[-20:]
        producer.flush()
    finally:
        producer.close()
    return hours


def test_the_period_is_that_of_the_records_and_repeats_are_recognised_at_its_border(pipeline: PipelineRun) -> None:
    pipeline.flags["fold.segment_records"] = 100
    pipeline.start_worker()
    hours = hours_with_repeats(pipeline, datetime.now(UTC))
    pipeline.wait_for_events(2 * (4 * 60 + 3 * 20))
    before = state(pipeline)
    assert pipeline.query("SELECT sum(duplicates), count() FROM segments") == [(2 * 3 * 20, 8)]
    damage(pipeline, "ALTER TABLE minutes DELETE WHERE channel = 'web'")
    third = ["--from", f"{hours[2]:%Y-%m-%dT%H:%M:%S}", "--to", f"{hours[3]:%Y-%m-%dT%H:%M:%S}"]
    outcome = rebuild(pipeline, *third)
    assert (outcome["segments"], outcome["from_log"]) == (2, 2)
    mended = {
        (topic_id, partition, segment)
        for topic_id, partition, segment, first in pipeline.query(
            "SELECT topic_id, partition, segment, first_timestamp FROM segments"
        )
        if hours[2].timestamp() <= first / 1000 < hours[3].timestamp()
    }
    after = state(pipeline)
    assert [row for row in after["minutes"] if row[6:9] in mended] == [
        row for row in before["minutes"] if row[6:9] in mended
    ]
    assert [row for row in after["minutes"] if row[6:9] not in mended] == [
        row for row in before["minutes"] if row[6:9] not in mended and row[3] != "web"
    ]
    outcome = rebuild(pipeline, *PERIOD)
    assert outcome["segments"] == pipeline.query("SELECT countIf(closed) FROM segments")[0][0] == 6


def test_a_rebuild_goes_on_in_the_middle_of_a_run_with_the_memory_of_what_it_made(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    pipeline.flags["fold.segment_records"] = 100
    pipeline.start_worker()
    hours_with_repeats(pipeline, datetime.now(UTC))
    pipeline.wait_for_events(2 * (4 * 60 + 3 * 20))
    before = state(pipeline)
    flags = pipeline.command("rebuild", *PERIOD)[3:]
    with kept_alive(clickhouse_server):
        killed = subprocess.run([sys.executable, "-c", KILLED, "check", "1", *flags], cwd=ROOT, capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        # The live places are damaged, the shadow has them: a memory from the live ones would count repeats.
        damage(
            pipeline,
            "ALTER TABLE rebuild_segments DELETE WHERE segment > 0",
            "ALTER TABLE minutes_rebuild DELETE WHERE segment > 0 AND segment < 200",
            "ALTER TABLE coordinates DELETE WHERE offset < 100",
        )
        outcome = rebuild(pipeline, "--resume")
    assert outcome["segments"] == 6
    assert {item["table"] for item in outcome["differences"]} == {"coordinates"}
    assert state(pipeline) == before
    assert pipeline.audit().findings == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_any_moment_under_load_it_can_be_finished(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer, seed: int
) -> None:
    folded(pipeline, 2_000)
    chance = random.Random(seed)
    stop = threading.Event()

    def send() -> None:
        for number in range(1_000, 1_200):
            if stop.is_set():
                return
            emit(pipeline, 100, number)

    sender = threading.Thread(target=send)
    with kept_alive(clickhouse_server):
        sender.start()
        try:
            for _ in range(4):
                process = subprocess.Popen(
                    pipeline.command("rebuild", *(["--resume"] if leftovers(pipeline) else PERIOD)),
                    cwd=ROOT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
                assert process.stderr is not None
                process.stderr.readline()
                # Not to wait for anything: the moment is by chance.
                stop.wait(chance.uniform(0, 1.2))
                process.kill()
                process.communicate(timeout=60)
        finally:
            stop.set()
            sender.join()
        if "rebuild_claim" in leftovers(pipeline):
            rebuild(pipeline, "--resume")
        assert rebuild(pipeline, *PERIOD)["state"] == "done"
    pipeline.assert_equal_to_log()
    assert leftovers(pipeline) == set()
