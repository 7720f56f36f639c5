"""What the page shows, as JSON; computed once a second at most, whoever asks."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pipeline.catalogue import Catalogue
from sinks.clickhouse.client import Client
from sinks.clickhouse.popularity import counts, last_period, people, top, trends

TREND_POINTS = 60


def overview(client: Client, catalogue: Catalogue, minutes: int, now: datetime | None = None) -> dict[str, Any]:
    """Figures of the last ``minutes`` minutes, the current one included, and counts since the beginning.

    Times are UTC, ISO 8601. ``silent`` are the agencies that sent nothing in the period. ``trend`` has
    :data:`TREND_POINTS` parts of the period, oldest first. ``uses_per_second`` is the mean of the last two minutes,
    the current one as far as it has gone, or since the first event of all.

    Raises:
        StoreError: ClickHouse is away.
    """
    moment = now or datetime.now(UTC)
    start, end = last_period(timedelta(minutes=minutes), moment)
    ranking = top(client, start, end)
    trend = trends(client, start, end, TREND_POINTS)
    agencies = []
    for item in ranking:
        agency = catalogue.by_code.get(item.agency)
        names = msgspec.to_builtins(agency.name) if agency else dict.fromkeys(("az", "en", "ru"), item.agency)
        agencies.append(
            msgspec.to_builtins(item) | {"name": names, "trend": trend.get(item.agency, [0] * TREND_POINTS)}
        )
    reach = _first_and_last(client)
    silent = _silent(client, catalogue, start)
    return {
        "generated_at": _iso(moment),
        # An emitter's clock may be ahead.
        "data_as_of": _iso(min(moment, reach[1])) if reach else None,
        "period": {"start": _iso(start), "end": _iso(end), "minutes": minutes},
        "totals": counts(client)
        | {
            "uses": sum(item.uses for item in ranking),
            "people": people(client, start, end),
            "uses_per_second": _rate(client, reach[0], moment) if reach else 0.0,
            "agencies_reporting": len(catalogue.agencies) - len(silent),
            "agencies_registered": len(catalogue.agencies),
        },
        "agencies": agencies,
        "silent": silent,
        "catalogue": {"version": catalogue.version, "description": catalogue.description},
    }


class Cached:
    """Remembers answers for a second; called from one thread."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._answers: dict[int, tuple[float, dict[str, Any]]] = {}

    def overview(self, client: Client, catalogue: Catalogue, minutes: int) -> dict[str, Any]:
        """See :func:`overview`."""
        now = time.monotonic()
        self._answers = {key: kept for key, kept in self._answers.items() if now - kept[0] <= self._seconds}
        if minutes not in self._answers:
            self._answers[minutes] = (time.monotonic(), overview(client, catalogue, minutes))
        return self._answers[minutes][1]


def _first_and_last(client: Client) -> tuple[datetime, datetime] | None:
    """The earliest and the latest event time, from the parts' metadata, without a scan; None without events."""
    ((rows, first, last),) = client.query(
        "SELECT count(), toUnixTimestamp64Milli(min(time)), toUnixTimestamp64Milli(max(time)) FROM ledger"
    ).rows
    return (datetime.fromtimestamp(first / 1000, UTC), datetime.fromtimestamp(last / 1000, UTC)) if rows else None


def _silent(client: Client, catalogue: Catalogue, since: datetime) -> list[dict[str, Any]]:
    """Agencies of the catalogue that sent nothing since then; when each was heard last, None for never."""
    heard = client.query(
        "SELECT DISTINCT agency FROM minutes WHERE minute >= toDateTime({since:Int64}, 'UTC')",
        {"since": int(since.timestamp())},
    ).rows
    silent = [agency for agency in catalogue.agencies if (agency.code,) not in heard]
    # Few rows, and found by the key: those of the agencies that are heard are the many.
    rows = client.query(
        "SELECT agency, toUnixTimestamp(max(minute)) AS newest FROM minutes WHERE agency IN"
        " splitByChar(',', {codes:String}) GROUP BY agency",
        {"codes": ",".join(agency.code for agency in silent)},
    ).rows
    last = {agency: datetime.fromtimestamp(seconds, UTC) for agency, seconds in rows}
    return [
        {
            "agency": agency.code,
            "name": msgspec.to_builtins(agency.name),
            "last_minute": _iso(last[agency.code]) if agency.code in last else None,
        }
        for agency in silent
    ]


def _rate(client: Client, first: datetime, now: datetime) -> float:
    """Uses per second since the start of the last minute, or since the first event if that came later."""
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    ((uses,),) = client.query(
        "SELECT sum(events) FROM minutes FINAL WHERE stage = '' AND minute >= toDateTime({since:Int64}, 'UTC')",
        {"since": int(since.timestamp())},
    ).rows
    return float(uses) / max(1.0, (now - max(since, first)).total_seconds())


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
