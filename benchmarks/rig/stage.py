"""Real servers of tests/support and a worker of its own process, at the default settings unless told otherwise."""

import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings import Settings
from tests.support import ClickHouseServer, KafkaServer
from tests.support.pipeline_run import PipelineRun
from tests.support.waiting import wait_until

READY_SECONDS = 120.0
_PART_LOG = (
    "<part_log><database>system</database><table>part_log</table>"
    "<flush_interval_milliseconds>1000</flush_interval_milliseconds></part_log>"
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers that run, and what is run on them."""

    kafka: KafkaServer
    clickhouse: ClickHouseServer
    directory: Path

    @contextmanager
    def pipeline(self, name: str, **settings: object) -> Iterator[PipelineRun]:
        """Topics, a database and a directory of their own, dropped at the end; workers that are left end with them."""
        directory = self.directory / name
        directory.mkdir()
        self.clickhouse.execute(f"CREATE DATABASE {name}")
        # What the tests set for their own sake goes back to the defaults.
        defaults = {
            "kafka__session_timeout_seconds": Settings().kafka.session_timeout_seconds,
            "clickhouse__retry_seconds": Settings().clickhouse.retry_seconds,
        }
        run = PipelineRun(self.kafka.bootstrap, self.clickhouse.database_url(name), directory, **(defaults | settings))
        try:
            run.run("migrate")
            yield run
        finally:
            run.stop()
            self.clickhouse.execute(f"DROP DATABASE {name} SYNC")

    def pids(self) -> dict[str, int]:
        """Process ids of the servers by their names."""
        return {server.name: server.pid for server in (self.kafka, self.clickhouse)}


@contextmanager
def stage(parent: Path | None = None, further_config: str = "") -> Iterator[Stage]:
    """Start both servers on data below ``parent`` (the system's temporary directory if None); remove it at the end.

    ``further_config`` is XML for ClickHouse's configuration, beside what makes it keep ``part_log``.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xidmet-bench-", dir=parent)))
        kafka = KafkaServer(directory / "kafka", {"log.retention.ms": "-1", "log.segment.bytes": str(64 << 20)})
        clickhouse = ClickHouseServer(directory / "clickhouse", further_config=_PART_LOG + further_config)
        yield Stage(stack.enter_context(kafka), stack.enter_context(clickhouse), directory)


def start_worker(run: PipelineRun) -> subprocess.Popen[bytes]:
    """A worker that has its partitions.

    Raises:
        TimeoutError: it did not get them; the message ends with its log.
    """
    worker = run.start_worker()
    try:
        wait_until(lambda: _ready(run.flags["web.port"]), READY_SECONDS, "the worker to be ready", every=0.1)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{run.logs()}") from None
    return worker


def need_disk(parent: Path | None, gigabytes: float) -> None:
    """See whether there is room.

    Raises:
        SystemExit: there is not.
    """
    place = parent or Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free / 1e9
    if free < gigabytes:
        raise SystemExit(f"{place} has {free:.0f} GB free, {gigabytes:.0f} are needed; name another with --directory")


def _ready(port: Any) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def pressure() -> float:
    """Seconds for which some process of the machine had to wait for a CPU, since it started; 0 where it is not told.

    Where it rises nearly as fast as the clock, the machine was busy with other things, and wall clock says little.
    """
    try:
        some = Path("/proc/pressure/cpu").read_text("ascii").splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6
