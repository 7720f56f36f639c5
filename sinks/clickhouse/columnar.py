"""clickhouse-driver with blocks whose columns are written as a whole.

The driver remains the connection: protocol, settings, errors, compression. It writes a block value by value in Python,
though, which costs five times as much CPU (decision 0017). So it is given a block of one row, whose values are
whole columns, and the stream that puts blocks on the wire (``Connection.block_out``) unrolls it.

This depends on names of the driver without an underscore, which are the same in 0.2.9 and 0.2.11: ``Client.send_data``,
``Connection.block_out`` with ``write(block)``, ``finalize()``, ``fout`` and ``context``, ``write_column`` and
``write_varint``. If one of them is missing, :func:`supported` says so, and the driver gets plain lists.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import clickhouse_driver
from clickhouse_driver.errors import TypeMismatchError
from clickhouse_driver.streams import native as driver_native

from sinks.clickhouse.client import Column, rows_of
from sinks.clickhouse.native import encoded

_NEEDED = ("BlockOutputStream", "defines", "write_binary_str", "write_binary_uint8", "write_column", "write_varint")


def supported() -> bool:
    """Whether this version of the driver has what blocks are written through."""
    return (
        hasattr(clickhouse_driver.Client, "send_data")
        and all(hasattr(driver_native, name) for name in _NEEDED)
        and all(hasattr(driver_native.BlockOutputStream, name) for name in ("write", "finalize"))
    )


class ColumnarDriver(clickhouse_driver.Client):  # type: ignore[misc]
    """A client of the driver that inserts :class:`~sinks.clickhouse.client.Column`."""

    def insert_columns(self, statement: str, columns: Sequence[Column], settings: Mapping[str, int]) -> None:
        """Run ``INSERT INTO ... VALUES`` with the columns as one block.

        Raises:
            ValueError: the columns are not of one length.
            clickhouse_driver.errors.Error: as the driver's ``execute``.
        """
        whole = rows_of(columns) > 0 and supported() and hasattr(self.connection, "block_out")
        # The driver changes the lists it is given; the same flush must be there for the next try.
        data = [[column] if whole else column.plain() for column in columns]
        self.execute(statement, data, columnar=True, settings=settings)

    def send_data(self, sample_block: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As the driver's, with a stream that knows whole columns. Each connection has a new one."""
        stream = getattr(self.connection, "block_out", None)
        if stream is not None and not isinstance(stream, _BlockStream):
            self.connection.block_out = _BlockStream(stream)
        return super().send_data(sample_block, data, *args, **kwargs)


class _BlockStream:
    """Writes blocks whose only row are columns, and leaves other blocks to the stream of the driver."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, block: Any) -> None:
        """Follows ``BlockOutputStream.write`` of the driver."""
        columns = [block.get_column_by_index(i)[0] for i in range(block.num_columns)] if block.num_rows == 1 else []
        if not columns or not all(isinstance(column, Column) for column in columns):
            self._stream.write(block)
            return
        out, context, defines = self._stream.fout, self._stream.context, driver_native.defines
        revision = context.server_info.used_revision
        if revision >= defines.DBMS_MIN_REVISION_WITH_BLOCK_INFO:
            block.info.write(out)
        driver_native.write_varint(len(columns), out)
        driver_native.write_varint(len(columns[0].values), out)
        for (name, type_), column in zip(block.columns_with_types, columns, strict=True):
            driver_native.write_binary_str(name, out)
            driver_native.write_binary_str(type_, out)
            if revision >= defines.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION:
                driver_native.write_binary_uint8(0, out)
            try:
                content = encoded(type_, column.values)
                if content is None:
                    driver_native.write_column(context, name, type_, column.plain(), out)
            except UnicodeError:
                # Its own words quote the text.
                raise TypeMismatchError(f"column {name} has a text that is no Unicode") from None
            except ValueError as error:
                raise TypeMismatchError(f"column {name} {error}") from None
            if content is not None:
                out.write(content)
        self._stream.finalize()
