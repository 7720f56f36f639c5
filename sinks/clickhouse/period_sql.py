"""The statements behind hours and days: what a period is in SQL, its groups from minutes or ledger, what is stored."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import date as Date
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import SettingsError
from pipeline.fold.histogram import ZERO_BUCKET, bucket_starts

Source = Literal["minutes", "ledger"]

HOUR_SECONDS: Final = 3_600
_EPOCH_DAY: Final = Date(1970, 1, 1)
_LAST_SECOND: Final = 2**32 - 1
# Python and ClickHouse may know different rules of a zone; what a period is, ClickHouse says, by this much more rows.
_MARGIN_SECONDS: Final = 3 * HOUR_SECONDS
_GROUP: Final = "agency, service, channel, outcome, stage"
# The parts that a version consists of, see sinks.clickhouse.periods.
CLOSED_BIT: Final = 104
EPOCH_BIT: Final = 105


@dataclass(frozen=True, slots=True)
class Kind:
    """Hours, or days of a zone. A period has a number: Unix seconds of an hour's start, or days since 1970-01-01."""

    table: Literal["hours", "days"]
    zone: str

    @property
    def step(self) -> int:
        """From the number of a period to that of the next."""
        return HOUR_SECONDS if self.table == "hours" else 1

    @property
    def column(self) -> str:
        """The column that holds the start."""
        return "hour" if self.table == "hours" else "day"

    def number(self, moment: float) -> int:
        """The period that a moment, in Unix seconds, lies in."""
        if self.table == "hours":
            return int(moment // HOUR_SECONDS) * HOUR_SECONDS
        return (datetime.fromtimestamp(moment, ZoneInfo(self.zone)).date() - _EPOCH_DAY).days

    def start(self, number: int) -> datetime:
        """When a period starts, in its zone."""
        if self.table == "hours":
            return datetime.fromtimestamp(number, UTC)
        day = _EPOCH_DAY + timedelta(days=number)
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))

    def first_open(self, now: float, grace_seconds: float) -> int:
        """The first period that has not ended, with ``grace_seconds`` after its end, at the Unix time ``now``."""
        return self.number(max(0.0, now - grace_seconds))

    def sql(self, time: str) -> str:
        """The start of the period of a column of times."""
        if self.table == "hours":
            return f"toStartOfHour(toDateTime({time}, 'UTC'), 'UTC')"
        return f"toDate({time}, '{self.zone}')"

    def sql_number(self, start: str) -> str:
        """The number of a column of starts."""
        return f"toUnixTimestamp({start})" if self.table == "hours" else f"toUInt32({start})"

    def sql_range(self, time: str, first: int, last: int) -> str:
        """A condition: a column of times lies in the periods ``first`` to ``last``, both included."""
        lowest = max(0, int(self.start(first).timestamp()) - _MARGIN_SECONDS)
        highest = min(_LAST_SECOND, int(self.start(last + self.step).timestamp()) + _MARGIN_SECONDS)
        return (
            f"{time} >= toDateTime({lowest}, 'UTC') AND {time} <= toDateTime({highest}, 'UTC')"
            f" AND {self.sql_number(self.sql(time))} BETWEEN {first} AND {last}"
        )

    def sql_stored(self, first: int, last: int) -> str:
        """A condition on the table itself."""
        if self.table == "hours":
            return f"hour BETWEEN toDateTime({first}, 'UTC') AND toDateTime({last}, 'UTC')"
        return f"zone = '{self.zone}' AND day BETWEEN toDate({first}) AND toDate({last})"


HOURS: Final = Kind("hours", "UTC")


