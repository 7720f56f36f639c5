"""A Faust transport that hands an agent whole record batches: one message is all that a poll gave of a partition.

Registered as ``kafkabatch://`` under the entry point ``faust.transports``. It changes four things of Faust's aiokafka
driver:

1. The consumer thread returns one :class:`~pipeline.fold.records.RecordBatch` per partition and poll, whose columns
   ``streams/fetch.py`` reads from Kafka's answer. Stock Faust spends most of its time on passing messages one by one.
2. Positions come from an authority that the application sets (:class:`Positions`), not from committed offsets, which
   Faust does not keep reliably. What it commits is what the authority calls durable, for tools that watch lag.
3. A batch says which range of offsets it covers, so that the agent can tell a hole that belongs to the log
   (transactions, compaction) from records that it missed.
4. Offsets that retention deleted come as a truncated batch instead of being skipped without a word; a log that is
   shorter than what was read of it before stops the worker.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

import aiokafka
import faust
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message

from pipeline.errors import LogMismatchError
from pipeline.fold.records import RecordBatch
from streams.fetch import FetchedColumns, fetch_columns
from streams.health import Fetched, Polls

logger = logging.getLogger(__name__)


class Positions(Protocol):
    """Where partitions are read from, and how far the results of what was read are durable."""

    async def load(self, log_starts: Mapping[TP, int]) -> Mapping[TP, int]:
        """Positions to start from, for the partitions now assigned, which are the keys; all others are gone.

        ``log_starts`` has the first offset that the log still holds. Called at every assignment.
        """

    def durable(self) -> Mapping[TP, int]:
        """Offset after the last record whose results are written, per partition."""


class BatchSchema(faust.Schema[None, RecordBatch]):
    """Passes a batch to the agent as it is; for topics that are read through this transport."""

    def loads_key(self, app: Any, message: Message, **_: Any) -> Any:
        """A batch has no key."""
        return None

    def loads_value(self, app: Any, message: Message, **_: Any) -> Any:
        """The batch."""
        return message.value


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Fetches in its own thread and event loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Offset up to which each partition was handed on, or sought to, since the assignment that was sought for.
        # Touched in the consumer thread only.
        self._reached: dict[TP, int] = {}
        self._sought: Any = None

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        fetch_columns(consumer)
        # Faust does so only under exactly_once, which is not used here; what was aborted never happened.
        consumer._isolation_level = "read_committed"
        return consumer

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        assignment = consumer._subscription.subscription.assignment
        if assignment is not self._sought:
            self._sought = assignment
            self._reached = {}
        self._reached.update(partitions)
        await super()._seek_wait(consumer, partitions)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is Faust's
        max_records: int | None = None,
    ) -> Any:
        batches = await self._fetch_batches(consumer, active_partitions, timeout, max_records)
        coordinator = consumer._coordinator
        self.polls.completed(self._fetched(consumer), connected=coordinator.coordinator_id is not None)
        return batches

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        """As Faust's; False if the thread has ended, which answers nobody any more.

        When the app crashes the thread may end first, and the app, which commits as it stops, would wait for ever. The
        receipts say where a successor goes on.
        """
        asked = asyncio.ensure_future(super().commit(offsets))
        ended = asyncio.ensure_future(self._shutdown.wait())
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            return bool(asked.result()) if asked.done() else False
        finally:
            asked.cancel()
            ended.cancel()

    @property
    def polls(self) -> Polls:
        """Who is told of polls; the application's if it has one."""
        return _polls_of(self.app)

    async def _fetch_batches(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None,  # noqa: ASYNC109
        max_records: int | None,
    ) -> dict[TP, list[RecordBatch]]:
        fetched: Any = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        # No await between the fetch and the reading of positions: a seek in between would make a false range.
        if consumer._subscription.subscription.assignment is not self._sought:
            # Assigned anew, and not sought yet: aiokafka has begun at the committed offsets, which mean nothing here.
            return {}
        batches = {
            tp: [self._batch(consumer, tp, columns)]
            for tp, columns in fetched.items()
            if columns and tp in self._reached
        }
        for tp, (batch,) in batches.items():
            if batch.offsets[0] > batch.start_offset:
                batches[tp] = await self._without_truncated(consumer, tp, batch)
        return batches

    def _fetched(self, consumer: aiokafka.AIOKafkaConsumer) -> dict[TP, Fetched]:
        """How far the consumer is, for whoever looks whether it gets on."""
        subscription = consumer._subscription.subscription
        if subscription is None or subscription.assignment is None or subscription.assignment is not self._sought:
            return {}
        found = {}
        for tp, handed_on in self._reached.items():
            state = subscription.assignment.state_value(tp)
            if state is None or state.position is None:
                continue
            # What lies behind the last stable offset belongs to transactions that are still open.
            end = state.highwater if state.lso is None or state.lso < 0 else state.lso
            found[tp] = Fetched(handed_on, state.position, state.position if end is None else end)
        return found

    def _batch(self, consumer: aiokafka.AIOKafkaConsumer, tp: TP, columns: FetchedColumns) -> RecordBatch:
        first = columns.offsets[0]
        start = self._reached[tp]
        if first < start:
            raise LogMismatchError(
                f"{tp.topic}[{tp.partition}]: read up to offset {start}, but the log goes on at {first}. It was"
                " truncated or replaced: restore it, or start with an empty database"
            )
        position = consumer._subscription.subscription.assignment.state_value(tp).position
        self._reached[tp] = position
        return RecordBatch(
            topic=tp.topic,
            partition=tp.partition,
            start_offset=start,
            next_offset=position,
            high_water_mark=consumer.highwater(tp) or position,
            offsets=columns.offsets,
            timestamps=columns.timestamps,
            keys=columns.keys,
            values=columns.values,
            headers=columns.headers,
        )

    async def _without_truncated(
        self, consumer: aiokafka.AIOKafkaConsumer, tp: TP, batch: RecordBatch
    ) -> list[RecordBatch]:
        """Tell offsets that retention deleted apart from offsets that never held a record for readers."""
        log_start = (await consumer.beginning_offsets([tp]))[tp]
        deleted_to = min(log_start, batch.offsets[0])
        if deleted_to <= batch.start_offset:
            return [batch]
        deleted = RecordBatch(
            tp.topic,
            tp.partition,
            batch.start_offset,
            deleted_to,
            batch.high_water_mark,
            [],
            [],
            [],
            [],
            [],
            truncated=True,
        )
        return [deleted, replace(batch, start_offset=deleted_to)]


