"""The worker as a Faust application: ``faust -A pipeline.app worker`` runs it, as ``xidmet worker`` does.

The settings come from the file and the environment (:mod:`pipeline.settings`); ``xidmet worker`` adds its flags by
:func:`create_app`.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from mode import Service

from pipeline.catalogue import Catalogue, load_catalogue
from pipeline.fold.records import RecordBatch
from pipeline.fold.rules import Rules
from pipeline.runtime.auditing import audit_into
from pipeline.runtime.member import Member, Message
from pipeline.runtime.memory import TRIM_SECONDS, trim
from pipeline.runtime.periods import Marks, PeriodKeeper, kinds_of
from pipeline.runtime.relay import Relay
from pipeline.runtime.results import Results
from pipeline.runtime.statement_keeper import StatementKeeper
from pipeline.settings import Settings, load_settings
from pipeline.web.server import WebServer
from pipeline.web.source import OneProcess
from sinks.prometheus import Metrics
from streams.health import LOOK_SECONDS, Health, Polls
from streams.ingest import Ingest
from streams.interfaces import ResultSink
from streams.reject_limit import RejectLimit
from streams.transport import BatchSchema

# Batches, not events, of all partitions together, that may wait between the fetcher and the agent.
_BATCHES_AHEAD = 4
# Longer than any log is kept.
_FOR_EVER_SECONDS = 10 * 365 * 86_400.0


class XidmetApp(faust.App):
    """A Faust app that knows its ingest; the transport takes positions from ``positions``."""

    positions: Ingest
    polls: Polls
    metrics: Metrics
    page_server: WebServer
    member: Member | None = None
    start_error: BaseException | None = None

    async def on_start(self) -> None:
        """Serve health and metrics first, then wait for the sink, and only then consume."""
        await super().on_start()
        try:
            port = await self.page_server.start()
            if self.member is not None:
                self.member.tell(Message(port=port))
            await self.positions.prepare()
        except Exception as error:
            self.start_error = error
            raise

    async def on_shutdown(self) -> None:
        """Stop serving when all else has stopped."""
        await super().on_shutdown()
        await self.page_server.stop()
        shutil.rmtree(self.conf.datadir, ignore_errors=True)


def create_app(
    settings: Settings,
    sink_of: Callable[[Settings, Catalogue], ResultSink] = Results,
    member: Member | None = None,
) -> XidmetApp:
    """Build the application; nothing is connected before it starts.

    Args:
        settings: all of them.
        sink_of: makes the sink for results; another one than the usual is for tests that let it fail.
        member: this process among several that one command started, which leave hours, days and audits to that one.

    Raises:
        CatalogueError: the catalogue file is not valid.
        SettingsError: there is no such time zone.
    """
    marks = Marks(kinds_of(settings))
    catalogue = load_catalogue(settings.catalogue_path)
    kafka = settings.kafka
    app = XidmetApp(
        kafka.group,
        broker=["kafkabatch://" + server for server in kafka.bootstrap.split(",")],
        broker_client_id="xidmet-worker",
        broker_session_timeout=kafka.session_timeout_seconds,
        broker_heartbeat_interval=kafka.session_timeout_seconds / 4,
        broker_request_timeout=max(kafka.request_timeout_seconds, kafka.session_timeout_seconds),
        broker_rebalance_timeout=kafka.request_timeout_seconds,
        # While ClickHouse is away nothing is polled, for as long as it takes; membership is kept by heartbeats.
        broker_max_poll_interval=_FOR_EVER_SECONDS,
        consumer_metadata_max_age_ms=int(kafka.metadata_seconds * 1000),
        broker_max_poll_records=kafka.max_poll_records,
        consumer_max_fetch_size=kafka.fetch_max_bytes,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=_BATCHES_AHEAD,
        stream_wait_empty=False,
        # A batch may wait for ClickHouse: slowness is told by lag and readiness, not by Faust's warnings.
        stream_processing_timeout=_FOR_EVER_SECONDS,
        broker_commit_livelock_soft_timeout=_FOR_EVER_SECONDS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        # Faust makes a directory of its own in it at start; there are no tables to keep there.
        datadir=str(Path(tempfile.gettempdir()) / f"xidmet-{os.getpid()}"),
        web_enabled=False,
        autodiscover=False,
    )
    metrics = Metrics(catalogue.by_code, settings.rejected)
    rules = Rules.of(settings.fold, catalogue.version)

    def seek(tp: TP, offset: int) -> object:
        return asyncio.ensure_future(app.consumer.seek_wait({tp: offset}))

    ingest = Ingest(
        sink_of(settings, catalogue),
        catalogue,
        rules,
        settings.worker,
        settings.clickhouse.retry_seconds,
        metrics,
        seek,
        on_written=marks.written,
        reject_limit=RejectLimit(settings.rejected, rules),
    )
    app.positions = ingest
    app.polls = Polls()
    app.metrics = metrics
    app.member = member
    health = Health(ingest, app.polls, settings.worker, kafka.request_timeout_seconds, metrics)
    app.page_server = WebServer(settings, catalogue, OneProcess(metrics, health))
    topic = app.topic(kafka.events_topic, schema=BatchSchema(), partitions=kafka.partitions)

    @app.agent(topic, name="ingest")
    async def fold_batches(batches: faust.StreamT[RecordBatch]) -> None:
        async for batch in batches:
            try:
                await ingest.add(batch)
            except Exception as error:
                # Faust would start the agent again and go on with the next batch; this one would be lost.
                await app.crash(error)
                raise
            batch.release()

    class StatementService(Service):
        """Brings statements into ClickHouse, in a thread of its own."""

        def on_init(self) -> None:
            self.keeper = StatementKeeper(settings, metrics)
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="statements")

        @Service.task
        async def _keep(self) -> None:
            await ingest.prepare()
            while not self.should_stop:
                await self.sleep(await asyncio.get_running_loop().run_in_executor(self.pool, self.keeper.step))

        async def on_stop(self) -> None:
            await asyncio.get_running_loop().run_in_executor(self.pool, self.keeper.close)
            self.pool.shutdown()

    # Before the ingest, so that it stops after it: the last flush marks as well.
    @app.service
    class PeriodService(Service):
        """Keeps hours and days up to date, or tells who does, in a thread of its own."""

        def on_init(self) -> None:
            self.keeper = PeriodKeeper(settings, marks, metrics) if member is None else Relay(member, marks)
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="periods")

        @Service.task
        async def _keep(self) -> None:
            await ingest.prepare()
            while not self.should_stop:
                await self.sleep(await asyncio.get_running_loop().run_in_executor(self.pool, self.keeper.step))

        async def on_stop(self) -> None:
            self.keeper.stop()
            await asyncio.get_running_loop().run_in_executor(self.pool, self.keeper.close)
            self.pool.shutdown()

    @app.service
    class IngestService(Service):
        """Flushes while the app runs."""

        @Service.task
        async def _flush(self) -> None:
            await ingest.run()

        @Service.task
        async def _look(self) -> None:
            async for _ in self.itertimer(LOOK_SECONDS, name="health"):
                health.look()

        @Service.task
        async def _trim(self) -> None:
            async for _ in self.itertimer(TRIM_SECONDS, name="trim"):
                await asyncio.get_running_loop().run_in_executor(None, trim)

        async def on_stop(self) -> None:
            await ingest.stop()

    class AuditService(Service):
        """Audits the totals now and then, and tells the metric."""

        @Service.task
        async def _audit(self) -> None:
            async for _ in self.itertimer(settings.worker.audit_seconds, name="audit"):
                await asyncio.get_running_loop().run_in_executor(None, audit_into, settings, metrics)

    if member is None:
        app.service(StatementService)
        app.service(AuditService)

    return app


def __getattr__(name: str) -> Any:
    """``app`` is built when Faust asks for it, not when the module is imported."""
    if name == "app":
        app = create_app(load_settings())
        globals()["app"] = app
        return app
    raise AttributeError(name)
