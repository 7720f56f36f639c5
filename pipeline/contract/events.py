"""The events of the contract as typed structures: CloudEvents 1.0 envelopes around two kinds of data.

Source of the envelope: CloudEvents 1.0.2, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md.
msgspec checks types, enumerations and bounds while it decodes. What needs more than one field or the catalogue is
checked by :mod:`pipeline.contract.checks`, a batch at a time. JSON Schema and AsyncAPI are generated from here by
:mod:`pipeline.contract.generate`, so that what is documented is what is decoded.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

USED_TYPE: Final = "xidmet.service.used.v1"
STAGE_TYPE: Final = "xidmet.application.stage.v1"

CHANNELS: Final = ("web", "mobile", "centre", "call_centre", "kiosk", "api")
OUTCOMES: Final = ("success", "not_eligible", "failure", "abandoned")
STAGES: Final = ("received", "processed", "responded")
HOSTINGS: Final = ("government_cloud", "own")
INITIATORS: Final = ("citizen", "state")

MAX_DURATION_MS: Final = 86_400_000
"""One day: a longer duration is a wrong unit, not a slow service."""

CODE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
PSEUDONYM_PATTERN: Final = r"^[A-Za-z0-9_-]{22,128}$"

Channel = Annotated[
    Literal["web", "mobile", "centre", "call_centre", "kiosk", "api"],
    Meta(description="Where the person was served."),
]
Outcome = Annotated[
    Literal["success", "not_eligible", "failure", "abandoned"],
    Meta(
        description="How the use ended. not_eligible counts as completed; failure and abandoned do not"
        " (definition of the completion rate: UK Government Digital Service)."
    ),
]
Stage = Annotated[Literal["received", "processed", "responded"], Meta(description="The stage the application entered.")]
AgencyCode = Annotated[
    str, Meta(description="Catalogue code of the agency.", extra_json_schema={"pattern": CODE_PATTERN})
]
ServiceCode = Annotated[
    str,
    Meta(description="Catalogue code of the agency's service.", extra_json_schema={"pattern": CODE_PATTERN}),
]
Pseudonym = Annotated[
    str,
    Meta(
        description="Keyed pseudonym of the person (for instance HMAC-SHA-256, base64url or hexadecimal, at least 128"
        " bits). Never an identifier: no FIN code, document, phone or card number, no e-mail address.",
        extra_json_schema={"pattern": PSEUDONYM_PATTERN},
    ),
]
ApplicationId = Annotated[
    str,
    Meta(
        description="Opaque number of the application or case, the same through all its stages. Never an identifier of"
        " a person.",
        extra_json_schema={"pattern": CODE_PATTERN},
    ),
]
DurationMs = Annotated[
    float,
    Meta(
        ge=0,
        le=MAX_DURATION_MS,
        description="Time from request to answer in milliseconds, rounded when stored.",
    ),
]


_CODE_SCHEMA: Final[dict[str, Any]] = {"pattern": CODE_PATTERN}
Centre = Annotated[str, Meta(description="Code of the service centre.", extra_json_schema=_CODE_SCHEMA)]
District = Annotated[
    str, Meta(description="Code of the district that the centre serves.", extra_json_schema=_CODE_SCHEMA)
]
Hosting = Annotated[Literal["government_cloud", "own"], Meta(description="Where the service ran.")]
SignIn = Annotated[str, Meta(description="Code of the sign-in or signature method.", extra_json_schema=_CODE_SCHEMA)]
Consumer = Annotated[
    str,
    Meta(description="Code of the calling system, for calls between systems.", extra_json_schema=_CODE_SCHEMA),
]
Initiator = Annotated[
    Literal["citizen", "state"], Meta(description="Who started the use: state means a proactive service.")
]
Rating = Annotated[int, Meta(ge=1, le=5, description="Satisfaction, from 1 (worst) to 5 (best).")]


class UseData(Struct, frozen=True, kw_only=True, gc=False):
    """One use of one service, told by the agency when the use ended."""

    agency: AgencyCode
    service: ServiceCode
    channel: Channel
    outcome: Outcome
    duration_ms: DurationMs
    user: Pseudonym | None = None
    application: ApplicationId | None = None
    centre: Centre | None = None
    district: District | None = None
    hosting: Hosting | None = None
    sign_in: SignIn | None = None
    consumer: Consumer | None = None
    initiator: Initiator | None = None
    rating: Rating | None = None


class StageData(Struct, frozen=True, kw_only=True, gc=False):
    """One stage in the life of an application."""

    agency: AgencyCode
    service: ServiceCode
    application: ApplicationId
    stage: Stage
    channel: Channel | None = None
    user: Pseudonym | None = None


SpecVersion = Annotated[Literal["1.0"], Meta(description="Version of CloudEvents.")]
EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="Unique within source. Sent again, the event is counted once.",
    ),
]
Source = Annotated[str, Meta(min_length=1, max_length=1024, description="URI reference of the system that emits.")]
EventTime = Annotated[datetime, Meta(tz=True, description="When it happened: RFC 3339 with time zone.")]


class UsedEvent(Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag=USED_TYPE):
    """CloudEvents 1.0 envelope of a use."""

    specversion: SpecVersion
    id: EventId
    source: Source
    time: EventTime
    data: UseData
    subject: Any | UnsetType = UNSET
    datacontenttype: Any | UnsetType = UNSET
    dataschema: Any | UnsetType = UNSET


class StageEvent(Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag=STAGE_TYPE):
    """CloudEvents 1.0 envelope of an application's stage."""

    specversion: SpecVersion
    id: EventId
    source: Source
    time: EventTime
    data: StageData
    subject: Any | UnsetType = UNSET
    datacontenttype: Any | UnsetType = UNSET
    dataschema: Any | UnsetType = UNSET


Event = UsedEvent | StageEvent
