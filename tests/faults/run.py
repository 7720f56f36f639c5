"""The pipeline of one scenario: topics, database and group of its own, workers with plans, and the final account."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pipeline.cli.admin import migrate_all
from pipeline.runtime.endpoint import open_client
from sinks.clickhouse.client import Client
from tests.faults.plans import Plan
from tests.support.pipeline_run import ROOT, PipelineRun, clean_environment
from tests.support.ports import free_port
from tests.support.process import process_state
from tests.support.waiting import wait_until

T = TypeVar("T")

WAIT_SECONDS: Final = 120.0
SESSION_SECONDS: Final = 4


def scaled_settings(events: int) -> dict[str, object]:
    """Settings of workers with which so many events make some dozens of segments and flushes, whatever their number;
    a message holds a hundred events."""
    return {
        "kafka__session_timeout_seconds": SESSION_SECONDS,
        "kafka__request_timeout_seconds": 10,
        "kafka__max_poll_records": max(4, events // 5_000),
        "fold__segment_records": max(8, events // 3_500),
        "worker__flush_seconds": 0.2,
        "worker__flush_events": max(1_000, events // 20),
        "worker__max_pending_events": max(1_500, events // 14),
        "clickhouse__query_timeout_seconds": 20,
    }


class Worker:
    """One worker process and its plan."""

    def __init__(self, process: subprocess.Popen[bytes], plan: Plan, port: int, log: Path) -> None:
        self.process = process
        self.plan = plan
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self._mark = Path(plan.mark)

    @property
    def alive(self) -> bool:
        """Whether the process is there, stopped or not."""
        return self.process.poll() is None

    def wait_reached(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until it is about to act; for ``stop`` until it stands still, for ``kill`` until it is gone."""
        self._wait(self._mark.exists, seconds, "to reach the place of its plan")

    def wait_stopped(self) -> None:
        """Wait until it was stopped by SIGSTOP."""
        self._wait(lambda: process_state(self.process.pid) == "T", WAIT_SECONDS, "to stand still")

    def wait_passed(self) -> None:
        """Wait until the flush in which it acted has ended, well or not."""
        self._wait(Path(f"{self._mark}.passed").exists, WAIT_SECONDS, "to end the flush of its plan")

    def wait_ended(self) -> int:
        """Wait until it is gone; its exit code."""
        return self.process.wait(WAIT_SECONDS)

    def release(self) -> None:
        """Let a worker go on that holds."""
        Path(f"{self._mark}.release").touch()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def _wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        def fulfilled() -> object:
            return condition() or (self.process.poll() is not None)

        wait_until(fulfilled, seconds, f"worker {self.process.pid} {what}")
        if not condition():
            raise RuntimeError(f"the worker ended with {self.process.returncode} instead {what}; see {self.log}")


class FaultRun(PipelineRun):
    """A :class:`PipelineRun` whose workers have plans."""

    def __init__(self, bootstrap: str, clickhouse_url: str, directory: Path, **settings: object) -> None:
        super().__init__(bootstrap, clickhouse_url, directory, **settings)
        self.planned: list[Worker] = []

    def migrate(self) -> None:
        """Make schema and topics."""
        migrate_all(self.settings)

    def start(self, plan: Plan | None = None, environment: dict[str, str] | None = None, **flags: Any) -> Worker:
        """Start a worker, not yet ready; its log is in ``directory``."""
        number = len(self.workers)
        port = free_port()
        own = self.flags | {key.replace("__", "."): value for key, value in flags.items()} | {"web.port": port}
        marked = msgspec.structs.replace(plan or Plan(), mark=str(self.directory / f"worker-{number}.mark"))
        log = self.directory / f"worker-{number}.log"
        command = [sys.executable, "-m", "tests.faults.worker", msgspec.json.encode(marked).decode()]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *(f"{key}={value}" for key, value in own.items())],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=clean_environment() | (environment or {}),
            )
        self.workers.append(process)
        worker = Worker(process, marked, port, log)
        self.planned.append(worker)
        return worker

    def durable_events(self) -> int:
        """Events for which the receipts vouch."""
        return int(self.query("SELECT sum(events) FROM segments")[0][0])

    def ask(self, question: Callable[[Client], T]) -> T:
        """As :class:`PipelineRun` does; an embedded ClickHouse is asked through the worker that has it open."""
        if not self.settings.clickhouse.url.startswith("chdb:"):
            return super().ask(question)
        with closing(open_client(self.settings.clickhouse)) as client:
            return question(client)

    def stop_all(self) -> list[int]:
        """End all workers by SIGTERM; exit codes of those that had to be ended and did not plan to be killed."""
        ended = [worker for worker in self.planned if worker.alive]
        self.stop()
        return [worker.process.returncode for worker in ended if worker.plan.action != "kill"]


def stopwatch() -> Callable[[], float]:
    """Seconds since now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
