"""Before the exchange: the audit judges the shadows, and what they have other than the live tables is told."""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from sinks.clickhouse.audit import Finding, audit
from sinks.clickhouse.client import Client, Column, Parameters, Rows
from sinks.clickhouse.rebuild_plan import PLACES, Plan
from sinks.clickhouse.rebuild_shadow import SUFFIX, uuid_of

_JUDGED = ("coordinates", "minutes", "orphan_minutes", "ledger")


class Difference(Struct, frozen=True):
    """What a segment has in the shadow other than in the live table."""

    table: str
    where: str
    words: str


class ShadowReader:
    """Reads as if the shadows of these tables stood in their places already."""

    def __init__(self, client: Client, tables: Sequence[str]) -> None:
        self._client = client
        self._names = re.compile(rf"\b(FROM|JOIN) ({'|'.join(tables)})\b")

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """See :class:`~sinks.clickhouse.client.Client`."""
        return self._client.query(self._names.sub(rf"\1 \2{SUFFIX}", sql), parameters)

    def execute(self, sql: str) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        self.query(sql)

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        """Not for writing."""
        raise NotImplementedError(f"a reader does not write to {table}")

    def close(self) -> None:
        """The client is somebody else's."""


def new_findings(client: Client, plan: Plan) -> list[Finding]:
    """What the audit would find after the exchange and does not find now. Empty is as it must be."""
    before = {(item.check, item.where) for item in audit(client).findings}
    after = audit(ShadowReader(client, plan.tables)).findings
    return [item for item in after if item.check in _JUDGED and (item.check, item.where) not in before]


def differences(client: Client, plan: Plan) -> list[Difference]:
    """The segments made anew that have other rows in the live tables: what the rebuild mends, if it is exchanged."""
    topics = {run.topic_id: run.topic for run in plan.runs}
    found = []
    for table in plan.tables:
        question = _minutes if table == "minutes" else _places
        live, shadow = question(client, plan, table, ""), question(client, plan, table, SUFFIX)
        for key in sorted({*live, *shadow}):
            if live.get(key) != shadow.get(key):
                topic_id, partition, segment = key
                old, new = (rows.get(key, (0,))[0] for rows in (live, shadow))
                words = f"live {table} {old:,}, rebuilt {new:,}"
                if old == new:
                    words += ", but not the same"
                found.append(Difference(table, f"{topics[topic_id]}[{partition}] segment {segment}", words))
    return found


def event_minutes(client: Client, plan: Plan) -> tuple[int, int] | None:
    """First and last minute, Unix seconds, of the events whose minutes are made anew, before and after."""
    found = [
        client.query(
            "SELECT count() AS n, toUnixTimestamp(min(minute)) AS first, toUnixTimestamp(max(minute)) AS last"
            f" FROM {table} WHERE {plan.inside('minutes')}"
        ).one()
        for table in ("minutes", "minutes" + SUFFIX)
        # The old table may be gone already, if the rebuild was killed while it dropped the old ones.
        if uuid_of(client, table)
    ]
    filled = [(first, last) for count, first, last in found if count]
    return (min(first for first, _ in filled), max(last for _, last in filled)) if filled else None


_Found = dict[tuple[str, int, int], tuple[Any, ...]]


def _minutes(client: Client, plan: Plan, table: str, suffix: str) -> _Found:
    rows = client.query(
        "SELECT topic_id, partition, segment, sum(events) AS total, sum(duration_ms_sum) AS durations,"
        " sum(arraySum(arrayMap((bucket, n) -> toInt64(bucket) * toInt64(n), mapKeys(histogram),"
        " mapValues(histogram)))) AS buckets"
        f" FROM {table}{suffix} FINAL WHERE {plan.inside(table)} GROUP BY topic_id, partition, segment"
    ).rows
    return {(topic_id, partition, segment): tuple(rest) for topic_id, partition, segment, *rest in rows}


def _places(client: Client, plan: Plan, table: str, suffix: str) -> _Found:
    assert PLACES[table] == "offset"
    rows = client.query(
        "SELECT p.topic_id AS topic_id, p.partition AS partition, r.segment AS segment, count() AS n,"
        " sum(p.event_hash) AS hashes FROM (SELECT topic_id, partition, offset, event_hash"
        f" FROM {table}{suffix} FINAL WHERE {plan.inside(table)}) AS p"
        " ASOF JOIN (SELECT topic_id, partition, segment FROM receipts FINAL) AS r"
        " ON p.topic_id = r.topic_id AND p.partition = r.partition AND p.offset >= r.segment"
        " GROUP BY topic_id, partition, segment"
    ).rows
    return {(topic_id, partition, segment): tuple(rest) for topic_id, partition, segment, *rest in rows}
