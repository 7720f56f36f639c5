"""What sinks.clickhouse promises, kept by chdb in the process."""

from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.runtime.endpoint import remove_endpoint, write_endpoint
from pipeline.runtime.rebuild import open_for_writing
from pipeline.settings import ClickHouseSettings, Settings
from sinks.clickhouse.client import parse_url
from tests.support.sink_suite.audit import TestAudit
from tests.support.sink_suite.catalogue_history import TestCatalogueHistory
from tests.support.sink_suite.client import TestClient
from tests.support.sink_suite.columns import TestColumns
from tests.support.sink_suite.data import connected, migrated
from tests.support.sink_suite.estimates import TestEstimates
from tests.support.sink_suite.figures import TestFigures
from tests.support.sink_suite.migrations import TestMigrations
from tests.support.sink_suite.periods import (
    TestConvergence,
    TestLedgerVersion,
    TestPeriodAudit,
    TestPeriods,
    TestReconcile,
)
from tests.support.sink_suite.popularity import TestCatalogues, TestPopularity
from tests.support.sink_suite.positions import TestPositions
from tests.support.sink_suite.rebuild import TestRebuild
from tests.support.sink_suite.recent import TestRecent
from tests.support.sink_suite.rule_change import TestRuleChange
from tests.support.sink_suite.writer import TestWriter

__all__ = [
    "TestAudit",
    "TestCatalogueHistory",
    "TestCatalogues",
    "TestClient",
    "TestColumns",
    "TestConvergence",
    "TestEstimates",
    "TestFigures",
    "TestLedgerVersion",
    "TestMigrations",
    "TestPeriodAudit",
    "TestPeriods",
    "TestPopularity",
    "TestPositions",
    "TestRebuild",
    "TestRecent",
    "TestReconcile",
    "TestRuleChange",
    "TestWriter",
]

pytestmark = pytest.mark.embedded


@pytest.fixture
def store(tmp_path: Path) -> ClickHouseSettings:
    return ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")


def test_a_second_directory_at_once_is_refused_and_afterwards_allowed(tmp_path: Path) -> None:
    first, second = (ClickHouseSettings(url=f"chdb:{tmp_path / name}") for name in ("first", "second"))
    with connected(first) as client:
        with pytest.raises(StoreError, match="needs one of its own"), connected(second):
            pass
        with connected(first) as again:
            assert again.query("SELECT 1 AS one").one() == (1,)
        assert client.query("SELECT 2 AS two").one() == (2,)
    with connected(second) as client:
        assert client.query("SELECT 3 AS three").one() == (3,)


def test_rows_are_there_when_the_directory_is_opened_again(store: ClickHouseSettings) -> None:
    with connected(store) as client:
        client.execute("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
        client.execute("INSERT INTO t SELECT number FROM numbers(5)")
    with connected(store) as client:
        assert client.query("SELECT sum(n) AS total FROM t").one() == (10,)


def test_closing_twice_gives_back_one_user_only(store: ClickHouseSettings) -> None:
    with connected(store) as client, connected(store) as other:
        other.close()
        other.close()
        assert client.query("SELECT 1 AS one").one() == (1,)


@pytest.mark.parametrize("end", [" FORMAT CSV", " FORMAT JSON", " FORMAT JSONEachRow", "; SELECT 2"])
def test_an_answer_in_another_form_is_a_store_error(store: ClickHouseSettings, end: str) -> None:
    with connected(store) as client:
        with pytest.raises(StoreError, match="without FORMAT"):
            client.query("SELECT 1 AS one" + end)
        assert client.query("SELECT 1 AS one").one() == (1,)


def test_a_rebuild_is_refused_while_a_worker_has_the_directory_open(store: ClickHouseSettings) -> None:
    with migrated(store):
        write_endpoint(parse_url(store.url).directory, "http://127.0.0.1:1")
        with pytest.raises(StoreError, match=r"the worker at http://127\.0\.0\.1:1 has .* open; stop it"):
            open_for_writing(Settings(clickhouse=store))
        remove_endpoint(parse_url(store.url).directory)
        open_for_writing(Settings(clickhouse=store)).close()
