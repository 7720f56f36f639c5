"""The commands in the order of a first day, each a process of its own, against a real Kafka and a real ClickHouse."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.catalogue import demonstration_catalogue
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.catalogues import store_catalogue
from tests.conftest import TopicName
from tests.support import KafkaServer
from tests.support.ports import free_port
from tests.support.sink_suite.data import connected
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

EVENTS = 3_000
COUNT_SECONDS = 90
STOP_SECONDS = 20
XIDMET = (sys.executable, "-m", "pipeline.cli")
FAUST = (str(Path(sys.executable).with_name("faust")), "-A", "pipeline.app")

TOPICS = ("EVENTS", "REJECTED", "CATALOGUE", "FIGURES")


@dataclass
class Machine:
    """One installation: a directory to work in, an environment that says where the servers are."""

    directory: Path
    database: str
    environment: dict[str, str]
    until: datetime = field(default_factory=lambda: datetime.now(UTC))

    def run(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*XIDMET, *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        """What a command that succeeds prints."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def emit(self, seed: int, count: int = EVENTS) -> None:
        # The same moments whenever it is called: by default they end with the current minute.
        span = ("--from", f"{self.until - timedelta(days=1):%Y-%m-%dT%H:%M}", "--until", f"{self.until:%Y-%m-%dT%H:%M}")
        lines = self.ok("generate", "--count", str(count), "--seed", str(seed), *span).encode()
        counts = json.loads(self.ok("emit", "--json", "--batch", "50", stdin=lines))
        assert counts == {"events_sent": count, "events_acknowledged": count}

    def counted(self) -> int:
        with connected(ClickHouseSettings(url=self.database)) as client:
            return int(client.query("SELECT sum(events) AS n FROM segments").one()[0])

    @contextmanager
    def worker(self, *command: str) -> Iterator["Worker"]:
        """A worker of its own process group; killed at the end if it still runs."""
        port = free_port()
        log = self.directory / f"worker-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment | {"XIDMET_WEB__PORT": str(port)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Worker(process, log, f"http://127.0.0.1:{port}")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(STOP_SECONDS)

    def wait_for(self, worker: "Worker", events: int) -> None:
        def counted() -> bool:
            assert worker.process.poll() is None, worker.log.read_text()
            return self.counted() >= events

        wait_until(counted, COUNT_SECONDS, f"{events} events to be counted", every=0.2)
        assert self.counted() == events


@dataclass
class Worker:
    process: "subprocess.Popen[bytes]"
    log: Path
    url: str

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@pytest.fixture
def machine(tmp_path: Path, kafka_server: KafkaServer, clickhouse_database: str, topic_name: TopicName) -> Machine:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XIDMET_")}
    settings = {
        "XIDMET_KAFKA__BOOTSTRAP": kafka_server.bootstrap,
        "XIDMET_KAFKA__GROUP": topic_name("group"),
        "XIDMET_KAFKA__EVENTS_TOPIC": topic_name("usage.events"),
        "XIDMET_KAFKA__REJECTED_TOPIC": topic_name("usage.rejected"),
        "XIDMET_KAFKA__CATALOGUE_TOPIC": topic_name("catalogue.changes"),
        "XIDMET_KAFKA__FIGURES_TOPIC": topic_name("usage.figures"),
        "XIDMET_CLICKHOUSE__URL": clickhouse_database,
        "XIDMET_WEB__PORT": "0",
        "TMPDIR": str(tmp_path),
    }
    return Machine(tmp_path, clickhouse_database, kept | settings)


def test_migrating_creates_schema_and_topics_once(machine: Machine) -> None:
    first = json.loads(machine.ok("migrate", "--json"))
    assert len(first["migrations"]) >= 5
    topics = [machine.environment[f"XIDMET_KAFKA__{name}_TOPIC"] for name in TOPICS]
    assert first["topics"] == topics
    assert json.loads(machine.ok("migrate", "--json")) == {"migrations": [], "topics": []}
    assert machine.ok("migrate").splitlines() == ["migrations: nothing to do", "topics: nothing to do"]


def test_the_doctor_finds_what_is_missing_and_then_all_well(machine: Machine) -> None:
    def found() -> tuple[int, dict[str, Any]]:
        done = machine.run("doctor", "--json")
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}

    missing = {"kafka", "dead letters", "catalogue changes", "figures", "schema"}
    code, checks = found()
    assert code == 1
    assert {name for name, check in checks.items() if not check["ok"]} == missing
    assert all("xidmet migrate" in checks[name]["words"] for name in missing)
    machine.ok("migrate")
    code, checks = found()
    assert (code, [check for check in checks.values() if not check["ok"]]) == (0, [])
    assert set(checks) >= {"python", "catalogue", "kafka", "dead letters", "clickhouse", "schema", "clock", "disk"}


