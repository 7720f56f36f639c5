"""Where to go on: positions and memory from the receipts, which are the authority on progress."""

from bisect import bisect_right

from pipeline.contract.reasons import Reason
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client
from sinks.clickhouse.writer import write_receipts


def resume(client: Client, log: LogPartition, log_start: int, next_rules: Rules) -> ResumePoint:
    """Find where to go on with a partition.

    The newest segment is folded again from its start if it is open. If the log no longer reaches back to that start,
    the segment is closed as it stands, never overwritten by a poorer one, and a new one starts where it ended.

    Args:
        client: ClickHouse.
        log: the partition.
        log_start: first offset that the log still has.
        next_rules: rules of segments to come.
    """
    newest = _newest(client, log)
    if newest is None:
        return ResumePoint(log, log_start)
    if not newest.closed and newest.segment >= log_start:
        depth = max(newest.rules.memory_segments, next_rules.memory_segments)
        return ResumePoint(log, newest.segment, newest.rules, _memory(client, log, newest.segment, depth))
    if not newest.closed:
        newest.closed = True
        write_receipts(client, [newest])
    start = max(newest.next_offset, log_start)
    return ResumePoint(log, start, None, _memory(client, log, start, next_rules.memory_segments))


def _newest(client: Client, log: LogPartition) -> Receipt | None:
    rows = client.query(
        "SELECT segment, next_offset, closed, records, value_bytes, events, accepted, duplicates, rejected,"
        " event_hash_sum, first_timestamp, last_timestamp, rules FROM receipts FINAL"
        " WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32} ORDER BY segment DESC LIMIT 1",
        {"topic_id": log.topic_id, "partition": log.partition},
    ).dicts()
    if not rows:
        return None
    row = rows[0]
    row["rules"] = Rules.from_json(row["rules"])
    row["closed"] = bool(row["closed"])
    row["rejected"] = {Reason(reason): count for reason, count in row["rejected"].items()}
    return Receipt(log=log, **row)


def _memory(client: Client, log: LogPartition, before: int, depth: int) -> list[list[int]]:
    """Event hashes of the ``depth`` newest segments that start before offset ``before``, a list for each."""
    place: dict[str, str | int] = {"topic_id": log.topic_id, "partition": log.partition, "before": before}
    starts = [
        row[0]
        for row in client.query(
            "SELECT segment FROM receipts FINAL WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32}"
            f" AND segment < {{before:UInt64}} ORDER BY segment DESC LIMIT {int(depth)}",
            place,
        ).rows
    ][::-1]
    if not starts:
        return []
    memory: list[list[int]] = [[] for _ in starts]
    rows = client.query(
        "SELECT offset, event_hash FROM coordinates FINAL WHERE topic_id = {topic_id:String}"
        " AND partition = {partition:UInt32} AND offset >= {from:UInt64} AND offset < {before:UInt64}",
        {**place, "from": starts[0]},
    ).rows
    for offset, hash_ in rows:
        memory[bisect_right(starts, offset) - 1].append(hash_)
    return memory
