"""A worker with a wrong catalogue stops before it has turned the log into dead letters, and nothing is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.emitter import Emitter
from pipeline.errors import RejectLimitError
from tests.support import KafkaServer
from tests.support.pipeline_run import PipelineRun, events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

WINDOW = 400
BEFORE = 300
AFTER = 2_000


@pytest.fixture
def pipeline(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(
        kafka_server.bootstrap,
        clickhouse_database,
        tmp_path,
        fold__segment_records=30,
        rejected__window_events=WINDOW,
        # Small flushes, so that a restart that had forgotten would write many before it stops.
        kafka__max_poll_records=20,
        worker__flush_events=20,
        worker__max_pending_events=40,
    )
    run.run("migrate")
    yield run
    run.stop()


def emit(run: PipelineRun, count: int, seed: int) -> None:
    kafka = run.settings.kafka
    with Emitter(kafka.bootstrap, kafka.events_topic, batch_events=1) as emitter:
        for event in events(count, seed):
            emitter.emit(event)
        emitter.flush()


def use_catalogue(run: PipelineRun, catalogue: Catalogue) -> None:
    path = run.directory / f"catalogue-{catalogue.version}.json"
    path.write_text(catalogue.json)
    run.flags["catalogue.path"] = str(path)


def test_a_wrong_catalogue_stops_the_worker_and_the_right_one_counts_everything(pipeline: PipelineRun) -> None:
    base = demonstration_catalogue()
    use_catalogue(pipeline, Catalogue(version=base.version + 1, agencies=()))
    worker = pipeline.start_worker()
    emit(pipeline, BEFORE, seed=1)
    pipeline.wait_for_events(BEFORE)  # below the window: refused, as events of unknown agencies are
    emit(pipeline, AFTER, seed=2)
    assert worker.wait(90) == RejectLimitError.exit_code, pipeline.logs()
    said = pipeline.logs().splitlines()[-1]
    for words in ("rejected.stop_share = 0.8", "unknown_agency", f"catalogue version {base.version + 1}"):
        assert words in said
    assert "Traceback" not in pipeline.logs()
    refused = pipeline.audit().events
    assert BEFORE <= refused < WINDOW

    # A supervisor that starts it again and again grants it no other window, although segments were closed.
    assert pipeline.query("SELECT count() > 4 FROM segments WHERE closed") == [(1,)]
    for _ in range(2):
        worker = pipeline.start_worker()
        assert worker.wait(90) == RejectLimitError.exit_code, pipeline.logs()
        assert refused <= (refused := pipeline.audit().events) < WINDOW
    letters = {row["letter"] for row in json.loads(pipeline.run("rejected", "list", "--json"))}
    assert len(letters) == refused

    # The right one: what stands under the rules of the wrong one, up to the marker, is refused and then replayed.
    use_catalogue(pipeline, Catalogue(version=base.version + 2, agencies=base.agencies))
    worker = pipeline.start_worker()
    pipeline.wait_for_events(BEFORE + AFTER)
    report = pipeline.audit()
    assert (report.findings, report.accepted + report.rejected) == ([], BEFORE + AFTER)
    assert refused <= report.rejected <= BEFORE + AFTER
    done = json.loads(pipeline.run("rejected", "replay", "--reason", "unknown_agency", "--json"))
    assert done == {"chosen": report.rejected, "sent": report.rejected, "skipped": {}}
    pipeline.wait_for_events(BEFORE + AFTER + report.rejected)
    counted = pipeline.audit()
    assert (counted.findings, counted.accepted, counted.ledger) == ([], BEFORE + AFTER, BEFORE + AFTER)
    assert counted.rejected == report.rejected
    assert worker.poll() is None
    wait_until(lambda: json.loads(pipeline.run("rejected", "list", "--json")) == [], 60, "no open letters")


def test_a_limit_of_one_lets_everything_become_dead_letters(pipeline: PipelineRun) -> None:
    base = demonstration_catalogue()
    pipeline.flags["rejected.stop_share"] = 1
    use_catalogue(pipeline, Catalogue(version=base.version + 1, agencies=()))
    worker = pipeline.start_worker()
    emit(pipeline, 3 * WINDOW, seed=1)
    pipeline.wait_for_events(3 * WINDOW)
    assert (pipeline.audit().rejected, worker.poll()) == (3 * WINDOW, None)
