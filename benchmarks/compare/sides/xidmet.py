"""xidmet, the full path, as its command line starts it: decoded, validated, deduplicated, counted, dead letters on.

Settings are the defaults but for the addresses, the names of topics and group, and the catalogue of the load.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.compare.load import Truth
from benchmarks.compare.measuring import Course, Watch, follow
from benchmarks.compare.servers import ROOT, Servers
from tests.support.ports import free_port

_COMMAND: Final = (sys.executable, "-m", "pipeline.cli")
_STOP_SECONDS: Final = 100.0


@dataclass(frozen=True, slots=True)
class Xidmet:
    """``xidmet worker`` with so many processes on one topic; ``directory`` takes its log."""

    name: str
    topic: str
    processes: int
    catalogue: Path
    directory: Path

    def run(self, servers: Servers, limit_seconds: float) -> Course:
        """One round, and its proof: counts by the views, and the audit.

        Raises:
            RuntimeError: a worker ended, a total is wrong or the audit has findings.
            TimeoutError: it was too slow.
        """
        database = servers.fresh_database()
        environment = self._environment(servers, database)
        worker: subprocess.Popen[bytes] | None = None
        try:
            self._command(environment, "migrate")
            with servers.client(database) as client:
                watch = Watch({"broker": [servers.kafka.pid], "clickhouse": [servers.clickhouse.pid]})
                worker = started = self._start(environment)

                def side() -> list[int]:
                    if started.poll() is not None:
                        raise RuntimeError(f"the worker ended with {started.returncode}:\n{self._log_tail()}")
                    return [started.pid]

                course = follow(watch, side, lambda: visible(client), servers.truth.events, limit_seconds)
                self._stop(worker)
                check(client, servers.truth)
            report = json.loads(self._command(environment, "audit", "--json"))
            if report["findings"] or report["events"] != servers.truth.events:
                raise RuntimeError(f"the audit of {self.name} finds: {json.dumps(report)[:2000]}")
            return course
        finally:
            if worker is not None:
                self._stop(worker)
            servers.drop_database(database)

    def _environment(self, servers: Servers, database: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("XIDMET_")}
        return clean | {
            "XIDMET_KAFKA__BOOTSTRAP": servers.kafka.bootstrap,
            "XIDMET_KAFKA__GROUP": database,
            "XIDMET_KAFKA__EVENTS_TOPIC": self.topic,
            "XIDMET_KAFKA__REJECTED_TOPIC": f"usage.rejected.{database}",
            "XIDMET_CLICKHOUSE__URL": servers.clickhouse.database_url(database),
            "XIDMET_CATALOGUE__PATH": str(self.catalogue),
            "XIDMET_LOG__FORMAT": "text",
        }

    def _command(self, environment: dict[str, str], *arguments: str) -> str:
        done = subprocess.run(
            [*_COMMAND, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise RuntimeError(f"xidmet {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    @property
    def _log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log_path.open("wb") as log:
            return subprocess.Popen(
                [*_COMMAND, "worker", "--processes", str(self.processes)],
                env=environment | {"XIDMET_WEB__PORT": str(free_port())},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @staticmethod
    def _stop(worker: subprocess.Popen[bytes]) -> None:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def _log_tail(self) -> str:
        return self._log_path.read_text("utf-8", "replace")[-2500:]


def visible(client: Any) -> tuple[float, int]:
    """What the receipts vouch for: they are written after everything that an analyst sees."""
    (count,) = client.execute("SELECT sum(events) FROM receipts FINAL")[0]
    return time.time(), int(count)


def check(client: Any, truth: Truth) -> None:
    """Compare the views with what was written.

    Raises:
        RuntimeError: they differ.
    """
    rows = client.execute("SELECT agency, service, count() FROM events GROUP BY agency, service")
    found = {f"{agency}/{service}": count for agency, service, count in rows}
    if found != truth.services:
        raise RuntimeError(f"the view events has {sum(found.values()):,} events instead of {truth.events:,}")
    (uses,) = client.execute("SELECT sum(uses) FROM usage")[0]
    if uses != truth.uses:
        raise RuntimeError(f"the view usage has {uses:,} uses instead of {truth.uses:,}")
