"""Programs that decode and add up without ClickHouse: Faust, quixstreams, Kafka Streams. They tell how far they got."""

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.load import Truth
from benchmarks.compare.measuring import Course, Watch, follow
from benchmarks.compare.servers import ROOT, Servers

_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """A command that counts a topic; its arguments ``{bootstrap}``, ``{topic}`` and ``{events}`` are filled in."""

    name: str
    topic: str
    command: Sequence[str]
    prefix: bool = False

    def run(self, servers: Servers, limit_seconds: float) -> Course:
        """One round.

        Raises:
            RuntimeError: it ended too early, or its totals are wrong.
            TimeoutError: it was too slow.
        """
        truth = servers.prefix_truth if self.prefix else servers.truth
        watch = Watch({"broker": [servers.kafka.pid]})
        values = {"{bootstrap}": servers.kafka.bootstrap, "{topic}": self.topic, "{events}": str(truth.events)}
        process = subprocess.Popen(
            [values.get(part, part) for part in self.command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        news = _News(process)
        try:
            course = follow(watch, lambda: [process.pid], news.newest, truth.events, limit_seconds)
            check(self.name, news.totals(_STOP_SECONDS), truth)
            process.wait(_STOP_SECONDS)
            return course
        finally:
            process.kill()
            process.wait()
            news.join()


class _News:
    """Reads what a program prints, in threads of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._last = time.time(), 0
        self._totals: dict[str, list[float]] | None = None
        self._errors = ""
        self._told = threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def newest(self) -> tuple[float, int]:
        """Time and count of the last line.

        Raises:
            RuntimeError: the program has ended without having counted everything.
        """
        if self._told.is_set() and self._totals is None:
            self._threads[1].join(_STOP_SECONDS)
            raise RuntimeError(f"ended before it had counted everything: {self._errors[-1500:]}")
        return self._last

    def totals(self, seconds: float) -> dict[str, list[float]]:
        """What it came to; waits for it.

        Raises:
            RuntimeError: it told none.
        """
        self._told.wait(seconds)
        if self._totals is None:
            raise RuntimeError(f"told no totals: {self._errors[-1500:]}")
        return self._totals

    def join(self) -> None:
        """Wait until all is read; the program has ended."""
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if not line.startswith('{"count"'):
                    continue
                news = json.loads(line)
                self._last = news["at"], news["count"]
                if "totals" in news:
                    self._totals = news["totals"]
                    self._told.set()
        self._told.set()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._errors = (self._errors + line)[-4000:]


def check(name: str, totals: dict[str, list[float]], truth: Truth) -> None:
    """Compare the totals with what was written.

    Raises:
        RuntimeError: they differ.
    """
    found = {key: int(count) for key, (count, _) in totals.items()}
    if found != truth.services:
        raise RuntimeError(f"{name} has {sum(found.values()):,} events instead of {truth.events:,}")
