"""A period cut into what is quickest to read: closed days, closed hours, and minutes for the rest.

Each use lies in exactly one of the parts. Closed days and hours are exact; minutes count repeats that the memory of the
fold does not reach once more, see docs/analysts.md.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sinks.clickhouse.client import Client
from sinks.clickhouse.period_audit import kinds_computed
from sinks.clickhouse.period_sql import HOUR_SECONDS, Kind

Table = Literal["days", "hours", "minutes"]

# Shorter periods are read from the minutes alone: that is quick, and shows late events at once.
SHORT_SECONDS: Final = 2 * 24 * HOUR_SECONDS
_MOST_PARTS: Final = 200
_COLUMNS: Final = "agency, service, outcome, events, users, histogram"


@dataclass(frozen=True, slots=True)
class Part:
    """Unix seconds [start, end), to be read from one table."""

    table: Table
    start: int
    end: int


def parts_of(start: int, end: int, hours: Set[int], days: Mapping[int, int]) -> list[Part]:
    """Cut the Unix seconds [start, end) into parts, in order.

    Args:
        start: from here.
        end: to before here.
        hours: starts of the hours that can be read whole.
        days: start to end of the days that can be read whole.
    """
    parts: list[Part] = []
    at = start
    while at < end:
        table: Table = "minutes"
        until = min(end, (at // HOUR_SECONDS + 1) * HOUR_SECONDS)
        if days.get(at, end + 1) <= end:
            table, until = "days", days[at]
        elif at in hours and at + HOUR_SECONDS <= end:
            table, until = "hours", at + HOUR_SECONDS
        if parts and parts[-1].table == table:
            parts[-1] = Part(table, parts[-1].start, until)
        else:
            parts.append(Part(table, at, until))
        at = until
    return parts


def uses_sql(client: Client, start: datetime, end: datetime) -> str:
    """A query for agency, service, outcome, events, users and histogram of all uses in [start, end), in any order.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    first, last = int(start.timestamp()), int(end.timestamp())
    whole = [Part("minutes", first, last)]
    if last - first <= SHORT_SECONDS:
        return _sql(whole, "")
    hours, *rest = kinds_computed(client)
    days = {
        round(kind.start(number).timestamp()): round(kind.start(number + kind.step).timestamp())
        for kind in rest
        for number in _closed(client, kind, first, last)
    }
    parts = parts_of(first, last, set(_closed(client, hours, first, last)), days)
    return _sql(parts if len(parts) <= _MOST_PARTS else whole, rest[0].zone if rest else "")


def _closed(client: Client, kind: Kind, first: int, last: int) -> list[int]:
    """Numbers of the periods that were computed from the ledger."""
    rows = client.query(
        f"SELECT DISTINCT {kind.sql_number(kind.column)} AS number FROM {kind.table}"
        f" WHERE {kind.sql_stored(kind.number(first), kind.number(last))} AND source = 'ledger'"
    ).rows
    return [number for (number,) in rows]


def _sql(parts: list[Part], zone: str) -> str:
    selects = []
    for table in ("days", "hours", "minutes"):
        ranges = [_range(part, zone) for part in parts if part.table == table]
        if ranges:
            selects.append(f"SELECT {_COLUMNS} FROM {table} FINAL WHERE stage = '' AND ({' OR '.join(ranges)})")
    return " UNION ALL ".join(selects)


def _range(part: Part, zone: str) -> str:
    moments = [f"toDateTime({second}, 'UTC')" for second in (part.start, part.end)]
    if part.table == "days":
        # The parts begin and end with days of the zone.
        first, last = (f"toDate({moment}, '{zone}')" for moment in moments)
        return f"zone = '{zone}' AND day >= {first} AND day < {last}"
    column = "hour" if part.table == "hours" else "minute"
    return f"{column} >= {moments[0]} AND {column} < {moments[1]}"
