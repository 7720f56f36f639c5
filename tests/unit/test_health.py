"""What the worker says of itself, by a clock in the test's hand: when it is stuck, and when it only looks like it."""

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust.types import TP

from pipeline.settings import WorkerSettings
from sinks.prometheus import Metrics
from streams.health import Fetched, Health, Polls, State, Verdict
from streams.interfaces import PartitionStanding, Standing, Status

TP0, TP1 = TP("usage.events", 0), TP("usage.events", 1)
LATE, STUCK, REBALANCE = 30.0, 90.0, 20.0


@dataclass
class Worker:
    """A worker whose clock is ``now``; whatever it does is said by the test."""

    now: float = 1_000.0
    prepared: bool = True
    error: str = ""
    error_of_kafka: bool = False
    error_ended_at: float = 0.0
    call: tuple[float | None, str] = (None, "")
    flushing_since: float | None = None
    held_since: float | None = None
    partitions: dict[TP, PartitionStanding] = field(default_factory=dict)
    consuming: bool = True
    connected: bool = True

    def __post_init__(self) -> None:
        self.metrics = Metrics([])
        self.polls = Polls(clock=lambda: self.now)
        settings = WorkerSettings(unready_seconds=LATE, stuck_seconds=STUCK)
        self.health = Health(
            self, self.polls, settings, REBALANCE, self.metrics, lambda: self.now, lambda: self.now + 1_700_000_000
        )
        self.partition(TP0, 0, 0)

    def standing(self) -> Standing:
        return Standing(
            self.prepared,
            self.error,
            self.error_of_kafka,
            self.error_ended_at,
            self.call[1],
            self.call[0],
            self.flushing_since,
            self.held_since,
            400_000,
            123,
            self.partitions,
        )

    def status(self) -> Status:
        return Status()

    def partition(self, tp: TP, durable: int, position: int, end: int | None = None) -> None:
        """Offsets of a partition; ``end`` is where its log ends."""
        old = self.partitions.get(tp)
        moved_at = self.now if old is None or durable != old.durable else old.moved_at
        self.partitions[tp] = PartitionStanding(position, durable, position, moved_at)
        self.fetched = getattr(self, "fetched", {}) | {
            tp: Fetched(position, position, position if end is None else end)
        }

    def after(self, seconds: float) -> Verdict:
        """What is said when so many seconds have passed; it is looked every second meanwhile."""
        for _ in range(int(seconds)):
            self.now += 1
            if self.consuming:
                self.polls.completed(self.fetched, self.connected)
            verdict = self.health.look()
        return verdict


@pytest.fixture
def worker() -> Worker:
    made = Worker()
    made.after(1)
    return made


def test_an_idle_topic_is_nothing_to_do(worker: Worker) -> None:
    verdict = worker.after(10_000)
    assert (verdict.state, verdict.ready, verdict.reason) == (State.CONSUMING, True, "")
    assert verdict.stalled_seconds == 0


def test_the_first_event_after_a_long_silence_is_not_late(worker: Worker) -> None:
    worker.after(10_000)
    worker.partition(TP0, 0, 5)
    assert worker.after(2).state is State.CONSUMING
    assert worker.after(STUCK - 5).state is State.CONSUMING


