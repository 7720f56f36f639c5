"""Accepted events as ledger columns, with their place in the log."""

from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.contract.columns import EventColumns
from pipeline.fold.records import LogPartition

_FROM_EVENTS: Final = (
    "event_id",
    "time_ms",
    "agency",
    "service",
    "channel",
    "outcome",
    "stage",
    "application",
    "centre",
    "district",
    "hosting",
    "sign_in",
    "consumer",
    "initiator",
    "rating",
    "batch_index",
)


@dataclass(slots=True)
class LedgerColumns:
    """Accepted events, one list a column, all of one length. ``duration_ms`` is rounded; hashes are 64 bits."""

    topic_id: list[str] = field(default_factory=list)
    partition: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    batch_index: list[int] = field(default_factory=list)
    event_hash: list[int] = field(default_factory=list)
    event_id: list[str] = field(default_factory=list)
    time_ms: list[int] = field(default_factory=list)
    agency: list[str] = field(default_factory=list)
    service: list[str] = field(default_factory=list)
    channel: list[str] = field(default_factory=list)
    outcome: list[str] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    duration_ms: list[int] = field(default_factory=list)
    user_hash: list[int] = field(default_factory=list)
    application: list[str] = field(default_factory=list)
    centre: list[str] = field(default_factory=list)
    district: list[str] = field(default_factory=list)
    hosting: list[str] = field(default_factory=list)
    sign_in: list[str] = field(default_factory=list)
    consumer: list[str] = field(default_factory=list)
    initiator: list[str] = field(default_factory=list)
    rating: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offset)

    def add(
        self,
        log: LogPartition,
        offsets: list[int],
        columns: EventColumns,
        hashes: list[int],
        durations: npt.NDArray[np.int64],
        users: npt.NDArray[np.uint64],
    ) -> None:
        """Append n accepted events of one partition."""
        self.topic_id.extend([log.topic_id] * len(columns))
        self.partition.extend([log.partition] * len(columns))
        self.offset.extend(offsets)
        self.event_hash.extend(hashes)
        self.duration_ms.extend(durations.tolist())
        self.user_hash.extend(users.tolist())
        for name in _FROM_EVENTS:
            getattr(self, name).extend(getattr(columns, name))

    def extend(self, other: "LedgerColumns") -> None:
        """Append the events of another partition."""
        for name in LEDGER_COLUMN_NAMES:
            getattr(self, name).extend(getattr(other, name))


LEDGER_COLUMN_NAMES: Final = tuple(item.name for item in fields(LedgerColumns))
