"""The audit of hours and days: closed periods against the ledger, with what is in flight left out."""

from typing import Final

from sinks.clickhouse.client import Client
from sinks.clickhouse.period_sql import HOUR_SECONDS, HOURS, Kind, days_of
from sinks.clickhouse.periods import NOTHING, Found, Stored, current_epoch, found, months, stored

# A period that ended so long ago must be computed from the ledger; the workers' grace and a few of their rounds.
CLOSED_SECONDS: Final = 1_800.0
# What a worker wrote less than so long ago may still wait for its recomputation.
DUE_SECONDS: Final = 900.0
# Periods that are compared in one statement: a bound for what ClickHouse holds in memory.
_AT_ONCE: Final = {"hours": 7 * 24 * HOUR_SECONDS, "days": 31}
_MOST_FINDINGS: Final = 100


def kinds_computed(client: Client) -> list[Kind]:
    """Hours, and days of the zone that was computed last: days of a zone that is no longer set are nobody's."""
    ((zone,),) = client.query("SELECT argMax(zone, computed_at) AS zone FROM days").rows
    return [HOURS, days_of(zone)] if zone else [HOURS]


def wrong_periods(client: Client, kind: Kind, ended: float, now: float) -> tuple[int, list[tuple[str, str]]]:
    """Compare the periods that ended before the Unix time ``ended``.

    Returns:
        How many were compared, and (where, words) for each that is wrong.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    last = kind.number(ended) - kind.step
    compared, following = 0, 0
    wrong: list[tuple[str, str]] = []
    for start, end in months(client):
        # A day of the zone can lie in two months of UTC.
        first, until = max(kind.number(start), following), min(kind.number(end - 1), last)
        for one in range(first, until + 1, _AT_ONCE[kind.table]):
            some, other = _compare(client, kind, one, min(until, one + _AT_ONCE[kind.table] - kind.step), now)
            compared += some
            wrong += other
        following = max(following, until + kind.step)
    if len(wrong) > _MOST_FINDINGS:
        rest = len(wrong) - _MOST_FINDINGS
        wrong = [*wrong[:_MOST_FINDINGS], (kind.table, f"{rest} more are wrong")]
    return compared, wrong


def _compare(client: Client, kind: Kind, first: int, last: int, now: float) -> tuple[int, list[tuple[str, str]]]:
    # In this order: what was computed was computed from no more than is read now.
    epoch = current_epoch(client)
    kept = stored(client, kind, first, last)
    ledger = found(client, kind, "ledger", first, last)
    compared = 0
    wrong = []
    for number in sorted({*kept, *ledger}):
        was, is_ = kept.get(number), ledger.get(number, NOTHING)
        if was is not None and was.is_of("ledger", is_.weight):
            compared += 1
            words = ""
            if (was.events, was.digest) != (is_.events, is_.digest):
                words = f"{was.events} events, the ledger has {is_.events}"
                if was.events == is_.events:
                    words += ", but other groups, durations or people"
        elif was is not None and was.lost_rows("ledger", is_.weight, epoch):
            words = f"{was.events} events, computed from rows that the ledger has no longer; it has {is_.events}"
        elif _in_flight(client, kind, number, now):
            words = ""
        else:
            words = _overdue(was, is_)
        if words:
            wrong.append((f"{kind.table} {kind.start(number):%Y-%m-%d %H:%M} {kind.zone}", words))
    return compared, wrong


def _overdue(was: Stored | None, is_: Found) -> str:
    if was is None:
        return f"never computed, the ledger has {is_.events} events"
    return f"{was.events} events, not recomputed since the ledger changed; it has {is_.events}"


def _in_flight(client: Client, kind: Kind, number: int, now: float) -> bool:
    """Whether a segment with events of the period was written to so shortly before that workers are still at it."""
    ((newest,),) = client.query(
        "SELECT toUnixTimestamp(max(written_at)) AS newest FROM receipts WHERE (topic_id, partition, segment) IN"
        f" (SELECT topic_id, partition, segment FROM minutes WHERE {kind.sql_range('minute', number, number)})"
    ).rows
    return int(newest) > now - DUE_SECONDS
