"""The newest receipts of a partition: what its last events came to."""

from itertools import takewhile
from typing import Final

from pipeline.contract.reasons import Reason
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client

_MOST: Final = 1_000


def recent_receipts(client: Client, log: LogPartition, rules: Rules, events: int) -> list[Receipt]:
    """The newest receipts under the given rules, open ones too, until they account for so many events; oldest first.

    At most 1,000, and none before one of other rules: what those refused says nothing about these.
    """
    rows = client.query(
        "SELECT segment, next_offset, closed, events, rejected, last_timestamp, rules FROM receipts FINAL"
        " WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32}"
        f" ORDER BY segment DESC LIMIT {_MOST}",
        {"topic_id": log.topic_id, "partition": log.partition},
    ).dicts()
    receipts: list[Receipt] = []
    total = 0
    for row in takewhile(lambda row: Rules.from_json(row["rules"]) == rules, rows):
        if total >= events:
            break
        total += row["events"]
        receipts.append(
            Receipt(
                log,
                row["segment"],
                row["next_offset"],
                rules,
                bool(row["closed"]),
                events=row["events"],
                rejected={Reason(reason): count for reason, count in row["rejected"].items()},
                last_timestamp=row["last_timestamp"],
            )
        )
    return receipts[::-1]
