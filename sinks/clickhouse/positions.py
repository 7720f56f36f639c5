"""Where to go on: positions and memory from the receipts, which are the authority on progress."""

from bisect import bisect_right

from pipeline.contract.reasons import Reason
from pipeline.fold.memory import reach
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client
from sinks.clickhouse.writer import write_receipts


def resume(client: Client, log: LogPartition, log_start: int, next_rules: Rules) -> ResumePoint:
    """Find where to go on with a partition.

    The oldest open segment is folded again from its start, and those that were opened after it. If the log no longer
    reaches back to the start of one, it is closed as it stands, never overwritten by a poorer one.

    Args:
        client: ClickHouse.
        log: the partition.
        log_start: first offset that the log still has.
        next_rules: rules of segments to come.
    """
    receipts = open_and_newest(client, log)
    reachable = {item.segment: item.rules for item in receipts if not item.closed and item.segment >= log_start}
    beyond = [item for item in receipts if not item.closed and item.segment < log_start]
    if beyond:
        for item in beyond:
            item.closed = True
        write_receipts(client, beyond)
    ended = [item.next_offset for item in receipts if item.closed]
    start = max([log_start, *ended])
    if reachable:
        # Between the end of what was closed and the first segment that can be folded there may be a rest of the log.
        first = min(reachable)
        start = min(start, first) if beyond else first
    before = max((item for item in receipts if item.segment < start), key=lambda item: item.segment, default=None)
    inherited = (before.next_rules or before.rules) if before else None
    depth = reachable.get(start, inherited or next_rules).memory_segments
    return ResumePoint(log, start, reachable, memory_before(client, log, start, depth), inherited)


def open_and_newest(client: Client, log: LogPartition) -> list[Receipt]:
    """The receipts of all open segments and of the newest one, oldest first."""
    rows = client.query(
        "SELECT segment, next_offset, closed, records, value_bytes, events, accepted, duplicates, rejected,"
        " event_hash_sum, first_timestamp, last_timestamp, rules, next_rules FROM receipts FINAL"
        " WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32}"
        " ORDER BY closed, segment DESC LIMIT 1000",
        {"topic_id": log.topic_id, "partition": log.partition},
    ).dicts()
    receipts = []
    for place, row in enumerate(rows):
        if row["closed"] and place > 0 and rows[place - 1]["closed"]:
            break
        row["rules"] = Rules.from_json(row["rules"])
        row["closed"] = bool(row["closed"])
        row["next_rules"] = Rules.from_json(row["next_rules"]) if row["next_rules"] else None
        row["rejected"] = {Reason(reason): count for reason, count in row["rejected"].items()}
        receipts.append(Receipt(log=log, **row))
    return sorted(receipts, key=lambda item: item.segment)


def memory_before(
    client: Client, log: LogPartition, before: int, depth: int, coordinates: str = "coordinates"
) -> list[list[int]]:
    """Event hashes of the newest segments that start before offset ``before``, a list for each.

    As many segments as the worker that folded them remembered when it reached ``before``: see ``reach``.
    ``coordinates`` is the table with the places of the events: the live one, or one that a rebuild makes.
    """
    place: dict[str, str | int] = {"topic_id": log.topic_id, "partition": log.partition, "before": before}
    rows = client.query(
        "SELECT segment, rules FROM receipts FINAL WHERE topic_id = {topic_id:String}"
        " AND partition = {partition:UInt32} AND segment < {before:UInt64}"
        f" ORDER BY segment DESC LIMIT {int(depth)}",
        place,
    ).rows
    deep = reach(depth, [Rules.from_json(text).memory_segments for _, text in rows])
    starts = [segment for segment, _ in rows[:deep]][::-1]
    if not starts:
        return []
    memory: list[list[int]] = [[] for _ in starts]
    places = client.query(
        f"SELECT offset, event_hash FROM {coordinates} FINAL WHERE topic_id = {{topic_id:String}}"
        " AND partition = {partition:UInt32} AND offset >= {from:UInt64} AND offset < {before:UInt64}",
        {**place, "from": starts[0]},
    ).rows
    for offset, hash_ in places:
        memory[bisect_right(starts, offset) - 1].append(hash_)
    return memory
