"""A TCP proxy on the loopback interface that can refuse, cut, freeze, slow down, and lose an answer."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from tests.support.ports import LOOPBACK

_CHUNK: Final = 65_536
_END_OF_STREAM: Final = b"\x05"
"""Packet of ClickHouse's native protocol with which the server says that an insert is done; it stands last."""


class Proxy:
    """Hands connections to ``port`` on to ``target_port``. A context manager; the methods may be called by any thread.

    Attributes:
        port: where it listens.
        answers_lost: how many answers it kept back (see :meth:`lose_answers`).
        held: how many inserts it holds (see :meth:`hold_insert`).
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.answers_lost = 0
        self.held = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}")
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._bytes_per_second = 0.0
        self._flowing = asyncio.Event()
        self._lose: list[bytes] = []
        self._hold = b""

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Let everything through at full speed."""
        self._do(self._heal())

    def refuse(self) -> None:
        """Close the door: cut what is open and refuse what comes."""
        self._do(self._refuse())

    def cut(self) -> None:
        """Cut what is open, on both sides; what comes is let through."""
        self._do(self._cut())

    def freeze(self) -> None:
        """Keep connections open and let no byte through until :meth:`heal`."""
        self._do(self._freeze())

    def slow(self, bytes_per_second: float) -> None:
        """Let so many bytes a second through, for each direction of each connection."""
        self._do(self._slow(bytes_per_second))

    def lose_answers(self, table: str, count: int = 1) -> None:
        """Of the next ``count`` inserts into a ClickHouse table, hand on what the client sends, and cut the connection
        when the server says that it is done: the rows are there and the client does not know it."""
        self._do(self._lose_answers(table, count))

    def hold_insert(self, table: str) -> None:
        """Hold the rows of the next insert into a ClickHouse table, and what follows on that connection, until
        :meth:`heal`, when they come late. Other connections are not touched."""
        self._do(self._hold_insert(table))

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=30)

    async def _heal(self) -> None:
        self._bytes_per_second = 0.0
        self._lose = []
        self._hold = b""
        self.held = 0
        self._flowing.set()
        for connection in self._connections:
            connection.released.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for connection in list(self._connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=10)

    async def _freeze(self) -> None:
        self._flowing.clear()

    async def _slow(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second

    async def _lose_answers(self, table: str, count: int) -> None:
        self._lose = [f"INSERT INTO {table} ".encode()] * count

    async def _hold_insert(self, table: str) -> None:
        self._hold = f"INSERT INTO {table} ".encode()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        connection.task = asyncio.current_task()
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                target_reader, target_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
                connection.writers.append(target_writer)
                await self._both_ways(connection, reader, writer, target_reader, target_writer)
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _both_ways(
        self,
        connection: "_Connection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target_reader: asyncio.StreamReader,
        target_writer: asyncio.StreamWriter,
    ) -> None:
        def sent(chunk: bytes) -> bool:
            if self._lose and self._lose[0] in chunk:
                self._lose.pop(0)
                connection.awaits_answer = True
            if connection.holds_rows:
                # The server has told the columns, so that this is the beginning of the rows.
                connection.holds_rows = False
                connection.released.clear()
                self.held += 1
            if self._hold and self._hold in chunk:
                self._hold = b""
                connection.awaits_columns = True
            return True

        def answered(chunk: bytes) -> bool:
            if connection.awaits_answer and chunk.endswith(_END_OF_STREAM):
                self.answers_lost += 1
                connection.abort()
                return False
            if connection.awaits_columns:
                connection.awaits_columns = False
                connection.holds_rows = True
            return True

        ways = [
            asyncio.create_task(self._hand_on(connection, reader, target_writer, sent)),
            asyncio.create_task(self._hand_on(connection, target_reader, writer, answered)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _hand_on(
        self,
        connection: "_Connection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[bytes], bool],
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._flowing.wait()
            if not look(chunk):
                return
            await connection.released.wait()
            if self._bytes_per_second:
                await asyncio.sleep(len(chunk) / self._bytes_per_second)
            writer.write(chunk)
            await writer.drain()


class _Connection:
    """A pair of streams. Aborting it drops what is on its way, as a cut wire does."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.task: asyncio.Task[Any] | None = None
        self.awaits_answer = False
        self.awaits_columns = False
        self.holds_rows = False
        self.released = asyncio.Event()
        self.released.set()

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
