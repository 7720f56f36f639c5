"""``xidmet worker`` of several processes: this one starts them and is the one that is seen from outside.

It serves the page, the metrics of all and the health of all, and does once what each of them would do again for itself:
recompute hours and days, audit. It folds nothing.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from pipeline.catalogue import load_catalogue
from pipeline.errors import BrokerError, SettingsError
from pipeline.runtime.auditing import audit_into
from pipeline.runtime.joint import Joint
from pipeline.runtime.member import Message
from pipeline.runtime.periods import Marks, PeriodKeeper, kinds_of
from pipeline.runtime.statement_keeper import StatementKeeper
from pipeline.runtime.supervisor import Supervisor, same_command
from pipeline.settings import Settings, WebSettings
from pipeline.web.server import WebServer
from sinks.clickhouse.client import parse_url
from sinks.prometheus import Metrics
from streams.topics import partitions_of

logger = logging.getLogger(__name__)

_COUNT_AGAIN_SECONDS: Final = 30.0
# When all processes have ended, this one may take so long.
_LAST_SECONDS: Final = 10.0


def run_processes(settings: Settings, command: Sequence[str] | None = None) -> int:
    """Run ``worker.processes`` processes until a signal, or until one says why all must end; the exit code.

    Args:
        settings: all of them; each process gets the same, but for the address that it serves on.
        command: what starts a process; the command line of this one if None.

    Raises:
        SettingsError: the address of the page is taken, or there are several processes for a database that takes one.
        CatalogueError: the catalogue file is not valid.
    """
    if parse_url(settings.clickhouse.url).directory:
        raise SettingsError(
            f"worker.processes is {settings.worker.processes}, but clickhouse.url names a chdb directory, which one"
            " process only can open; set worker.processes to 1, or clickhouse.url to a server"
        )
    return asyncio.run(_Parent(settings, command or same_command()).run())


class _Parent:
    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self._settings = settings
        self._catalogue = load_catalogue(settings.catalogue_path)
        self._metrics = Metrics(self._catalogue.by_code, settings.rejected)
        self._kinds = {str(kind.table): kind for kind in kinds_of(settings)}
        self._marks = Marks(self._kinds.values())
        inner = msgspec.structs.replace(settings, web=WebSettings(host="127.0.0.1", port=0))
        self._supervisor = Supervisor(command, inner, settings.worker.processes, self._told, self._ended)
        self._joint = Joint(self._supervisor.children, self._metrics, settings.rejected)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        web = WebServer(self._settings, self._catalogue, self._joint)
        try:
            await web.start()
        except OSError as error:
            raise SettingsError(f"the worker's address web.host, web.port: {error}") from error
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._supervisor.stop)
        duties = [
            asyncio.create_task(self._watched(duty))
            for duty in (
                self._joint.look(),
                self._keep_periods(),
                self._keep_statements(),
                self._audit(),
                self._count_partitions(),
            )
        ]
        code = 1
        try:
            code = await self._supervisor.run()
            return code
        finally:
            # A statement that hangs holds nothing up: hours and days, and an audit, can be made again.
            last = threading.Timer(_LAST_SECONDS, os._exit, [code])
            last.daemon = True
            last.start()
            for duty in duties:
                duty.cancel()
            # The duty over hours and days still writes what the last flushes touched.
            await asyncio.gather(*duties, return_exceptions=True)
            await web.stop()
            await self._joint.close()
            last.cancel()

    def _told(self, number: int, message: Message) -> None:
        for table, numbers in message.marks.items():
            self._marks.add(self._kinds[table], numbers)

    def _ended(self, number: int, again: bool) -> None:
        self._joint.ended(number)
        if again:
            self._metrics.process_restarts.inc()

    async def _watched(self, duty: Coroutine[Any, Any, None]) -> None:
        """A duty that fails for an unknown reason ends the worker: nobody would notice that it is not done."""
        try:
            await duty
        except Exception:
            logger.critical("the process that runs the others failed; all are stopped", exc_info=True)
            self._supervisor.fail()

    async def _keep_periods(self) -> None:
        loop = asyncio.get_running_loop()
        keeper = PeriodKeeper(self._settings, self._marks, self._metrics)
        with ThreadPoolExecutor(1, thread_name_prefix="periods") as thread:
            try:
                await self._assigned()
                while True:  # noqa: ASYNC110 - the pause is not for waiting
                    await asyncio.sleep(await loop.run_in_executor(thread, keeper.step))
            finally:
                keeper.stop()
                await loop.run_in_executor(thread, keeper.close)

    async def _keep_statements(self) -> None:
        loop = asyncio.get_running_loop()
        keeper = StatementKeeper(self._settings, self._metrics)
        with ThreadPoolExecutor(1, thread_name_prefix="statements") as thread:
            try:
                await self._assigned()
                while True:  # noqa: ASYNC110 - the pause is not for waiting
                    await asyncio.sleep(await loop.run_in_executor(thread, keeper.step))
            finally:
                await loop.run_in_executor(thread, keeper.close)

    async def _assigned(self) -> None:
        """Wait for the processes to work: what the schema is, they find out."""
        while not (await self._joint.status())["assigned"]:  # noqa: ASYNC110 - it is the others that know
            await asyncio.sleep(1.0)

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(self._settings.worker.audit_seconds)
            await asyncio.get_running_loop().run_in_executor(None, audit_into, self._settings, self._metrics)

    async def _count_partitions(self) -> None:
        """Say once if there are processes that can never get a partition."""
        kafka, processes = self._settings.kafka, self._settings.worker.processes
        while True:
            try:
                partitions = await asyncio.get_running_loop().run_in_executor(
                    None, partitions_of, kafka, kafka.events_topic
                )
            except BrokerError as error:
                logger.debug("the partitions cannot be counted; trying again", extra={"error": str(error)})
                partitions = 0
            if partitions:
                break
            await asyncio.sleep(_COUNT_AGAIN_SECONDS)
        if processes > partitions:
            logger.warning(
                "more processes than partitions: the others have nothing to do, and the worker is never ready;"
                " set worker.processes to the number of partitions at most, or add partitions",
                extra={"processes": processes, "partitions": partitions, "topic": kafka.events_topic},
            )
