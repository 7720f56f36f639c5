"""Messages that Kafka takes and clients choke on."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.emitter import Emitter
from tests.support import KafkaServer
from tests.support.pipeline_run import PipelineRun, events
from tests.support.skipping import need_program

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path)
    run.run("migrate")
    yield run
    run.stop()


def test_a_header_whose_name_is_no_text_or_that_has_no_value_stops_nobody(pipeline: PipelineRun) -> None:
    kcat = need_program("kcat")
    kafka = pipeline.settings.kafka
    worker = pipeline.start_worker()
    good, bad, *rest = events(60, seed=1)
    bad["data"]["agency"] = "no-such-agency"
    command = [kcat, "-P", "-b", kafka.bootstrap, "-t", kafka.events_topic]
    for event, header in ((good, b"\xff\xfe=a"), (good | {"id": "other"}, b"traceparent"), (bad, b"content-type")):
        subprocess.run([*command, "-H", header], input=json.dumps(event).encode(), check=True, timeout=60)
        with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=1) as emitter:
            for _ in range(20):
                if rest:
                    emitter.emit(rest.pop())
            emitter.flush()
    pipeline.wait_for_events(61)
    report = pipeline.audit()
    assert (report.findings, report.accepted, report.rejected) == ([], 60, 1)
    assert worker.poll() is None
