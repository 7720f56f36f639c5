"""One of several worker processes that one command started, as the process itself sees it.

A socket that it inherits ties it to the process that started it. Through it come the settings, as that process has
them; back go the port at which this one serves, and the hours and days that its flushes touched. When it closes, the
process that started this one is gone, and this one stops as if told to.
"""

import os
import signal
import socket
import struct
import threading
import time

import msgspec
from msgspec import Struct

from pipeline.settings import Settings

MEMBER_VARIABLE = "XIDMET_WORKER_MEMBER"
"""Number of the process, from 1, and its end of the socket, as ``NUMBER:DESCRIPTOR``. Not for users."""
SPARE_SECONDS = 5.0
"""How long after ``worker.stop_seconds`` a process that has not ended by itself is killed."""
# A process that started others and does not read is no reason to hang for ever.
_SEND_SECONDS = 5


class Message(Struct, frozen=True, omit_defaults=True):
    """A line from a process to the one that started it: where it serves, or periods by table (``hours``, ``days``)."""

    port: int | None = None
    marks: dict[str, list[int]] = {}


class Member:
    """This process, if it is one of several; ``settings`` are those that it was given."""

    def __init__(self, number: int, bond: socket.socket) -> None:
        self.number = number
        self._bond = bond
        bond.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        with bond.makefile("rb") as lines:
            line = lines.readline()
        if not line:
            raise SystemExit(1)  # whoever started this process is gone already
        self.settings = msgspec.json.decode(line, type=Settings)
        threading.Thread(target=self._watch, name="bond", daemon=True).start()

    @property
    def name(self) -> str:
        """What its log lines say."""
        return f"worker {self.number}"

    def tell(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: whoever started this process is gone, or does not read.
        """
        self._bond.sendall(msgspec.json.encode(message) + b"\n")

    def _watch(self) -> None:
        """Wait until whoever started this process is gone, then stop it; for certain."""
        try:
            while self._bond.recv(4096):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.settings.worker.stop_seconds + SPARE_SECONDS)
        os._exit(1)


def this_member() -> Member | None:
    """The process's place among others, if it was started as one of several; to be asked once."""
    given = os.environ.pop(MEMBER_VARIABLE, "")
    if not given:
        return None
    number, _, descriptor = given.partition(":")
    return Member(int(number), socket.socket(fileno=int(descriptor)))
