"""The rules of all workers that ever ran, which a marker may ask for, and those of the first segment of a partition."""

import threading
from collections.abc import Sequence
from typing import Final

from pipeline.fold.records import LogPartition
from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client, Column


def store_rules(client: Client, rules: Rules) -> None:
    """Keep the rules of a worker; before it writes a marker that asks for them."""
    text = rules.to_json()
    if stored_rules(client, text) is None:
        client.insert("rules", [Column("rules", "String", [text])])


def stored_rules(client: Client, text: str) -> Rules | None:
    """The rules with this text, if a worker ever had them; a marker can be written by anybody."""
    found = client.query("SELECT 1 FROM rules WHERE rules = {text:String} LIMIT 1", {"text": text}).rows
    return Rules.from_json(text) if found else None


SETTLE_SECONDS: Final = 0.5
"""Far longer than a row is on its way: who reads so long after its own row has seen every row that is earlier."""


def first_rules(client: Client, logs: Sequence[LogPartition], rules: Rules) -> dict[LogPartition, Rules]:
    """The rules of the first segment of partitions that nobody has folded: those of the worker that came first.

    Whoever finds no row writes one, waits, and reads what is there: the earliest row holds. So workers of different
    rules agree on the first segment, too, in whatever order and however late they write.
    """
    known = beginnings(client, logs)
    missing = [log for log in logs if log not in known]
    if missing:
        client.insert(
            "beginnings",
            [
                Column("topic_id", "String", [log.topic_id for log in missing]),
                Column("partition", "UInt32", [log.partition for log in missing]),
                Column("rules", "String", [rules.to_json()] * len(missing)),
            ],
        )
        # Unlike time.sleep this outlasts a clock that is set, as tests do to it.
        threading.Event().wait(SETTLE_SECONDS)
        known |= beginnings(client, missing)
    return known


def begin_with(client: Client, log: LogPartition, rules: Rules) -> None:
    """Let the first segment of a partition that nobody has folded have these rules: a row that is the earliest."""
    client.query(
        "INSERT INTO beginnings (topic_id, partition, rules, at) SELECT {topic_id:String}, {partition:UInt32},"
        " {rules:String}, min(at) - INTERVAL 1 MICROSECOND FROM beginnings"
        " WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32}"
        " SETTINGS distributed_foreground_insert = 1",
        {"topic_id": log.topic_id, "partition": log.partition, "rules": rules.to_json()},
    )


def beginnings(client: Client, logs: Sequence[LogPartition]) -> dict[LogPartition, Rules]:
    """The rules of the first segment of each of the partitions that have a row."""
    rows = client.query(
        "SELECT topic_id, partition, argMin(rules, (at, rules)) AS earliest FROM beginnings"
        " GROUP BY topic_id, partition"
    ).rows
    found = {(topic_id, partition): text for topic_id, partition, text in rows}
    return {
        log: Rules.from_json(found[log.topic_id, log.partition])
        for log in logs
        if (log.topic_id, log.partition) in found
    }
