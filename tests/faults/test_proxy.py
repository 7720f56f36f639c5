"""The proxy does what its methods say."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.errors import StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Client, Column, connect
from tests.faults.proxy import Proxy
from tests.support import ClickHouseServer
from tests.support.keeping import kept_alive
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65_536):
                        connection.sendall(data)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(free_port(), echo) as proxy:
        yield proxy


def opened(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    said(connection, b"hello")
    return connection


def said(connection: socket.socket, text: bytes) -> None:
    sending = threading.Thread(target=connection.sendall, args=(text,))
    sending.start()
    assert received(connection, len(text)) == text
    sending.join()


def received(connection: socket.socket, length: int) -> bytes:
    text = b""
    while len(text) < length and (part := connection.recv(65_536)):
        text += part
    return text


def test_it_hands_on(proxy: Proxy) -> None:
    with opened(proxy) as connection:
        said(connection, b"x" * 300_000)


def test_refuse_cuts_and_refuses_until_it_is_healed(proxy: Proxy) -> None:
    with opened(proxy) as connection:
        proxy.refuse()
        assert is_cut(connection)
    with pytest.raises(ConnectionRefusedError):
        opened(proxy)
    proxy.heal()
    opened(proxy).close()


def test_cut_ends_what_is_open_and_lets_in_what_comes(proxy: Proxy) -> None:
    with opened(proxy) as connection:
        proxy.cut()
        assert is_cut(connection)
    opened(proxy).close()
    wait_until(lambda: proxy.connections == 0, 10, "the proxy to forget the connections")


def test_freeze_keeps_connections_and_holds_every_byte(proxy: Proxy) -> None:
    with opened(proxy) as connection:
        proxy.freeze()
        connection.sendall(b"later")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.heal()
        connection.settimeout(10)
        assert received(connection, 5) == b"later"


def test_slow_takes_the_time_that_it_says(proxy: Proxy) -> None:
    with opened(proxy) as connection:
        proxy.slow(100_000)
        began = time.monotonic()
        said(connection, b"x" * 30_000)
        assert time.monotonic() - began >= 0.5, "300 ms each way"


def is_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.servers
@pytest.mark.faults
def test_a_lost_answer_leaves_the_rows_and_an_error(
    clickhouse_server: ClickHouseServer, clickhouse_database: str
) -> None:
    with Proxy(free_port(), clickhouse_server.native_port) as proxy, kept_alive(clickhouse_server):
        url = clickhouse_database.replace(f":{clickhouse_server.native_port}/", f":{proxy.port}/")
        client = connect(ClickHouseSettings(url=url))
        try:
            client.execute("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
            insert(client, 1)
            proxy.lose_answers("t")
            with pytest.raises(StoreError, match="does not answer"):
                insert(client, 2)
            assert proxy.answers_lost == 1
            insert(client, 3)
            assert client.query("SELECT groupArray(n) FROM (SELECT n FROM t ORDER BY n)").one() == ([1, 2, 3],)
        finally:
            client.close()


def insert(client: Client, number: int) -> None:
    client.insert("t", [Column("n", "UInt64", [number])])


@pytest.mark.servers
@pytest.mark.faults
def test_a_held_insert_comes_late_though_others_pass(
    clickhouse_server: ClickHouseServer, clickhouse_database: str
) -> None:
    with Proxy(free_port(), clickhouse_server.native_port) as proxy, kept_alive(clickhouse_server):
        url = clickhouse_database.replace(f":{clickhouse_server.native_port}/", f":{proxy.port}/")
        client, other = (connect(ClickHouseSettings(url=url)) for _ in range(2))
        try:
            client.execute("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
            proxy.hold_insert("t")
            inserting = threading.Thread(target=insert, args=(client, 1))
            inserting.start()
            wait_until(lambda: proxy.held == 1, 30, "the proxy to hold the insert")
            insert(other, 2)
            assert other.query("SELECT groupArray(n) FROM t").one() == ([2],)
            proxy.heal()
            inserting.join(30)
            assert other.query("SELECT groupArray(n) FROM (SELECT n FROM t ORDER BY n)").one() == ([1, 2],)
        finally:
            client.close()
            other.close()
