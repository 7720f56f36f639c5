"""What the ingest asks of the program around it: a sink for results, a reporter, and what it tells of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from faust.types import TP

from pipeline.catalogue import Catalogue
from pipeline.fold.flush import Flush
from pipeline.fold.records import LogPartition, RecordBatch
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules


class ResultSink(Protocol):
    """Where results go and positions come from. Calls block; they are made from one thread."""

    def prepare(self, rules: Rules) -> None:
        """Check that everything is there, and keep the worker's rules, which its markers may ask for.

        Called before anything else, again after a StoreError or BrokerError.
        """

    def resume(self, log_starts: Mapping[TP, int], next_rules: Rules) -> dict[TP, ResumePoint]:
        """Where each partition goes on; also writes what is needed for that."""

    def catalogue(self, version: int) -> Catalogue:
        """A catalogue that a receipt names."""

    def known_rules(self, text: str) -> Rules | None:
        """The rules that a marker asks for, if they are those of a worker; None if nobody ever had them."""

    def write(self, flush: Flush) -> None:
        """Steps 2 to 5 of the protocol. May be repeated with the same flush."""

    def want_segment_end(self, log: LogPartition, rules: Rules) -> None:
        """Ask, through the log, that the open segment of a partition ends, because new rules wait."""

    def close(self) -> None:
        """Give connections back."""


class IngestMetrics(Protocol):
    """What the ingest reports."""

    def batch_folded(self, batch: RecordBatch, seconds: float) -> None:
        """A batch was folded."""

    def flush_written(self, flush: Flush, seconds: float, written_at: float) -> None:
        """A flush is durable, at Unix time ``written_at``."""

    def flush_failed(self, error: Exception) -> None:
        """A flush failed and will be tried again."""

    def pending(self, events: int, value_bytes: int) -> None:
        """Events folded and not yet written, and the size of the messages that held them, in bytes."""

    def back_pressure(self, held: bool) -> None:
        """Whether folding waits because too much is unwritten."""

    def progress(self, log: LogPartition, position: int, durable: int | None, high_water_mark: int) -> None:
        """Offsets of a partition."""

    def revoked(self, log: LogPartition) -> None:
        """A partition is no longer this worker's."""


@dataclass(frozen=True, slots=True)
class PartitionStanding:
    """How far a partition is: offsets, and when the durable one moved last, on the monotonic clock."""

    position: int
    durable: int
    high_water_mark: int
    moved_at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the ingest is, for :mod:`streams.health`. Times are of the monotonic clock; None is *not now*.

    ``call`` names the oldest call of the sink that has not returned, ``held_since`` is when back-pressure began,
    ``flushing_since`` when the flush under way did, tries included, ``error_ended_at`` when the sink last recovered.
    """

    prepared: bool
    error: str
    error_of_kafka: bool
    error_ended_at: float
    call: str
    call_since: float | None
    flushing_since: float | None
    held_since: float | None
    pending_events: int
    pending_bytes: int
    partitions: Mapping[TP, PartitionStanding]


@dataclass(slots=True)
class Status:
    """The state of the worker, for people: see ``/healthz`` and the page."""

    assigned: int = 0
    pending_events: int = 0
    pending_bytes: int = 0
    last_error: str = ""
    last_flush_at: float = 0.0
    partitions: list[dict[str, int | str | None]] = field(default_factory=list)
