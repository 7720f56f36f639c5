"""A pipeline of real processes on given servers: settings, workers, an independent count of the topic, the audit."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition

from pipeline.catalogue import demonstration_catalogue
from pipeline.errors import StoreError
from pipeline.fold.segment import MARKER_HEADER
from pipeline.generator import Generator
from pipeline.settings import Settings, load_settings
from sinks.clickhouse.audit import AuditReport, audit
from sinks.clickhouse.client import Client, connect
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
COUNT_SECONDS = 90.0
T = TypeVar("T")


class PipelineRun:
    """Topics and group of its own; every worker is a process of ``xidmet worker``."""

    def __init__(self, bootstrap: str, clickhouse_url: str, directory: Path, **settings: object) -> None:
        name = uuid.uuid4().hex[:8]
        self.directory = directory
        self.flags = {
            "kafka.bootstrap": bootstrap,
            "kafka.group": f"group-{name}",
            "kafka.events_topic": f"usage.events-{name}",
            "kafka.rejected_topic": f"usage.rejected-{name}",
            "kafka.catalogue_topic": f"catalogue.changes-{name}",
            "kafka.figures_topic": f"usage.figures-{name}",
            "kafka.session_timeout_seconds": 6,
            "clickhouse.url": clickhouse_url,
            "clickhouse.retry_seconds": 0.2,
            "log.format": "text",
        } | {key.replace("__", "."): value for key, value in settings.items()}
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def settings(self) -> Settings:
        """The settings of the workers, as an object."""
        return load_settings(environment={}, flags=[f"{key}={value}" for key, value in self.flags.items()])

    def command(self, *arguments: str) -> list[str]:
        """A command line of xidmet with these settings."""
        flags = [part for key, value in self.flags.items() for part in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "pipeline.cli", *flags, *arguments]

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command to its end; its standard output."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, timeout=120, cwd=ROOT, env=clean_environment()
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker, not yet ready; its log is in ``directory``."""
        self.flags["web.port"] = free_port()
        log = (self.directory / f"worker-{len(self.workers)}.log").open("wb")
        with log:
            worker = subprocess.Popen(
                self.command("worker"), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=clean_environment()
            )
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """End all workers that are still there."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def logs(self) -> str:
        """The end of every worker's log."""
        return "\n".join(
            path.read_text(errors="replace")[-2000:] for path in sorted(self.directory.glob("worker-*.log"))
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask ClickHouse, through a connection of its own; waits for one that is just being started again."""
        return self.ask(lambda client: client.query(sql).rows)

    def wait_for_events(self, count: int, seconds: float = COUNT_SECONDS) -> None:
        """Wait until the receipts account for so many events."""
        try:
            wait_until(
                lambda: self.query("SELECT sum(events) FROM segments")[0][0] >= count,
                seconds,
                f"{count} events in the receipts",
                every=0.1,
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.logs()}") from None

    def audit(self) -> AuditReport:
        """The audit, now."""
        return self.ask(audit)

    def ask(self, question: Callable[[Client], T]) -> T:
        """The answer of ClickHouse to a question, on a connection of its own; waits for one that is started again."""
        answers: list[T] = []

        def ask() -> bool:
            client = connect(self.settings.clickhouse)
            try:
                answers.append(question(client))
            except StoreError as error:
                # Code 236: it is going down, as after a client that was killed (tests/support/keeping.py).
                if not any(words in str(error) for words in ("does not answer", "Code: 236.")):
                    raise
            finally:
                client.close()
            return bool(answers)

        wait_until(ask, 30.0, "ClickHouse to answer")
        return answers[0]

    def count_log(self) -> tuple[int, Counter[tuple[str, str]]]:
        """All events on the topic, and the distinct ones by agency and service, with a plain consumer and json."""
        kafka = self.settings.kafka
        consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level="read_committed")
        try:
            partitions = [
                TopicPartition(kafka.events_topic, number)
                for number in consumer.partitions_for_topic(kafka.events_topic)
            ]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(partitions)
            total, distinct = 0, {}
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for records in consumer.poll(timeout_ms=1_000).values():
                    for record in records:
                        if any(name == MARKER_HEADER for name, _ in record.headers):
                            continue
                        content = json.loads(record.value)
                        for event in content if isinstance(content, list) else [content]:
                            total += 1
                            distinct[event["source"], event["id"]] = event["data"]["agency"], event["data"]["service"]
        finally:
            consumer.close()
        return total, Counter(distinct.values())

    def assert_equal_to_log(self) -> None:
        """Ledger, minutes and audit against the independent count; only for logs of valid events."""
        total, distinct = self.count_log()
        self.wait_for_events(total)
        rows = self.query("SELECT agency, service, count() FROM events GROUP BY agency, service")
        assert {(agency, service): count for agency, service, count in rows} == dict(distinct)
        report = self.audit()
        assert report.findings == []
        assert report.events == total
        assert report.ledger == sum(distinct.values())
        assert report.minutes == report.accepted == report.ledger + report.repeats
        assert report.rejected == 0


def events(count: int, seed: int) -> Iterable[dict[str, Any]]:
    """Synthetic events of this hour so far; of its first second, if that is not over."""
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    return Generator(demonstration_catalogue(), seed).events(hour, max(now, hour + timedelta(seconds=1)), count)


def clean_environment() -> dict[str, str]:
    """The environment without settings of xidmet."""
    return {name: value for name, value in os.environ.items() if not name.startswith("XIDMET_")}
