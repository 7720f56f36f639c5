"""What the consumer thread makes of fetched records, with a fake consumer; brokers are in test_transport elsewhere."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.errors import LogMismatchError
from streams.fetch import FetchedColumns
from streams.health import Fetched
from streams.transport import BatchConsumerThread

TP0, TP1 = TP("usage.events", 0), TP("usage.events", 1)


@dataclass
class FakeConsumer:
    """Positions and the first offsets that the log still has, as aiokafka keeps them."""

    positions: dict[TP, int]
    log_starts: dict[TP, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._coordinator = SimpleNamespace(coordinator_id="coordinator")
        self.assign()

    def assign(self) -> None:
        ends = {"highwater": 1_000, "lso": 900}
        state = SimpleNamespace(state_value=lambda tp: SimpleNamespace(position=self.positions[tp], **ends))
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=state))

    def highwater(self, tp: TP) -> int:
        return 1_000

    async def beginning_offsets(self, tps: list[TP]) -> dict[TP, int]:
        return {tp: self.log_starts.get(tp, 0) for tp in tps}


def records(*offsets: int) -> FetchedColumns:
    count = len(offsets)
    return FetchedColumns(list(offsets), list(offsets), [None] * count, [b"{}"] * count, [()] * count)


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> BatchConsumerThread:
    """A thread object that was never started; fetches answer with ``thread.fetched``, seeks do nothing."""
    made = BatchConsumerThread.__new__(BatchConsumerThread)
    made._reached, made._sought = {}, None
    made.app = SimpleNamespace()  # type: ignore[assignment]

    async def fetch(self: Any, *_: Any) -> Any:
        return self.fetched

    async def seek(self: Any, *_: Any) -> None:
        return None

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_seek_wait", seek)
    return made


async def fetch(thread: Any, consumer: FakeConsumer, fetched: dict[TP, FetchedColumns]) -> Any:
    thread.fetched = fetched
    return await thread._fetch_records(consumer, set(fetched))


async def test_a_batch_covers_from_where_the_last_one_ended_to_the_position(thread: BatchConsumerThread) -> None:
    consumer = FakeConsumer({TP0: 13})
    await thread._seek_wait(consumer, {TP0: 10})
    batches = await fetch(thread, consumer, {TP0: records(10, 11)})
    assert [(batch.start_offset, batch.next_offset, batch.offsets) for batch in batches[TP0]] == [(10, 13, [10, 11])]
    consumer.positions[TP0] = 15
    batches = await fetch(thread, consumer, {TP0: records(14)})
    assert [(batch.start_offset, batch.next_offset, batch.truncated) for batch in batches[TP0]] == [(13, 15, False)]


async def test_nothing_is_handed_on_between_an_assignment_and_its_seek(thread: BatchConsumerThread) -> None:
    """aiokafka begins at the committed offsets then; as a hole in front of them they would be counted as folded."""
    consumer = FakeConsumer({TP0: 11})
    await thread._seek_wait(consumer, {TP0: 10})
    assert await fetch(thread, consumer, {TP0: records(10)})
    consumer.assign()
    consumer.positions[TP0] = 501
    assert await fetch(thread, consumer, {TP0: records(500)}) == {}
    consumer.positions[TP0] = 1
    assert await fetch(thread, consumer, {TP0: records(0)}) == {}
    await thread._seek_wait(consumer, {TP0: 5})
    consumer.positions[TP0] = 6
    (batch,) = (await fetch(thread, consumer, {TP0: records(5)}))[TP0]
    assert (batch.start_offset, batch.next_offset) == (5, 6)


async def test_a_partition_that_was_not_sought_is_left_out(thread: BatchConsumerThread) -> None:
    consumer = FakeConsumer({TP0: 1, TP1: 1})
    await thread._seek_wait(consumer, {TP0: 0})
    assert set(await fetch(thread, consumer, {TP0: records(0), TP1: records(0)})) == {TP0}


async def test_deleted_offsets_are_told_apart_from_holes(thread: BatchConsumerThread) -> None:
    consumer = FakeConsumer({TP0: 21}, log_starts={TP0: 18})
    await thread._seek_wait(consumer, {TP0: 10})
    deleted, rest = (await fetch(thread, consumer, {TP0: records(20)}))[TP0]
    assert (deleted.truncated, deleted.start_offset, deleted.next_offset, len(deleted)) == (True, 10, 18, 0)
    assert (rest.truncated, rest.start_offset, rest.next_offset) == (False, 18, 21)


async def test_a_log_that_goes_on_before_what_was_read_is_an_error(thread: BatchConsumerThread) -> None:
    consumer = FakeConsumer({TP0: 4})
    await thread._seek_wait(consumer, {TP0: 10})
    with pytest.raises(LogMismatchError, match=r"usage.events\[0\]: read up to offset 10, but the log goes on at 3"):
        await fetch(thread, consumer, {TP0: records(3)})


async def test_each_poll_tells_how_far_the_consumer_is(thread: BatchConsumerThread) -> None:
    """Also one without records, whose position may have passed over what was aborted, and one before the seek."""
    consumer = FakeConsumer({TP0: 11, TP1: 0})
    assert await fetch(thread, consumer, {}) == {}
    assert thread.polls.fetched == {}
    assert thread.polls.polled_at is not None
    await thread._seek_wait(consumer, {TP0: 10})
    await fetch(thread, consumer, {TP0: records(10)})
    assert thread.polls.fetched == {TP0: Fetched(handed_on=11, position=11, end=900)}
    consumer.positions[TP0] = 14
    await fetch(thread, consumer, {})
    assert thread.polls.fetched == {TP0: Fetched(handed_on=11, position=14, end=900)}
    consumer.assign()
    await fetch(thread, consumer, {})
    assert thread.polls.fetched == {}
    assert thread.polls.lost_since is None
    consumer._coordinator.coordinator_id = None
    await fetch(thread, consumer, {})
    assert thread.polls.lost_since is not None


async def test_a_commit_is_answered_by_the_thread_or_not_at_all(
    thread: BatchConsumerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread._shutdown = asyncio.Event()  # type: ignore[assignment]
    answers: list[bool] = [True]

    async def commit(self: Any, offsets: Any) -> bool:
        while not answers:
            await asyncio.sleep(3_600)
        return answers.pop()

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "commit", commit)
    assert await asyncio.wait_for(thread.commit({TP0: 1}), 60) is True
    # The thread ends while somebody waits for it, as when the app crashes; and then it has ended.
    waiting = asyncio.ensure_future(thread.commit({TP0: 2}))
    await asyncio.sleep(0)
    thread._shutdown.set()
    assert await asyncio.wait_for(waiting, 60) is False
    assert await asyncio.wait_for(thread.commit({TP0: 3}), 60) is False
