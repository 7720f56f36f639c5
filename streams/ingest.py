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
from dataclasses import dataclass

from faust.types import TP

from pipeline.catalogue import Catalogue
from pipeline.contract.profiles import ProfileTable
from pipeline.errors import BrokerError, StoreError
from pipeline.fold.flush import Flush
from pipeline.fold.fold import PartitionFold
from pipeline.fold.memory import Memory
from pipeline.fold.records import RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.settings import FLUSHES_APART_SECONDS, RejectedSettings, WorkerSettings
from streams.interfaces import IngestMetrics, PartitionStanding, ResultSink, Standing, Status
from streams.known_rules import KnownRules
from streams.reject_limit import RejectLimit
from streams.sink_calls import SinkCalls

logger = logging.getLogger(__name__)

# Of worker.max_pending_bytes, this part waits for a flush at most, so that folding can go on while it is written.
_FLUSH_SHARE = 4
# While a backlog is eaten, what was folded waits so long at most for a larger flush, which spares ClickHouse merges.
_BACKLOG_SECONDS = 2.0
# The bounds are looked at after each piece: a batch is as large as a fetch, and larger by far if it was compressed.
_PIECE_BYTES = 1 << 20
# Shorter back-pressure is the usual pace of a busy worker and nothing to log.
_SHORT_SECONDS = 1.0


