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

    Times are UTC, ISO 8601. ``silent`` are the agencies without a use in the period. ``trend`` has
    :data:`TREND_POINTS` parts of the period, oldest first. ``uses_per_second`` is the mean of the last two minutes,
    the current one as far as it has gone.

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
    return {
        "generated_at": _iso(moment),
        "data_as_of": _data_as_of(client, moment),
        "period": {"start": _iso(start), "end": _iso(end), "minutes": minutes},
        "totals": counts(client)
        | {
            "uses": sum(item.uses for item in ranking),
            "people": people(client, start, end),
            "uses_per_second": _rate(client, moment),
            "agencies_reporting": len(ranking),
            "agencies_registered": len(catalogue.agencies),
        },
        "agencies": agencies,
        "silent": _silent(client, catalogue, {item.agency for item in ranking}),
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


def _data_as_of(client: Client, now: datetime) -> str | None:
    """The latest event time, or now if an emitter's clock is ahead; from the parts' metadata, without a scan."""
    ((milliseconds,),) = client.query("SELECT toUnixTimestamp64Milli(max(time)) FROM ledger").rows
    return _iso(min(now, datetime.fromtimestamp(milliseconds / 1000, UTC))) if milliseconds else None


def _silent(client: Client, catalogue: Catalogue, heard: set[str]) -> list[dict[str, Any]]:
    """Agencies of the catalogue without a use in the period; when each was heard last, None for never."""
    rows = client.query("SELECT agency, toUnixTimestamp(max(minute)) FROM minutes GROUP BY agency").rows
    last = {agency: _iso(datetime.fromtimestamp(seconds, UTC)) for agency, seconds in rows}
    return [
        {"agency": agency.code, "name": msgspec.to_builtins(agency.name), "last_minute": last.get(agency.code)}
        for agency in catalogue.agencies
        if agency.code not in heard
    ]


def _rate(client: Client, now: datetime) -> float:
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    ((uses,),) = client.query(
        "SELECT sum(events) FROM minutes FINAL WHERE stage = '' AND minute >= toDateTime({since:Int64}, 'UTC')",
        {"since": int(since.timestamp())},
    ).rows
    return float(uses) / (now - since).total_seconds()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
