"""The one place that decides how a worker is doing: what it waits for, whether it is ready, whether it is stuck.

:class:`Health` compares what the ingest says of itself (:class:`Standing`) with what the consumer says of Kafka
(:class:`Polls`), once a second and whenever somebody asks. It never waits for anything, so that it can answer while
ClickHouse, Kafka or the consumer thread hangs. All times are of one monotonic clock, in seconds.

A worker is stuck if there is something to do, nothing hinders it that it knows of, and yet nothing becomes durable for
``worker.stuck_seconds``. A hindrance that it knows of is no fault of its own and has a state of its own: ClickHouse or
Kafka refuses, too much waits to be written, partitions are being assigned anew. An idle topic has nothing to do.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from faust.types import TP

from pipeline.settings import WorkerSettings
from streams.interfaces import Standing, Status

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often somebody should look, so that it is known since when there was something to do."""
_ABSENCE_SECONDS: Final = 10.0
"""Nobody looked for so long: the process was stopped, or too busy; what did not move meanwhile is not stuck."""


class State(StrEnum):
    """What a worker is doing. A closed list."""

    STARTING = "starting"
    UNASSIGNED = "unassigned"
    CONSUMING = "consuming"
    REBALANCING = "rebalancing"
    BACK_PRESSURE = "back_pressure"
    WAITING_FOR_CLICKHOUSE = "waiting_for_clickhouse"
    WAITING_FOR_KAFKA = "waiting_for_kafka"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Fetched:
    """How far the consumer is with a partition.

    ``handed_on`` is the offset up to which batches were handed to the agent, ``position`` the next one to be fetched,
    ``end`` the one up to which there is something to fetch, as of the last fetch: the last stable offset.
    """

    handed_on: int
    position: int
    end: int


