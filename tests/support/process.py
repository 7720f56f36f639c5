"""A server in a child process: start, stop, kill, restart, pause and resume."""

import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.support.waiting import wait_until

_GUARD = Path(__file__).with_name("guard.py")


class ServerProcess(ABC):
    """One server on one data directory.

    Its addresses and its directory are chosen when it is made and stay the same from start to start, so that clients
    find it again after ``restart()``. Used as a context manager it is running inside the block, and its data
    directory is removed at the end unless the caller named it.

    It does not outlive the process that started it.
    """

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 20.0

    def __init__(self, directory: Path | None = None) -> None:
        """``directory`` holds data and log; None makes a temporary one that ``close()`` removes."""
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"xidmet-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def log_path(self) -> Path:
        """What the server printed, over all its starts."""
        return self.directory / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            RuntimeError: it is not running.
        """
        return self._running_process().pid

    def start(self) -> None:
        """Start it and wait until it answers; nothing happens if it is running.

        Raises:
            ServerUnavailable: this machine cannot run it.
            RuntimeError: it ended, or did not answer within ``start_seconds``; the message ends with its log.
        """
        if self.running:
            return
        self._reap()
        self.directory.mkdir(parents=True, exist_ok=True)
        command = self._prepare()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for the starter, which then stops its servers in order.
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_GUARD), str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            wait_until(self._answers_or_ended, self.start_seconds, f"{self.name} to answer")
        except BaseException as error:
            self.kill()
            if isinstance(error, TimeoutError):
                raise RuntimeError(f"{error}\n{self.log_tail()}") from error
            raise

    def stop(self) -> None:
        """End it in order; kill it if that takes longer than ``stop_seconds``. Nothing happens if it is not running."""
        if not self.running:
            self._reap()
            return
        self.resume()
        self._ask_to_stop(self._running_process())
        try:
            self._running_process().wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reap()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would end the process, though not the machine's page cache."""
        if self.running:
            self._running_process().kill()
        self._reap()

    def restart(self) -> None:
        """Start it again on the same directory and ports, after stopping it if it is running."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers. Returns when it stands still."""
        process = self._running_process()
        process.send_signal(signal.SIGSTOP)
        self._paused = True
        wait_until(lambda: process_state(process.pid) in "TZ", self.stop_seconds, f"{self.name} to stand still")

    def resume(self) -> None:
        """Undo ``pause()``; nothing happens if it is not paused."""
        if self._paused:
            self._running_process().send_signal(signal.SIGCONT)
            self._paused = False

    def close(self) -> None:
        """Stop it and remove its directory if it is a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, characters: int = 3000) -> str:
        """The end of the log, for messages."""
        try:
            return self.log_path.read_text("utf-8", "replace")[-characters:]
        except OSError:
            return "(no log)"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Make ready what a start needs and return the command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether a client gets an answer now; must return or raise within a few seconds."""

    def _ask_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()

    def _answers_or_ended(self) -> bool:
        code = self._running_process().poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code} instead of starting:\n{self.log_tail()}")
        return self._answers()

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process

    def _reap(self) -> None:
        """Wait for what has ended and close its pipes."""
        self._paused = False
        # The guard comes second: it leaves by itself once the server is gone.
        for process in (self._process, self._guard):
            if process is not None:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(self.stop_seconds)
        self._process = self._guard = None


def process_state(pid: int) -> str:
    """One letter as in proc(5): T is stopped, Z is ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return "Z"
    return status.rpartition(")")[2].split()[0]
