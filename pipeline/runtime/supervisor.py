"""Several processes started by one: kept running, stopped together, none left behind.

What is done when a process ends is decided by how it ended, see :func:`ends_all`. Processes are started as fresh
interpreters; each is tied to this one by a socket (:mod:`pipeline.runtime.member`), so that it ends by itself if this
one is killed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pipeline.errors import BrokerError, StoreError
from pipeline.runtime.member import MEMBER_VARIABLE, SPARE_SECONDS, Message
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A process that ran for so long is started again after the first pause, whatever was before."""
# Ten years of marked hours are a megabyte.
_LINE_BYTES: Final = 1 << 24
_CRASHES: Final = frozenset({0, 1, BrokerError.exit_code, StoreError.exit_code})


def ends_all(code: int) -> bool:
    """Whether a process that ended unasked ends the others: it says that something must be mended first.

    A signal, a fault of the program, and servers that are away are no such thing; nor is an end without error.
    """
    return code >= 0 and code not in _CRASHES


def worst(codes: Sequence[int]) -> int:
    """One exit code for several: what must be mended before faults of the program (1), these before 0."""
    return max((1 if code < 0 else code for code in codes), default=0)


def pause(failures: int) -> float:
    """Seconds until a process is started again that failed so many times in a row, from 1."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10))


def same_command() -> list[str]:
    """The command line of this process."""
    return [sys.executable, *sys.orig_argv[1:]]


@dataclass(slots=True)
class Child:
    """A process, from start to start. ``port`` is where it serves, None while it does not."""

    number: int
    process: asyncio.subprocess.Process | None = None
    port: int | None = None
    started_at: float = 0.0
    words: str = "not started yet"

    @property
    def running(self) -> bool:
        """Whether it exists."""
        return self.process is not None and self.process.returncode is None


class Supervisor:
    """Runs ``count`` processes of a command.

    Args:
        command: what to run.
        settings: what each process is given; ``worker.stop_seconds`` is how long it may take to end.
        count: how many.
        on_message: told what a process says, with its number.
        on_end: told that a process has ended, and whether it is started again.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        count: int,
        on_message: Callable[[int, Message], object] = lambda number, message: None,
        on_end: Callable[[int, bool], object] = lambda number, again: None,
    ) -> None:
        self.children = [Child(number) for number in range(1, count + 1)]
        self._command = list(command)
        self._settings = settings
        self._on_message = on_message
        self._on_end = on_end
        self._stopping = asyncio.Event()
        self._codes: list[int] = []

    def fail(self) -> None:
        """As :meth:`stop`, for a fault of this process: the exit code is at least 1."""
        self._codes.append(1)
        self.stop()

    def stop(self) -> None:
        """Tell all processes to end; :meth:`run` returns when they have."""
        self._stopping.set()
        for child in self.children:
            self._terminate(child)

    async def run(self) -> int:
        """Run until told to stop or until a process ends that says why all must; the worst exit code."""
        await asyncio.gather(*map(self._keep, self.children))
        return worst(self._codes)

    async def _keep(self, child: Child) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(child)
            if self._stopping.is_set():
                # A process that was told to stop before it listened had nothing to lose.
                self._codes.append(0 if code == -signal.SIGTERM else code)
            elif ends_all(code):
                logger.critical("a process must not go on; all are stopped", extra=_ended(child, code))
                self._codes.append(code)
                self.stop()
            again = not self._stopping.is_set()
            self._on_end(child.number, again)
            if not again:
                return
            failures = 1 if time.monotonic() - began >= STEADY_SECONDS else failures + 1
            seconds = pause(failures)
            child.words = f"{_how(code)}; it is started again after {seconds:g} s"
            logger.error("a process ended and is started again", extra=_ended(child, code) | {"pause_seconds": seconds})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _run_once(self, child: Child) -> int:
        """From start to end; the exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                child.process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=os.environ | {MEMBER_VARIABLE: f"{child.number}:{theirs.fileno()}"},
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C in a terminal is for this process, which tells the others.
                    process_group=0,
                )
            except OSError as error:
                logger.error("a process cannot be started", extra={"worker": child.number, "error": str(error)})  # noqa: TRY400
                return 1
            theirs.close()
            child.started_at, child.words = time.monotonic(), "starting"
            if self._stopping.is_set():
                self._terminate(child)
            listening = asyncio.create_task(self._listen(child, ours))
            try:
                code = await self._end_of(child.process)
                # What it said last may still be on its way.
                await asyncio.wait([listening], timeout=SPARE_SECONDS)
            finally:
                listening.cancel()
                child.port = None
            return code

    async def _listen(self, child: Child, bond: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=bond.dup(), limit=_LINE_BYTES)
        try:
            writer.write(msgspec.json.encode(self._settings) + b"\n")
            # A killed process resets the connection instead of closing it.
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    message = msgspec.json.decode(line, type=Message)
                    child.port = message.port or child.port
                    self._on_message(child.number, message)
        finally:
            writer.close()

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        ended = asyncio.ensure_future(process.wait())
        told = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([ended, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        seconds = self._settings.worker.stop_seconds + SPARE_SECONDS
        if not (await asyncio.wait([ended], timeout=seconds))[0]:
            logger.critical("a process has not ended and is killed; nothing is lost", extra={"pid": process.pid})
            process.kill()
        return await ended

    @staticmethod
    def _terminate(child: Child) -> None:
        if child.running and child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)


def _how(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _ended(child: Child, code: int) -> dict[str, object]:
    return {"worker": child.number, "how": _how(code), "ran_seconds": round(time.monotonic() - child.started_at, 1)}
