"""The receipt of a segment: what of the log was folded, and what came of it."""

from dataclasses import dataclass, field

from pipeline.contract.reasons import Reason
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules


@dataclass(slots=True)
class Receipt:
    """Progress of one segment.

    ``segment`` is the offset at which the one before ended, its name within the partition. ``next_offset`` is the
    offset after the last record folded: equal to ``segment`` when the segment was only opened. ``events`` =
    ``accepted`` + ``duplicates`` + sum of ``rejected``. ``event_hash_sum`` is the sum of the accepted events' hashes
    modulo 2**64. Time stamps are Unix milliseconds of the records; 0 before the first. ``next_rules`` are
    those that the next segment inherits, if a marker named others than these.
    """

    log: LogPartition
    segment: int
    next_offset: int
    rules: Rules
    closed: bool = False
    records: int = 0
    value_bytes: int = 0
    events: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: dict[Reason, int] = field(default_factory=dict)
    event_hash_sum: int = 0
    first_timestamp: int = 0
    last_timestamp: int = 0
    next_rules: Rules | None = None

    @property
    def version(self) -> int:
        """Of two receipts of a segment the higher version knows more; closed is final at the same offset."""
        return self.next_offset * 2 + self.closed
