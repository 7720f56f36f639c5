"""The servers that all sides share: one Apache Kafka, its topics filled, one ClickHouse; from tests/support."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import clickhouse_driver
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from benchmarks.compare.load import Truth
from benchmarks.compare.writing import PARTITIONS
from tests.support import ClickHouseServer, KafkaServer
from tests.support.ports import LOOPBACK

ROOT: Final = Path(__file__).resolve().parents[2]
SINGLE: Final = "usage.events.single"
BATCHES: Final = "usage.events.batches"
PREFIX: Final = "usage.events.prefix"
_WRITE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Servers:
    """Both running; ``single`` and ``batches`` hold the same events, ``prefix`` the first ones of them."""

    kafka: KafkaServer
    clickhouse: ClickHouseServer
    truth: Truth
    prefix_truth: Truth
    write_seconds: float

    def fresh_database(self) -> str:
        """A new, empty database; its name."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        self.clickhouse.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove it and all that still works in it."""
        with self.client(name) as client:
            client.execute(f"DROP DATABASE IF EXISTS {name} SYNC")

    @contextmanager
    def client(self, database: str) -> Iterator[Any]:
        """A connection to a database, closed at the end."""
        client = clickhouse_driver.Client(
            LOOPBACK,
            port=self.clickhouse.native_port,
            database=database,
            connect_timeout=10,
            send_receive_timeout=120,
            settings={"max_threads": 2},
        )
        try:
            yield client
        finally:
            client.disconnect()


@contextmanager
def filled_servers(python: Path, events: int, prefix_events: int, compression: str, seed: int) -> Iterator[Servers]:
    """Start both, write the events with the interpreter ``python``, and stop both at the end.

    Raises:
        ServerUnavailable: this machine cannot run one of them.
        RuntimeError: one did not start, or the events could not be written.
    """
    with KafkaServer() as kafka, ClickHouseServer() as clickhouse:
        create_topics(kafka.bootstrap, (SINGLE, BATCHES, PREFIX))
        began = time.monotonic()
        done = subprocess.run(
            [
                *(str(python), "-m", "benchmarks.compare.writing"),
                *("--bootstrap", kafka.bootstrap, "--events", str(events), "--seed", str(seed)),
                *("--single", SINGLE, "--batches", BATCHES, "--prefix", PREFIX, "--prefix-events", str(prefix_events)),
                # What groups by agency and service finds its key ready.
                *("--keys", "service", "--compression", compression),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_WRITE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the events could not be written: {done.stderr[-2000:]}")
        written = json.loads(done.stdout.splitlines()[-1])
        yield Servers(
            kafka,
            clickhouse,
            Truth.from_json(written["all"]),
            Truth.from_json(written["prefix"]),
            time.monotonic() - began,
        )


def create_topics(bootstrap: str, names: tuple[str, ...]) -> None:
    """Create topics of :data:`PARTITIONS` partitions; time stamps do not delete anything."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=30_000)
    try:
        configs = {"retention.ms": "-1", "max.message.bytes": str(2 << 20)}
        answer = admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=configs) for name in names])
    finally:
        admin.close()
    for one in answer.get("topics", []):
        if one["error_code"]:
            raise RuntimeError(f"topic {one['name']} cannot be created: {one['error_message']}")
