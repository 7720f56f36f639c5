"""Events made invalid, in each way that the contract refuses: for the demonstration and for tests."""

import copy
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pipeline.contract.reasons import Reason

Dict = dict[str, Any]


def _without_id(event: Dict) -> None:
    event["id"] = ""


def _foreign_type(event: Dict) -> None:
    event["type"] = "xidmet.service.used.v0"


def _wrong_data(event: Dict) -> None:
    event["data"]["channel"] = "carrier_pigeon"


def _identifier(event: Dict) -> None:
    # A made-up FIN code where a pseudonym belongs.
    event["data"]["user"] = "5ABC1D2"


def _early(event: Dict) -> None:
    event["time"] = "1970-01-18T20:13:30.000Z"  # seconds since 1970 taken for milliseconds


def _future(event: Dict) -> None:
    event["time"] = "2199-01-01T00:00:00.000Z"


def _unknown_agency(event: Dict) -> None:
    event["data"]["agency"] = "no-such-agency"


def _unknown_service(event: Dict) -> None:
    event["data"]["service"] = "no-such-service"


def _not_a_cloudevent(event: Dict) -> None:
    for name in ("specversion", "id", "source", "type", "time"):
        event.pop(name, None)


_CHANGES: Final[dict[Reason, Callable[[Dict], None]]] = {
    Reason.NOT_A_CLOUDEVENT: _not_a_cloudevent,
    Reason.UNKNOWN_TYPE: _foreign_type,
    Reason.INVALID_ATTRIBUTE: _without_id,
    Reason.INVALID_DATA: _wrong_data,
    Reason.PERSONAL_IDENTIFIER: _identifier,
    Reason.TIME_TOO_EARLY: _early,
    Reason.TIME_IN_FUTURE: _future,
    Reason.UNKNOWN_AGENCY: _unknown_agency,
    Reason.UNKNOWN_SERVICE: _unknown_service,
}


def spoiled(event: Dict, kind: Reason) -> bytes:
    """The bytes of a message that is refused for ``kind`` and for nothing else.

    Args:
        event: a valid event in structured mode; it is not changed.
        kind: the reason for which the message is to be refused.
    """
    if kind is Reason.EMPTY_MESSAGE:
        return b""
    if kind is Reason.EMPTY_BATCH:
        return b"[]"
    if kind is Reason.NOT_JSON:
        return msgspec.json.encode(event)[:-1]  # cut off in transit
    changed = copy.deepcopy(event)
    _CHANGES[kind](changed)
    return msgspec.json.encode(changed)
