"""Fixtures for all tests. A server is started by the first test that asks for it and serves all of its process."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings

# The servers' modules import Kafka and ClickHouse clients, which tests without servers should not wait for.
if TYPE_CHECKING:
    from tests.support import ClickHouseServer, KafkaServer
    from tests.support.process import ServerProcess

    _Server = TypeVar("_Server", bound=ServerProcess)

TopicName = Callable[..., str]

_serving: list[ServerProcess] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seed", type=int, help="seed of tests/unit/test_fuzz.py; else fixed in CI, random elsewhere"
    )
    parser.addoption("--fuzz-messages", type=int, default=200_000, help="how many messages it makes")


@pytest.fixture(scope="session")
def fuzz_seed(pytestconfig: pytest.Config) -> int:
    """Seed of the fuzzer."""
    given: int | None = pytestconfig.getoption("--fuzz-seed")
    if given is not None:
        return given
    return 20261124 if os.environ.get("CI") == "true" else uuid.uuid4().int % 10**9


@pytest.fixture(scope="session")
def fuzz_messages(pytestconfig: pytest.Config) -> int:
    """How many messages the fuzzer makes."""
    return int(pytestconfig.getoption("--fuzz-messages"))


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes says something about the machine, not about the code.
    # Continuous integration tries the same examples each time; everybody else finds new ones.
    fixed = os.environ.get("CI") == "true"
    settings.register_profile("xidmet", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=fixed)
    settings.load_profile("xidmet")
    # kafka-python reads its message schemas in a way that is deprecated in Python 3.11 and 3.12 and no longer in 3.13.
    for function in ("open_text", "read_text"):
        config.addinivalue_line("filterwarnings", f"ignore:{function} is deprecated:DeprecationWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # A test that failed between stopping a server and bringing it back must not fail all that come after it.
    for server in _serving:
        server.resume()
        server.start()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The program sets up the root logger; the next test must not find that."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """A real Kafka broker. Whoever stops, kills or pauses it brings it back."""
    from tests.support import KafkaServer

    yield from _serve(KafkaServer)


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """A real ClickHouse server. Whoever stops, kills or pauses it brings it back."""
    from tests.support import ClickHouseServer

    yield from _serve(ClickHouseServer)


@pytest.fixture
def clickhouse_database(clickhouse_server: ClickHouseServer) -> Iterator[str]:
    """URL of a new, empty database, which is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    persist(clickhouse_server, f"CREATE DATABASE IF NOT EXISTS {name}")
    yield clickhouse_server.database_url(name)
    persist(clickhouse_server, f"DROP DATABASE IF EXISTS {name} SYNC")


def persist(server: ClickHouseServer, statement: str) -> None:
    """Run a statement on a server that may be about to end, left by a killed worker in the middle of an insert."""
    from clickhouse_driver.errors import NetworkError, SocketTimeoutError

    from tests.support import wait_until

    def done() -> bool:
        server.resume()
        server.start()
        try:
            server.execute(statement)
        except (NetworkError, SocketTimeoutError, OSError, EOFError):
            return False
        return True

    wait_until(done, 120, f"ClickHouse to answer to {statement}", every=0.2)


@pytest.fixture
def topic_name() -> TopicName:
    """Makes topic names that nobody used before: ``topic_name()`` or ``topic_name("usage.events")``."""

    def make(prefix: str = "test") -> str:
        return f"{prefix}.{uuid.uuid4().hex[:12]}"

    return make


def _serve(kind: type[_Server]) -> Iterator[_Server]:
    from tests.support import ServerUnavailable
    from tests.support.skipping import skip_or_fail

    server = kind()
    try:
        try:
            server.start()
        except ServerUnavailable as error:
            skip_or_fail(f"no {kind.name} server: {error}")
        _serving.append(server)
        yield server
    finally:
        server.close()
        if server in _serving:
            _serving.remove(server)
