"""Where the fold of a partition goes on."""

from dataclasses import dataclass, field

from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """``start`` is the offset of a segment's start, ``rules`` those in its receipt (None if it has none yet), and
    ``memory`` the event hashes of the segments before, oldest first.
    """

    log: LogPartition
    start: int
    rules: Rules | None = None
    memory: list[list[int]] = field(default_factory=list)
