"""Hours and days of workers that come, die, stall and wake up, against a count of the topic by a plain consumer."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.catalogue import demonstration_catalogue
from pipeline.generator import Generator
from sinks.clickhouse.client import connect
from sinks.clickhouse.period_sql import HOURS, days_of
from sinks.clickhouse.periods import due
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(290)]

ZONE = "Asia/Baku"
COUNT = 4_000
REPEATED = 400


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(
        kafka_server.bootstrap,
        clickhouse_database,
        tmp_path,
        fold__segment_records=40,
        periods__refresh_seconds=0.2,
        periods__sweep_seconds=3,
    )
    run.run("migrate")
    yield run
    run.stop()


def send(run: PipelineRun, seed: int) -> None:
    """Events of four days that are over, a tenth of them once more in another partition."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    made = list(Generator(demonstration_catalogue(), seed).events(end - timedelta(days=4), end, COUNT))
    kafka = run.settings.kafka
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=5)
    try:
        for number, event in enumerate(made):
            producer.send(kafka.events_topic, json.dumps(event).encode(), partition=number % kafka.partitions)
        for number, event in enumerate(made[:REPEATED]):
            producer.send(kafka.events_topic, json.dumps(event).encode(), partition=(number + 1) % kafka.partitions)
        producer.flush()
    finally:
        producer.close()


def distinct(run: PipelineRun) -> list[dict[str, Any]]:
    """Each event on the topic once."""
    kafka = run.settings.kafka
    partitions = [TopicPartition(kafka.events_topic, number) for number in range(kafka.partitions)]
    found = {}
    with closing(KafkaConsumer(bootstrap_servers=kafka.bootstrap)) as consumer:
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=1_000).values():
                for event in (json.loads(record.value) for record in records):
                    found[event["source"], event["id"]] = event
    return list(found.values())


def test_hours_and_days_are_those_of_the_log_whatever_happens_to_the_workers(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    """A join, a kill, a stall beyond the session time-out and a zombie that wakes up, a ClickHouse that restarts."""
    total = COUNT + REPEATED
    with kept_alive(clickhouse_server):
        first = pipeline.start_worker()
        send(pipeline, seed=21)
        pipeline.wait_for_events(1)
        second = pipeline.start_worker()
        send(pipeline, seed=22)
        first.kill()
        pipeline.start_worker()
        pipeline.wait_for_events(total)
        second.send_signal(signal.SIGSTOP)
        pipeline.wait_for_events(2 * total)
        send(pipeline, seed=23)
        second.send_signal(signal.SIGCONT)
        pipeline.wait_for_events(3 * total)
        wait_until(lambda: up_to_date(pipeline), 90, "hours and days to be up to date", every=0.5)
    truth = distinct(pipeline)
    assert len(truth) == 3 * COUNT
    report = pipeline.audit()
    assert (report.findings, report.events) == ([], 3 * total)
    assert report.repeats > 0
    assert told(pipeline, "hourly", "toString(hour)") == counted(truth, ZoneInfo("UTC"), "%Y-%m-%d %H:00:00")
    assert told(pipeline, "daily", "toString(day)") == counted(truth, ZoneInfo(ZONE), "%Y-%m-%d")
    assert pipeline.query("SELECT DISTINCT source FROM daily") == [("ledger",)]


def up_to_date(run: PipelineRun) -> bool:
    """Whether each stored version is that of the rows; asked of the same functions as the workers ask."""
    now = datetime.now(UTC).timestamp()
    start = now - 10 * 86_400
    with closing(connect(run.settings.clickhouse)) as client:
        return not any(due(client, kind, start, now, now, 300) for kind in (HOURS, days_of(ZONE)))


def told(run: PipelineRun, view: str, period: str) -> dict[tuple[str, str], tuple[int, int]]:
    rows = run.query(f"SELECT agency, {period}, sum(uses), uniqCombined64Merge(users) FROM {view} GROUP BY ALL")
    return {(agency, at): (uses, people) for agency, at, uses, people in rows}


def counted(events: list[dict[str, Any]], zone: ZoneInfo, form: str) -> dict[tuple[str, str], tuple[int, int]]:
    uses: Counter[tuple[str, str]] = Counter()
    people: dict[tuple[str, str], set[str]] = {}
    for event in events:
        if event["type"] != "xidmet.service.used.v1":
            continue
        key = event["data"]["agency"], datetime.fromisoformat(event["time"]).astimezone(zone).strftime(form)
        uses[key] += 1
        people.setdefault(key, set()).update([event["data"]["user"]] if "user" in event["data"] else [])
    return {key: (number, len(people[key])) for key, number in uses.items()}
