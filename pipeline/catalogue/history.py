"""The catalogue at any day, from what was said of it; and what has to be said so that it becomes another one.

The same is computed by SQL in the views ``catalogue_at`` and ``coverage_at``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date as Date

from pipeline.catalogue.changes import (
    AnyChange,
    Digitised,
    Merged,
    Moved,
    Promised,
    Registered,
    Renamed,
    Withdrawn,
    order,
)
from pipeline.catalogue.model import Catalogue, Names
from pipeline.errors import CatalogueError

Subject = tuple[str, str]
"""Agency and service; the service is empty for the agency itself."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an agency or a service stands on a day.

    ``status`` is ``registered``, ``merged``, ``withdrawn``, or empty if nobody ever registered it; ``since`` the day
    from which on it has that status. ``digitised`` is the first day on which it could be used electronically.
    """

    agency: str
    service: str
    name: Names | None = None
    status: str = ""
    since: Date | None = None
    digitised: Date | None = None
    hosting: str = ""
    into_agency: str = ""
    into_service: str = ""
    promised: Promised | None = None

    @property
    def registered(self) -> bool:
        """Whether it is on the approved list."""
        return self.status == "registered"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Services of an agency on a day: on the approved list, and of these the ones that can be used electronically."""

    agency: str
    registered: int
    digitised: int

    @property
    def share(self) -> float | None:
        """Digitised among registered; None where nothing is registered."""
        return self.digitised / self.registered if self.registered else None


def catalogue_at(changes: Iterable[AnyChange], day: Date) -> dict[Subject, Standing]:
    """How everything stands on a day.

    Args:
        changes: those that are in force, see :func:`pipeline.contract.statements.in_force`.
        day: the day.
    """
    standings: dict[Subject, Standing] = {}
    for change in sorted(changes, key=order):
        if change.valid_from <= day:
            subject = (change.agency, change.service or "")
            standings[subject] = _after(standings.get(subject, Standing(*subject)), change)
    return standings


def _after(standing: Standing, change: AnyChange) -> Standing:
    match change:
        case Registered():
            standing = replace(standing, name=change.name)
        case Renamed():
            return replace(standing, name=change.name)
        case Digitised():
            return replace(standing, digitised=standing.digitised or change.valid_from)
        case Moved():
            return replace(standing, hosting=change.hosting)
        case Promised():
            return replace(standing, promised=change)
        case Merged():
            standing = replace(standing, into_agency=change.into_agency, into_service=change.into_service or "")
        case Withdrawn():
            pass
    return replace(standing, status=change.kind, since=change.valid_from)


def offered(standings: Mapping[Subject, Standing]) -> dict[Subject, Standing]:
    """The services that are on the approved list, of agencies that are on it."""
    return {
        subject: standing
        for subject, standing in standings.items()
        if subject[1] and standing.registered and _agency_of(standings, subject).registered
    }


def coverage(standings: Mapping[Subject, Standing]) -> list[Coverage]:
    """Coverage of each registered agency, by code; of an agency without services as well."""
    services = offered(standings)
    return [
        Coverage(
            agency,
            sum(subject[0] == agency for subject in services),
            sum(subject[0] == agency and one.digitised is not None for subject, one in services.items()),
        )
        for agency in sorted(agency for (agency, service), one in standings.items() if not service and one.registered)
    ]


def _agency_of(standings: Mapping[Subject, Standing], subject: Subject) -> Standing:
    return standings.get((subject[0], ""), Standing(subject[0], ""))


def differences(standings: Mapping[Subject, Standing], catalogue: Catalogue, day: Date) -> list[AnyChange]:
    """What has to be said so that, from ``day`` on, what is registered is what a catalogue file has.

    Services of the file are taken as usable electronically: events may name them. What is registered and not in the
    file is withdrawn.
    """
    changes: list[AnyChange] = []
    wanted: set[Subject] = set()
    for agency in catalogue.agencies:
        entries = [(None, agency.name), *((service.code, service.name) for service in agency.services)]
        for code, name in entries:
            subject = (agency.code, code or "")
            wanted.add(subject)
            standing = standings.get(subject, Standing(*subject))
            if not standing.registered:
                changes.append(Registered(agency=agency.code, service=code, valid_from=day, name=name))
            elif standing.name != name:
                changes.append(Renamed(agency=agency.code, service=code, valid_from=day, name=name))
            if code and standing.digitised is None:
                changes.append(Digitised(agency=agency.code, service=code, valid_from=day))
    for subject, standing in sorted(standings.items()):
        if subject not in wanted and standing.registered:
            changes.append(Withdrawn(agency=subject[0], service=subject[1] or None, valid_from=day))
    return changes


def check(changes: Iterable[AnyChange], new: Iterable[AnyChange]) -> None:
    """Check that what is to be said fits to what was said, so that no typing error becomes a service.

    Args:
        changes: those in force, the new ones included.
        new: the new ones.

    Raises:
        CatalogueError: a change is of something that nobody registered by its day, or goes into such a thing.
    """
    known = list(changes)
    first: dict[Subject, Date] = {}
    for change in known:
        if isinstance(change, Registered):
            subject = (change.agency, change.service or "")
            first[subject] = min(first.get(subject, change.valid_from), change.valid_from)
    for change in new:
        if change.void:
            continue
        subjects = [(change.agency, ""), (change.agency, change.service or "")]
        if isinstance(change, Merged):
            subjects += [(change.into_agency, ""), (change.into_agency, change.into_service or "")]
        for subject in subjects:
            if subject not in first or first[subject] > change.valid_from:
                what = f"service {subject[0]}/{subject[1]}" if subject[1] else f"agency {subject[0]}"
                since = f" before {first[subject]}" if subject in first else ""
                raise CatalogueError(
                    f"{change.kind} of {change.agency}{'/' + change.service if change.service else ''} from"
                    f" {change.valid_from} on: {what} is not registered{since}; register it first, or mend the code"
                    " or the day"
                )
