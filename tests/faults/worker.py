"""A worker for tests: the real application with a sink that does harm to its own process at a given place.

``python -m tests.faults.worker PLAN section.key=value ...``; PLAN is a :class:`tests.faults.plans.Plan` as JSON. All
that is special is the sink, through the seam ``create_app(settings, sink_of=...)``; the program has no hook.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.app import create_app
from pipeline.catalogue import Catalogue
from pipeline.errors import StoreError, XidmetError
from pipeline.fold.flush import Flush, Reject
from pipeline.log import configure_logging
from pipeline.runtime.results import Results
from pipeline.runtime.worker import run_worker
from pipeline.settings import Settings, load_settings
from sinks.clickhouse.client import Client, Column, Parameters, Rows
from sinks.dead_letters import DeadLetters
from tests.faults.plans import Plan

HOLD_SECONDS: Final = 300.0
_BEFORE_TABLE: Final = {
    "ledger": "before_ledger",
    "coordinates": "before_coordinates",
    "minutes": "before_minutes",
    "receipts": "before_receipts",
}

logger = logging.getLogger(__name__)


class Points:
    """Counts how often the plan's place was reached, and acts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._reached = 0
        self.acted = False

    def reach(self, point: str) -> None:
        """A place in a flush is reached; may kill or stop the process, wait, or fail."""
        plan = self._plan
        if point != plan.point or plan.action == "nothing":
            return
        self._reached += 1
        if self._reached < plan.nth:
            return
        past = self._reached - plan.nth
        if past == 0:
            self.acted = True
            self._mark(plan.mark)
        if plan.action == "slow":
            time.sleep(plan.seconds)
        elif plan.action == "fail" and past < plan.times:
            raise StoreError("the plan of this test lets the sink fail")
        elif past == 0:
            self._act()

    def passed(self) -> None:
        """The flush in which the worker acted has ended."""
        if self.acted and self._plan.mark:
            self._mark(self._plan.mark + ".passed")
            self.acted = False

    def _act(self) -> None:
        plan = self._plan
        if plan.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif plan.action == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        elif plan.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif plan.action == "hold":
            deadline = time.monotonic() + HOLD_SECONDS
            while not Path(plan.mark + ".release").exists() and time.monotonic() < deadline:
                time.sleep(0.02)

    @staticmethod
    def _mark(path: str) -> None:
        if path:
            Path(path).write_text(str(time.time()), "utf-8")


class WatchedClient:
    """A client that tells the points before which table it is about to insert, while a flush is written."""

    def __init__(self, client: Client, points: Points) -> None:
        self._client = client
        self._points = points

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        return self._client.query(sql, parameters)

    def execute(self, sql: str) -> None:
        self._client.execute(sql)

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        if table in _BEFORE_TABLE and not (table == "receipts" and _open_segments(columns)):
            self._points.reach(_BEFORE_TABLE[table])
        self._client.insert(table, columns)

    def close(self) -> None:
        self._client.close()


class WatchedLetters(DeadLetters):
    """Dead letters that tell the points when they are about to be sent, also when there are none."""

    def __init__(self, settings: Settings, points: Points) -> None:
        super().__init__(settings.kafka)
        self._points = points

    def send(self, rejects: Sequence[Reject]) -> None:
        self._points.reach("before_dead_letters")
        super().send(rejects)


class WatchedResults(Results):
    """The sink of the worker, watched."""

    def __init__(self, settings: Settings, catalogue: Catalogue, plan: Plan) -> None:
        super().__init__(settings, catalogue)
        self._points = Points(plan)
        self._jumps = list(plan.clock_jumps)
        self._dead_letters = WatchedLetters(settings, self._points)

    @property
    def _client(self) -> Client:
        return WatchedClient(super()._client, self._points)

    def write(self, flush: Flush) -> None:
        if self._jumps:
            _jump_clock(self._jumps.pop(0))
        try:
            self._points.reach("before_openings")
            super().write(flush)
            self._points.reach("after_receipts")
        finally:
            self._points.passed()


def _open_segments(columns: Sequence[Column]) -> bool:
    """Whether rows of receipts only open segments: nothing was folded of them yet."""
    return not any(next(column.values for column in columns if column.name == "records"))


def _jump_clock(seconds: float) -> None:
    """Put the wall clock, as this process's Python code sees it, forward or back."""
    before: Any = time.time
    time.time = lambda: before() + seconds
    logger.info("the clock jumps", extra={"seconds": seconds})


def _resolve(host: str, file: str) -> None:
    """Let a host be this machine while a file is there, and unknown otherwise."""
    before: Any = socket.getaddrinfo

    def getaddrinfo(asked: Any, *arguments: Any, **more: Any) -> Any:
        if asked != host:
            return before(asked, *arguments, **more)
        if not Path(file).exists():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return before("127.0.0.1", *arguments, **more)

    setattr(socket, "getaddrinfo", getaddrinfo)  # noqa: B010 - mypy would have its exact signature


def main() -> None:
    """Run until a signal, a crash, or the plan; exit codes as of ``xidmet worker``."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    settings = load_settings(environment={}, flags=sys.argv[2:])
    if plan.resolves:
        _resolve(*plan.resolves.split("=", 1))
    configure_logging(settings.log)
    error = run_worker(create_app(settings, lambda given, catalogue: WatchedResults(given, catalogue, plan)))
    if error is not None:
        logger.critical("the worker stopped", exc_info=error)
        sys.exit(error.exit_code if isinstance(error, XidmetError) else 1)


if __name__ == "__main__":
    main()