def test_events_go_from_the_generator_to_the_ranking_and_a_worker_stops_in_order(machine: Machine) -> None:
    machine.ok("migrate")
    machine.emit(seed=1)
    with machine.worker(*XIDMET, "worker") as worker:
        machine.wait_for(worker, EVENTS)
        spoiled = b"not json\n{}\n\n"
        machine.ok("emit", stdin=spoiled)
        machine.emit(seed=1)
        machine.wait_for(worker, 2 * EVENTS + 2)
        assert json.loads(worker.get("/readyz"))["ready"] is True
        events = [
            sample.value
            for family in text_string_to_metric_families(worker.get("/metrics"))
            for sample in family.samples
            if sample.name == "xidmet_events_total"
        ]
        assert sum(events) >= EVENTS
        assert worker.stop() == 0, worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
    report = json.loads(machine.ok("audit", "--json"))
    assert report["findings"] == []
    assert report["ledger"] == EVENTS
    # The same events again, in whatever partition, are repeats.
    assert report["duplicates"] + report["repeats"] == EVENTS
    assert report["rejected"] == 2
    answer = json.loads(machine.ok("top", "--json", "--period", "7d"))
    uses = [item["uses"] for item in answer["ranking"]]
    assert len(uses) == 10
    assert uses == sorted(uses, reverse=True)
    lines = machine.ok("query", "SELECT count() AS n FROM events").splitlines()
    assert lines == ["n", str(EVENTS)]
    reasons = json.loads(
        machine.ok("query", "--json", "SELECT sumMap(rejected) AS reasons FROM segments WHERE rejected_total > 0")
    )
    assert reasons == [{"reasons": {"not_json": 1, "not_a_cloudevent": 1}}]


def test_the_faust_command_runs_the_same_worker(machine: Machine) -> None:
    machine.ok("migrate")
    machine.emit(seed=2)
    with machine.worker(*FAUST, "worker") as worker:
        machine.wait_for(worker, EVENTS)
        assert json.loads(worker.get("/readyz"))["ready"] is True
        assert worker.stop() == 0, worker.log.read_text()
    machine.ok("audit")
    with machine.worker(*XIDMET, "worker") as worker:
        machine.emit(seed=3, count=500)
        machine.wait_for(worker, EVENTS + 500)
        assert worker.stop() == 0, worker.log.read_text()
    report = json.loads(machine.ok("audit", "--json"))
    assert (report["accepted"], report["findings"]) == (EVENTS + 500, [])


def test_a_worker_creates_what_is_missing_if_it_is_told_to(machine: Machine) -> None:
    with machine.worker(*XIDMET, "worker", "--migrate") as worker:
        wait_until(lambda: worker.log.exists() and "partitions assigned" in worker.log.read_text(), 60, "the worker")
        machine.emit(seed=4, count=200)
        machine.wait_for(worker, 200)
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(STOP_SECONDS) == 0, worker.log.read_text()


def ends(machine: Machine, code: int, *arguments: str) -> str:
    """Run a worker that must end by itself with an exit code; the last line of its log."""
    with machine.worker(*XIDMET, *arguments, "worker") as worker:
        assert worker.process.wait(60) == code, worker.log.read_text()
    said = worker.log.read_text()
    assert "Traceback" not in said, said
    return said.splitlines()[-1]


def test_a_worker_without_schema_ends_with_exit_code_8_and_the_cure(machine: Machine) -> None:
    line = ends(machine, 8)
    assert line.startswith("xidmet: ")
    assert line.endswith("has no schema; run xidmet migrate")


def test_a_worker_whose_catalogue_contradicts_its_version_ends_with_exit_code_4(machine: Machine) -> None:
    machine.ok("migrate")
    catalogue = demonstration_catalogue()
    with connected(ClickHouseSettings(url=machine.database)) as client:
        store_catalogue(client, catalogue)
    other = msgspec.structs.replace(catalogue, agencies=catalogue.agencies[:-1])
    path = machine.directory / "other.json"
    path.write_text(other.json, "utf-8")
    line = ends(machine, 4, "--set", f"catalogue.path={path}")
    assert line.startswith(f"xidmet: catalogue version {catalogue.version} was used before with other content")


def test_a_worker_with_a_faulty_setting_ends_with_exit_code_3(machine: Machine) -> None:
    assert "did you mean bootstrap?" in ends(machine, 3, "--set", "kafka.bootstarp=x")


def test_a_command_in_a_pipe_that_closes_early_leaves_no_traceback(machine: Machine) -> None:
    command = [*XIDMET, "generate", "--count", "20000"]
    with subprocess.Popen(
        command, cwd=machine.directory, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"')
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) != 0
