"""Stated figures as rows. A row may be written again, in any order, by several workers."""

from collections.abc import Sequence

from pipeline.contract.statements import Logged
from pipeline.figures.model import Figure
from sinks.clickhouse.client import Client, Column
from sinks.clickhouse.statements import day_column, place_columns


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
            day_column("start_day", (figure.start for figure in figures)),
            day_column("end_day", (figure.end for figure in figures)),
            Column("length", "String", [figure.length for figure in figures]),
            Column("agency", "String", [figure.agency or "" for figure in figures]),
            Column("service", "String", [figure.service or "" for figure in figures]),
            Column("channel", "String", [figure.channel or "" for figure in figures]),
            Column("hundredths", "UInt64", [int(figure.value * 100) for figure in figures]),
            Column("currency", "String", [figure.currency or "" for figure in figures]),
            *place_columns(topic_id, log),
        ],
    )
