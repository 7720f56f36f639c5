"""The schema over several servers: of every table a local one on each, and a Distributed one under its name.

Which shard a row goes to follows from what all versions of the row have in common, since ReplacingMergeTree removes
versions within a shard only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from pipeline.errors import SchemaError, SettingsError
from sinks.clickhouse.client import Address, Client

LOCAL: Final = "_local"
"""What the name of a local table ends with."""
SHARDING_KEYS: Final = {
    # All copies of an event have its hash, wherever they stood in the log.
    "ledger": "event_hash",
    "coordinates": "event_hash",
    "minutes": "cityHash64(agency, service, minute)",
    "receipts": "cityHash64(topic_id, partition)",
    # A period stays together, so that what recomputes it is written as a whole or not at all.
    "hours": "cityHash64(hour)",
    "days": "cityHash64(zone, day)",
    # Small, and read as a whole: all on the first shard.
    "catalogues": "0",
    "catalogue_changes": "0",
    "figures": "0",
    "epochs": "0",
    "rules": "0",
    "beginnings": "0",
    "rebuilds": "0",
    "rebuild_segments": "0",
}
"""Table to sharding key."""

_NAME: Final = re.compile(r"\w+", re.ASCII)
_CREATE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<name>\w+)\s*(?P<columns>\(.*?^\))\s*"
    r"ENGINE = (?P<engine>\w*MergeTree(?:\(\w+\))?)(?P<rest>.*)",
    re.DOTALL | re.MULTILINE,
)
_ALTER: Final = re.compile(r"ALTER TABLE (?P<name>\w+)(?P<rest>.*)", re.DOTALL)
_DROP: Final = re.compile(r"^DROP TABLE IF EXISTS (?P<name>\w+)(?P<rest>.*)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shards:
    """A cluster as ClickHouse knows it: the address of each shard's server."""

    cluster: str
    addresses: tuple[Address, ...]

    def statements(self, statement: str) -> Iterator[str]:
        """What a statement of a migration is on each of the servers. Can be run twice if that can."""
        create, alter, drop = (pattern.search(statement) for pattern in (_CREATE, _ALTER, _DROP))
        if create:
            name, columns = create["name"], create["columns"]
            yield f"CREATE TABLE IF NOT EXISTS {name}{LOCAL}\n{columns}\nENGINE = {create['engine']}{create['rest']}"
            place = f"{self.cluster}, currentDatabase(), {name}{LOCAL}, {SHARDING_KEYS[name]}"
            words = create["rest"].rpartition("COMMENT ")[2]
            yield f"CREATE TABLE IF NOT EXISTS {name}\n{columns}\nENGINE = Distributed({place})\nCOMMENT {words}"
        elif alter:
            yield f"ALTER TABLE {alter['name']}{LOCAL}{alter['rest']}"
            # A Distributed table has no sorting key, and no parts to be merged.
            rest = re.split("MODIFY ORDER BY|MODIFY SETTING", alter["rest"])[0].rstrip().rstrip(",")
            if rest:
                yield f"ALTER TABLE {alter['name']}{rest}"
        elif drop:
            # What reads first, then what it reads from.
            yield f"DROP TABLE IF EXISTS {drop['name']}{drop['rest']}"
            yield f"DROP TABLE IF EXISTS {drop['name']}{LOCAL}{drop['rest']}"
        else:
            yield statement


def find_shards(client: Client, address: Address, cluster: str) -> Shards:
    """Ask a server for its cluster; the others are reached with the same user, password and database.

    Raises:
        SettingsError: there is no such cluster, or it has replicas.
        StoreError: the server is away or refuses.
    """
    if not _NAME.fullmatch(cluster):
        raise SettingsError(f"clickhouse.cluster {cluster!r}: letters, digits and underscores only")
    rows = client.query(
        "SELECT shard_num, host_name, port FROM system.clusters WHERE cluster = {cluster:String}"
        " ORDER BY shard_num, replica_num",
        {"cluster": cluster},
    ).rows
    if not rows:
        raise SettingsError(
            f"clickhouse.cluster: the server at {address.host}:{address.port} knows no cluster {cluster};"
            " add it to remote_servers in its configuration"
        )
    if len({number for number, _, _ in rows}) < len(rows):
        raise SettingsError(
            f"clickhouse.cluster {cluster} has replicas, for which xidmet migrate makes no tables; make them as"
            " docs/scaling.md says"
        )
    return Shards(cluster, tuple(replace(address, host=host, port=port) for _, host, port in rows))


def require_kind(client: Client, where: str, cluster: str) -> None:
    """Check that tables that are there were made for a cluster, or for one server, as the settings say.

    Raises:
        SchemaError: they were not.
        StoreError: the server is away or refuses.
    """
    rows = client.query(
        "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'receipts'"
    ).rows
    if rows and (rows[0][0] == "Distributed") != bool(cluster):
        made, said = ("one server", "names a cluster") if cluster else ("a cluster", "is empty")
        raise SchemaError(
            f"{where} was made for {made}, but clickhouse.cluster {said}; mend the setting, or take another database"
        )
