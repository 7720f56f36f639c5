"""Rankings and trends, from the minute rows; of long periods from closed days and hours, as far as there are any.

The answers of the page and of ``xidmet top``. Percentiles are read from merged histograms, within 1 %; people are
estimated by uniqCombined64, within about 1 % (and exactly for small numbers), by the documentation of ClickHouse.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from pipeline.fold.histogram import quantile
from sinks.clickhouse.client import Client
from sinks.clickhouse.cover import uses_sql

Metric = Literal["uses", "people"]
By = Literal["agency", "service"]


class Ranked(Struct, frozen=True):
    """One agency or service in a period. ``service`` is empty in a ranking of agencies.

    ``share`` is of all uses in the period, ``failure_share`` of its own uses. ``previous_uses``, ``previous_people``
    and ``previous_rank`` (0: not used) are those of the period of the same length just before.
    """

    rank: int
    agency: str
    service: str
    uses: int
    people: int
    share: float
    failure_share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    previous_uses: int
    previous_people: int
    previous_rank: int


def top(client: Client, start: datetime, end: datetime, by: By = "agency", metric: Metric = "uses") -> list[Ranked]:
    """All agencies or services used in [start, end), most popular first; the names break ties."""
    now = _period(client, start, end, by, metric)
    before = {
        (row["agency"], row["service"]): (rank, row)
        for rank, row in enumerate(_period(client, start - (end - start), start, by, metric), 1)
    }
    total = sum(row["uses"] for row in now) or 1
    ranking = []
    for rank, row in enumerate(now, 1):
        previous_rank, previous = before.get((row["agency"], row["service"]), (0, {"uses": 0, "people": 0}))
        histogram = {int(bucket): count for bucket, count in row["histogram"].items()}
        ranking.append(
            Ranked(
                rank=rank,
                agency=row["agency"],
                service=row["service"],
                uses=row["uses"],
                people=row["people"],
                share=row["uses"] / total,
                failure_share=row["failures"] / row["uses"],
                p50_ms=quantile(histogram, 0.50),
                p95_ms=quantile(histogram, 0.95),
                p99_ms=quantile(histogram, 0.99),
                previous_uses=previous["uses"],
                previous_people=previous["people"],
                previous_rank=previous_rank,
            )
        )
    return ranking


def trends(client: Client, start: datetime, end: datetime, points: int) -> dict[str, list[int]]:
    """Uses per agency in ``points`` equal parts of [start, end), oldest first."""
    step = max(60, round((end - start).total_seconds() / points))
    rows = client.query(
        "SELECT agency, intDiv(toUnixTimestamp(minute) - {start:Int64}, {step:Int64}) AS part, sum(events) AS uses"
        " FROM minutes FINAL WHERE stage = '' AND minute >= toDateTime({start:Int64}, 'UTC')"
        " AND minute < toDateTime({end:Int64}, 'UTC') GROUP BY agency, part",
        {"start": int(start.timestamp()), "end": int(end.timestamp()), "step": step},
    ).rows
    trend: dict[str, list[int]] = {}
    for agency, part, uses in rows:
        if 0 <= part < points:
            trend.setdefault(agency, [0] * points)[part] = uses
    return trend


def people(client: Client, start: datetime, end: datetime) -> int:
    """Distinct people in [start, end), over all agencies."""
    ((number,),) = client.query(
        f"SELECT uniqCombined64Merge(users) AS number FROM ({uses_sql(client, start, end)})"
    ).rows
    return int(number)


def counts(client: Client) -> dict[str, int]:
    """Records, events, accepted, duplicates and rejected in all segments."""
    rows = client.query(
        "SELECT sum(records) AS records, sum(events) AS events, sum(accepted) AS accepted,"
        " sum(duplicates) AS duplicates, sum(arraySum(mapValues(rejected))) AS rejected FROM receipts FINAL"
    ).dicts()
    return {name: int(value) for name, value in rows[0].items()}


def last_period(length: timedelta, now: datetime) -> tuple[datetime, datetime]:
    """The period of this length that ends with the current minute."""
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return end - length, end


def _period(client: Client, start: datetime, end: datetime, by: By, metric: Metric) -> list[dict[str, Any]]:
    service = "service" if by == "service" else "''"
    order = "people" if metric == "people" else "uses"
    return client.query(
        f"SELECT agency, {service} AS service, sum(events) AS uses, uniqCombined64Merge(users) AS people,"
        " sumIf(events, outcome = 'failure') AS failures, sumMap(histogram) AS histogram"
        f" FROM ({uses_sql(client, start, end)}) GROUP BY agency, service HAVING uses > 0"
        f" ORDER BY {order} DESC, agency, service"
    ).dicts()
