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

    Times are UTC, ISO 8601. ``trend`` has :data:`TREND_POINTS` parts of the period, oldest first.
    ``uses_per_second`` is the mean of the last two minutes, the current one as far as it has gone.

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
        "data_as_of": _data_as_of(client),
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
    }


class Cached:
    """Remembers answers for a second; called from one thread."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._answers: dict[int, tuple[float, dict[str, Any]]] = {}

    def overview(self, client: Client, catalogue: Catalogue, minutes: int) -> dict[str, Any]:
        """See :func:`overview`."""
        made, answer = self._answers.get(minutes, (0.0, {}))
        if not answer or time.monotonic() - made > self._seconds:
            answer = overview(client, catalogue, minutes)
            self._answers = {minutes: (time.monotonic(), answer)}
        return answer


def _data_as_of(client: Client) -> str | None:
    ((milliseconds,),) = client.query("SELECT toUnixTimestamp64Milli(max(time)) FROM ledger").rows
    return _iso(datetime.fromtimestamp(milliseconds / 1000, UTC)) if milliseconds else None


def _rate(client: Client, now: datetime) -> float:
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    ((uses,),) = client.query(
        "SELECT sum(events) FROM minutes FINAL WHERE stage = '' AND minute >= toDateTime({since:Int64}, 'UTC')",
        {"since": int(since.timestamp())},
    ).rows
    return float(uses) / (now - since).total_seconds()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
