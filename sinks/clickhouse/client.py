"""One small interface to ClickHouse: a server over the native protocol, or chdb in the process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from pipeline.contract.encoded import Encoded, Lists, Maps
from pipeline.errors import SettingsError
from pipeline.settings import ClickHouseSettings, redacted_url

Parameters = Mapping[str, str | int | float]

INSERT_SETTINGS: Mapping[str, int] = {
    # A flush is one block a table: it is there when the call returns, or the same flush is written again.
    "async_insert": 0,
    "insert_deduplicate": 0,
    # Rows of one key in a block are left to merges and to FINAL, as those of different blocks always were. To look for
    # them with each insert took more than half of the server's time, and a flush has hardly any (decision 0017).
    "optimize_on_insert": 0,
    # The same where the tables are Distributed ones over shards: in the shards, not in a queue before them.
    "distributed_foreground_insert": 1,
    # Imports of old events may touch every month of a decade at once.
    "max_partitions_per_insert_block": 0,
}


Values = Sequence[Any] | npt.NDArray[Any] | Encoded | Lists | Maps
"""Plain Python values, or the same as a whole: numbers, texts by dictionary, lists or maps of numbers."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to insert: values of the ClickHouse type ``type``. They are read, never changed.

    Numbers are refused if they do not fit the type; nothing is rounded and nothing wraps round.
    """

    name: str
    type: str
    values: Values

    def plain(self) -> list[Any]:
        """A new list of the values as plain Python values."""
        return self.values.tolist() if isinstance(self.values, np.ndarray) else list(self.values)


def rows_of(columns: Sequence[Column]) -> int:
    """How many rows a block of these columns has.

    Raises:
        ValueError: the columns are not of one length.
    """
    lengths = {column.name: len(column.values) for column in columns}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of one block are of one length: {lengths}")
    return max(lengths.values(), default=0)


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to a query: column names, their ClickHouse types, and rows as tuples."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries by column name."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def one(self) -> tuple[Any, ...]:
        """The only row."""
        (row,) = self.rows
        return row


class Client(Protocol):
    """A connection. Calls block; a client is used by one thread at a time.

    Every method raises :class:`~pipeline.errors.StoreError` when ClickHouse is away or refuses. After a time-out the
    outcome of an insert is unknown; all inserts of this project are upserts and may be repeated.
    """

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Run a statement that answers with rows; ``{name:Type}`` in it is filled from ``parameters``."""

    def execute(self, sql: str) -> None:
        """Run a statement whose answer, if any, does not matter."""

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        """Insert columns of one length as one block.

        Raises:
            ValueError: the columns are not of one length.
        """

    def close(self) -> None:
        """Give the connection back; the client must not be used afterwards."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed ``clickhouse.url``. ``directory`` is set for chdb, the other fields for a server."""

    directory: str = ""
    host: str = ""
    port: int = 9000
    user: str = "default"
    password: str = ""
    database: str = "xidmet"
    secure: bool = False


def parse_url(url: str) -> Address:
    """Parse ``clickhouse://user:password@host:port/database``, ``clickhouses://`` (TLS) or ``chdb:DIRECTORY``.

    Raises:
        SettingsError: neither form.
    """
    if url.startswith("chdb:"):
        directory = url.removeprefix("chdb:").removeprefix("//")
        if not directory:
            raise SettingsError(f"clickhouse.url {url}: name a directory, chdb:DIRECTORY")
        return Address(directory=directory)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # Not the parser's words, which may quote a part of the password.
        raise SettingsError(
            f"clickhouse.url {redacted_url(url)}: not a URL; write special characters in names and passwords with"
            " percent signs, and the port as a number"
        ) from error
    if parts.scheme not in ("clickhouse", "clickhouses") or not parts.hostname:
        shown = redacted_url(url)
        raise SettingsError(f"clickhouse.url {shown}: write clickhouse://user:password@host:port/database")
    return Address(
        host=parts.hostname,
        port=port or (9440 if parts.scheme == "clickhouses" else 9000),
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/") or "xidmet",
        secure=parts.scheme == "clickhouses",
    )


def connect(settings: ClickHouseSettings) -> Client:
    """Open a client for ``clickhouse.url``. Servers are connected to with the first call, not here."""
    return connect_to(parse_url(settings.url), settings)


def connect_to(address: Address, settings: ClickHouseSettings) -> Client:
    """Open a client for another address than that of the settings."""
    if address.directory:
        from sinks.clickhouse.embedded import EmbeddedClient

        return EmbeddedClient(address)
    from sinks.clickhouse.server import ServerClient

    return ServerClient(address, settings)
