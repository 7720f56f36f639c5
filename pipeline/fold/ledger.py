"""Accepted events as ledger columns, with their place in the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from pipeline.contract.columns import EventColumns
from pipeline.contract.encoded import Encoded, constant, encoded, joined
from pipeline.contract.profiles import PROFILE_FIELDS
from pipeline.fold.records import LogPartition


@dataclass(slots=True, eq=False)
class LedgerColumns:
    """n accepted events, one column of length n a field. ``duration_ms`` is rounded; hashes are 64 bits."""

    topic_id: Encoded
    partition: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    batch_index: npt.NDArray[np.int64]
    event_hash: npt.NDArray[np.uint64]
    event_id: list[str]
    time_ms: npt.NDArray[np.int64]
    agency: Encoded
    service: Encoded
    channel: Encoded
    outcome: Encoded
    stage: Encoded
    duration_ms: npt.NDArray[np.int64]
    user_hash: npt.NDArray[np.uint64]
    application: list[str]
    centre: Encoded
    district: Encoded
    hosting: Encoded
    sign_in: Encoded
    consumer: Encoded
    initiator: Encoded
    rating: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.event_id)

    def take(self, places: npt.NDArray[np.int64]) -> "LedgerColumns":
        """The events at some places."""
        return LedgerColumns(**{name: _taken(getattr(self, name), places) for name in LEDGER_COLUMN_NAMES})


LEDGER_COLUMN_NAMES: Final = tuple(item.name for item in fields(LedgerColumns))
_TEXTS: Final = ("topic_id", *PROFILE_FIELDS)
_FREE_TEXTS: Final = ("event_id", "application")
_HASHES: Final = ("event_hash", "user_hash")


def ledger_of(
    log: LogPartition,
    offsets: npt.NDArray[np.int64],
    columns: EventColumns,
    hashes: npt.NDArray[np.uint64],
    durations: npt.NDArray[np.int64],
    users: npt.NDArray[np.uint64],
) -> LedgerColumns:
    """n accepted events of one partition."""
    count = len(columns)
    return LedgerColumns(
        topic_id=constant(log.topic_id, count),
        partition=np.full(count, log.partition, dtype=np.int64),
        offset=offsets,
        batch_index=columns.batch_index,
        event_hash=hashes,
        event_id=columns.event_id,
        time_ms=columns.time_ms,
        duration_ms=durations,
        user_hash=users,
        application=columns.application,
        rating=columns.rating,
        **{name: columns.text(name) for name in PROFILE_FIELDS},
    )


def ledger_from(columns: Mapping[str, Sequence[Any]], count: int) -> LedgerColumns:
    """``count`` events of the ledger as ClickHouse told them: plain values by name; none where a name is missing."""
    made: dict[str, Any] = {}
    for name in LEDGER_COLUMN_NAMES:
        values = columns.get(name, ())
        if name in _TEXTS:
            made[name] = encoded(cast(Sequence[str], values)) if values else constant("", count)
        elif name in _FREE_TEXTS:
            made[name] = list(values) if values else [""] * count
        elif values:
            made[name] = np.array(values, dtype=np.uint64 if name in _HASHES else np.int64)
        else:
            made[name] = np.zeros(count, dtype=np.uint64 if name in _HASHES else np.int64)
    return LedgerColumns(**made)


def joined_ledger(parts: Sequence[LedgerColumns]) -> LedgerColumns:
    """The events of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    made = {name: _joined([getattr(part, name) for part in parts]) for name in LEDGER_COLUMN_NAMES}
    return LedgerColumns(**made) if parts else ledger_from({}, 0)


def _joined(columns: Sequence[Any]) -> Any:
    if not columns or isinstance(columns[0], Encoded):
        return joined(columns)
    return list(chain.from_iterable(columns)) if isinstance(columns[0], list) else np.concatenate(columns)


def _taken(column: Any, places: npt.NDArray[np.int64]) -> Any:
    if isinstance(column, Encoded):
        return column.take(places)
    return [column[place] for place in places.tolist()] if isinstance(column, list) else column[places]
