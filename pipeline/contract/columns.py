"""Decoded events as columns: arrays and lists of a batch, not an object per event."""

from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from pipeline.contract.decode import Decoded
from pipeline.contract.encoded import Encoded
from pipeline.contract.events import StageEvent, UseData, UsedEvent
from pipeline.contract.profiles import Profiles


@dataclass(slots=True)
class EventColumns:
    """n events in log order, one array or list of length n a field. An absent text is ``""``, a rating 0.

    ``record`` is the place of the message in its batch, ``batch_index`` the place of the event in its message.
    ``time_ms`` is Unix milliseconds, ``duration_ms`` as sent (not yet rounded), 0 for a stage. ``profile`` are numbers
    in the table ``profiles``.
    """

    record: npt.NDArray[np.int64]
    batch_index: npt.NDArray[np.int64]
    event_id: list[str]
    source: list[str]
    time_ms: npt.NDArray[np.int64]
    duration_ms: npt.NDArray[np.float64]
    user: list[str]
    application: list[str]
    rating: npt.NDArray[np.uint8]
    profile: npt.NDArray[np.int32]
    profiles: Profiles

    def __len__(self) -> int:
        return len(self.event_id)

    def text(self, name: str) -> Encoded:
        """One of the fields of the profiles."""
        return self.profiles.column(name, self.profile)

    def keep(self, mask: npt.NDArray[np.bool_]) -> "EventColumns":
        """The events for which ``mask`` is true."""
        chosen = mask.tolist()
        return EventColumns(
            record=self.record[mask],
            batch_index=self.batch_index[mask],
            event_id=list(compress(self.event_id, chosen)),
            source=list(compress(self.source, chosen)),
            time_ms=self.time_ms[mask],
            duration_ms=self.duration_ms[mask],
            user=list(compress(self.user, chosen)),
            application=list(compress(self.application, chosen)),
            rating=self.rating[mask],
            profile=self.profile[mask],
            profiles=self.profiles,
        )


# What the columns of uses show for a stage event.
_NO_USE: Final[Any] = UseData(agency="", service="", channel="", outcome="", duration_ms=0.0)  # type: ignore[arg-type]


def to_columns(decoded: Decoded, profiles: Profiles) -> EventColumns:
    """Turn decoded events into columns; their profiles are numbered in ``profiles``."""
    events = decoded.events
    data = [event.data for event in events]
    uses = cast(list[UseData], data)
    if decoded.stages:
        uses = [event.data if type(event) is UsedEvent else _NO_USE for event in events]
        profile = np.empty(len(events), dtype=np.int32)
        is_use = np.array([type(event) is UsedEvent for event in events], dtype=np.bool_)
        profile[is_use] = profiles.number_uses([event.data for event in events if type(event) is UsedEvent])
        profile[~is_use] = [profiles.number_stage(event.data) for event in events if type(event) is StageEvent]
    else:
        profile = profiles.number_uses(uses)
    seconds = np.array([event.time.timestamp() for event in events], dtype=np.float64)
    return EventColumns(
        record=np.array(decoded.records, dtype=np.int64),
        batch_index=np.array(decoded.batch_indexes, dtype=np.int64),
        event_id=[event.id for event in events],
        source=[event.source for event in events],
        time_ms=np.rint(seconds * 1000).astype(np.int64),
        duration_ms=np.array([use.duration_ms for use in uses], dtype=np.float64),
        user=[item.user or "" for item in data],
        application=[item.application or "" for item in data],
        rating=np.frombuffer(bytes([use.rating or 0 for use in uses]), dtype=np.uint8),
        profile=profile,
        profiles=profiles,
    )
