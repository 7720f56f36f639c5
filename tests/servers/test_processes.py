"""``xidmet worker --processes N``: several processes of one command, on real servers."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import SettingsError
from tests.servers.test_pipeline import emit
from tests.support import ClickHouseServer, KafkaServer
from tests.support.keeping import kept_alive
from tests.support.pipeline_run import ROOT, PipelineRun, clean_environment
from tests.support.ports import free_port
from tests.support.process import process_state
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

EVENTS = 20_000
SECONDS = 120.0


class Command:
    """``xidmet worker --processes 2``, and what it says."""

    def __init__(self, run: PipelineRun, *arguments: str) -> None:
        self.port = free_port()
        run.flags["web.port"] = self.port
        self.log_path = run.directory / "worker-0.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                run.command("worker", *arguments), stdout=log, stderr=log, cwd=ROOT, env=clean_environment()
            )
        run.workers.append(self.process)

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, "{}"

    def health(self, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
        code, text = self.get(path)
        return code, json.loads(text)

    def metrics(self) -> dict[str, float]:
        """Sample, with the values of its labels, to value."""
        return {
            ",".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }

    def total(self, name: str) -> float:
        return sum(value for sample, value in self.metrics().items() if sample.partition(",")[0] == name)

    def pids(self) -> list[int]:
        """The processes that the command started."""
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [pid for pid in map(int, found.stdout.split()) if process_state(pid) != "Z"]

    def wait_until_ready(self, processes: int = 2) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            code, answer = self.health()
            return code == 200 and len(answer["processes"]) == processes and answer["assigned"] == 4

        wait_until(ready, SECONDS, f"the processes to be ready\n{self.log[-2000:]}", every=0.2)


@pytest.fixture
def run(
    kafka_server: KafkaServer, clickhouse_server: ClickHouseServer, clickhouse_database: str, tmp_path: Path
) -> Iterator[PipelineRun]:
    run = PipelineRun(
        kafka_server.bootstrap,
        clickhouse_database,
        tmp_path,
        kafka__partitions=4,
        worker__audit_seconds=2,
        periods__refresh_seconds=0.5,
    )
    run.run("migrate")
    # As a library ClickHouse ends with a client that goes away in the middle of an insert, as a killed worker does.
    with kept_alive(clickhouse_server):
        try:
            yield run
        finally:
            run.stop()


def test_two_processes_count_exactly_though_one_is_killed_and_end_together(run: PipelineRun) -> None:
    command = Command(run, "--processes", "2")
    command.wait_until_ready()
    _, status = command.get("/api/status")
    owners = [part["process"] for part in json.loads(status)["partitions"]]
    assert sorted(owners) == [1, 1, 2, 2]
    before = command.pids()
    assert len(before) == 2
    emit(run, EVENTS, seed=1, batch=1)
    wait_until(lambda: command.total("xidmet_events_total") > 0, SECONDS, "the first events")
    os.kill(before[0], signal.SIGKILL)
    emit(run, EVENTS, seed=2, batch=50)
    run.wait_for_events(2 * EVENTS)
    run.assert_equal_to_log()
    command.wait_until_ready()
    after = command.pids()
    assert len(after) == 2
    assert len(set(before) & set(after)) == 1
    assert command.metrics()["xidmet_process_restarts_total"] == 1
    command.process.terminate()
    assert command.process.wait(60) == 0, command.log
    assert not [pid for pid in after if process_state(pid) != "Z"]
    assert "Traceback" not in command.log
    lines = [line for line in command.log.splitlines() if line.startswith("20")]
    assert {line.split("[")[1].split("]")[0] for line in lines} == {"parent", "worker 1", "worker 2"}
    run.assert_equal_to_log()


def test_one_address_tells_the_sums_and_one_process_recomputes_hours_and_days(run: PipelineRun) -> None:
    command = Command(run, "--processes", "2")
    command.wait_until_ready()
    emit(run, EVENTS, seed=3, batch=20)
    run.wait_for_events(EVENTS)
    wait_until(lambda: command.total("xidmet_events_total") == EVENTS, SECONDS, "all events in the sum")
    metrics = command.metrics()
    assert metrics["xidmet_freshness_seconds_count"] == EVENTS
    ends = {name.split(",")[1]: value for name, value in metrics.items() if name.startswith("xidmet_durable_offset,")}
    assert set(ends) == {"0", "1", "2", "3"}
    assert command.total("xidmet_records_total") == sum(ends.values()) >= EVENTS / 20
    assert command.total("xidmet_lag_records") == 0
    assert (metrics["xidmet_ready"], metrics["xidmet_processes"]) == (1, 2)
    code, answer = command.health("/healthz")
    assert (code, answer["alive"], answer["state"]) == (200, True, "consuming")
    assert [one["assigned"] for one in answer["processes"]] == [2, 2]
    assert json.loads(command.get("/api/overview")[1])["totals"]["accepted"] == EVENTS
    assert command.get("/")[0] == 200
    assert json.loads(command.get("/api/status")[1])["freshness_p50_ms"] > 0
    if promtool := shutil.which("promtool"):
        text = command.get("/metrics")[1].encode()
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
        alone = b"_created"
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if line and alone not in line]
        assert not complaints
    # Hours and days follow what both processes wrote, and the parent is the one that recomputed them.
    wait_until(
        lambda: run.query("SELECT sum(events) FROM hours FINAL")[0][0] == EVENTS, SECONDS, "hours to follow both"
    )
    wait_until(lambda: command.metrics()["xidmet_periods_last_refresh_timestamp_seconds"] > 0, SECONDS, "a round")
    run.assert_equal_to_log()


def test_a_process_that_stands_still_is_told_and_the_counters_do_not_fall(run: PipelineRun) -> None:
    # However slow the machine is: else the other process takes the partitions and counts what it folds again.
    run.flags["kafka.session_timeout_seconds"] = 120
    command = Command(run, "--processes", "2")
    command.wait_until_ready()
    emit(run, 1_000, seed=4, batch=10)
    run.wait_for_events(1_000)
    wait_until(lambda: command.total("xidmet_events_total") == 1_000, SECONDS, "all events in the sum")
    os.kill(command.pids()[1], signal.SIGSTOP)
    code, answer = command.health()
    assert code == 503
    assert "has not answered" in answer["reason"]
    metrics = command.metrics()
    assert sum(value for name, value in metrics.items() if name.startswith("xidmet_events_total,")) == 1_000
    assert (metrics["xidmet_ready"], metrics["xidmet_processes"]) == (0, 1)
    wait_until(lambda: command.health("/healthz")[0] == 503, SECONDS, "the hanging process to be told", every=1.0)
    os.kill(command.pids()[1], signal.SIGCONT)
    command.wait_until_ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_all_with_0_also_right_after_the_start(run: PipelineRun, number: signal.Signals) -> None:
    run.flags["worker.processes"] = 3
    command = Command(run)
    wait_until(lambda: len(command.pids()) == 3, SECONDS, "three processes")
    pids = command.pids()
    command.process.send_signal(number)
    assert command.process.wait(60) == 0, command.log
    assert not [pid for pid in pids if process_state(pid) != "Z"]


def test_processes_end_by_themselves_when_the_command_is_killed(run: PipelineRun) -> None:
    command = Command(run, "--processes", "2")
    command.wait_until_ready()
    emit(run, 500, seed=5, batch=1)
    pids = command.pids()
    command.process.kill()
    command.process.wait(10)
    wait_until(lambda: not [pid for pid in pids if process_state(pid) != "Z"], SECONDS, "the processes to end")
    Command(run, "--processes", "2").wait_until_ready()
    run.wait_for_events(500)
    run.assert_equal_to_log()


def test_a_process_without_schema_ends_all_with_exit_code_8_and_the_cure(
    kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path
) -> None:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path)
    command = Command(run, "--processes", "2")
    assert command.process.wait(SECONDS) == 8, command.log
    assert "xidmet (worker" in command.log
    assert "run xidmet migrate" in command.log
    assert "Traceback" not in command.log


def test_more_processes_than_partitions_are_told(run: PipelineRun) -> None:
    command = Command(run, "--processes", "5")
    wait_until(lambda: "more processes than partitions" in command.log, SECONDS, "the warning")

    def settled() -> bool:
        code, answer = command.health()
        idle = [one for one in answer.get("processes", ()) if one["reason"] == "no partitions are assigned"]
        return (code, answer.get("assigned"), answer.get("state"), len(idle)) == (503, 4, "unassigned", 1)

    wait_until(settled, SECONDS, "one process to be without partitions", every=0.2)


def test_chdb_takes_one_process(tmp_path: Path) -> None:
    run = PipelineRun("127.0.0.1:1", f"chdb:{tmp_path / 'clickhouse'}", tmp_path)
    command = Command(run, "--processes", "2")
    assert command.process.wait(60) == SettingsError.exit_code
    assert "set worker.processes to 1" in command.log
