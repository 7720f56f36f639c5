"""What a flush writes: everything that the fold learned since the flush before."""

from dataclasses import dataclass, field

from pipeline.contract.decode import Headers
from pipeline.contract.reasons import Reason
from pipeline.fold.ledger import LedgerColumns, joined_ledger
from pipeline.fold.minutes import MinuteRows
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition


@dataclass(frozen=True, slots=True)
class Reject:
    """An event for the dead letters: where it stood, why it was refused, and its original bytes.

    ``agency`` is the code in the event if the catalogue that judged it has it, else ``""``: never a personal value.
    """

    log: LogPartition
    offset: int
    batch_index: int
    timestamp: int
    reason: Reason
    detail: str
    key: bytes | None
    headers: Headers
    value: bytes
    agency: str = ""


@dataclass(slots=True)
class Flush:
    """The rows of one flush, of any number of partitions. Written again after a failure, it is the same flush.

    ``openings`` are the receipts of segments that started: they fix the segment's rules before any row of it exists.
    """

    openings: list[Receipt] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    ledger_parts: list[LedgerColumns] = field(default_factory=list)
    minute_parts: list[MinuteRows] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0

    def __bool__(self) -> bool:
        return bool(self.openings or self.receipts)

    @property
    def ledger(self) -> LedgerColumns:
        """All accepted events."""
        if len(self.ledger_parts) != 1:
            self.ledger_parts = [joined_ledger(self.ledger_parts)]
        return self.ledger_parts[0]

    def extend(self, other: "Flush") -> None:
        """Add what another partition's fold learned."""
        self.openings += other.openings
        self.rejects += other.rejects
        self.ledger_parts += other.ledger_parts
        self.minute_parts += other.minute_parts
        self.receipts += other.receipts
        self.events += other.events
        self.duplicates += other.duplicates
