"""What a flush writes: everything that the fold learned since the flush before."""

from dataclasses import dataclass, field

from pipeline.contract.decode import Headers
from pipeline.contract.reasons import Reason
from pipeline.fold.ledger import LedgerColumns
from pipeline.fold.minutes import MinuteRow
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
    ledger: LedgerColumns = field(default_factory=LedgerColumns)
    minutes: list[MinuteRow] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0

    def __bool__(self) -> bool:
        return bool(self.openings or self.receipts)

    def extend(self, other: "Flush") -> None:
        """Add what another partition's fold learned."""
        self.openings += other.openings
        self.rejects += other.rejects
        self.ledger.extend(other.ledger)
        self.minutes += other.minutes
        self.receipts += other.receipts
        self.events += other.events
        self.duplicates += other.duplicates