@dataclass(slots=True)
class _Partition:
    fold: PartitionFold
    start: int
    high_water_mark: int
    # When the durable offset moved last, on the monotonic clock; at first when the partition was assigned.
    moved_at: float
    # Offset up to which the fold was taken for a flush.
    taken: int
    durable: int | None = None
    # Size of what the fold holds and was not taken for a flush yet.
    pending_bytes: int = 0


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
        *,
        clock: Callable[[], float] = time.monotonic,
        on_written: Callable[[Flush], object] | None = None,
        reject_limit: RejectLimit | None = None,
    ) -> None:
        self._sink = sink
        self._known = KnownRules(sink, rules, catalogue)
        self._calls = SinkCalls(metrics, clock)
        self._rules = rules
        self._settings = settings
        self._retry_seconds = retry_seconds
        self._metrics = metrics
        self._seek = seek
        self._clock = clock
        self._on_written = on_written
        self._reject_limit = reject_limit or RejectLimit(RejectedSettings(), rules)
        self._profiles = ProfileTable()
        self._partitions: dict[TP, _Partition] = {}
        self._generation = 0
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        # Whether worker.flush_seconds are over, and only a backlog puts the flush off.
        self._overdue = False
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._flushing = asyncio.Lock()
        self._flushing_since: float | None = None
        self._held_since: float | None = None
        # The assignment whose folds must not be written any more; see flush().
        self._spoiled: int | None = None
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
            inherited = point.inherited or self._rules
            rules = point.opened.get(point.start, inherited)
            fold = PartitionFold(
                point.log,
                point.start,
                point.opened,
                inherited,
                self._known.catalogues,
                Memory(point.memory, rules.memory_segments),
                self._known.by_text,
                self._profiles,
            )
            self._partitions[tp] = _Partition(fold, point.start, point.start, self._clock(), point.start)
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
                resumed = await self._calls.run("reading positions", self._resume_now, log_starts)
            except (StoreError, BrokerError) as error:
                self._calls.failed(error, "positions cannot be read; trying again")
                await asyncio.sleep(self._retry_seconds)
            else:
                self._calls.recovered("positions are read again")
                return resumed
        return {}

    def _resume_now(self, log_starts: dict[TP, int]) -> dict[TP, ResumePoint]:
        resumed = self._sink.resume(log_starts, self._rules)
        for point in resumed.values():
            self._known.learn_from(point)
            if point.in_force not in (None, self._rules):
                logger.warning(
                    "other rules are in force; a marker is written, after which those of this worker apply",
                    extra={"partition": point.log.partition, "segment": point.start},
                )
                self._sink.want_segment_end(point.log, self._rules)
        return resumed

    async def _learn_rules(self, batch: RecordBatch) -> bool:
        """Look up what markers in the batch ask for and was not met before; False if assigned anew meanwhile."""
        generation = self._generation
        for text in self._known.missing(batch):
            while True:
                try:
                    await self._calls.run("reading rules", self._known.learn, text)
                    self._calls.recovered("rules are read again")
                    break
                except (StoreError, BrokerError) as error:
                    self._calls.failed(error, "the rules that a marker asks for cannot be read; trying again")
                    await asyncio.sleep(self._retry_seconds)
                if generation != self._generation:
                    return False
        return True

    # Batches, from the agent

    async def add(self, batch: RecordBatch) -> None:
        """Fold one batch; waits while too much is unwritten."""
        tp = TP(batch.topic, batch.partition)
        if not await self._learn_rules(batch):
            return
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
        seconds = 0.0
        generation = self._generation
        for piece in batch.pieces(_PIECE_BYTES):
            began = time.perf_counter()
            spoiled, self._spoiled = self._spoiled, self._generation
            fold.add(piece)
            partition.pending_bytes += piece.size
            self._spoiled = spoiled
            seconds += time.perf_counter() - began
            partition.high_water_mark = max(batch.high_water_mark, batch.next_offset)
            self._report(partition)
            self._want_flush()
            if self._too_much():
                await self._hold()
            elif piece.next_offset < batch.next_offset:
                # Whoever asks how the worker is doing need not wait for the whole batch.
                await asyncio.sleep(0)
            if generation != self._generation:
                return
        self._metrics.batch_folded(batch, seconds)

    def _want_flush(self) -> None:
        self._tell_pending()
        settings, partitions = self._settings, self._partitions.values()
        # Without the flush under way: else the next one would begin as soon as it ends, with whatever is there by then.
        if (
            sum(item.fold.pending_events for item in partitions) >= settings.flush_events
            or sum(item.pending_bytes for item in partitions) * _FLUSH_SHARE >= settings.max_pending_bytes
            or (self._overdue and not self._backlog())
        ):
            self._wanted.set()

    def _backlog(self) -> bool:
        """Whether at least as many records are to be folded as were since the last flush.

        Then what was folded is not what anybody waits for, and a larger flush costs ClickHouse less.
        """
        partitions = self._partitions.values()
        waiting = sum(item.fold.next_offset - item.taken for item in partitions)
        return 0 < waiting <= sum(item.high_water_mark - item.fold.next_offset for item in partitions)

    async def _hold(self) -> None:
        """Wait until enough is written, or the partitions are assigned anew."""
        generation = self._generation
        self._held_since = began = self._clock()
        self._metrics.back_pressure(True)
        told = False
        try:
            while self._too_much() and generation == self._generation:
                self._written.clear()
                self._wanted.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._written.wait(), None if told else _SHORT_SECONDS)
                    continue
                told = True
                logger.warning("back-pressure: too much waits to be written, folding waits", extra=self._wait())
        finally:
            self._held_since = None
            self._metrics.back_pressure(False)
        if told:
            seconds = round(self._clock() - began, 1)
            logger.warning("back-pressure is over, folding goes on", extra=self._wait() | {"seconds": seconds})

    def _wait(self) -> dict[str, object]:
        return {"pending_events": self.pending_events, "pending_bytes": self.pending_bytes}

    def _too_much(self) -> bool:
        settings = self._settings
        return self.pending_events >= settings.max_pending_events or self.pending_bytes >= settings.max_pending_bytes

    @property
    def pending_events(self) -> int:
        """Events folded and not yet written."""
        return self._in_flight + sum(item.fold.pending_events for item in self._partitions.values())

    @property
    def pending_bytes(self) -> int:
        """Size of the messages folded and not yet written: values, keys and headers, in bytes."""
        return self._in_flight_bytes + sum(item.pending_bytes for item in self._partitions.values())

    def _tell_pending(self) -> None:
        self._metrics.pending(self.pending_events, self.pending_bytes)

    # The flush

    async def prepare(self) -> None:
        """Wait until the sink is there and fits.

        Raises:
            XidmetError: it is there and does not fit.
        """
        while not self._prepared and not self._stopping:
            try:
                await self._calls.run("preparing", self._sink.prepare, self._rules)
            except (StoreError, BrokerError) as error:
                self._calls.failed(error, "waiting for ClickHouse and Kafka")
                await asyncio.sleep(self._retry_seconds)
            else:
                self._prepared = True
                self._calls.recovered("ClickHouse and Kafka are there")

    async def run(self) -> None:
        """Flush whenever it is due, but not more often than ClickHouse can merge, until :meth:`stop`."""
        while not self._stopping:
            await self._due()
            began = self._clock()
            await self.flush()
            await asyncio.sleep(max(0.0, began + FLUSHES_APART_SECONDS - self._clock()))

    async def _due(self) -> None:
        """Wait until enough waits for a flush, or until time is up, which a backlog puts off."""
        for _ in range(max(1, round(_BACKLOG_SECONDS / self._settings.flush_seconds))):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._settings.flush_seconds)
                break
            if not self._backlog():
                break
            self._overdue = True
        self._overdue = False
        self._wanted.clear()

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
        taken_bytes = 0
        for partition in self._partitions.values():
            flush.extend(partition.fold.take())
            taken_bytes += partition.pending_bytes
            partition.pending_bytes = 0
            partition.taken = partition.fold.next_offset
        if not flush:
            return
        self._in_flight, self._in_flight_bytes = flush.events, taken_bytes
        self._flushing_since = self._clock()
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
            self._in_flight = self._in_flight_bytes = 0
            self._flushing_since = None
            self._written.set()
        if self._spoiled == generation:
            self._spoiled = None
        written_at = time.time()
        self._last_flush_at = written_at
        self._metrics.flush_written(flush, time.perf_counter() - began, written_at)
        if self._on_written is not None:
            self._on_written(flush)
        if generation == self._generation:
            for receipt in flush.receipts:
                partition = self._partitions[TP(receipt.log.topic, receipt.log.partition)]
                partition.durable = max(partition.durable or 0, receipt.next_offset)
                partition.moved_at = self._clock()
                self._report(partition)
        self._tell_pending()

    async def _write(self, flush: Flush) -> bool:
        try:
            await self._calls.run("writing", self._sink.write, flush)
        except (StoreError, BrokerError) as error:
            self._calls.failed(error, "results cannot be written; trying again")
            return False
        self._calls.recovered("results are written again")
        return True

    async def stop(self) -> None:
        """Write what is left, if the sink takes it at once, and close the sink."""
        self._stopping = True
        self._wanted.set()
        await self.flush()
        await self._calls.run("closing", self._sink.close)
        self._calls.close()

    def status(self) -> Status:
        """The state now."""
        return Status(
            assigned=len(self._partitions),
            pending_events=self.pending_events,
            pending_bytes=self.pending_bytes,
            last_error=self._calls.error,
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

    def standing(self) -> Standing:
        """How far it is now, for :mod:`streams.health`."""
        call_since, call = self._calls.oldest
        return Standing(
            prepared=self._prepared,
            error=self._calls.error,
            error_of_kafka=self._calls.error_of_kafka,
            error_ended_at=self._calls.error_ended_at,
            call=call,
            call_since=call_since,
            flushing_since=self._flushing_since,
            held_since=self._held_since,
            pending_events=self.pending_events,
            pending_bytes=self.pending_bytes,
            partitions={
                tp: PartitionStanding(
                    item.fold.next_offset,
                    item.start if item.durable is None else item.durable,
                    item.high_water_mark,
                    item.moved_at,
                )
                for tp, item in self._partitions.items()
            },
        )

    def _report(self, partition: _Partition) -> None:
        fold = partition.fold
        self._metrics.progress(fold.log, fold.next_offset, partition.durable, partition.high_water_mark)
