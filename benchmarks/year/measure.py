"""Asks a ClickHouse server over HTTP, whose answer says what was read, and how much memory it took.

Processor time is told by the native protocol alone. It says more than time where others work on the same machine.
"""

import contextlib
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import clickhouse_driver
from clickhouse_driver.protocol import ServerPacketTypes

from benchmarks.year.questions import Parameters, Question

_TIMEOUT_SECONDS: Final = 600
_CPU_REPETITIONS: Final = 5
_CPU_EVENTS: Final = ("UserTimeMicroseconds", "SystemTimeMicroseconds")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer: seconds on the client's clock, rows and bytes read, peak of the query's memory in bytes."""

    seconds: float
    rows_read: int
    bytes_read: int
    memory: int


class Asker:
    """Asks one database of a server."""

    def __init__(self, http_url: str, database: str, native_port: int) -> None:
        self._http_url = http_url
        self._database = database
        self._cpu = 0
        self._driver = clickhouse_driver.Client(
            "127.0.0.1",
            port=native_port,
            database=database,
            settings={"server_side_params": True},
            send_receive_timeout=_TIMEOUT_SECONDS,
        )
        self._driver.execute("SELECT 1")
        connection = self._driver.connection
        receive = connection.receive_packet

        def receive_packet() -> Any:
            packet = receive()
            if packet.type == ServerPacketTypes.PROFILE_EVENTS:
                names = [name for name, _ in packet.block.columns_with_types]
                for row in packet.block.get_rows():
                    event = dict(zip(names, row, strict=True))
                    # Those of thread 0 are of the whole query.
                    if event["name"] in _CPU_EVENTS and not event["thread_id"]:
                        self._cpu += event["value"]
            return packet

        connection.receive_packet = receive_packet

    def cpu_seconds(self, sql: str, parameters: Parameters) -> float:
        """Ask by the native protocol; the processor time of all the query's threads, in seconds."""
        self._cpu = 0
        self._driver.execute(sql, dict(parameters))
        return self._cpu / 1e6

    def close(self) -> None:
        """Give the connection back."""
        self._driver.disconnect()

    def ask(self, sql: str, parameters: Parameters) -> tuple[Asked, bytes]:
        """Ask; what it took, and the answer as JSON.

        Raises:
            RuntimeError: the server refuses; its words.
        """
        # The settings that a plain client has; only the answer is held back to its end, for the summary.
        fields = {"database": self._database, "wait_end_of_query": "1", "default_format": "JSONCompact"}
        fields |= {f"param_{name}": str(value) for name, value in parameters.items()}
        request = urllib.request.Request(f"{self._http_url}/?{urllib.parse.urlencode(fields)}", sql.encode())
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                body = answer.read()
                seconds = time.perf_counter() - began
                summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error.read().decode()[:500]}\n{sql}") from error
        read = [int(summary.get(name, 0)) for name in ("read_rows", "read_bytes", "memory_usage")]
        return Asked(seconds, *read), body


def forget(data: Path, asker: Asker) -> None:
    """Let the server forget marks and blocks, and the system the files of the data directory."""
    for cache in ("MARK CACHE", "UNCOMPRESSED CACHE", "PRIMARY INDEX CACHE", "QUERY CONDITION CACHE"):
        asker.ask(f"SYSTEM DROP {cache}", {})
    # Parts come and go while ClickHouse merges.
    for folder, _, names in os.walk(data):
        for name in names:
            if name.endswith(".bin"):
                with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that at least ``share`` of a non-empty list does not exceed."""
    ordered = sorted(values)
    return ordered[max(1, -int(-share * len(ordered) // 1)) - 1]


def measure(asker: Asker, question: Question, repetitions: int, cold: Callable[[], None] | None) -> dict[str, Any]:
    """Ask ``repetitions`` times with other parameters each; before them once, after ``cold`` if that is given."""
    if cold is not None:
        cold()
    first, _ = asker.ask(question.sql, question.parameters(repetitions))
    answers = [asker.ask(question.sql, question.parameters(number))[0] for number in range(repetitions)]
    seconds = [answer.seconds for answer in answers]
    asked = range(min(repetitions, _CPU_REPETITIONS))
    cpu = [asker.cpu_seconds(question.sql, question.parameters(number)) for number in asked]
    return {
        "name": question.name,
        "words": question.words,
        "view": question.view,
        "free": question.free,
        "cold_ms": 1000 * first.seconds if cold is not None else None,
        "p50_ms": 1000 * median(seconds),
        "p95_ms": 1000 * percentile(seconds, 0.95),
        "max_ms": 1000 * max(seconds),
        "cpu_ms": 1000 * median(cpu),
        "rows_read": round(median(answer.rows_read for answer in answers)),
        "bytes_read": round(median(answer.bytes_read for answer in answers)),
        "memory_bytes": max(answer.memory for answer in answers),
    }