def _polls_of(app: Any) -> Polls:
    """What the application keeps of the consumer, in ``app.polls`` if it wants to know."""
    if getattr(app, "polls", None) is None:
        app.polls = Polls()
    return cast(Polls, app.polls)


class Consumer(driver.Consumer):
    """Consumer of record batches. Acknowledgements are not counted: what is durable is known to the authority."""

    def on_init(self) -> None:
        """Prepare what is this class's own; called by Faust."""
        super().on_init()
        self._seeking: set[asyncio.Future[None]] = set()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _positions(self) -> Positions:
        positions = getattr(self.app, "positions", None)
        if positions is None:
            raise RuntimeError("set app.positions before the worker starts; see streams.transport.Positions")
        return cast(Positions, positions)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        batch: RecordBatch = record
        return ConsumerMessage(
            batch.topic,
            batch.partition,
            batch.next_offset - 1,
            batch.timestamps[-1] / 1000 if len(batch) else 0.0,
            0,
            [],
            None,
            batch,  # type: ignore[arg-type] # Faust passes on what it is given; BatchSchema expects a batch
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Begin to seek all assigned partitions to where the authority says; Faust calls this at every assignment.

        Faust bounds its wait by the request time-out and cancels what takes longer; the authority may have to wait much
        longer for ClickHouse. So nobody waits: until the seek is done, the thread hands nothing on.
        """
        seeking = asyncio.ensure_future(self._load_and_seek())
        self._seeking.add(seeking)
        seeking.add_done_callback(self._seeking.discard)
        polls = _polls_of(self.app)
        polls.seek_began(seeking)
        seeking.add_done_callback(polls.seek_ended)
        return {}

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """As Faust, which asks for no positions when there are no partitions: the authority must know that too."""
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:
            await self.seek_to_committed()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Note that partitions are assigned anew; Faust calls this before every assignment."""
        _polls_of(self.app).rebalance_began()
        await super().on_partitions_revoked(revoked)

    async def _load_and_seek(self) -> None:
        try:
            assigned = self.assignment()
            starts = await self._thread.earliest_offsets(*assigned) if assigned else {}
            positions = await self._positions.load({TP(*tp): offset for tp, offset in starts.items()})
            if positions:
                await self._thread.seek_wait(positions)
        except IllegalStateError:
            logger.info("assigned anew before the seek; the seek for that assignment is under way")
        except Exception as error:
            await self.crash(error)

    def ack(self, message: Message) -> bool:
        """Mark a batch as handled by the agent. That says nothing about its results; see ``Positions.durable``."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self._positions.durable() if topics is None or tp in topics or tp.topic in topics])

    def _new_offset(self, tp: TP) -> int | None:
        return self._positions.durable().get(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch knows the range that it covers."""


class Transport(driver.Transport):
    """``kafkabatch://host:port[;host:port...]``"""

    Consumer = Consumer
