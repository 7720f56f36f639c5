"""The audit: a triple entry of receipts, minutes and ledger, checked against each other.

Receipts are read first. All that a receipt vouches for was written before it, so that nothing found missing can be
merely on its way; what lies beyond the receipts is in flight and is left out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

from sinks.clickhouse.client import Client
from sinks.clickhouse.period_audit import CLOSED_SECONDS, kinds_computed, wrong_periods

# Events whose identities are looked up in the ledger by one statement: a bound for what ClickHouse holds in memory.
_EVENTS_AT_ONCE: Final = 4_000_000
Key = tuple[str, int, int]


class Finding(Struct, frozen=True):
    """Something that does not add up. ``check`` is a code; ``where`` names topic, partition and offsets."""

    check: str
    where: str
    words: str


@dataclass(slots=True)
class AuditReport:
    """What the audit saw. Correct totals have no findings.

    ``repeats`` are accepted events whose id was accepted before, in another partition or farther back than the fold's
    memory: minutes count them again, the ledger does not. ``in_flight`` are open segments that were being written
    during the audit, whose minutes could not be compared. ``hours`` and ``days`` are closed ones that were compared.
    """

    segments: int = 0
    open_segments: int = 0
    in_flight: int = 0
    records: int = 0
    events: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    repeats: int = 0
    ledger: int = 0
    minutes: int = 0
    hours: int = 0
    days: int = 0
    findings: list[Finding] = field(default_factory=list)


def audit(client: Client, now: float | None = None) -> AuditReport:
    """Check all segments of all topics in the database, and all hours and days that are closed.

    Args:
        client: ClickHouse.
        now: Unix seconds, by which periods are closed; None for the clock.

    Raises:
        StoreError: ClickHouse is away.
    """
    report = AuditReport()
    receipts = client.query(
        "SELECT topic, topic_id, partition, segment, next_offset, closed, records, events, accepted, duplicates,"
        " arraySum(mapValues(rejected)) AS rejected, event_hash_sum"
        " FROM receipts FINAL ORDER BY topic_id, partition, segment"
    ).dicts()
    _check_chain(receipts, report)
    _check_sums(receipts, report)
    _check_coordinates(client, receipts, report)
    _check_minutes(client, receipts, report)
    _check_ledger(client, receipts, report)
    _check_periods(client, time.time() if now is None else now, report)
    return report


def _key(row: dict[str, Any]) -> Key:
    return row["topic_id"], row["partition"], row["segment"]


def _where(row: dict[str, Any]) -> str:
    return f"{row['topic']}[{row['partition']}] offsets {row['segment']} to {row['next_offset']}"


def _check_chain(receipts: list[dict[str, Any]], report: AuditReport) -> None:
    """Segments follow each other without hole or overlap, and only the last one is open."""
    for row, following in pairwise(receipts):
        if _key(row)[:2] != _key(following)[:2]:
            continue
        if following["segment"] > row["next_offset"]:
            words = (
                f"offsets {row['next_offset']} to {following['segment']} were never folded: deleted before by retention"
            )
            report.findings.append(Finding("hole", _where(row), words))
        elif following["segment"] < row["next_offset"]:
            report.findings.append(Finding("overlap", _where(row), f"the next starts at {following['segment']}"))
        if not row["closed"]:
            report.findings.append(Finding("not_closed", _where(row), "another segment follows this open one"))


def _check_sums(receipts: list[dict[str, Any]], report: AuditReport) -> None:
    for row in receipts:
        report.segments += 1
        report.open_segments += not row["closed"]
        for name in ("records", "events", "accepted", "duplicates", "rejected"):
            setattr(report, name, getattr(report, name) + row[name])
        parts = row["accepted"] + row["duplicates"] + row["rejected"]
        if row["events"] != parts:
            words = f"{row['events']} events, but accepted + duplicates + rejected = {parts}"
            report.findings.append(Finding("receipt", _where(row), words))


def _check_coordinates(client: Client, receipts: list[dict[str, Any]], report: AuditReport) -> None:
    """Each segment's coordinates are as many as its receipt says, and of the same events."""
    found = {
        _key(row): (row["places"], row["hash_sum"])
        for row in client.query(
            "SELECT c.topic_id AS topic_id, c.partition AS partition, r.segment AS segment, count() AS places,"
            " sum(c.event_hash) AS hash_sum"
            " FROM (SELECT * FROM coordinates FINAL) AS c"
            " ASOF JOIN (SELECT topic_id, partition, segment, next_offset FROM receipts FINAL) AS r"
            " ON c.topic_id = r.topic_id AND c.partition = r.partition AND c.offset >= r.segment"
            " WHERE c.offset < r.next_offset GROUP BY topic_id, partition, segment"
        ).dicts()
    }
    # A receipt may have moved on between the two readings; the newer state is compared in the next audit.
    current = _current_offsets(client)
    for row in receipts:
        if current.get(_key(row)) != row["next_offset"]:
            continue
        places, hash_sum = found.get(_key(row), (0, 0))
        if (places, hash_sum) != (row["accepted"], row["event_hash_sum"]):
            words = f"{row['accepted']} accepted, {places} coordinates"
            if places == row["accepted"]:
                words += ", but not of the same events"
            report.findings.append(Finding("coordinates", _where(row), words))


