"""Keep the ClickHouse server of the tests alive while its clients are killed.

ClickHouse as a library ends the process (SIGABRT) when a client goes away in the middle of an insert, where a server
would log it. What a killed worker does to its successors can only be seen if the server comes back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.clickhouse_server import ClickHouseServer


@contextmanager
def kept_alive(server: ClickHouseServer) -> Iterator[list[int]]:
    """Start the server again whenever it has ended; the list grows by one for each time.

    Inside the block nobody else may start, stop, kill or pause it.
    """
    stop = threading.Event()
    restarts: list[int] = []

    def watch() -> None:
        while not stop.wait(0.05):
            if not server.running:
                server.start()
                restarts.append(len(restarts) + 1)

    watching = threading.Thread(target=watch, name="keeper")
    watching.start()
    try:
        yield restarts
    finally:
        stop.set()
        watching.join()
