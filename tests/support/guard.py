"""Ends a server when the process that started it is gone, however it went: ``python guard.py PID``.

Standard input is a pipe whose other end the starter holds; the kernel closes it with the starter. The server is held
by a pidfd, so that a reused process id is never hit.
"""

import os
import select
import signal
import sys


def main() -> None:
    """Wait for the end of the server or of the starter, whichever comes first."""
    try:
        server = os.pidfd_open(int(sys.argv[1]))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([server, sys.stdin], [], [])
    if server not in ended:
        signal.pidfd_send_signal(server, signal.SIGKILL)


if __name__ == "__main__":
    main()
