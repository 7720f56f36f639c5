"""The random faults of a soak: their sequence from a seed, and the stage on which they happen."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct

from tests.faults.plans import CRASH_POINTS, Action, Plan
from tests.faults.run import SESSION_SECONDS, Worker
from tests.faults.scenario import Row
from tests.faults.suite import Servers

_OUTAGES: Final = (
    "ClickHouse refuses",
    "ClickHouse frozen",
    "ClickHouse slow",
    "ClickHouse stopped",
    "Kafka refuses",
    "Kafka frozen",
    "table read-only",
    "dead letters unavailable",
)
_MOMENTS: Final = ("ClickHouse killed", "broker killed", "ClickHouse cut", "Kafka cut", "answers lost")
_WORKERS: Final[tuple[Action, ...]] = ("kill", "terminate", "stop", "hold")


class Fault(Struct, frozen=True):
    """One fault of the sequence: how long it lasts and how long nothing follows it, in seconds. For workers ``point``
    and ``nth`` say where in a flush it is met."""

    name: str
    seconds: float
    pause: float
    point: str = ""
    nth: int = 1


def sequence(seed: int) -> Iterator[Fault]:
    """Faults without end, the same for the same seed; all kinds come before any comes again."""
    rng = random.Random(f"soak {seed}")
    while True:
        names = [*_OUTAGES, *_MOMENTS, *(f"worker: {action}" for action in _WORKERS)]
        rng.shuffle(names)
        for name in names:
            seconds = round(rng.uniform(2, SESSION_SECONDS + 6), 1)
            pause = round(rng.uniform(1, 6), 1)
            yield Fault(name, seconds, pause, rng.choice(CRASH_POINTS), rng.randint(1, 3))


@dataclass(slots=True)
class Stage:
    """Where the faults happen: one worker that is never touched, and two that come and go."""

    on: Servers
    row: Row
    flags: dict[str, Any]
    steady: Worker
    others: list[Worker]

    def play(self, fault: Fault) -> None:
        """Let one fault happen, to its end."""
        if fault.name.startswith("worker: "):
            self._worker(fault)
        elif fault.name in _MOMENTS:
            self._moments()[fault.name]()
        else:
            begin, end = self._outages()[fault.name]
            begin()
            try:
                time.sleep(fault.seconds)
            finally:
                end()
        time.sleep(fault.pause)

    def start_other(self, plan: Plan | None = None) -> Worker:
        """A worker whose way to Kafka goes through the proxy."""
        worker = self.row.run.start(plan, **self.flags | {"kafka__bootstrap": self.row.kafka.proxied_bootstrap})
        self.others.append(worker)
        return worker

    def _worker(self, fault: Fault) -> None:
        """A worker with a plan joins in the place of another; what it does to itself is undone after a while."""
        action: Any = fault.name.removeprefix("worker: ")
        leaving = self.others.pop(0)
        if leaving.alive:
            leaving.signal(signal.SIGTERM)
            leaving.wait_ended()
        worker = self.start_other(Plan(point=fault.point, nth=fault.nth, action=action))
        try:
            worker.wait_reached(seconds=30)
        except TimeoutError:
            worker.signal(signal.SIGKILL)
        time.sleep(fault.seconds)
        worker.release()
        worker.signal(signal.SIGCONT)
        if not worker.alive or action in ("kill", "terminate"):
            worker.wait_ended()
            self.others.remove(worker)
            self.start_other()

    def _moments(self) -> dict[str, Callable[[], None]]:
        return {
            "ClickHouse killed": lambda: self._signal_clickhouse(signal.SIGKILL),
            "broker killed": self._kill_broker,
            "ClickHouse cut": self.on.clickhouse_proxy.cut,
            "Kafka cut": self.on.kafka_proxy.cut,
            "answers lost": lambda: self.on.clickhouse_proxy.lose_answers("minutes", 3),
        }

    def _outages(self) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
        clickhouse, kafka = self.on.clickhouse_proxy, self.on.kafka_proxy
        letters = self.row.run.settings.kafka.rejected_topic
        return {
            "ClickHouse refuses": (clickhouse.refuse, clickhouse.heal),
            "ClickHouse frozen": (clickhouse.freeze, clickhouse.heal),
            "ClickHouse slow": (lambda: clickhouse.slow(500_000), clickhouse.heal),
            "ClickHouse stopped": (
                lambda: self._signal_clickhouse(signal.SIGSTOP),
                lambda: self._signal_clickhouse(signal.SIGCONT),
            ),
            "Kafka refuses": (kafka.refuse, kafka.heal),
            "Kafka frozen": (kafka.freeze, kafka.heal),
            "table read-only": (lambda: self._alter("table_readonly = 1"), lambda: self._alter("table_readonly = 0")),
            "dead letters unavailable": (
                lambda: self.row.set_topic(letters, {"min.insync.replicas": "2"}),
                lambda: self.row.set_topic(letters, {"min.insync.replicas": "1"}),
            ),
        }

    def _kill_broker(self) -> None:
        self.on.kafka.kill()
        self.on.kafka.start()

    def _signal_clickhouse(self, number: signal.Signals) -> None:
        # Not by the server's own methods: its keeper starts it again, and nobody else may.
        os.kill(self.on.clickhouse.pid, number)

    def _alter(self, setting: str) -> None:
        database = self.row.run.settings.clickhouse.url.rpartition("/")[2]
        self.row.execute(f"ALTER TABLE {database}.minutes MODIFY SETTING {setting}")
