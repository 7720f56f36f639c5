"""Stated figures as rows. A row may be written again, in any order, by several workers."""

from collections.abc import Sequence
from datetime import date as Date
from typing import Final

from pipeline.contract.statements import Logged
from pipeline.figures.model import Figure
from sinks.clickhouse.client import Client, Column

_EPOCH: Final = Date(1970, 1, 1)


def store_figures(client: Client, topic_id: str, log: "Sequence[Logged[Figure]]") -> None:
    """Write figures that stand on the topic of this id.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    if not log:
        return
    figures = [logged.said for logged in log]
    client.insert(
        "figures",
        [
            Column("measure", "String", [figure.measure for figure in figures]),
            Column("start_day", "UInt16", [(figure.start - _EPOCH).days for figure in figures]),
            Column("end_day", "UInt16", [(figure.end - _EPOCH).days for figure in figures]),
            Column("length", "String", [figure.length for figure in figures]),
            Column("agency", "String", [figure.agency or "" for figure in figures]),
            Column("service", "String", [figure.service or "" for figure in figures]),
            Column("channel", "String", [figure.channel or "" for figure in figures]),
            Column("hundredths", "UInt64", [int(figure.value * 100) for figure in figures]),
            Column("currency", "String", [figure.currency or "" for figure in figures]),
            Column("void", "UInt8", [int(figure.void) for figure in figures]),
            Column("event_id", "String", [logged.event_id for logged in log]),
            Column("source", "String", [logged.source for logged in log]),
            Column("recorded_ms", "Int64", [logged.recorded_ms for logged in log]),
            Column("topic_id", "String", [topic_id] * len(log)),
            Column("offset", "UInt64", [logged.offset for logged in log]),
        ],
    )
