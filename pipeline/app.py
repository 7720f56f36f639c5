"""The worker as a Faust application: ``faust -A pipeline.app worker`` runs it, as ``xidmet worker`` does.

The settings come from the file and the environment (:mod:`pipeline.settings`); ``xidmet worker`` adds its flags by
:func:`create_app`.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from faust.types import TP
from mode import Service

from pipeline.catalogue import Catalogue, load_catalogue
from pipeline.fold.records import RecordBatch
from pipeline.fold.rules import Rules
from pipeline.runtime.auditing import audit_into
from pipeline.runtime.results import Results
from pipeline.settings import Settings, load_settings
from pipeline.web.server import WebServer
from sinks.prometheus import Metrics
from streams.ingest import Ingest
from streams.interfaces import ResultSink
from streams.reject_limit import RejectLimit
from streams.transport import BatchSchema

# Batches, not events, that may wait between the fetcher and the agent for each partition.
_BATCHES_AHEAD = 4


class XidmetApp(faust.App):
    """A Faust app that knows its ingest; the transport takes positions from ``positions``."""

    positions: Ingest
    metrics: Metrics
    page_server: WebServer
    start_error: BaseException | None = None

    async def on_start(self) -> None:
        """Serve health and metrics first, then wait for the sink, and only then consume."""
        await super().on_start()
        try:
            await self.page_server.start()
            await self.positions.prepare()
        except Exception as error:
            self.start_error = error
            raise

    async def on_shutdown(self) -> None:
        """Stop serving when all else has stopped."""
        await super().on_shutdown()
        await self.page_server.stop()
        shutil.rmtree(self.conf.datadir, ignore_errors=True)


def create_app(settings: Settings, sink_of: Callable[[Settings, Catalogue], ResultSink] = Results) -> XidmetApp:
    """Build the application; nothing is connected before it starts.

    Args:
        settings: all of them.
        sink_of: makes the sink for results; another one than the usual is for tests that let it fail.

    Raises:
        CatalogueError: the catalogue file is not valid.
    """
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
        broker_max_poll_interval=86_400.0,
        broker_max_poll_records=kafka.max_poll_records,
        consumer_max_fetch_size=kafka.fetch_max_bytes,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=_BATCHES_AHEAD,
        stream_wait_empty=False,
        # A batch may wait for ClickHouse: slowness is told by lag and readiness, not by Faust's warnings.
        stream_processing_timeout=86_400.0,
        broker_commit_livelock_soft_timeout=86_400.0,
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
        reject_limit=RejectLimit(settings.rejected, rules),
    )
    app.positions = ingest
    app.metrics = metrics
    app.page_server = WebServer(settings, catalogue, metrics, ingest)
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

    @app.service
    class IngestService(Service):
        """Flushes while the app runs."""

        @Service.task
        async def _flush(self) -> None:
            await ingest.run()

        async def on_stop(self) -> None:
            await ingest.stop()

    @app.service
    class AuditService(Service):
        """Audits the totals now and then, and tells the metric."""

        @Service.task
        async def _audit(self) -> None:
            async for _ in self.itertimer(settings.worker.audit_seconds, name="audit"):
                await asyncio.get_running_loop().run_in_executor(None, audit_into, settings, metrics)

    return app


def __getattr__(name: str) -> Any:
    """``app`` is built when Faust asks for it, not when the module is imported."""
    if name == "app":
        app = create_app(load_settings())
        globals()["app"] = app
        return app
    raise AttributeError(name)
