"""Free ports on the loopback interface."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000
_ATTEMPTS = 200
_given: set[int] = set()


def free_port() -> int:
    """A TCP port on which nothing listens, never given twice by this process.

    It lies below the range from which the kernel takes the ports of outgoing connections: a client that keeps
    reconnecting to a stopped server could otherwise be given that very port, which connects it to itself and keeps
    the server from coming back.

    Raises:
        OSError: none of 200 tried ports was free.
    """
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST, _ephemeral_start())
        if port not in _given and _is_free(port):
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


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
