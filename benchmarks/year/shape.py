"""What the year looks like: its catalogue, how its events are spread over services and hours. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo

from pipeline.catalogue.model import Agency, Catalogue, Names, Service
from pipeline.generator.calibration import service_shares
from pipeline.generator.rhythm import load

ZONE = "Asia/Baku"
BAKU = ZoneInfo(ZONE)
AGENCIES, SERVICES = 45, 400
PARTITIONS = 4
SLOTS = 1 << 32
# The year of Baku, so that its days and months are whole.
START = datetime(2025, 1, 1, tzinfo=BAKU).astimezone(UTC)
END = datetime(2026, 1, 1, tzinfo=BAKU).astimezone(UTC)
HOURS = (END - START) // timedelta(hours=1)
REPEAT_EVERY = 10_000
REPEAT_AFTER = 401
STAGE_EVERY = 100


@cache
def catalogue() -> Catalogue:
    """45 agencies with 400 services; the leaders first, and with the most services."""
    sizes = [20, 20, 20, *([9] * 4), *([8] * 38)]
    assert (len(sizes), sum(sizes)) == (AGENCIES, SERVICES)
    return Catalogue(
        version=1,
        agencies=tuple(
            Agency(
                code=f"agency-{number:02}",
                name=_named(f"Agency {number:02}"),
                services=tuple(
                    Service(code=f"service-{place:02}", name=_named(f"Service {number:02}.{place:02}"))
                    for place in range(1, size + 1)
                ),
            )
            for number, size in enumerate(sizes, 1)
        ),
        description="Catalogue of benchmarks/queries.py",
    )


def _named(text: str) -> Names:
    return Names(az=text, en=text, ru=text)


@dataclass(frozen=True, slots=True)
class Popularity:
    """Services that are used, and for each the first of the 2^32 slots that draw it; all lists are parallel."""

    starts: list[int]
    agencies: list[str]
    services: list[str]


@cache
def popularity() -> Popularity:
    """As published for December 2015 and for the first half of 2016: see pipeline/generator/calibration.py."""
    pairs = [(agency.code, service.code) for agency in catalogue().agencies for service in agency.services]
    used = [(pair, share) for pair, share in zip(pairs, service_shares(catalogue()).tolist(), strict=True) if share > 0]
    total = sum(share for _, share in used)
    edges = [0, *accumulate(share / total for _, share in used)]
    return Popularity(
        starts=[round(edge * SLOTS) for edge in edges[:-1]],
        agencies=[agency for (agency, _), _ in used],
        services=[service for (_, service), _ in used],
    )


@cache
def hour_starts(events: int) -> list[int]:
    """The number of the first event of each hour of the year, by day and weekday as in Baku; then ``events``."""
    loads = [load((START + timedelta(hours=hour, minutes=30)).astimezone(BAKU)) for hour in range(HOURS)]
    total = sum(loads)
    return [0, *(round(events * done / total) for done in accumulate(loads))]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of hours, of one month in UTC, that one statement fills: hours [first_hour, last_hour) of the year."""

    first_hour: int
    last_hour: int


def chunks(days: int = 10) -> list[Chunk]:
    """The year in chunks of at most so many days, the last day by hours: what is new stands in small parts."""
    found: list[Chunk] = []
    first = 0
    while first < HOURS - 24:
        begins = START + timedelta(hours=first)
        following = (begins.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)
        last = min(HOURS - 24, first + days * 24, (following - START) // timedelta(hours=1))
        found.append(Chunk(first, last))
        first = last
    return found + [Chunk(hour, hour + 1) for hour in range(HOURS - 24, HOURS)]


def hour_of(hour: int) -> datetime:
    """When an hour of the year starts."""
    return START + timedelta(hours=hour)
