"""The same event again, from everywhere it can come: what each view says, on a real Kafka and ClickHouse."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from sinks.clickhouse.client import connect
from sinks.clickhouse.periods import recompute
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import PipelineRun, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

SEGMENT = 40
MEMORY = 2


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(
        kafka_server.bootstrap,
        clickhouse_database,
        tmp_path,
        fold__segment_records=SEGMENT,
        fold__memory_segments=MEMORY,
        periods__refresh_seconds=0.2,
    )
    run.run("migrate")
    yield run
    run.stop()


@pytest.fixture
def long_ago() -> dict[str, Any]:
    """An event of an hour and a day that are closed, alone in them."""
    return event_at(datetime.now(UTC) - timedelta(days=4), seed=11)


def event_at(time: datetime, seed: int) -> dict[str, Any]:
    (event,) = events(1, seed)
    return event | {"time": time.isoformat().replace("+00:00", "Z")}


def send(run: PipelineRun, partition: int, *messages: list[dict[str, Any]]) -> None:
    """One message for each list, by a producer of its own."""
    kafka = run.settings.kafka
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for message in messages:
            producer.send(kafka.events_topic, json.dumps(message).encode(), partition=partition)
        producer.flush()
    finally:
        producer.close()


def told(run: PipelineRun, event: dict[str, Any]) -> tuple[int, int]:
    """How often ``usage`` and how often ``events`` count the event; it is alone in its minute."""
    moment = event["time"].rstrip("Z")
    minute = f"toStartOfMinute(toDateTime64('{moment}', 3, 'UTC'))"
    ((minutes,),) = run.query(f"SELECT sum(uses) FROM usage WHERE minute = {minute}")
    ((ledger,),) = run.query(f"SELECT count() FROM events WHERE event_id = '{event['id']}'")
    return minutes, ledger


def periods(run: PipelineRun, event: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(uses, source) of the event's hour and of its day, in which it is alone."""
    moment = event["time"].rstrip("Z")
    time = f"toDateTime64('{moment}', 3, 'UTC')"
    hour = f"hourly WHERE hour = toStartOfHour({time})"
    day = f"daily WHERE zone = 'Asia/Baku' AND day = toDate({time}, 'Asia/Baku')"
    # One after the other: together they would come in any order.
    return [row for period in (hour, day) for row in run.query(f"SELECT sum(uses), any(source) FROM {period}")]


def wait_for_periods(run: PipelineRun, event: dict[str, Any], uses: int, source: str) -> None:
    wait_until(
        lambda: periods(run, event) == [(uses, source)] * 2, 60, f"hour and day to say {uses} from {source}", every=0.2
    )


def counted(run: PipelineRun) -> tuple[int, int]:
    report = run.audit()
    assert report.findings == []
    return report.duplicates, report.repeats


def test_inside_the_memory_an_event_counts_once_everywhere_from_the_start(
    pipeline: PipelineRun, long_ago: dict[str, Any], clickhouse_server: ClickHouseServer
) -> None:
    worker = pipeline.start_worker()
    # Twice in one message.
    send(pipeline, 0, [long_ago, long_ago])
    pipeline.wait_for_events(2)
    assert (told(pipeline, long_ago), counted(pipeline)) == ((1, 1), (1, 0))
    # Later in the partition, from another producer.
    send(pipeline, 0, [long_ago])
    pipeline.wait_for_events(3)
    assert (told(pipeline, long_ago), counted(pipeline)) == ((1, 1), (2, 0))
    # In a later segment, as far back as the memory reaches.
    send(pipeline, 0, *([event] for event in events(SEGMENT * MEMORY, seed=12)))
    send(pipeline, 0, [long_ago])
    pipeline.wait_for_events(4 + SEGMENT * MEMORY)
    assert (told(pipeline, long_ago), counted(pipeline)) == ((1, 1), (3, 0))
    # Twice after a restart: the memory is read back.
    worker.terminate()
    assert worker.wait(30) == 0
    later = event_at(datetime.now(UTC) - timedelta(days=9), seed=13)
    worker = pipeline.start_worker()
    send(pipeline, 0, [later])
    pipeline.wait_for_events(5 + SEGMENT * MEMORY)
    with kept_alive(clickhouse_server):
        worker.kill()
        worker.wait(30)
        pipeline.start_worker()
        send(pipeline, 0, [later], [later])
        pipeline.wait_for_events(7 + SEGMENT * MEMORY)
    assert (told(pipeline, later), counted(pipeline)) == ((1, 1), (5, 0))
    for event in (long_ago, later):
        wait_for_periods(pipeline, event, 1, "ledger")


def test_outside_the_memory_closed_periods_are_exact_where_minutes_are_not(
    pipeline: PipelineRun, long_ago: dict[str, Any]
) -> None:
    pipeline.start_worker()
    send(pipeline, 0, [long_ago])
    # Another partition has another memory.
    send(pipeline, 1, [long_ago])
    pipeline.wait_for_events(2)
    assert (told(pipeline, long_ago), counted(pipeline)) == ((2, 1), (0, 1))
    wait_for_periods(pipeline, long_ago, 1, "ledger")
    # Farther back than the memory reaches, after the hour was closed.
    send(pipeline, 0, *([event] for event in events(SEGMENT * (MEMORY + 1), seed=14)))
    send(pipeline, 0, [long_ago])
    pipeline.wait_for_events(3 + SEGMENT * (MEMORY + 1))
    assert (told(pipeline, long_ago), counted(pipeline)) == ((3, 1), (0, 2))
    wait_for_periods(pipeline, long_ago, 1, "ledger")


def test_a_repeat_counts_twice_until_its_hour_is_closed_and_reconcile_says_so(pipeline: PipelineRun) -> None:
    worker = pipeline.start_worker()
    now = datetime.now(UTC)
    event = event_at(now, seed=15)
    send(pipeline, 0, [event])
    send(pipeline, 1, [event])
    pipeline.wait_for_events(2)
    worker.terminate()
    assert worker.wait(60) == 0
    client = connect(pipeline.settings.clickhouse)
    try:
        recompute(client, now, now + timedelta(seconds=1), "Asia/Baku", now)
        assert periods(pipeline, event) == [(2, "minutes")] * 2
        changes = recompute(client, now, now + timedelta(seconds=1), "Asia/Baku", now + timedelta(days=2))
    finally:
        client.close()
    assert [(item.table, item.before, item.after, item.repeats, item.cause) for item in changes] == [
        ("hours", 2, 1, 1, "closed"),
        ("days", 2, 1, 1, "closed"),
    ]
    assert periods(pipeline, event) == [(1, "ledger")] * 2
    output = json.loads(
        pipeline.run("reconcile", "--from", f"{now:%Y-%m-%d}", "--to", f"{now + timedelta(days=1):%Y-%m-%d}", "--json")
    )
    assert output["changes"] == []
