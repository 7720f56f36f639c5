"""A worker with a wrong catalogue stops before it has turned the log into dead letters, and nothing is lost."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.emitter import Emitter
from pipeline.errors import BrokerError, RejectLimitError, StoreError
from sinks.clickhouse.client import connect
from streams.topics import group_members
from tests.support import KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, clean_environment, events
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


def ended(run: PipelineRun, code: int, *arguments: str, stdin: str = "") -> str:
    """Run a command that ends with an exit code; what it said on standard error."""
    done = subprocess.run(
        run.command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=clean_environment(),
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def wait_for_members(run: PipelineRun, count: int) -> None:
    """Until Kafka counts so many workers to the group; one that died stays until its session has timed out."""
    wait_until(lambda: group_members(run.settings.kafka) == count, 90, f"{count} members")


def test_mended_rules_begin_where_the_worker_stopped(pipeline: PipelineRun) -> None:
    base = demonstration_catalogue()
    wrong, right = base.version + 1, base.version + 2
    use_catalogue(pipeline, Catalogue(version=wrong, agencies=()))
    emit(pipeline, BEFORE + AFTER, seed=1)
    worker = pipeline.start_worker()
    assert worker.wait(90) == RejectLimitError.exit_code, pipeline.logs()
    assert "xidmet rules apply" in pipeline.logs().splitlines()[-1]
    refused = pipeline.audit().rejected
    assert 0 < refused < WINDOW

    use_catalogue(pipeline, Catalogue(version=right, agencies=base.agencies))
    wait_for_members(pipeline, 0)
    assert group_members(structs.replace(pipeline.settings.kafka, group="nobody-ever-joined")) == 0
    shown = json.loads(pipeline.run("rules", "show", "--json"))
    assert shown["rules"]["catalogue_version"] == right
    begun = [item for item in shown["partitions"] if item["in_force"] is not None]
    assert begun
    assert all(item["differences"] == [f"catalogue_version {wrong}, here {right}"] for item in begun)
    assert sum(item["next_offset"] or 0 for item in shown["partitions"]) == refused
    assert sum(item["log_end"] for item in shown["partitions"]) == BEFORE + AFTER

    # Only after a yes.
    planned = json.loads(pipeline.run("rules", "apply", "--dry-run", "--json"))["partitions"]
    assert {item["outcome"] for item in planned} <= {"same", "would apply"}
    assert "nothing was changed" in ended(pipeline, 2, "rules", "apply", stdin="n\n")
    assert json.loads(pipeline.run("rules", "show", "--json")) == shown
    done = json.loads(pipeline.run("rules", "apply", "--yes", "--json"))["partitions"]
    assert [(item["partition"], item["outcome"]) for item in done if item["outcome"] != "same"] == [
        (item["partition"], "applied") for item in begun
    ]
    now = json.loads(pipeline.run("rules", "show", "--json"))["partitions"]
    assert all(item["differences"] == [] for item in now)
    # A marker stands at the end, lest one of the old rules be the last.
    assert sum(item["log_end"] for item in now) == BEFORE + AFTER + len(begun)
    again = json.loads(pipeline.run("rules", "apply", "--yes", "--json"))["partitions"]
    assert {item["outcome"] for item in again} == {"same"}

    worker = pipeline.start_worker()
    pipeline.wait_for_events(BEFORE + AFTER)
    report = pipeline.audit()
    assert (report.findings, report.rejected, report.accepted) == ([], refused, BEFORE + AFTER - refused)
    wait_for_members(pipeline, 1)
    assert "1 workers are in group" in ended(pipeline, BrokerError.exit_code, "rules", "apply", "--yes")
    sent = json.loads(pipeline.run("rejected", "replay", "--reason", "unknown_agency", "--json"))
    assert sent == {"chosen": refused, "sent": refused, "skipped": {}}
    pipeline.wait_for_events(BEFORE + AFTER + refused)
    counted = pipeline.audit()
    assert (counted.findings, counted.accepted, counted.ledger) == ([], BEFORE + AFTER, BEFORE + AFTER)
    assert (counted.rejected, worker.poll()) == (refused, None)


def test_a_partition_with_rows_beyond_its_receipt_keeps_its_rules(pipeline: PipelineRun) -> None:
    """As a worker that was killed in the middle of a flush leaves it; a worker mends it."""
    base = demonstration_catalogue()
    use_catalogue(pipeline, base)
    emit(pipeline, BEFORE, seed=1)
    worker = pipeline.start_worker()
    pipeline.wait_for_events(BEFORE)
    worker.terminate()
    assert worker.wait(60) == 0, pipeline.logs()
    wait_for_members(pipeline, 0)
    with closing(connect(pipeline.settings.clickhouse)) as client:
        ((partition, segment),) = client.query(
            "SELECT partition, max(segment) AS newest FROM segments WHERE NOT closed AND accepted > 0"
            " GROUP BY partition ORDER BY partition LIMIT 1"
        ).rows
        client.execute(
            f"ALTER TABLE receipts DELETE WHERE partition = {partition} AND segment = {segment}"
            " AND next_offset > segment SETTINGS mutations_sync = 2"
        )
        # Merged or not, an opening was there: write it as the worker did.
        client.execute(
            "INSERT INTO receipts (topic, topic_id, partition, segment, next_offset, closed, rules, version)"
            f" SELECT topic, topic_id, partition, {segment}, {segment}, false, any(rules), {2 * segment} FROM receipts"
            " GROUP BY topic, topic_id, partition HAVING partition = " + str(partition)
        )
    use_catalogue(pipeline, Catalogue(version=base.version + 1, agencies=base.agencies))
    said = ended(pipeline, StoreError.exit_code, "rules", "apply", "--yes")
    assert f"1 partitions keep their rules; the first: partition {partition}: " in said
    assert "start a worker" in said
    shown = json.loads(pipeline.run("rules", "show", "--json"))["partitions"]
    assert [item["partition"] for item in shown if item["differences"]] == [partition]

    pipeline.start_worker()
    pipeline.wait_for_events(BEFORE)
    report = pipeline.audit()
    assert (report.findings, report.accepted, report.ledger) == ([], BEFORE, BEFORE)


def test_a_limit_of_one_lets_everything_become_dead_letters(pipeline: PipelineRun) -> None:
    base = demonstration_catalogue()
    pipeline.flags["rejected.stop_share"] = 1
    use_catalogue(pipeline, Catalogue(version=base.version + 1, agencies=()))
    worker = pipeline.start_worker()
    emit(pipeline, 3 * WINDOW, seed=1)
    pipeline.wait_for_events(3 * WINDOW)
    assert (pipeline.audit().rejected, worker.poll()) == (3 * WINDOW, None)
