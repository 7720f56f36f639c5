"""Which agency a refused event names, as far as that can be told."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from pipeline.catalogue import Catalogue
from pipeline.contract.decode import BINARY_MARKS, FAULTS, Headers


class _Data(Struct):
    agency: Any = UNSET


class _Event(Struct):
    data: _Data


_STRUCTURED: Final = msgspec.json.Decoder(_Event)
_BINARY: Final = msgspec.json.Decoder(_Data)


def agency_of(value: bytes, headers: Headers, catalogue: Catalogue) -> str:
    """The code that a refused event names as its agency, or ``""`` if that is no agency of the catalogue.

    Whatever else stands in that field may be personal and is not given back.

    Args:
        value: the refused event: JSON of any form, or no JSON at all.
        headers: of its message; in binary mode the value is the event's data.
        catalogue: the one that judged it.
    """
    try:
        if any(name in BINARY_MARKS for name, _ in headers):
            agency = _BINARY.decode(value).agency
        else:
            agency = _STRUCTURED.decode(value).data.agency
    except FAULTS:
        return ""
    return agency if isinstance(agency, str) and agency in catalogue.by_code else ""
