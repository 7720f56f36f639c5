"""The batched transport against the embedded broker."""

from collections.abc import Iterator

import pytest

from pipeline.runtime.broker import EmbeddedBroker
from tests.support.transport_suite import TransportSuite

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("tansu") / "broker.log") as broker:
        yield broker.bootstrap


@pytest.fixture
def session() -> float:
    return 2.0


class TestTransportOnTansu(TransportSuite):
    """All of the suite."""
