"""Changes of the catalogue as events: what became true of an agency or of one of its services, and from which day on.

A change is a CloudEvent of its own type on its own topic (``kafka.catalogue_topic``). What it says is named by agency,
service, kind of change and day: said again later in the log, it replaces what was said before; said again with
``void``, it takes it back. So a wrong date is mended by voiding it and stating the right one, and the log keeps both.
"""

from datetime import date as Date
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from pipeline.catalogue.model import Code, Names
from pipeline.contract.events import EventId, EventTime, Source, SpecVersion
from pipeline.contract.statements import Logged, Unreadable, day_fault, read_statement

CHANGED_TYPE: Final = "xidmet.catalogue.changed.v1"

ValidFrom = Annotated[Date, Meta(description="The first day on which it is so, in the time zone of the statistics.")]
Void = Annotated[bool, Meta(description="True takes back what was said of this day before.")]
Days = Annotated[int, Meta(ge=1, le=3_650)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="change"):
    """What all changes have. Not used by itself."""

    agency: Code
    service: Code | None = None
    valid_from: ValidFrom
    void: Void = False

    @property
    def kind(self) -> str:
        """The word that stands for the kind of change."""
        return str(type(self).__struct_config__.tag)

    @property
    def key(self) -> "Key":
        """What it is about: of two changes of one key the later in the log holds."""
        return (self.agency, self.service or "", self.kind, self.valid_from)


Key = tuple[str, str, str, Date]
"""Agency, service (empty for the agency itself), kind, day."""


class Registered(Change, frozen=True, kw_only=True, tag="registered"):
    """The agency or service is on the approved list."""

    name: Names


class Renamed(Change, frozen=True, kw_only=True, tag="renamed"):
    """It has another name; its code stays."""

    name: Names


class Digitised(Change, frozen=True, kw_only=True, tag="digitised"):
    """The service can be used electronically."""

    service: Code


class Moved(Change, frozen=True, kw_only=True, tag="moved"):
    """The service runs elsewhere."""

    service: Code
    hosting: Annotated[Literal["government_cloud", "own"], Meta(description="Where it runs from that day on.")]


class Promised(Change, frozen=True, kw_only=True, tag="promised"):
    """What the service is held to. All that is left out is not promised any more."""

    service: Code
    days: Annotated[Days | None, Meta(description="Calendar days from an application to its answer.")] = None
    p95_ms: Annotated[Milliseconds | None, Meta(description="95 of 100 uses are answered within so long.")] = None
    success_share: Annotated[
        Share | None, Meta(description="Of its uses, the least share that may end other than by a failure.")
    ] = None


class Merged(Change, frozen=True, kw_only=True, tag="merged"):
    """It went into another one, which is counted from then on."""

    into_agency: Code
    into_service: Code | None = None


class Withdrawn(Change, frozen=True, kw_only=True, tag="withdrawn"):
    """It is no longer offered."""


AnyChange = Registered | Renamed | Digitised | Moved | Promised | Merged | Withdrawn
KINDS: Final = ("registered", "renamed", "digitised", "moved", "promised", "merged", "withdrawn")
"""All kinds of changes, in the order in which those of one day take effect."""


class ChangedEvent(Struct, frozen=True, kw_only=True, tag_field="type", tag=CHANGED_TYPE):
    """CloudEvents 1.0 envelope of a change."""

    specversion: SpecVersion
    id: EventId
    source: Source
    time: EventTime
    data: AnyChange
    subject: Any | UnsetType = UNSET
    datacontenttype: Any | UnsetType = UNSET
    dataschema: Any | UnsetType = UNSET


_DECODER: Final = msgspec.json.Decoder(ChangedEvent)


def read_change(value: bytes | None, offset: int, recorded_ms: int) -> "Logged[AnyChange] | Unreadable":
    """Decode a message of the topic; never raises for what it holds."""
    return read_statement(_DECODER, fault_of, value, offset, recorded_ms)


def fault_of(change: AnyChange) -> str:
    """What is wrong with a change by itself, in words; empty if nothing is."""
    if words := day_fault("valid_from", change.valid_from):
        return words
    if isinstance(change, Merged):
        if (change.service is None) != (change.into_service is None):
            return "merged: an agency goes into an agency, a service into a service; name into_service for the latter"
        if (change.into_agency, change.into_service) == (change.agency, change.service):
            return "merged: it cannot go into itself"
    if isinstance(change, Promised) and not change.void and not (change.days or change.p95_ms or change.success_share):
        return "promised: name at least one of days, p95_ms and success_share; to take a promise back, void it"
    return ""


def order(change: AnyChange) -> tuple[Date, int, str, str]:
    """By which changes take effect."""
    return change.valid_from, KINDS.index(change.kind), change.agency, change.service or ""
