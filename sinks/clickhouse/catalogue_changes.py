"""What was said about the catalogue, as rows. A row may be written again, in any order, by several workers."""

from collections.abc import Sequence

from pipeline.catalogue.changes import AnyChange, Merged, Moved, Promised, Registered, Renamed
from pipeline.contract.statements import Logged
from sinks.clickhouse.client import Client, Column
from sinks.clickhouse.statements import day_column, place_columns


def store_changes(client: Client, topic_id: str, log: "Sequence[Logged[AnyChange]]") -> None:
    """Write changes that stand on the topic of this id.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    if not log:
        return
    changes: list[AnyChange] = [logged.said for logged in log]
    names = [change.name if isinstance(change, Registered | Renamed) else None for change in changes]
    promised = [change if isinstance(change, Promised) else None for change in changes]
    merged = [change if isinstance(change, Merged) else None for change in changes]
    client.insert(
        "catalogue_changes",
        [
            Column("agency", "String", [change.agency for change in changes]),
            Column("service", "String", [change.service or "" for change in changes]),
            Column("change", "String", [change.kind for change in changes]),
            day_column("valid_from_day", (change.valid_from for change in changes)),
            Column("name_az", "String", [name.az if name else "" for name in names]),
            Column("name_en", "String", [name.en if name else "" for name in names]),
            Column("name_ru", "String", [name.ru if name else "" for name in names]),
            Column(
                "hosting",
                "String",
                [change.hosting if isinstance(change, Moved) else "" for change in changes],
            ),
            Column("days", "UInt16", [(one.days or 0) if one else 0 for one in promised]),
            Column("p95_ms", "UInt32", [(one.p95_ms or 0) if one else 0 for one in promised]),
            Column(
                "success_millionths",
                "UInt32",
                [round((one.success_share or 0) * 1e6) if one else 0 for one in promised],
            ),
            Column("into_agency", "String", [one.into_agency if one else "" for one in merged]),
            Column("into_service", "String", [(one.into_service or "") if one else "" for one in merged]),
            *place_columns(topic_id, log),
        ],
    )
