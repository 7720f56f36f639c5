"""The schema: numbered, checksummed, forward-only SQL files, the same for a server and for chdb."""

import hashlib
import re
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from pipeline.errors import SchemaError, SettingsError, StoreError
from pipeline.settings import ClickHouseSettings, redacted_url
from sinks.clickhouse.client import Address, Client, Column, connect, connect_to, parse_url
from sinks.clickhouse.shards import Shards, find_shards, require_kind

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS migrations
(
    number UInt32 COMMENT 'Number of the migration',
    name String COMMENT 'File name',
    checksum String COMMENT 'SHA-256 of the file, hexadecimal',
    applied_at DateTime('UTC') DEFAULT now('UTC') COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree
ORDER BY (number, checksum)
COMMENT 'Migrations applied to this database'
"""

# Comments, quoted text with its escapes, white space, and any other character by itself.
_TOKEN = re.compile(r"""--[^\n]*|/\*.*?\*/|'(?:\\.|''|[^'\\])*'|`(?:\\.|[^`\\])*`|"(?:\\.|[^"\\])*"|\s+|.""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file. Its statements can be run twice, by two workers at once, and half-way before."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """The statements of the file, in order."""
        return statements_of(self.sql)


def statements_of(sql: str) -> list[str]:
    """Cut SQL at the semicolons that end statements: not at those in comments and between quotes."""
    statements, start, code = [], 0, False
    for token in _TOKEN.finditer(sql):
        text = token.group()
        if text == ";":
            if code:
                statements.append(sql[start : token.start()].strip())
            start, code = token.end(), False
        elif not text.isspace() and not text.startswith(("--", "/*")):
            code = True
    if code:
        statements.append(sql[start:].strip())
    return statements


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version of the program, in order."""
    folder = resources.files("sinks.clickhouse") / "migrations"
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return tuple(Migration(int(name[:4]), name, (folder / name).read_text("utf-8")) for name in files)


def migrate(settings: ClickHouseSettings) -> list[str]:
    """Create the database if it is missing, apply what is not applied yet; the names of the files applied.

    With ``clickhouse.cluster`` that is done on each of its servers: on one that joined later, everything.

    Raises:
        SettingsError: there is no such cluster, or it is one that cannot be migrated.
        SchemaError: an applied file differs from this version's, or the database is newer than this version, or was
            made for a cluster and there is none, or the other way round.
        StoreError: ClickHouse is away or refuses.
    """
    shards = _shards(settings)
    done: dict[str, None] = {}
    for address in shards.addresses if shards else (parse_url(settings.url),):
        _create_database(address, settings)
        with closing(connect_to(address, settings) if shards else connect(settings)) as client:
            done |= dict.fromkeys(_migrate(client, settings, shards))
    return list(done)


def _migrate(client: Client, settings: ClickHouseSettings, shards: Shards | None) -> list[str]:
    require_kind(client, redacted_url(settings.url), settings.cluster)
    client.execute(_CREATE_TABLE)
    applied = _applied(client, settings)
    done = []
    for migration in migrations():
        if migration.number in applied:
            continue
        for statement in migration.statements:
            for one in shards.statements(statement) if shards else (statement,):
                client.execute(one)
        client.insert(
            "migrations",
            [
                Column("number", "UInt32", [migration.number]),
                Column("name", "String", [migration.name]),
                Column("checksum", "String", [migration.checksum]),
            ],
        )
        done.append(migration.name)
    return done


def _shards(settings: ClickHouseSettings) -> Shards | None:
    address = parse_url(settings.url)
    if not settings.cluster:
        return None
    if address.directory:
        raise SettingsError("clickhouse.cluster needs servers, but clickhouse.url names a chdb directory; empty one")
    # The database may still be missing.
    with closing(connect_to(replace(address, database=""), settings)) as client:
        return find_shards(client, address, settings.cluster)


def require_schema(client: Client, settings: ClickHouseSettings) -> None:
    """Check that the database has exactly the schema of this version.

    Raises:
        SchemaError: it does not; the message says what to do.
    """
    where = redacted_url(settings.url)
    try:
        applied = _applied(client, settings)
    except StoreError as error:
        # UNKNOWN_TABLE and UNKNOWN_DATABASE; their words differ between versions, and the driver drops their names.
        if any(code in str(error) for code in ("Code: 60.", "Code: 81.")):
            raise SchemaError(f"{where} has no schema; run xidmet migrate") from error
        raise
    missing = [migration.name for migration in migrations() if migration.number not in applied]
    if missing:
        raise SchemaError(f"{where} lacks {', '.join(missing)}; run xidmet migrate")


def _applied(client: Client, settings: ClickHouseSettings) -> set[int]:
    where = redacted_url(settings.url)
    known = {migration.number: migration for migration in migrations()}
    applied: set[int] = set()
    rows = client.query("SELECT number, name, checksum FROM migrations ORDER BY number").rows
    for number, name, checksum in rows:
        if number not in known:
            raise SchemaError(f"{where} has {name}, which this version does not know; use a newer xidmet")
        if checksum != known[number].checksum:
            raise SchemaError(f"{where}: {name} was applied with other content; never change an applied migration")
        applied.add(number)
    return applied


def _create_database(address: Address, settings: ClickHouseSettings) -> None:
    if address.directory:
        return
    with closing(connect_to(replace(address, database=""), settings)) as client:
        name = address.database.replace("`", "")
        client.execute(f"CREATE DATABASE IF NOT EXISTS `{name}`")
