"""Where the fold of a partition goes on."""

from dataclasses import dataclass, field

from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where and how a partition goes on.

    ``start`` is the offset of a segment's start. ``opened`` has the rules of the segments from there on that were
    opened already, by their start: usually the one at ``start``, more if a worker died after it had opened several,
    none if a new one is to start. ``memory`` are the event hashes of the segments before, oldest first. ``inherited``
    are the rules for a new segment at ``start``, as the receipt before it says; None if there is none. ``recent`` are
    the newest receipts of the partition, open ones too: what its last events came to.
    """

    log: LogPartition
    start: int
    opened: dict[int, Rules] = field(default_factory=dict)
    memory: list[list[int]] = field(default_factory=list)
    inherited: Rules | None = None
    recent: list[Receipt] = field(default_factory=list)

    @property
    def in_force(self) -> Rules | None:
        """The rules of the newest segment: those that hold until a marker asks for others."""
        return self.opened[max(self.opened)] if self.opened else self.inherited
