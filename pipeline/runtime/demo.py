"""The demonstration: broker, worker, ClickHouse and an emitter on this machine, and an account of every event.

The worker runs as a process of its own with ClickHouse inside (chdb); this process emits through the real emitter and
reads results back by SQL. Some events are made invalid and some are sent twice, on purpose.
"""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.catalogue import Catalogue, demonstration_catalogue
from pipeline.catalogue.demonstration import demonstration_history
from pipeline.contract.reasons import Reason
from pipeline.emitter import Emitter
from pipeline.errors import StoreError, XidmetError
from pipeline.generator import Generator
from pipeline.generator.spoiled import spoiled
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.endpoint import WorkerClient, find_endpoint
from pipeline.runtime.statements import CATALOGUE, say
from pipeline.settings import Settings, as_flags
from sinks.clickhouse.audit import audit
from sinks.clickhouse.client import Client

TICK_SECONDS = 0.1
START_SECONDS = 60.0
SETTLE_SECONDS = 60.0
INVALID_SHARE = 0.01
REPEATED_SHARE = 0.01
# Tansu forgets members that are silent for longer; joining takes about half of it.
_SESSION_SECONDS = 2.0


@dataclass(slots=True)
class Sent:
    """What the demonstration sent, by its own count: events in all, and those that must be counted, by agency."""

    events: int = 0
    good: int = 0
    invalid: int = 0
    repeated: int = 0
    by_agency: Counter[str] = field(default_factory=Counter)


class Summary(msgspec.Struct, frozen=True):
    """The account at the end. All but ``events_sent`` is read back from ClickHouse by SQL; freshness from the worker.

    ``freshness_*`` is the time from an event's time to its result being queryable, in milliseconds, within 1 %.
    """

    events_sent: int
    events_counted: int
    people: int
    rejected: int
    duplicates: int
    audit_errors: int
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    top_agencies: list[dict[str, Any]]
    agrees: bool

    @property
    def adds_up(self) -> bool:
        """Whether every event sent was counted, refused, or recognised as a repeat, and nothing else was."""
        total = self.events_counted + self.rejected + self.duplicates
        return self.agrees and self.events_sent == total and self.audit_errors == 0