def test_lag_that_does_not_shrink_is_stuck_and_says_where(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    worker.after(10_000)
    worker.partition(TP0, 0, 5, end=70)
    assert worker.after(STUCK - 2).ready
    with caplog.at_level(logging.WARNING):
        verdict = worker.after(5)
        worker.after(100)
    assert (verdict.state, verdict.ready) == (State.STUCK, False)
    assert verdict.reason.startswith("usage.events[0]: durable offset 0, folded to 5, high-water mark 70; nothing")
    assert verdict.reason.endswith("; no flush is under way; the last poll of Kafka came back 0 s ago")
    assert value(worker, "xidmet_stuck") == 1
    assert value(worker, "xidmet_ready") == 0
    assert value(worker, "xidmet_stalled_seconds") > STUCK
    assert [record.message for record in caplog.records] == ["the worker is stuck"]
    assert caplog.records[0].levelno == logging.ERROR
    with caplog.at_level(logging.WARNING):
        worker.partition(TP0, 70, 70)
        assert worker.after(1).ready
    assert caplog.records[-1].message == "the worker is no longer stuck"
    assert value(worker, "xidmet_stuck") == 0


def test_what_was_handed_on_or_is_still_to_be_fetched_counts_as_something_to_do(worker: Worker) -> None:
    worker.fetched = {TP0: Fetched(handed_on=9, position=9, end=9)}
    assert worker.after(STUCK + 5).state is State.STUCK
    worker.fetched = {TP0: Fetched(handed_on=0, position=0, end=0)}
    assert worker.after(1).state is State.CONSUMING
    worker.fetched = {TP0: Fetched(handed_on=0, position=0, end=9)}
    assert worker.after(STUCK + 5).state is State.STUCK


def test_what_was_aborted_at_the_end_of_a_log_is_nothing_to_do(worker: Worker) -> None:
    """The consumer passed over it, no batch tells of it, and the last high-water mark lies behind what is durable."""
    worker.partitions[TP0] = PartitionStanding(10, 10, 13, worker.now)
    worker.fetched = {TP0: Fetched(handed_on=10, position=14, end=14)}
    assert worker.after(STUCK * 3).ready


def test_a_slow_worker_that_gets_on_is_not_stuck(worker: Worker) -> None:
    for step in range(1, 20):
        worker.partition(TP0, step * 10, 1_000, end=5_000)
        worker.flushing_since = worker.now
        assert worker.after(STUCK - 5).state is State.CONSUMING


def test_one_partition_that_stands_still_among_others_is_found(worker: Worker) -> None:
    worker.partition(TP1, 0, 50)
    for step in range(1, 4):
        worker.partition(TP0, step * 10, 1_000)
        verdict = worker.after(STUCK / 3 + 2)
    assert verdict.state is State.STUCK
    assert "usage.events[1]" in verdict.reason


def test_a_write_without_an_answer_is_told_before_it_counts_as_stuck(worker: Worker) -> None:
    worker.partition(TP0, 0, 100)
    worker.call = worker.now, "writing"
    worker.flushing_since = worker.now
    assert worker.after(LATE - 2).ready
    verdict = worker.after(3)
    assert (verdict.state, verdict.ready) == (State.WAITING_FOR_CLICKHOUSE, False)
    assert verdict.reason == "ClickHouse does not answer: writing has been under way for 31 s"
    assert verdict.write_seconds == LATE + 1
    verdict = worker.after(STUCK)
    assert verdict.state is State.STUCK
    assert "a flush has been under way for 121 s" in verdict.reason


@pytest.mark.parametrize(
    ("of_kafka", "state"), [(False, State.WAITING_FOR_CLICKHOUSE), (True, State.WAITING_FOR_KAFKA)]
)
def test_an_outage_is_not_stuck_nor_is_what_follows_it(worker: Worker, of_kafka: bool, state: State) -> None:
    worker.partition(TP0, 0, 100)
    worker.error, worker.error_of_kafka = "away", of_kafka
    verdict = worker.after(3_600)
    assert (verdict.state, verdict.ready, verdict.reason) == (state, False, "away")
    assert verdict.stalled_seconds > 3_000
    worker.error, worker.error_ended_at = "", worker.now
    assert worker.after(STUCK - 2).state is State.CONSUMING
    assert worker.after(5).state is State.STUCK


def test_back_pressure_has_a_reason_of_its_own_while_something_is_written(worker: Worker) -> None:
    worker.partition(TP1, 0, 50)
    worker.consuming = False
    worker.held_since = worker.now
    for step in range(1, 30):
        worker.partition(TP0, step * 10, 1_000)
        verdict = worker.after(20)
        assert verdict.state is State.BACK_PRESSURE
        assert verdict.ready == (worker.now - worker.held_since < LATE)
    assert "400000 events of 123 bytes wait to be written" in verdict.reason
    worker.held_since = None
    assert worker.after(STUCK - 2).state is State.CONSUMING
    assert worker.after(5).state is State.STUCK


def test_back_pressure_in_which_nothing_is_written_is_stuck(worker: Worker) -> None:
    worker.partition(TP0, 0, 1_000)
    worker.held_since = worker.now
    assert worker.after(STUCK - 2).state is State.BACK_PRESSURE
    assert worker.after(5).state is State.STUCK


def test_a_consumer_that_does_not_poll_is_stuck_although_the_topic_is_idle(worker: Worker) -> None:
    worker.consuming = False
    assert worker.after(STUCK - 2).ready
    verdict = worker.after(5)
    assert (verdict.state, verdict.reason) == (State.STUCK, "no poll of Kafka came back for 93 s")
    worker.consuming = True
    assert worker.after(1).ready


def test_a_group_without_a_coordinator_is_told_and_not_stuck(worker: Worker) -> None:
    worker.partition(TP0, 0, 100)
    worker.connected = False
    assert worker.after(LATE).ready
    verdict = worker.after(STUCK)
    assert (verdict.state, verdict.ready) == (State.WAITING_FOR_KAFKA, False)
    assert verdict.reason == "Kafka does not answer: the group has had no coordinator for 119 s"
    worker.connected = True
    assert worker.after(STUCK - 2).ready
    assert worker.after(5).state is State.STUCK


def test_what_is_known_of_the_coordinator_grows_old_while_nothing_is_polled(worker: Worker) -> None:
    worker.connected = False
    worker.after(5)
    worker.consuming, worker.held_since = False, worker.now
    assert worker.after(STUCK - 5).state is State.BACK_PRESSURE


def test_a_consumer_without_partitions_need_not_poll(worker: Worker) -> None:
    worker.partitions = {}
    worker.consuming = False
    verdict = worker.after(1_000)
    assert (verdict.state, verdict.ready, verdict.reason) == (State.UNASSIGNED, False, "no partitions are assigned")


def test_a_seek_that_does_not_end_is_stuck(worker: Worker) -> None:
    worker.partitions = {}
    worker.polls.seek_began("one")
    worker.after(5)
    worker.polls.seek_began("two")
    verdict = worker.after(STUCK + REBALANCE - 7)
    assert (verdict.state, verdict.ready) == (State.REBALANCING, False)
    assert "the seek to the positions of an assignment" in worker.after(5).reason
    worker.polls.seek_ended("one")
    assert worker.after(1).state is State.REBALANCING
    worker.polls.seek_ended("two")
    worker.partition(TP0, 0, 0)
    assert worker.after(1).ready


def test_a_rebalance_is_excused_for_as_long_as_it_may_take(worker: Worker) -> None:
    worker.partition(TP0, 0, 100)
    worker.consuming = False
    worker.after(60)
    worker.polls.rebalance_began()
    verdict = worker.after(STUCK + REBALANCE - 2)
    assert (verdict.state, verdict.ready) == (State.REBALANCING, True)
    worker.polls.seek_began("one")
    worker.polls.seek_ended("one")
    assert worker.after(STUCK - 2).state is State.CONSUMING
    worker.polls.rebalance_began()
    verdict = worker.after(STUCK + REBALANCE + 2)
    assert (verdict.state, verdict.reason[:27]) == (State.STUCK, "an assignment of partitions")


def test_a_process_that_was_stopped_is_given_time_again(worker: Worker) -> None:
    worker.partition(TP0, 0, 100)
    worker.after(5)
    worker.now += 10_000
    assert worker.health.look().state is State.CONSUMING
    assert worker.after(STUCK - 2).state is State.CONSUMING
    assert worker.after(5).state is State.STUCK


def test_a_worker_that_starts_is_not_ready(worker: Worker) -> None:
    worker.prepared, worker.partitions = False, {}
    verdict = worker.after(1)
    assert (verdict.state, verdict.ready, verdict.reason) == (State.STARTING, False, "starting")


def test_a_state_keeps_the_moment_when_it_began(worker: Worker) -> None:
    since = worker.after(50).since
    worker.error = "away"
    later = worker.after(50).since
    assert later == pytest.approx(since + 51, abs=2)
    assert worker.after(50).since == later


def value(worker: Worker, name: str) -> float:
    found: Any = worker.metrics.registry.get_sample_value(name)
    return float(found)
