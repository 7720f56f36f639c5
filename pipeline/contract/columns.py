"""Decoded events as columns: lists of a batch, not an object per event."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import compress
from typing import Any, Final

from pipeline.contract.decode import Decoded
from pipeline.contract.events import StageEvent, UseData, UsedEvent


@dataclass(slots=True)
class EventColumns:
    """Events in log order, one list a field, all of one length. An absent optional text is ``""``, a rating 0.

    ``record`` is the place of the message in its batch, ``batch_index`` the place of the event in its message.
    ``time_ms`` is Unix milliseconds, ``duration_ms`` as sent (not yet rounded). ``stage`` is ``""`` for a use,
    ``outcome`` is ``""`` for a stage.
    """

    record: list[int]
    batch_index: list[int]
    event_id: list[str]
    source: list[str]
    time_ms: list[int]
    agency: list[str]
    service: list[str]
    channel: list[str]
    outcome: list[str]
    stage: list[str]
    duration_ms: list[float]
    user: list[str]
    application: list[str]
    centre: list[str]
    district: list[str]
    hosting: list[str]
    sign_in: list[str]
    consumer: list[str]
    initiator: list[str]
    rating: list[int]

    def __len__(self) -> int:
        return len(self.record)

    def keep(self, mask: Sequence[bool]) -> "EventColumns":
        """The events for which ``mask`` is true."""
        return EventColumns(*(list(compress(getattr(self, name), mask)) for name in COLUMN_NAMES))


COLUMN_NAMES: Final = tuple(field.name for field in fields(EventColumns))

# What the columns of uses show for a stage event.
_NO_USE: Final[Any] = UseData(agency="", service="", channel="", outcome="", duration_ms=0.0)  # type: ignore[arg-type]


def to_columns(decoded: Decoded) -> EventColumns:
    """Turn decoded events into columns."""
    events = decoded.events
    data = [event.data for event in events]
    uses: list[UseData] = (
        data  # type: ignore[assignment]
        if all(type(event) is UsedEvent for event in events)
        else [event.data if type(event) is UsedEvent else _NO_USE for event in events]
    )
    return EventColumns(
        record=decoded.records,
        batch_index=decoded.batch_indexes,
        event_id=[event.id for event in events],
        source=[event.source for event in events],
        time_ms=[round(event.time.timestamp() * 1000) for event in events],
        agency=[item.agency for item in data],
        service=[item.service for item in data],
        channel=[item.channel or "" for item in data],
        outcome=[use.outcome for use in uses],
        stage=[event.data.stage if type(event) is StageEvent else "" for event in events],
        duration_ms=[use.duration_ms for use in uses],
        user=[item.user or "" for item in data],
        application=[item.application or "" for item in data],
        centre=[use.centre or "" for use in uses],
        district=[use.district or "" for use in uses],
        hosting=[use.hosting or "" for use in uses],
        sign_in=[use.sign_in or "" for use in uses],
        consumer=[use.consumer or "" for use in uses],
        initiator=[use.initiator or "" for use in uses],
        rating=[use.rating or 0 for use in uses],
    )
