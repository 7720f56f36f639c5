"""From record batches to written results: the folds of the assigned partitions, and the flush.

The protocol of a flush, in this order, each step acknowledged before the next:

1. Take from every fold what changed since the last flush. Folding goes on while it is written. A flush with which
   nearly everything would have been refused ends the worker here (:mod:`streams.reject_limit`).
2. Receipts that open segments: they fix a segment's rules before any row of it exists.
3. Dead letters.
4. Ledger, coordinates, minutes.
5. Receipts of progress. Only now are the offsets durable.

A step that fails is tried again with the same content, from step 2, until it succeeds or the partitions are assigned
anew. All writes are upserts of what the log says, so that repeating them, out of order or by several workers at once,
ends in the same rows. A worker that dies anywhere leaves a segment that its successor folds again from the start.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from faust.types import TP

from pipeline.catalogue import Catalogue
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.settings import RejectedSettings, WorkerSettings
from streams.interfaces import IngestMetrics, ResultSink, Status
from streams.reject_limit import RejectLimit

logger = logging.getLogger(__name__)
R = TypeVar("R")


@dataclass(slots=True)
class _Partition:
    fold: PartitionFold
    high_water_mark: int = 0
    durable: int | None = None


class Ingest:
    """The folds of the partitions assigned to this worker; implements :class:`streams.transport.Positions`.

    All methods run in the worker's event loop; the sink's calls run in one thread beside it.
    """

    def __init__(
        self,
        sink: ResultSink,
        catalogue: Catalogue,
        rules: Rules,
        settings: WorkerSettings,
        retry_seconds: float,
        metrics: IngestMetrics,
        seek: Callable[[TP, int], object],
        reject_limit: RejectLimit | None = None,
    ) -> None:
        self._sink = sink
        self._catalogues = {catalogue.version: catalogue}
        self._rules = rules
        self._settings = settings
        self._retry_seconds = retry_seconds
        self._metrics = metrics
        self._seek = seek
        self._reject_limit = reject_limit or RejectLimit(RejectedSettings(), rules)
        self._partitions: dict[TP, _Partition] = {}
        self._generation = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink")
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._in_flight = 0
        self._flushing = asyncio.Lock()
        # The assignment whose folds must not be written any more; see flush().
        self._spoiled: int | None = None
        self._last_error = ""
        self._last_flush_at = 0.0
        self._stopping = False
        self._prepared = False

    # Positions, for the transport

    async def load(self, log_starts: Mapping[TP, int]) -> Mapping[TP, int]:
        """Start the folds of the partitions now assigned; see :class:`streams.transport.Positions`."""
        self._generation += 1
        generation = self._generation
        for partition in self._partitions.values():
            self._metrics.revoked(partition.fold.log)
        self._partitions = {}
        await self.prepare()
        resumed = await self._resume(dict(log_starts), generation)
        if generation != self._generation:
            return {}
        self._reject_limit.resume(resumed.values())
        for tp, point in resumed.items():
            rules = point.opened.get(point.start, self._rules)
            fold = PartitionFold(
                point.log,
                point.start,
                point.opened,
                self._rules,
                self._catalogues,
                Memory(point.memory, rules.memory_segments),
            )
            self._partitions[tp] = _Partition(fold, high_water_mark=point.start)
        self._written.set()
        logger.info(
            "partitions assigned",
            extra={"positions": {f"{tp.topic}[{tp.partition}]": point.start for tp, point in resumed.items()}},
        )
        return {tp: point.start for tp, point in resumed.items()}

    def durable(self) -> Mapping[TP, int]:
        """See :class:`streams.transport.Positions`."""
        return {tp: item.durable for tp, item in self._partitions.items() if item.durable is not None}

    async def _resume(self, log_starts: dict[TP, int], generation: int) -> dict[TP, ResumePoint]:
        """Ask the sink where to go on, as often as it takes: without it nothing can be folded."""
        while log_starts and generation == self._generation:
            try:
                return await self._in_thread(self._resume_now, log_starts)
            except (StoreError, BrokerError) as error:
                self._failed(error, "positions cannot be read; trying again")
                await asyncio.sleep(self._retry_seconds)
        return {}

    def _resume_now(self, log_starts: dict[TP, int]) -> dict[TP, ResumePoint]:
        resumed = self._sink.resume(log_starts, self._rules)
        for point in resumed.values():
            for rules in point.opened.values():
                if rules.catalogue_version not in self._catalogues:
                    self._catalogues[rules.catalogue_version] = self._sink.catalogue(rules.catalogue_version)
            if any(rules != self._rules for rules in point.opened.values()):
                logger.warning(
                    "an open segment keeps the rules it was opened with; it is asked to end so that the new ones apply",
                    extra={"partition": point.log.partition, "segment": point.start},
                )
                self._sink.want_segment_end(point.log, self._rules)
        return resumed

    # Batches, from the agent

    async def add(self, batch: RecordBatch) -> None:
        """Fold one batch; waits while too much is unwritten."""
        tp = TP(batch.topic, batch.partition)
        partition = self._partitions.get(tp)
        if partition is None:
            return
        fold = partition.fold
        if batch.start_offset != fold.next_offset:
            if batch.start_offset > fold.next_offset:
                # Faust dropped a batch on a rebalance. Nothing is lost: fetch it again.
                logger.warning(
                    "records were skipped on the way and are fetched again",
                    extra={"partition": batch.partition, "expected": fold.next_offset, "came": batch.start_offset},
                )
                self._seek(tp, fold.next_offset)
            return
        began = time.perf_counter()
        spoiled, self._spoiled = self._spoiled, self._generation
        fold.add(batch)
        self._spoiled = spoiled
        partition.high_water_mark = max(batch.high_water_mark, batch.next_offset)
        self._metrics.batch_folded(batch, time.perf_counter() - began)
        self._report(partition)
        pending = self.pending_events
        self._metrics.pending(pending)
        if pending >= self._settings.flush_events:
            self._wanted.set()
        generation = self._generation
        while self.pending_events >= self._settings.max_pending_events and generation == self._generation:
            self._written.clear()
            await self._written.wait()

    @property
    def pending_events(self) -> int:
        """Events folded and not yet written."""
        return self._in_flight + sum(item.fold.pending_events for item in self._partitions.values())

    # The flush

    async def prepare(self) -> None:
        """Wait until the sink is there and fits.

        Raises:
            XidmetError: it is there and does not fit.
        """
        while not self._prepared and not self._stopping:
            try:
                await self._in_thread(self._sink.prepare)
            except (StoreError, BrokerError) as error:
                self._failed(error, "waiting for ClickHouse and Kafka")
                await asyncio.sleep(self._retry_seconds)
            else:
                self._prepared = True
                self._last_error = ""

    async def run(self) -> None:
        """Flush whenever it is due, until :meth:`stop`."""
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._settings.flush_seconds)
            self._wanted.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what was folded since the last flush; returns when it is durable or no longer this worker's.

        Flushes follow one another. When one is given up or fails for an unknown reason, none may follow until the
        partitions are assigned anew: the receipts of a later one would vouch for rows of the earlier one, which were
        never written. The same holds after a fold that failed half-way.
        """
        async with self._flushing:
            if self._spoiled != self._generation:
                await self._flush()

    async def _flush(self) -> None:
        generation = self._generation
        flush = Flush()
        for partition in self._partitions.values():
            flush.extend(partition.fold.take())
        if not flush:
            return
        self._in_flight = flush.events
        self._spoiled = generation
        began = time.perf_counter()
        try:
            self._reject_limit.check(flush)
            while not await self._write(flush):
                if self._stopping:
                    return
                await asyncio.sleep(self._retry_seconds)
                if generation != self._generation:
                    # The partitions are folded anew, from what the receipts say.
                    return
        finally:
            self._in_flight = 0
            self._written.set()
        if self._spoiled == generation:
            self._spoiled = None
        written_at = time.time()
        self._last_flush_at = written_at
        self._metrics.flush_written(flush, time.perf_counter() - began, written_at)
        if generation == self._generation:
            for receipt in flush.receipts:
                partition = self._partitions[TP(receipt.log.topic, receipt.log.partition)]
                partition.durable = max(partition.durable or 0, receipt.next_offset)
                self._report(partition)
        self._metrics.pending(self.pending_events)

    async def _write(self, flush: Flush) -> bool:
        try:
            await self._in_thread(self._sink.write, flush)
        except (StoreError, BrokerError) as error:
            self._failed(error, "results cannot be written; trying again")
            return False
        if self._last_error:
            logger.warning("results are written again")
            self._last_error = ""
        return True

    async def stop(self) -> None:
        """Write what is left, if the sink takes it at once, and close the sink."""
        self._stopping = True
        self._wanted.set()
        await self.flush()
        await self._in_thread(self._sink.close)
        self._thread.shutdown()

    def status(self) -> Status:
        """The state now."""
        return Status(
            assigned=len(self._partitions),
            pending_events=self.pending_events,
            last_error=self._last_error,
            last_flush_at=self._last_flush_at,
            partitions=[
                {
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "position": item.fold.next_offset,
                    "durable": item.durable,
                    "high_water_mark": item.high_water_mark,
                }
                for tp, item in sorted(self._partitions.items())
            ],
        )

    def _report(self, partition: _Partition) -> None:
        fold = partition.fold
        self._metrics.progress(fold.log, fold.next_offset, partition.durable, partition.high_water_mark)

    def _failed(self, error: Exception, words: str) -> None:
        self._metrics.flush_failed(error)
        if str(error) != self._last_error:
            logger.error(words, extra={"error": str(error)})
        self._last_error = str(error)

    async def _in_thread(self, call: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*arguments))