def days_of(zone: str) -> Kind:
    """Days that are cut in a zone.

    Raises:
        SettingsError: there is no such zone.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"periods.time_zone {zone!r}: no such time zone; write a name such as Asia/Baku or UTC"
        ) from error
    return Kind("days", zone)


def bucket_sql(duration: str) -> str:
    """The bucket of whole milliseconds, as :func:`pipeline.fold.histogram.bucket_of` has it, in whole numbers alone."""
    starts, buckets = bucket_starts()
    before = f"roundDown(toUInt32({duration} - 1), {starts})"
    return f"if({duration} = 0, toInt16({ZERO_BUCKET}), toInt16(transform({before}, {starts}, {buckets})))"


def groups_sql(kind: Kind, source: Source, first: int, last: int) -> str:
    """A query for the groups of periods: period, dimensions, total, duration, durations, people and weight.

    ``weight`` is the group's share of the sum that makes the version. The table is read once, so that all of the
    answer is of one moment.
    """
    time = "minute" if source == "minutes" else "time"
    if source == "minutes":
        columns = (
            "sum(events) AS total, sum(duration_ms_sum) AS duration, sumMap(histogram) AS durations,"
            " uniqCombined64MergeState(users) AS people, sum(toUInt128(next_offset) + 1) AS weight"
        )
    else:
        columns = (
            "count() AS total, sum(duration_ms) AS duration,"
            f" CAST(sumMapIf([{bucket_sql('duration_ms')}], [toUInt64(1)], stage = ''), 'Map(Int16, UInt64)')"
            " AS durations, uniqCombined64StateIf(user_hash, user_hash != 0) AS people,"
            " sum(toUInt128(version) + 1) AS weight"
        )
    return (
        f"SELECT {kind.sql(time)} AS period, {_GROUP}, {columns} FROM {source} FINAL"
        f" WHERE {kind.sql_range(time, first, last)} GROUP BY period, {_GROUP}"
    )


def weights_sql(kind: Kind, source: Source, first: int, last: int) -> str:
    """A query for (number, weight) of each period that has rows."""
    time, version = ("minute", "next_offset") if source == "minutes" else ("time", "version")
    return (
        f"SELECT {kind.sql_number(kind.sql(time))} AS number, toString(sum(toUInt128({version}) + 1)) AS all_weight"
        f" FROM {source} FINAL WHERE {kind.sql_range(time, first, last)} GROUP BY number"
    )


def insert_sql(kind: Kind, source: Source, first: int, last: int, base: int) -> str:
    """A statement that recomputes periods. ``base`` is the part of the version that the caller knows.

    Groups that the table has and that are no longer there are written with zeros.
    """
    zone = f"'{kind.zone}', " if kind.table == "days" else ""
    names = ("zone, " if zone else "") + f"{kind.column}, {_GROUP}"
    gone = (
        f"SELECT {kind.column} AS period, {_GROUP}, 0 AS total, 0 AS duration,"
        " CAST(map(), 'Map(Int16, UInt64)') AS durations,"
        " arrayReduce('uniqCombined64State', emptyArrayUInt64()) AS people, toUInt128(0) AS weight"
        f" FROM {kind.table} WHERE {kind.sql_stored(first, last)}"
    )
    return (
        f"INSERT INTO {kind.table}"
        f" ({names}, events, duration_ms_sum, histogram, users, source, computed_at, version)"
        f" SELECT {zone}period, {_GROUP}, total, duration, durations, people, '{source}', now64(3, 'UTC'),"
        f" toUInt128('{base}') + sum(weight) OVER (PARTITION BY period)"
        f" FROM ({groups_sql(kind, source, first, last)} UNION ALL {gone})"
        f" ORDER BY period, {_GROUP}, total DESC LIMIT 1 BY period, {_GROUP}"
        # One block, if it is not very large, is written as a whole or not at all.
        " SETTINGS max_insert_threads = 1, insert_deduplicate = 0, max_partitions_per_insert_block = 0,"
        " distributed_foreground_insert = 1"
    )


_DIGEST: Final = (
    "sum(cityHash64(agency, service, channel, outcome, stage, {events}, {duration}, mapKeys({durations}),"
    " mapValues({durations}), finalizeAggregation({people})))"
)


def found_sql(kind: Kind, source: Source, first: int, last: int) -> str:
    """A query for (number, weight, events, digest) of each period that has rows, from minutes or ledger."""
    digest = _DIGEST.format(events="total", duration="duration", durations="durations", people="people")
    return (
        f"SELECT {kind.sql_number('period')} AS number, toString(sum(weight)) AS all_weight, sum(total) AS all_events,"
        f" {digest} AS digest FROM ({groups_sql(kind, source, first, last)}) GROUP BY number"
    )


def stored_sql(kind: Kind, first: int, last: int, digest: bool) -> str:
    """A query for (number, low, high, events, digest) of each stored period: lowest and highest version of its rows."""
    hashed = (
        _DIGEST.format(events="events", duration="duration_ms_sum", durations="histogram", people="users").replace(
            "sum(", "sumIf(", 1
        )[:-1]
        + ", events > 0)"
    )
    return (
        f"SELECT {kind.sql_number(kind.column)} AS number, toString(min(version)) AS low,"
        f" toString(max(version)) AS high, sum(events) AS all_events, {hashed if digest else 0} AS digest"
        f" FROM {kind.table} FINAL WHERE {kind.sql_stored(first, last)} GROUP BY number"
    )


def numbers_sql(kind: Kind, start: int, end: int) -> str:
    """A query for the numbers of all periods with rows anywhere in the Unix seconds [start, end), in order."""
    first, last = kind.number(start), kind.number(max(start, end - 1))
    parts = [
        f"SELECT DISTINCT {kind.sql_number(kind.sql(time))} AS number FROM {table}"
        f" WHERE {kind.sql_range(time, first, last)}"
        for table, time in (("minutes", "minute"), ("ledger", "time"))
    ]
    parts.append(
        f"SELECT DISTINCT {kind.sql_number(kind.column)} AS number FROM {kind.table}"
        f" WHERE {kind.sql_stored(first, last)}"
    )
    return f"SELECT DISTINCT number FROM ({' UNION ALL '.join(parts)}) ORDER BY number"


def months_sql() -> str:
    """A query for (start, end) in Unix seconds of the months, UTC, that have rows in any of the tables, in order."""
    starts = " UNION ALL ".join(
        f"SELECT DISTINCT toStartOfMonth(toDateTime({time}, 'UTC')) AS month FROM {table}"
        for table, time in (("minutes", "minute"), ("ledger", "time"), ("hours", "hour"))
    )
    return (
        "SELECT DISTINCT toUnixTimestamp(toDateTime(month, 'UTC')) AS start,"
        f" toUnixTimestamp(toDateTime(addMonths(month, 1), 'UTC')) AS end FROM ({starts}) ORDER BY start"
    )
