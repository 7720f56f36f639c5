"""ClickHouse in the process, through chdb. One directory, one process, one session."""

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.contract.encoded import Encoded, Lists, Maps
from pipeline.errors import StoreError
from sinks.clickhouse.client import INSERT_SETTINGS, Address, Column, Parameters, Rows, Values, rows_of
from sinks.clickhouse.native import NUMBERS, numbers

# Values of parameters are parsed as in a tab-separated file.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
OPEN_SECONDS = 10.0

_ARROW_TYPES = {
    "String": "string",
    "Bool": "bool_",
    "Int16": "int16",
    "Int64": "int64",
    "UInt8": "uint8",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
}


class EmbeddedClient:
    """A client of the process's one chdb session. Calls from several threads take turns."""

    _lock: ClassVar[threading.RLock] = threading.RLock()
    _session: ClassVar[Any] = None
    _directory: ClassVar[Path | None] = None
    _users: ClassVar[int] = 0

    def __init__(self, address: Address) -> None:
        try:
            from chdb.session import Session
        except ImportError as error:
            raise StoreError("chdb is not installed; pip install 'xidmet[embedded]', or set clickhouse.url") from error
        directory = Path(address.directory).absolute()
        cls = EmbeddedClient
        with cls._lock:
            if cls._session is not None and cls._directory != directory:
                raise StoreError(f"chdb serves {cls._directory} in this process; {directory} needs one of its own")
            if cls._session is None:
                cls._session = _open(Session, directory)
                cls._directory = directory
                self._run(f"CREATE DATABASE IF NOT EXISTS {address.database}", "TSV")
                self._run(f"USE {address.database}", "TSV")
            cls._users += 1
        self._closed = False

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """See :class:`~sinks.clickhouse.client.Client`."""
        text = self._run(sql.rstrip().rstrip(";"), "JSONCompact", parameters)
        if not text.strip():
            return Rows((), (), [])
        try:
            answer = json.loads(text)
            names, types = (tuple(column[name] for column in answer["meta"]) for name in ("name", "type"))
            # Slicing fails for rows that are no lists, as in other forms of JSON that the query may have asked for.
            return Rows(names, types, [tuple(row[:]) for row in answer["data"]])
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError("write one statement, without FORMAT: the answer comes in a form of its own") from error

    def execute(self, sql: str) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        self._run(sql, "TSV")

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        import pyarrow

        rows_of(columns)
        # chdb finds the table by the name of this variable.
        block = pyarrow.table({column.name: _arrow(pyarrow, column) for column in columns})
        assert block.num_rows >= 0
        names = ", ".join(column.name for column in columns)
        settings = ", ".join(f"{name} = {value}" for name, value in INSERT_SETTINGS.items())
        sql = f"INSERT INTO {table} ({names}) SELECT {names} FROM Python(block) SETTINGS {settings}"
        with EmbeddedClient._lock:
            try:
                EmbeddedClient._session.query(sql, "TSV")
            except Exception as error:
                self._drop_rest()
                raise _fault(error) from error

    def close(self) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        cls = EmbeddedClient
        with cls._lock:
            if self._closed:
                return
            self._closed = True
            cls._users -= 1
            if cls._users == 0:
                cls._session.close()
                cls._session = None
                cls._directory = None

    def _run(self, sql: str, format_: str, parameters: Parameters | None = None) -> str:
        values = {
            name: value.translate(_ESCAPES) if isinstance(value, str) else value
            for name, value in (parameters or {}).items()
        }
        with EmbeddedClient._lock:
            try:
                return str(EmbeddedClient._session.query(sql, format_, params=values))
            except Exception as error:
                self._drop_rest()
                raise _fault(error) from error

    @staticmethod
    def _drop_rest() -> None:
        """What a statement answered before it failed would else stand before the answer to the next one."""
        with contextlib.suppress(Exception):
            EmbeddedClient._session.query("SELECT 1", "TSV")


def _open(session: Any, directory: Path) -> Any:
    """Open the directory; a command that only has a quick question may hold it for a moment."""
    directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return session(str(directory))
        except Exception as error:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"chdb cannot open {directory}: {_first_line(error)}; another process may be using it"
                ) from error
        time.sleep(0.1)


def _arrow(pyarrow: Any, column: Column) -> Any:
    try:
        values = numbers(column.type, column.values) if column.type in NUMBERS else column.values
        made = _array(pyarrow, values, _arrow_type(pyarrow, column.type))
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        # Arrow's own words quote the value.
        made = None
    if made is None or made.null_count:
        raise StoreError(f"chdb refuses: column {column.name} has a value that is no {column.type}")
    return made


def _array(pyarrow: Any, values: Values, type_: Any) -> Any:
    if isinstance(values, Encoded):
        return pyarrow.DictionaryArray.from_arrays(pyarrow.array(values.codes), pyarrow.array(values.words, type_))
    if isinstance(values, Lists):
        return pyarrow.ListArray.from_arrays(_bounds(values), pyarrow.array(values.values, type_.value_type))
    if isinstance(values, Maps):
        keys, items = pyarrow.array(values.keys, type_.key_type), pyarrow.array(values.values, type_.item_type)
        return pyarrow.MapArray.from_arrays(_bounds(values), keys, items)
    plain: Any = values
    if pyarrow.types.is_map(type_):
        return pyarrow.array([list(value.items()) for value in plain], type_)
    return pyarrow.array(plain, type_)


def _bounds(values: Lists | Maps) -> Any:
    """Where the rows begin and the last one ends, as Arrow has it; a block never has 2^31 numbers."""
    return np.concatenate([[0], values.ends]).astype(np.int32)


def _arrow_type(pyarrow: Any, name: str) -> Any:
    outer, _, inner = name.removesuffix(")").partition("(")
    if outer == "Array":
        return pyarrow.list_(_arrow_type(pyarrow, inner))
    if outer == "Map":
        key, _, value = inner.partition(", ")
        return pyarrow.map_(_arrow_type(pyarrow, key), _arrow_type(pyarrow, value))
    return getattr(pyarrow, _ARROW_TYPES[outer])()


def _first_line(error: Exception) -> str:
    return str(error).split("Stack trace:")[0].strip().splitlines()[0] if str(error) else type(error).__name__


def _fault(error: Exception) -> StoreError:
    return StoreError(f"chdb refuses: {_first_line(error)}")
