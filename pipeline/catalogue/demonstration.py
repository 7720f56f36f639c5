"""A history for the demonstration catalogue: synthetic, pinned to what was published of e-gov.az.

Published: 225 of the 417 services on the approved list were integrated in July 2013; 41 bodies and 423 services in the
first half of 2016. Which services came when, which moved, and what is promised, is made up.
"""

from collections.abc import Iterator
from datetime import date as Date
from datetime import timedelta
from typing import Final

from pipeline.catalogue.changes import AnyChange, Digitised, Moved, Promised, Registered
from pipeline.catalogue.model import Agency, Service, demonstration_catalogue

_LIST: Final = Date(2012, 1, 1)
_ON_THE_LIST: Final = 417
_ADDED: Final = Date(2014, 2, 1)
_INTEGRATED: Final = 225
_COUNTED: Final = Date(2013, 7, 1)
_ALL: Final = Date(2015, 12, 1)
_MOVES: Final = Date(2016, 3, 1)
_DAYS: Final = (5, 10, 15, 30)
_P95_MS: Final = (2_000, 5_000, 10_000)


def demonstration_history() -> list[AnyChange]:
    """All changes, by agency and service. The same at every call."""
    catalogue = demonstration_catalogue()
    changes: list[AnyChange] = [
        Registered(agency=agency.code, valid_from=_LIST, name=agency.name) for agency in catalogue.agencies
    ]
    for number, (agency, service) in enumerate(_popular_first(catalogue.agencies)):
        listed = _LIST if number < _ON_THE_LIST else _ADDED
        changes.append(Registered(agency=agency.code, service=service.code, valid_from=listed, name=service.name))
        digitised = max(listed, _digitised(number, sum(len(one.services) for one in catalogue.agencies)))
        changes.append(Digitised(agency=agency.code, service=service.code, valid_from=digitised))
        changes.append(Moved(agency=agency.code, service=service.code, valid_from=digitised, hosting="own"))
        if number % 3 == 0:
            moved = _MOVES + timedelta(days=7 * (number // 3 % 40))
            changes.append(
                Moved(agency=agency.code, service=service.code, valid_from=moved, hosting="government_cloud")
            )
        changes.append(
            Promised(
                agency=agency.code,
                service=service.code,
                valid_from=digitised,
                days=_DAYS[number % len(_DAYS)],
                p95_ms=_P95_MS[number % len(_P95_MS)],
                success_share=0.98,
            )
        )
    return changes


def _popular_first(agencies: tuple[Agency, ...]) -> Iterator[tuple[Agency, Service]]:
    """The most popular service of each agency, then the second of each, and so on."""
    for place in range(max(len(agency.services) for agency in agencies)):
        for agency in agencies:
            if place < len(agency.services):
                yield agency, agency.services[place]


def _digitised(number: int, services: int) -> Date:
    """The day on which a service could be used: evenly from the list to July 2013, then evenly to the end of 2015."""
    if number < _INTEGRATED:
        return _LIST + timedelta(days=(_COUNTED - _LIST).days * number // _INTEGRATED)
    part = (number - _INTEGRATED + 1) / (services - _INTEGRATED)
    return _COUNTED + timedelta(days=31 + round(((_ALL - _COUNTED).days - 31) * part))
