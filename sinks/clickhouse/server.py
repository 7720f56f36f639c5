"""A ClickHouse server, through clickhouse-driver on the native protocol."""

from collections.abc import Sequence

from clickhouse_driver.errors import Error as DriverError
from clickhouse_driver.errors import NetworkError, SocketTimeoutError

from pipeline.errors import StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import INSERT_SETTINGS, Address, Column, Parameters, Rows
from sinks.clickhouse.columnar import ColumnarDriver


class ServerClient:
    """One connection to a server; reconnects with the next call after a failure."""

    def __init__(self, address: Address, settings: ClickHouseSettings) -> None:
        self._address = address
        self._settings = settings
        self._driver = self._new_driver()

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """See :class:`~sinks.clickhouse.client.Client`."""
        try:
            rows, columns = self._driver.execute(sql, dict(parameters or {}), with_column_types=True)
        except (DriverError, OSError, EOFError) as error:
            raise self._fault(error) from error
        return Rows(tuple(name for name, _ in columns), tuple(type_ for _, type_ in columns), rows)

    def execute(self, sql: str) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        try:
            self._driver.execute(sql)
        except (DriverError, OSError, EOFError) as error:
            raise self._fault(error) from error

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        names = ", ".join(column.name for column in columns)
        try:
            self._driver.insert_columns(f"INSERT INTO {table} ({names}) VALUES", columns, INSERT_SETTINGS)
        except (DriverError, OSError, EOFError) as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """See :class:`~sinks.clickhouse.client.Client`."""
        self._driver.disconnect()

    def _new_driver(self) -> ColumnarDriver:
        address, settings = self._address, self._settings
        return ColumnarDriver(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            secure=address.secure,
            client_name="xidmet",
            connect_timeout=settings.connect_timeout_seconds,
            send_receive_timeout=settings.query_timeout_seconds,
            sync_request_timeout=settings.connect_timeout_seconds,
            settings={"server_side_params": True},
        )

    def _fault(self, error: Exception) -> StoreError:
        self._driver.disconnect()
        text = str(error).split("Stack trace:")[0].strip()
        where = f"ClickHouse at {self._address.host}:{self._address.port}"
        if isinstance(error, (OSError, EOFError, NetworkError, SocketTimeoutError)):
            return StoreError(f"{where} does not answer: {text or type(error).__name__}; check clickhouse.url")
        return StoreError(f"{where} refuses: {text}")
