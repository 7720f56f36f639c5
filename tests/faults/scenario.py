"""A scenario: one fault, at one crash point, under load, and the account afterwards."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from clickhouse_driver.errors import NetworkError
from kafka.admin import ConfigResource, ConfigResourceType

from sinks.clickhouse.audit import AuditReport, Finding
from tests.faults import oracle
from tests.faults.compare import Difference, compare
from tests.faults.load import Load
from tests.faults.log import LogRecord, read_log
from tests.faults.oracle import Truth
from tests.faults.plans import Action, Plan
from tests.faults.proxy import Proxy
from tests.faults.run import FaultRun, Worker
from tests.faults.servers import Keeper, TwoDoorKafka
from tests.support import ClickHouseServer
from tests.support.waiting import wait_until

RECOVER_SECONDS: Final = 240.0
# Long enough that retries and time-outs happen, while the worker holds results.
_OUTAGE_SECONDS: Final = 6.0


class Skipped(Exception):
    """This machine cannot do the scenario; the text says why."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """``points`` are the crash points at which it runs, one row each; none makes one row without a point.

    ``settings`` are those of its workers. ``keep`` says that ClickHouse is started again whenever it ends.
    """

    fault: str
    play: Callable[["Row"], None]
    points: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    keep: bool = True
    quick: tuple[str, ...] = ()
    """Rows that also run with the tests: crash points, or "" for the one row without."""


@dataclass(slots=True)
class Row:
    """What a scenario plays with. The proxies stand before Kafka and before ClickHouse and let everything through."""

    kafka: TwoDoorKafka
    clickhouse: ClickHouseServer
    keeper: Keeper
    kafka_proxy: Proxy
    clickhouse_proxy: Proxy
    run: FaultRun
    load: Load
    rng: random.Random
    point: str
    events: int

    expected_events: int | None = None
    """Events that the receipts must come to vouch for; None for all that the load sent."""
    records: list[LogRecord] | None = None
    """What the log is counted by; None for what the topic holds at the end."""
    judge: Callable[[list[LogRecord], list[LogRecord]], Truth] = lambda records, _: oracle.count(records)
    """Counts the records of the log, given the dead letters as well."""
    expect_findings: Callable[[list[Finding]], list[str]] | None = None
    """Judges the findings of the audit where some must be there; its words are what is wrong."""
    difference: Difference | None = None
    """Set by a scenario that settles and compares by itself, because its database is elsewhere."""
    notes: list[str] = field(default_factory=list)
    _ended_at: float = 0.0
    seconds_to_recover: float = 0.0
    truth: Truth | None = None
    report: AuditReport | None = None

    def plan(self, action: Action, **more: Any) -> Plan:
        """A plan for the row's crash point; how often it is passed before is left to chance."""
        point = self.point or "before_minutes"
        return Plan(point=point, nth=self.rng.randint(1, 3), action=action, **more)

    def begin(self, plan: Plan | None = None, **flags: Any) -> Worker:
        """Start a worker and wait until it has partitions."""
        worker = self.run.start(plan, **flags)
        self.wait_assigned(worker)
        return worker

    def wait_assigned(self, worker: Worker, partitions: int = 1) -> None:
        """Wait until a worker has so many partitions."""
        from pipeline.runtime.demo import fetch_json

        def assigned() -> bool:
            if not worker.alive:
                raise RuntimeError(f"the worker ended with {worker.process.returncode}; see {worker.log}")
            try:
                return bool(fetch_json(worker.url + "/api/status")["assigned"] >= partitions)
            except OSError:
                return False

        wait_until(assigned, 120, "a worker to be assigned partitions", every=0.1)

    def send(self, share: float) -> None:
        """Send a share of the events of the scenario."""
        self.load.send(round(self.events * share))

    def wait_durable(self, share: float = 1.0) -> None:
        """Wait until the receipts vouch for a share of what was sent so far."""
        expected = round(self.load.sent.events * share)
        wait_until(lambda: self.run.durable_events() >= expected, RECOVER_SECONDS, f"{expected} events", every=0.1)

    def set_topic(self, topic: str, configs: dict[str, str]) -> None:
        """Change settings of a topic."""
        with self.kafka.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])

    def execute(self, statement: str) -> None:
        """Run a statement on ClickHouse directly, as often as it takes for it to answer."""

        def done() -> bool:
            try:
                self.clickhouse.execute(statement)
            except (OSError, EOFError, NetworkError):
                return False
            return True

        wait_until(done, 60, "ClickHouse to answer", every=0.2)

    def fault_ended(self) -> None:
        """The fault is over: from now on the time to recover is measured."""
        self._ended_at = time.monotonic()

    def outage(self, seconds: float = _OUTAGE_SECONDS) -> None:
        """Let a fault last; its length is what the scenario is about."""
        time.sleep(seconds)

    def at_the_point(self, fault: Callable[[], None], end: Callable[[], None], worker: Worker) -> None:
        """Let the fault begin while the worker holds at the row's crash point, go on with it, end the fault later."""
        self.send(0.4)
        worker.wait_reached()
        fault()
        worker.release()
        self.send(0.3)
        self.outage()
        end()
        self.fault_ended()
        self.send(0.3)

    @contextmanager
    def without_keeper(self) -> Iterator[None]:
        """Leave ClickHouse to the scenario."""
        self.keeper.end()
        try:
            yield
        finally:
            self.clickhouse.resume()
            self.clickhouse.start()
            self.keeper.begin()

    def settle(self) -> None:
        """Wait until the receipts vouch for everything, and stop the workers."""
        expected = self.load.sent.events if self.expected_events is None else self.expected_events
        try:
            wait_until(lambda: self.run.durable_events() >= expected, RECOVER_SECONDS, f"{expected} events", every=0.1)
        except TimeoutError as error:
            # What is missing is counted, not only that something is.
            self.notes.append(f"{error}; the receipts have {self.run.durable_events()}")
        self.seconds_to_recover = time.monotonic() - (self._ended_at or time.monotonic())
        codes = self.run.stop_all()
        if any(codes):
            self.notes.append(f"workers that were asked to stop ended with {codes}")

    def compare(self) -> Difference:
        """Count the log and compare everything with it."""
        kafka = self.run.settings.kafka
        records = read_log(kafka.bootstrap, kafka.events_topic) if self.records is None else self.records
        letters = read_log(kafka.bootstrap, kafka.rejected_topic)
        truth = self.judge(records, letters)
        report = self.run.audit()
        self.truth, self.report = truth, report
        findings = list(report.findings)
        report.findings.clear()
        difference: Difference = self.run.ask(lambda client: compare(truth, client, letters, report))
        report.findings = findings
        if self.expect_findings is not None:
            difference.words += self.expect_findings(findings)
        else:
            difference.words += [f"audit: {item.check}: {item.where}: {item.words}" for item in findings]
        difference.words += self.notes
        return difference
