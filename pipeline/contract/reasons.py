"""The closed list of reasons for which an event is refused.

The codes are part of the contract: they stand in dead letters, in receipts, in metrics and in the words of the
validator. A code is never renamed; a new one is added at the end.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event was refused. The value is the code that agencies see."""

    EMPTY_MESSAGE = "empty_message"
    NOT_JSON = "not_json"
    NOT_A_CLOUDEVENT = "not_a_cloudevent"
    EMPTY_BATCH = "empty_batch"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_ATTRIBUTE = "invalid_attribute"
    INVALID_DATA = "invalid_data"
    PERSONAL_IDENTIFIER = "personal_identifier"
    TIME_TOO_EARLY = "time_too_early"
    TIME_IN_FUTURE = "time_in_future"
    UNKNOWN_AGENCY = "unknown_agency"
    UNKNOWN_SERVICE = "unknown_service"


REASON_HELP: dict[Reason, str] = {
    Reason.EMPTY_MESSAGE: "the Kafka message has no value; send the event as JSON",
    Reason.NOT_JSON: "the bytes are not JSON in UTF-8; check the encoder and the compression",
    Reason.NOT_A_CLOUDEVENT: "the JSON is not a CloudEvents 1.0 object: specversion, id, source, type, time and data",
    Reason.EMPTY_BATCH: "the CloudEvents batch holds no event; do not send empty batches",
    Reason.UNKNOWN_TYPE: "the event type is not one of this contract; check spelling and version suffix",
    Reason.INVALID_ATTRIBUTE: "a CloudEvents attribute is missing or malformed",
    Reason.INVALID_DATA: "a field of data is missing, has the wrong type, or a value that is not allowed",
    Reason.PERSONAL_IDENTIFIER: "a field holds what looks like a personal identifier; send a keyed pseudonym",
    Reason.TIME_TOO_EARLY: "time is further back than the pipeline accepts; check the emitter's clock and time unit",
    Reason.TIME_IN_FUTURE: "time is ahead of the moment of sending; check the emitter's clock and time zone",
    Reason.UNKNOWN_AGENCY: "the agency is not in the catalogue; use its catalogue code or have it registered",
    Reason.UNKNOWN_SERVICE: "the agency has no such service in the catalogue; use its code or have it registered",
}