def _check_minutes(client: Client, receipts: list[dict[str, Any]], report: AuditReport) -> None:
    """The minutes of each segment add up to its accepted events."""
    found = {
        _key(row): (row["total"], row["reach"])
        for row in client.query(
            "SELECT topic_id, partition, segment, sum(events) AS total, max(next_offset) AS reach"
            " FROM minutes FINAL GROUP BY topic_id, partition, segment"
        ).dicts()
    }
    for row in receipts:
        total, reach = found.pop(_key(row), (0, 0))
        if reach > row["next_offset"] and not row["closed"]:
            report.in_flight += 1
            report.minutes += row["accepted"]
            continue
        report.minutes += total
        if total != row["accepted"]:
            words = f"{row['accepted']} accepted, the minutes add up to {total}"
            report.findings.append(Finding("minutes", _where(row), words))
    known = _current_offsets(client)
    for key, (total, _) in found.items():
        if key not in known:
            words = f"minutes with {total} events belong to no receipt"
            report.findings.append(Finding("orphan_minutes", f"{key[0]}[{key[1]}] segment {key[2]}", words))


def _check_ledger(client: Client, receipts: list[dict[str, Any]], report: AuditReport) -> None:
    """Every event with coordinates stands in the ledger, under these coordinates or as a repeat under earlier ones."""
    found = {
        _key(row): row["rows"]
        for row in client.query(
            "SELECT l.topic_id AS topic_id, l.partition AS partition, r.segment AS segment, count() AS rows"
            " FROM (SELECT topic_id, partition, offset FROM ledger FINAL) AS l"
            " ASOF JOIN (SELECT topic_id, partition, segment, next_offset FROM receipts FINAL) AS r"
            " ON l.topic_id = r.topic_id AND l.partition = r.partition AND l.offset >= r.segment"
            " WHERE l.offset < r.next_offset GROUP BY topic_id, partition, segment"
        ).dicts()
    }
    current = _current_offsets(client)
    short: set[Key] = set()
    for row in receipts:
        rows = found.get(_key(row), 0)
        if current.get(_key(row)) != row["next_offset"]:
            report.ledger += row["accepted"]
            continue
        report.ledger += rows
        if rows > row["accepted"]:
            words = f"{row['accepted']} accepted, {rows} in the ledger"
            report.findings.append(Finding("ledger", _where(row), words))
        elif rows < row["accepted"]:
            short.add(_key(row))
    for run in _runs(receipts, short):
        lost = _lost(client, run)
        for row in run:
            gone = lost.get(_key(row), 0)
            report.repeats += row["accepted"] - found.get(_key(row), 0) - gone
            if gone:
                words = f"{row['accepted']} accepted, {gone} of them are not in the ledger at all"
                report.findings.append(Finding("ledger", _where(row), words))


def _runs(receipts: list[dict[str, Any]], short: set[Key]) -> Iterator[list[dict[str, Any]]]:
    """Cut the segments that are ``short``, in order, into runs of one partition of at most so many events.

    Each run is one reading of the ledger, however many segments it has. The segments between its first and its last are
    read with it, and so count.
    """
    run: list[dict[str, Any]] = []
    events = 0
    for row in receipts:
        events += row["accepted"]
        if _key(row) not in short:
            continue
        if run and (_key(run[0])[:2] != _key(row)[:2] or events > _EVENTS_AT_ONCE):
            yield run
            run = []
        if not run:
            events = row["accepted"]
        run.append(row)
    if run:
        yield run


def _lost(client: Client, run: list[dict[str, Any]]) -> dict[Key, int]:
    """Events with coordinates in each segment of a run whose identity the ledger does not hold anywhere."""
    inside = (
        "FROM coordinates WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32}"
        " AND offset >= {first:UInt64} AND offset < {last:UInt64}"
    )
    topic_id, partition, first = _key(run[0])
    rows = client.query(
        "SELECT r.segment AS segment, uniqExact(c.event_hash) AS lost"
        f" FROM (SELECT topic_id, partition, offset, event_hash {inside} AND event_hash NOT IN"
        f" (SELECT event_hash FROM ledger WHERE event_hash IN (SELECT event_hash {inside}))) AS c"
        " ASOF JOIN (SELECT topic_id, partition, segment, next_offset FROM receipts FINAL) AS r"
        " ON c.topic_id = r.topic_id AND c.partition = r.partition AND c.offset >= r.segment"
        " WHERE c.offset < r.next_offset GROUP BY segment"
        # The set finds nothing by the key of the ledger, but ClickHouse would look, at ten times the memory.
        " SETTINGS use_index_for_in_with_subqueries = 0",
        {"topic_id": topic_id, "partition": partition, "first": first, "last": run[-1]["next_offset"]},
    ).rows
    return {(topic_id, partition, segment): int(lost) for segment, lost in rows}


def _check_periods(client: Client, now: float, report: AuditReport) -> None:
    """Closed hours and days have the ledger's numbers, unless a recomputation is due."""
    for kind in kinds_computed(client):
        compared, wrong = wrong_periods(client, kind, now - CLOSED_SECONDS, now)
        if kind.table == "hours":
            report.hours += compared
            report.findings += [Finding("hours", where, words) for where, words in wrong]
        else:
            report.days += compared
            report.findings += [Finding("days", where, words) for where, words in wrong]


def _current_offsets(client: Client) -> dict[Key, int]:
    rows = client.query("SELECT topic_id, partition, segment, next_offset FROM receipts FINAL").rows
    return {(topic_id, partition, segment): next_offset for topic_id, partition, segment, next_offset in rows}