@dataclass(slots=True)
class Polls:
    """What the consumer tells of itself. Written by the transport, from its two threads, one assignment at a time."""

    clock: Callable[[], float] = time.monotonic
    polled_at: float | None = None
    lost_since: float | None = None
    fetched: Mapping[TP, Fetched] = field(default_factory=dict)
    rebalancing_since: float | None = None
    _seeks: dict[object, float] = field(default_factory=dict)

    def completed(self, fetched: Mapping[TP, Fetched], connected: bool = True) -> None:
        """A poll came back, with records or without; ``connected`` is whether the group's coordinator is there."""
        now = self.clock()
        self.fetched = fetched
        self.lost_since = None if connected else self.lost_since or now
        self.polled_at = now

    def rebalance_began(self) -> None:
        """Partitions are about to be assigned anew."""
        self.rebalancing_since = self.clock()

    def seek_began(self, seek: object) -> None:
        """Partitions are assigned; ``seek`` names the seek to their positions."""
        self.rebalancing_since = None
        self._seeks[seek] = self.clock()

    def seek_ended(self, seek: object) -> None:
        """A seek is done, failed, or no longer wanted."""
        self._seeks.pop(seek, None)

    @property
    def seeking_since(self) -> float | None:
        """Since when the oldest seek has been under way; None if none is."""
        return min(self._seeks.values(), default=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the worker is doing. ``reason`` is empty if all is well.

    ``since`` is Unix time in seconds, when the state began. ``stalled_seconds`` is for how long a partition has had
    something to do without any of it becoming durable, whatever the reason, ``write_seconds`` for how long a flush has
    been under way, None if none is.
    """

    state: State = State.STARTING
    ready: bool = False
    reason: str = "starting"
    since: float = 0.0
    stalled_seconds: float = 0.0
    write_seconds: float | None = None


class StandingSource(Protocol):
    """The ingest, as far as its health goes."""

    def standing(self) -> Standing:
        """How far it is now."""

    def status(self) -> Status:
        """The state now, for people."""


class HealthMetrics(Protocol):
    """Who reports the verdict."""

    def health(self, ready: bool, stuck: bool, stalled_seconds: float) -> None:
        """The last verdict."""


class Health:
    """Judges the worker; remembers since when partitions have had something to do.

    Args:
        source: the ingest.
        polls: the consumer.
        settings: ``unready_seconds`` is how long a write or back-pressure may last before the worker counts as not
            ready, ``stuck_seconds`` how long nothing may become durable.
        rebalance_seconds: how much longer an assignment may take, since all workers must join.
        metrics: told of each verdict.
    """

    def __init__(
        self,
        source: StandingSource,
        polls: Polls,
        settings: WorkerSettings,
        rebalance_seconds: float,
        metrics: HealthMetrics,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._polls = polls
        self._settings = settings
        self._rebalance_seconds = rebalance_seconds
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        # Partitions that have something to do, and since when, or since when they last got on.
        self._waiting_since: dict[TP, float] = {}
        # Until when standing still is excused: partitions, the consumer, everything.
        self._hindered_at = self._unpolled_at = self._looked_at = self._returned_at = clock()
        self._last = Verdict(since=wall_clock())

    def status(self) -> Status:
        """The state now, for people."""
        return self._source.status()

    def look(self) -> Verdict:
        """Judge anew; log when the worker gets stuck and when it is no longer."""
        now = self._clock()
        if now - self._looked_at > _ABSENCE_SECONDS:
            self._returned_at = now
        self._looked_at = now
        standing = self._source.standing()
        self._remember(standing, now)
        state, reason, ready = self._judge(standing, now)
        last = self._last
        self._last = Verdict(
            state,
            ready,
            reason,
            last.since if state is last.state else self._wall_clock(),
            max((now - since for since in self._waiting_since.values()), default=0.0),
            None if standing.flushing_since is None else now - standing.flushing_since,
        )
        if state is State.STUCK and last.state is not State.STUCK:
            logger.error("the worker is stuck", extra={"reason": reason})
        elif last.state is State.STUCK and state is not State.STUCK:
            logger.warning("the worker is no longer stuck", extra={"state": state.value})
        self._metrics.health(ready, state is State.STUCK, self._last.stalled_seconds)
        return self._last

    def _remember(self, standing: Standing, now: float) -> None:
        fetched = self._polls.fetched
        waiting = {}
        for tp, part in standing.partitions.items():
            far = fetched.get(tp)
            there = part.position if far is None else max(part.position, far.handed_on)
            if part.durable < there or (far is not None and far.position < far.end):
                waiting[tp] = max(self._waiting_since.get(tp, now), part.moved_at)
        self._waiting_since = waiting
        polls = self._polls
        held = standing.held_since is not None
        moving = polls.rebalancing_since is not None or polls.seeking_since is not None
        if standing.error or moving or held or self._lost_seconds(now):
            self._hindered_at = now
        if held or moving or not standing.partitions:
            self._unpolled_at = now

    def _judge(self, standing: Standing, now: float) -> tuple[State, str, bool]:
        """State, reason, and whether the worker is ready."""
        if standing.error:
            waiting = State.WAITING_FOR_KAFKA if standing.error_of_kafka else State.WAITING_FOR_CLICKHOUSE
            return waiting, standing.error, False
        if reason := self._stuck(standing, now):
            return State.STUCK, reason, False
        late = self._settings.unready_seconds
        if standing.call_since is not None and now - standing.call_since >= late:
            seconds = now - standing.call_since
            words = f"ClickHouse does not answer: {standing.call} has been under way for {seconds:.0f} s"
            return State.WAITING_FOR_CLICKHOUSE, words, False
        if self._lost_seconds(now) >= late:
            words = f"Kafka does not answer: the group has had no coordinator for {self._lost_seconds(now):.0f} s"
            return State.WAITING_FOR_KAFKA, words, False
        if standing.held_since is not None:
            seconds = now - standing.held_since
            words = (
                f"nothing is folded for {seconds:.0f} s: {standing.pending_events} events of"
                f" {standing.pending_bytes} bytes wait to be written"
            )
            return State.BACK_PRESSURE, words, seconds < late
        if not standing.prepared:
            return State.STARTING, "starting", False
        if self._polls.rebalancing_since is not None or self._polls.seeking_since is not None:
            ready = bool(standing.partitions)
            return State.REBALANCING, "partitions are being assigned", ready
        if not standing.partitions:
            return State.UNASSIGNED, "no partitions are assigned", False
        return State.CONSUMING, "", True

    def _lost_seconds(self, now: float) -> float:
        """For how long the group has had no coordinator; 0 if it has one, or if that is not known of late."""
        since, polled_at = self._polls.lost_since, self._polls.polled_at
        return 0.0 if since is None or polled_at is None or now - polled_at > _ABSENCE_SECONDS else now - since

    def _stuck(self, standing: Standing, now: float) -> str:
        """Why the worker is stuck; empty if it is not."""
        limit = self._settings.stuck_seconds
        for words, since in (
            ("the seek to the positions of an assignment", self._polls.seeking_since),
            ("an assignment of partitions", self._polls.rebalancing_since),
        ):
            seconds = 0.0 if since is None else now - max(since, self._returned_at)
            if seconds >= limit + self._rebalance_seconds:
                return f"{words} has been under way for {seconds:.0f} s"
        if not standing.partitions:
            return ""
        polled_at = self._polls.polled_at or 0.0
        seconds = now - max(polled_at, self._unpolled_at, self._returned_at)
        if seconds >= limit:
            return f"no poll of Kafka came back for {seconds:.0f} s"
        # Too much waits: the one thing that must go on then is writing.
        held = standing.held_since is not None
        excused = max(self._returned_at, standing.error_ended_at, 0.0 if held else self._hindered_at)
        moved_at = max(part.moved_at for part in standing.partitions.values())
        for tp, waiting_since in sorted(self._waiting_since.items()):
            seconds = now - max(waiting_since, excused, moved_at if held else 0.0)
            if seconds >= limit:
                return (
                    f"{self._where(standing, tp)}; nothing became durable for {seconds:.0f} s; {_flush(standing, now)};"
                    f" the last poll of Kafka came back {now - polled_at:.0f} s ago"
                )
        return ""

    def _where(self, standing: Standing, tp: TP) -> str:
        part = standing.partitions[tp]
        far = self._polls.fetched.get(tp)
        end = part.high_water_mark if far is None else max(part.high_water_mark, far.end)
        return (
            f"{tp.topic}[{tp.partition}]: durable offset {part.durable}, folded to {part.position},"
            f" high-water mark {end}"
        )


def _flush(standing: Standing, now: float) -> str:
    if standing.flushing_since is None:
        return "no flush is under way"
    return f"a flush has been under way for {now - standing.flushing_since:.0f} s"
