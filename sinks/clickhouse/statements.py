"""What the tables of all kinds of statements have in common, see the migrations 0013 and 0014."""

from collections.abc import Iterable, Sequence
from datetime import date as Date
from typing import Any, Final

from pipeline.contract.statements import Logged
from sinks.clickhouse.client import Column

_EPOCH: Final = Date(1970, 1, 1)


def day_column(name: str, days: Iterable[Date]) -> Column:
    """Days, for a column that takes them as numbers since 1970-01-01."""
    return Column(name, "UInt16", [(day - _EPOCH).days for day in days])


def place_columns(topic_id: str, log: "Sequence[Logged[Any]]") -> list[Column]:
    """Whether a statement takes back, who said it, when, and where in the log."""
    return [
        Column("void", "UInt8", [int(logged.said.void) for logged in log]),
        Column("event_id", "String", [logged.event_id for logged in log]),
        Column("source", "String", [logged.source for logged in log]),
        Column("recorded_ms", "Int64", [logged.recorded_ms for logged in log]),
        Column("topic_id", "String", [topic_id] * len(log)),
        Column("offset", "UInt64", [logged.offset for logged in log]),
    ]
