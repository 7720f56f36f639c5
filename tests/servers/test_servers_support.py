"""The servers of tests.support: they start, answer, and keep their data through kill, restart and pause."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from itertools import islice
from pathlib import Path

import pytest
from clickhouse_driver import Client
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from tests.conftest import TopicName, persist, pytest_runtest_setup
from tests.support import ClickHouseServer, KafkaServer, ServerUnavailable, wait_until
from tests.support.cache import cached_directory
from tests.support.ports import free_port, listens
from tests.support.process import process_state
from tests.support.skipping import need_program

# Some tests start a server of their own and use the shared one only so that they are skipped where there is none.
pytestmark = pytest.mark.servers

ROOT = Path(__file__).resolve().parents[2]


def test_free_ports_differ_and_are_free() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50
    assert not any(listens(port) for port in ports)


def test_cache_fills_once_and_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIDMET_CACHE", str(tmp_path))
    fills: list[Path] = []

    def fail_half_way(directory: Path) -> None:
        (directory / "half").touch()
        raise ServerUnavailable("no network")

    def fill(directory: Path) -> None:
        fills.append(directory)
        (directory / "whole").touch()

    with pytest.raises(ServerUnavailable, match="no network"):
        cached_directory("thing-1", fail_half_way)
    assert not (tmp_path / "thing-1").exists()

    for _ in range(2):
        assert [path.name for path in cached_directory("thing-1", fill).iterdir()] == ["whole"]
    assert len(fills) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"thing-1", "thing-1.lock"}


def test_kafka_keeps_records_through_kill_restart_and_pause(kafka_server: KafkaServer, topic_name: TopicName) -> None:
    topic = topic_name()
    create_topic(kafka_server, topic)
    produce(kafka_server, topic, b"before the kill")
    kafka_server.kill()
    assert not kafka_server.running
    kafka_server.start()
    produce(kafka_server, topic, b"after the kill")
    kafka_server.restart()
    kafka_server.pause()
    kafka_server.resume()
    produce(kafka_server, topic, b"after the pause")
    assert consume(kafka_server, topic, 3) == [b"before the kill", b"after the kill", b"after the pause"]


def test_kafka_creates_no_topic_by_itself(kafka_server: KafkaServer, topic_name: TopicName) -> None:
    kcat = need_program("kcat")
    topic = topic_name()
    command = [kcat, "-b", kafka_server.bootstrap, "-P", "-t", topic, "-X", "message.timeout.ms=2000"]
    refused = subprocess.run(command, input=b"x", capture_output=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert topic not in topics(kafka_server)


def test_kcat_produces_and_consumes(kafka_server: KafkaServer, topic_name: TopicName) -> None:
    kcat = need_program("kcat")
    topic = topic_name()
    create_topic(kafka_server, topic)
    lines = b"".join(b'{"n": %d}\n' % n for n in range(100))
    base = [kcat, "-q", "-b", kafka_server.bootstrap, "-t", topic]
    subprocess.run([*base, "-P"], input=lines, timeout=60, check=True)
    consumed = subprocess.run([*base, "-C", "-o", "beginning", "-e"], capture_output=True, timeout=60, check=True)
    assert consumed.stdout == lines


def test_clickhouse_keeps_rows_through_kill_restart_and_pause(
    clickhouse_server: ClickHouseServer, clickhouse_database: str
) -> None:
    client = Client.from_url(clickhouse_database)
    client.execute("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    client.execute("INSERT INTO t VALUES", [(1,), (2,)])
    client.disconnect()
    clickhouse_server.kill()
    assert not clickhouse_server.running
    clickhouse_server.start()
    client.execute("INSERT INTO t SELECT 3")
    client.disconnect()
    clickhouse_server.restart()
    clickhouse_server.pause()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(clickhouse_server.http_url, timeout=0.2)
    clickhouse_server.resume()
    assert client.execute("SELECT groupArray(n) FROM (SELECT n FROM t ORDER BY n)") == [([1, 2, 3],)]
    client.disconnect()


def test_a_server_that_a_failed_test_left_behind_is_there_for_the_next_one(
    kafka_server: KafkaServer, clickhouse_server: ClickHouseServer
) -> None:
    kafka_server.pause()
    clickhouse_server.kill()
    pytest_runtest_setup()
    assert clickhouse_server.execute("SELECT 1") == [(1,)]
    assert process_state(kafka_server.pid) != "T"
    # It ends at some moment from now on, as it does when a client has gone away in the middle of an insert.
    os.kill(clickhouse_server.pid, signal.SIGABRT)
    persist(clickhouse_server, "CREATE DATABASE IF NOT EXISTS left_behind")
    persist(clickhouse_server, "DROP DATABASE left_behind SYNC")


def test_clickhouse_answers_over_http_and_is_bounded(clickhouse_server: ClickHouseServer) -> None:
    query = b"SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'"
    with urllib.request.urlopen(clickhouse_server.http_url, data=query, timeout=10) as response:
        assert int(response.read()) == 4 * 1024**3
    assert clickhouse_server.execute("SELECT count() FROM system.tables WHERE name LIKE '%\\_log'") == [(0,)]


@pytest.mark.usefixtures("clickhouse_server")
def test_clickhouse_accepts_the_log_settings_of_docker(tmp_path: Path) -> None:
    drop_in = tmp_path / "config.d" / "system-logs.xml"
    drop_in.parent.mkdir()
    shutil.copy(ROOT / "docker" / "clickhouse" / "system-logs.xml", drop_in)
    with ClickHouseServer(tmp_path) as server:
        server.execute("SYSTEM FLUSH LOGS")
        has_ttl = "position(engine_full, 'TTL') > 0"
        rows = server.execute(f"SELECT name, {has_ttl} FROM system.tables WHERE name LIKE '%\\_log'")
    tables = {str(name): bool(kept_for_a_time) for name, kept_for_a_time in rows}
    assert {"query_log", "part_log", "metric_log", "asynchronous_metric_log"} <= set(tables)
    assert all(tables.values()), tables


@pytest.mark.usefixtures("clickhouse_server")
def test_a_server_ends_with_the_process_that_started_it() -> None:
    starter = (
        "import sys; from tests.support import ClickHouseServer; "
        "s = ClickHouseServer(); s.start(); print(s.pid, s.directory, flush=True); s.pause(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, directory = process.stdout.readline().split()
        process.kill()
    wait_until(lambda: not is_alive(int(pid)), 20, "the server to end")
    subprocess.run(["rm", "-rf", directory], check=True)


@pytest.mark.usefixtures("clickhouse_server")
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path)
    server.data_path.write_text("a file where a directory should be")
    with pytest.raises(RuntimeError, match="clickhouse ended with"):
        server.start()
    assert not server.running


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIDMET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for server in (KafkaServer(tmp_path / "kafka"), ClickHouseServer(tmp_path / "clickhouse")):
        with pytest.raises(ServerUnavailable, match=r"(java|npm) is not installed"):
            server.start()


@pytest.mark.usefixtures("kafka_server", "clickhouse_server")
def test_command_prints_addresses_and_stops_on_interrupt() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        client = Client.from_url(addresses["clickhouse_url"])
        assert client.execute("SELECT currentDatabase()") == [("xidmet",)]
        client.disconnect()
        assert listens(int(addresses["kafka"].rpartition(":")[2]))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not listens(int(addresses["kafka"].rpartition(":")[2]))
    assert not Path(addresses["kafka_directory"]).exists()


def create_topic(server: KafkaServer, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    admin.create_topics([NewTopic(topic, 1, 1)], wait_for_metadata=True)
    admin.close()


def topics(server: KafkaServer) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    names = admin.list_topics()
    admin.close()
    return list(names)


def produce(server: KafkaServer, topic: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=server.bootstrap)
    producer.send(topic, value).get(timeout=60)
    producer.close()


def consume(server: KafkaServer, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    values = [record.value for record in islice(consumer, count)]
    consumer.close()
    return values


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
