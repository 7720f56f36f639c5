"""What a statement of a migration becomes on each server of a cluster."""

from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import parse_url
from sinks.clickhouse.shards import Shards

_SHARDS = Shards("xidmet", (parse_url(ClickHouseSettings().url),))


def test_a_table_dropped_goes_with_its_local_one() -> None:
    """Else the local table stays on each server, and a table made later under the name finds its old rows."""
    assert list(_SHARDS.statements("-- No longer read.\nDROP TABLE IF EXISTS days SYNC")) == [
        "DROP TABLE IF EXISTS days SYNC",
        "DROP TABLE IF EXISTS days_local SYNC",
    ]


def test_a_table_with_settings_keeps_them_in_the_local_one_only() -> None:
    """A Distributed table knows none of MergeTree's settings."""
    local, distributed = _SHARDS.statements(
        "CREATE TABLE IF NOT EXISTS days\n(\n    zone String\n)\nENGINE = ReplacingMergeTree(version)\n"
        "ORDER BY zone\nSETTINGS index_granularity = 64\nCOMMENT 'Days'"
    )
    assert "ENGINE = ReplacingMergeTree(version)\nORDER BY zone\nSETTINGS index_granularity = 64" in local
    assert distributed.endswith(
        "ENGINE = Distributed(xidmet, currentDatabase(), days_local, cityHash64(zone, day))\nCOMMENT 'Days'"
    )
