"""``xidmet reconcile`` on a database in the process."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import cli
from pipeline.errors import AuditError, SchemaError, StoreError
from pipeline.runtime.endpoint import write_endpoint
from pipeline.settings import ClickHouseSettings
from tests.support.sink_suite.data import connected, folded, migrated, write
from tests.support.sink_suite.periods import assert_totals, hash_of, repeated, rows, spoil

pytestmark = pytest.mark.embedded

SPAN = ("--from", "2026-03-01", "--to", "2026-03-04")


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of whoever runs the tests, and logging as it was."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def store(tmp_path: Path) -> ClickHouseSettings:
    return ClickHouseSettings(url=f"chdb:{tmp_path / 'clickhouse'}")


@pytest.fixture
def filled(store: ClickHouseSettings) -> ClickHouseSettings:
    log, other = repeated()
    with migrated(store) as client:
        write(client, folded(log) + folded(other))
    return store


def run(store: ClickHouseSettings, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--set", f"clickhouse.url={store.url}", "reconcile", *SPAN, *arguments])


def test_it_recomputes_and_says_what_changed(filled: ClickHouseSettings) -> None:
    tried = run(filled, "--dry-run", "--json")
    assert (tried.exit_code, json.loads(tried.stdout)["dry_run"]) == (0, True)
    done = run(filled, "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["changes"] == json.loads(tried.stdout)["changes"]
    assert [(item["table"], item["before"], item["after"], item["cause"]) for item in answer["changes"]] == [
        ("hours", None, 400, "never_computed"),
        ("days", None, 400, "never_computed"),
    ]
    assert answer["changes"][0]["words"] == "was never computed; 7 repeats in the minutes are left out"
    assert answer["changes"][1]["start"] == "2026-03-02T00:00:00+04:00"
    log, _ = repeated()
    with connected(filled) as client:
        assert_totals(client, log.accepted)
    again = run(filled)
    assert (again.exit_code, again.stdout) == (0, "nothing changed\n")


def test_people_get_a_table(filled: ClickHouseSettings) -> None:
    done = run(filled)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["table", "start", "from", "before", "after", "cause", "words"]
    assert [line[:6] for line in lines[1:]] == [
        ["hours", "2026-03-02 09:00", "ledger", "\\N", "400", "never_computed"],
        ["days", "2026-03-02", "ledger", "\\N", "400", "never_computed"],
    ]


def test_damage_and_lost_rows_end_with_the_code_of_the_audit(filled: ClickHouseSettings) -> None:
    log, _ = repeated()
    run(filled)
    with connected(filled) as client:
        spoil(client, "hours", "UPDATE events = events + 5", "1")
    done = run(filled)
    assert isinstance(done.exception, AuditError)
    assert "damage, mended" in str(done.exception)
    assert run(filled).exit_code == 0
    with connected(filled) as client:
        spoil(client, "ledger", "DELETE", f"event_hash = {hash_of(log.accepted[5])}")
    for _ in range(2):
        done = run(filled)
        assert isinstance(done.exception, AuditError)
        assert "rows were lost there" in str(done.exception)


def test_beside_a_worker_it_refuses_to_write(filled: ClickHouseSettings) -> None:
    write_endpoint(filled.url.removeprefix("chdb:"), "http://127.0.0.1:9")
    done = run(filled)
    assert isinstance(done.exception, StoreError)
    assert "keeps hours and days up to date itself; stop it to reconcile, or see with --dry-run" in str(done.exception)
    (Path(filled.url.removeprefix("chdb:")) / "worker.json").unlink()
    with connected(filled) as client:
        assert rows(client, "SELECT count() FROM hours") == [(0,)]


def test_without_a_schema_it_says_so(store: ClickHouseSettings) -> None:
    with connected(store):
        pass
    assert isinstance(run(store).exception, SchemaError)


@pytest.mark.parametrize(
    "span", [("--from", "2026-03-02", "--to", "2026-03-02"), ("--from", "2026-03-02"), ("--from", "x", "--to", "y")]
)
def test_wrong_usage_is_told(store: ClickHouseSettings, span: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["--set", f"clickhouse.url={store.url}", "reconcile", *span])
    assert done.exit_code == 2
