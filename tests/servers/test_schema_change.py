"""A schema that is changed under running workers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.emitter import Emitter
from sinks.clickhouse.client import Column, connect
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import ROOT, PipelineRun, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path, fold__segment_records=40)
    run.run("migrate")
    yield run
    run.stop()


def emit(run: PipelineRun, count: int, seed: int) -> None:
    kafka = run.settings.kafka
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=10) as emitter:
        for event in events(count, seed):
            emitter.emit(event)
        emitter.flush()


def test_an_older_worker_goes_on_with_what_it_has_and_takes_nothing_new(
    pipeline: PipelineRun, clickhouse_server: ClickHouseServer
) -> None:
    """A migration must fit the rows of the version before; with its next assignment an older worker ends, code 8."""
    first, second = pipeline.start_worker(), pipeline.start_worker()
    emit(pipeline, 2_000, seed=1)
    pipeline.wait_for_events(2_000)
    client = connect(pipeline.settings.clickhouse)
    values = {"number": ("UInt32", 9_999), "name": ("String", "9999_future.sql"), "checksum": ("String", "0" * 64)}
    client.insert("migrations", [Column(key, type_, [value]) for key, (type_, value) in values.items()])
    client.close()
    emit(pipeline, 2_000, seed=2)
    pipeline.wait_for_events(4_000)
    assert (first.poll(), second.poll()) == (None, None)
    with kept_alive(clickhouse_server):
        first.kill()
        wait_until(lambda: second.poll() is not None, 90, "the other worker to end at its assignment")
    assert second.returncode == 8, pipeline.logs()
    assert "9999_future.sql, which this version does not know; use a newer xidmet" in pipeline.logs()
    report = pipeline.audit()
    assert report.findings == []
    assert report.events == 4_000


def test_the_settings_for_power_cuts_can_be_made_and_workers_go_on(pipeline: PipelineRun) -> None:
    """The statements of docs/guarantees.md."""
    (block,) = re.findall(r"^```sql\n(.*?)^```$", (ROOT / "docs" / "guarantees.md").read_text("utf-8"), re.M | re.S)
    client = connect(pipeline.settings.clickhouse)
    for statement in block.strip().split("\n"):
        client.execute(statement.removesuffix(";"))
    client.close()
    (found,) = pipeline.query(
        "SELECT groupArraySorted(9)(name) FROM system.tables WHERE database = currentDatabase()"
        " AND create_table_query LIKE '%fsync_after_insert = 1, fsync_part_directory = 1%'"
    )
    assert found == (["coordinates", "ledger", "minutes", "receipts"],)
    pipeline.start_worker()
    emit(pipeline, 500, seed=1)
    pipeline.assert_equal_to_log()