class Demo:
    """One run: :meth:`running` starts the parts, :meth:`emit` feeds them, :meth:`settle` reads the account."""

    def __init__(self, settings: Settings, catalogue: Catalogue, directory: Path, rate: float, seed: int) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._directory = directory
        self._rate = rate
        self._seed = seed
        self._worker: subprocess.Popen[bytes] | None = None
        self._kafka = ""
        self._store_directory = directory / "clickhouse"
        self.sent = Sent()
        self.url = ""
        self.bootstrap = ""

    @property
    def worker_log(self) -> Path:
        """The worker's log file."""
        return self._directory / "worker.log"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Broker and worker, ready; stopped at the end, whatever happens.

        Raises:
            StoreError: the directory was used before, or the worker does not start.
            BrokerError: the broker does not start.
        """
        if self._store_directory.exists():
            raise StoreError(f"{self._store_directory} holds an earlier demonstration; name another directory")
        with EmbeddedBroker(self._directory / "broker.log") as broker:
            self.bootstrap = broker.bootstrap
            self._start_worker()
            try:
                self._wait_until_ready()
                yield
            finally:
                self._stop_worker()

    def client(self) -> Client:
        """ClickHouse, through the worker.

        Raises:
            StoreError: the worker is gone.
        """
        endpoint = find_endpoint(str(self._store_directory))
        if endpoint is None:
            raise StoreError(f"the worker is gone; the end of its log: {self._log_tail()}")
        self.url = endpoint.url
        return WorkerClient(endpoint)

    def tell_history(self) -> None:
        """Say the history of the demonstration catalogue, if that is the catalogue.

        Raises:
            BrokerError: the broker refuses.
        """
        if self._catalogue == demonstration_catalogue():
            kafka = msgspec.structs.replace(self._settings.kafka, bootstrap=self.bootstrap)
            say(kafka, CATALOGUE, "urn:xidmet:demonstration", demonstration_history())

    def emit(self, stop: threading.Event, seconds: float | None) -> None:
        """Send events at the rate until ``stop`` is set or the seconds are over.

        Raises:
            BrokerError: the broker refuses.
        """
        generator = Generator(self._catalogue, self._seed)
        chance = random.Random(self._seed)  # noqa: S311 - a demonstration must be repeatable, not secret
        reasons = list(Reason)
        topic = self._settings.kafka.events_topic
        began = time.monotonic()
        due = 0.0
        with closing(Emitter(self.bootstrap, topic, linger_seconds=0.02)) as emitter:
            while not stop.is_set() and (seconds is None or time.monotonic() - began < seconds):
                due += self._rate * TICK_SECONDS
                count, due = int(due), due % 1
                events = generator.live(datetime.now(UTC), count, TICK_SECONDS) if count else []
                for event in events:
                    self._send(emitter, event, chance, reasons)
                stop.wait(TICK_SECONDS)

    def _send(self, emitter: Emitter, event: dict[str, Any], chance: random.Random, reasons: list[Reason]) -> None:
        sent = self.sent
        if chance.random() < INVALID_SHARE:
            emitter.emit_raw(spoiled(event, reasons[sent.invalid % len(reasons)]))
            sent.invalid += 1
            sent.events += 1
            return
        emitter.emit(event)
        sent.good += 1
        sent.events += 1
        sent.by_agency[event["data"]["agency"]] += 1
        if chance.random() < REPEATED_SHARE:
            # The same bytes again, as after a time-out; sent alone, it takes whatever partition comes.
            emitter.emit(event)
            sent.repeated += 1
            sent.events += 1

    def settle(self) -> Summary:
        """Wait until all that was sent is in the receipts, then read the account from ClickHouse.

        Raises:
            StoreError: the worker is gone.
        """
        client = self.client()
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            ((events,),) = client.query("SELECT sum(events) FROM segments").rows
            if events >= self.sent.events or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        ((counted, people),) = client.query("SELECT count(), uniqExactIf(user_hash, user_hash != 0) FROM events").rows
        by_agency = client.query("SELECT agency, count() AS n FROM events GROUP BY agency ORDER BY n DESC, agency").rows
        ((rejected, duplicates),) = client.query("SELECT sum(rejected_total), sum(duplicates) FROM segments").rows
        report = audit(client)
        status = fetch_json(self.url + "/api/status")
        return Summary(
            events_sent=self.sent.events,
            events_counted=counted,
            people=people,
            rejected=rejected,
            duplicates=duplicates + report.repeats,
            audit_errors=len(report.findings),
            freshness_p50_ms=status["freshness_p50_ms"],
            freshness_p99_ms=status["freshness_p99_ms"],
            top_agencies=[{"agency": agency, "events": count} for agency, count in by_agency[:10]],
            agrees=dict(by_agency) == dict(self.sent.by_agency) and rejected == self.sent.invalid,
        )

    def _start_worker(self) -> None:
        port = _free_port(self._settings.web.port)
        flags = [
            *as_flags(self._settings),
            f"kafka.bootstrap={self.bootstrap}",
            f"kafka.session_timeout_seconds={_SESSION_SECONDS}",
            f"clickhouse.url=chdb:{self._store_directory}",
            f"web.port={port}",
        ]
        command = [sys.executable, "-m", "pipeline.cli"]
        for flag in flags:
            command += ["--set", flag]
        with self.worker_log.open("wb") as log:
            self._worker = subprocess.Popen(
                [*command, "worker", "--migrate"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which then stops the worker.
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        assert self._worker is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._worker.poll() is None:
            with suppress(XidmetError, OSError, ValueError):
                self.client()
                if fetch_json(self.url + "/readyz")["ready"]:
                    return
            time.sleep(0.05)
        raise StoreError(f"the worker did not become ready; the end of its log: {self._log_tail()}")

    def _stop_worker(self) -> None:
        if self._worker is None:
            return
        with suppress(ProcessLookupError):
            self._worker.send_signal(signal.SIGTERM)
        try:
            self._worker.wait(20)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()
        self._worker = None

    def _log_tail(self) -> str:
        with suppress(OSError):
            return self.worker_log.read_text(errors="replace")[-1500:]
        return "(none)"


def fetch_json(url: str) -> Any:
    """GET a JSON answer from the worker, also when its status is 503.

    Raises:
        OSError: the worker does not answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the URL of our own worker
            return msgspec.json.decode(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return msgspec.json.decode(error.read())


def _free_port(preferred: int) -> int:
    """The preferred port if nothing listens there, else any free one."""
    for port in (preferred, 0):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StoreError("no free port on 127.0.0.1")
