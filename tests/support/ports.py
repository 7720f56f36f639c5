"""Free ports on the loopback interface, each for one of all test processes of this machine."""

import fcntl
import os
import random
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import BinaryIO

LOOPBACK = "127.0.0.1"

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000
_ATTEMPTS = 200
_given: set[int] = set()
_choosing = threading.Lock()


def free_port() -> int:
    """A TCP port on which nothing listens, given to no other process that asks here as long as this one lives.

    So the port of a server that has yet to start, or is stopped for a while, is not taken by a test beside it.
    It lies below the range from which the kernel takes the ports of outgoing connections: a client that keeps
    reconnecting to a stopped server could otherwise be given that very port, which connects it to itself and keeps
    the server from coming back.

    Raises:
        OSError: none of 200 tried ports was free.
    """
    with _choosing:
        for _ in range(_ATTEMPTS):
            port = random.randrange(_LOWEST, _ephemeral_start())
            # A process gets its own lock again, hence the set.
            if port not in _given and _is_claimed(port) and _is_free(port):
                _given.add(port)
                return port
    raise OSError(f"no free port found in {_ATTEMPTS} attempts")


def listens(port: int) -> bool:
    """Whether something accepts connections on a port, which the kernel alone tells: the server may be busy."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _ephemeral_start() -> int:
    try:
        start = int(_RANGE_FILE.read_text("ascii").split()[0])
    except OSError:
        return 32_768
    return start if start > _LOWEST + 1_000 else 65_536


def _is_claimed(port: int) -> bool:
    """Take the port before the other processes that ask here: by a lock on the byte of a file, until this one ends."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    return True


@cache
def _claims() -> BinaryIO:
    # Opened once: to close any descriptor of the file would give up all locks of the process.
    return (Path(tempfile.gettempdir()) / f"xidmet-ports-{os.getuid()}").open("ab")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
