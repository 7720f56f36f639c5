"""What a rebuild takes from where; its command line; how it reads shadows."""

from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.contract.reasons import Reason
from pipeline.errors import BrokerError
from pipeline.fold.receipt import Receipt
from pipeline.fold.records import LogPartition
from sinks.clickhouse.client import Rows
from sinks.clickhouse.rebuild_check import ShadowReader
from sinks.clickhouse.rebuild_fill import compare
from sinks.clickhouse.rebuild_plan import Plan, Run, runs_of
from tests.support.sink_suite.data import RULES

FIRST = LogPartition("usage.events", "id-1", 0)
SECOND = LogPartition("usage.events", "id-1", 1)
GONE = LogPartition("usage.events", "id-0", 0)


def segment(log: LogPartition, start: int, end: int, memory: int = 2) -> Receipt:
    return Receipt(log, start, end, msgspec.structs.replace(RULES, memory_segments=memory), closed=True, records=1)


def spans(runs: tuple[Run, ...]) -> list[tuple[str, int, int, int, str]]:
    return [(run.topic_id, run.partition, run.first, run.end, run.source) for run in runs]


def test_segments_that_follow_each_other_are_a_run() -> None:
    segments = [segment(FIRST, 0, 40), segment(FIRST, 40, 80), segment(FIRST, 90, 120), segment(SECOND, 120, 150)]
    bounds = {FIRST: (0, 200), SECOND: (0, 200)}
    assert spans(runs_of(segments, bounds, "auto")) == [
        ("id-1", 0, 0, 80, "log"),
        ("id-1", 0, 90, 120, "log"),
        ("id-1", 1, 120, 150, "log"),
    ]


def test_a_run_ends_where_the_memory_changes() -> None:
    segments = [segment(FIRST, 0, 40), segment(FIRST, 40, 80, memory=3), segment(FIRST, 80, 90, memory=3)]
    assert [run.end for run in runs_of(segments, {FIRST: (0, 200)}, "auto")] == [40, 90]


def test_what_the_log_lacks_comes_from_the_ledger() -> None:
    """Begun before the log begins, ended after it ends, of a topic that was made again, of a partition that is gone."""
    segments = [segment(GONE, 0, 40), segment(FIRST, 0, 40), segment(FIRST, 40, 80), segment(FIRST, 80, 120)]
    segments.append(segment(SECOND, 0, 40))
    bounds = {FIRST: (20, 100)}
    assert spans(runs_of(segments, bounds, "auto")) == [
        ("id-0", 0, 0, 40, "ledger"),
        ("id-1", 0, 0, 40, "ledger"),
        ("id-1", 0, 40, 80, "log"),
        ("id-1", 0, 80, 120, "ledger"),
        ("id-1", 1, 0, 40, "ledger"),
    ]
    assert {run.source for run in runs_of(segments, bounds, "ledger")} == {"ledger"}
    with pytest.raises(BrokerError, match=r"usage\.events\[0\] offsets 0 to 40: the log no longer has"):
        runs_of(segments, bounds, "log")


def test_only_minutes_are_made_from_the_ledger() -> None:
    log, ledger = Run("t", "i'd", 3, 0, 40, "log", 2), Run("t", "x", 4, 40, 80, "ledger", 2)
    plan = Plan(0, 1, (), (ledger,))
    assert plan.tables == ("minutes",)
    assert plan.inside("ledger") == "(0)"
    both = Plan(0, 1, ("hosting",), (log, ledger))
    assert both.tables == ("ledger", "coordinates", "minutes")
    assert both.inside("ledger") == r"((topic_id = 'i\'d' AND partition = 3 AND offset >= 0 AND offset < 40))"
    assert "segment >= 40 AND segment < 80" in both.inside("minutes")
    assert Plan.from_json(both.to_json()) == both


@pytest.mark.parametrize(
    "changes",
    [
        {"accepted": 5},
        {"duplicates": 1},
        {"records": 2},
        {"value_bytes": 1},
        {"next_offset": 39},
        {"event_hash_sum": 7},
        {"rejected": {next(iter(Reason)): 1}},
    ],
)
def test_every_count_of_the_receipt_must_come_out(changes: dict[str, Any]) -> None:
    receipt, other = segment(FIRST, 0, 40), segment(FIRST, 0, 40)
    assert compare(receipt, other) is None
    for name, value in changes.items():
        setattr(other, name, value)
    wrong = compare(receipt, other)
    assert wrong is not None
    assert wrong.where == "usage.events[0] offsets 0 to 40"
    assert next(iter(changes)) in wrong.words


def test_shadows_are_read_in_the_place_of_tables_and_of_nothing_else() -> None:
    asked: list[str] = []

    class Client:
        def query(self, sql: str, parameters: Any = None) -> Rows:
            asked.append(sql)
            return Rows((), (), [])

    reader = ShadowReader(Client(), ["minutes", "ledger"])  # type: ignore[arg-type]
    reader.query("SELECT minutes, ledger FROM minutes FINAL JOIN ledger USING (x) WHERE y IN (SELECT y FROM receipts)")
    reader.query("SELECT 1 FROM minutes_rebuild, coordinates")
    assert asked == [
        "SELECT minutes, ledger FROM minutes_rebuild FINAL JOIN ledger_rebuild USING (x)"
        " WHERE y IN (SELECT y FROM receipts)",
        "SELECT 1 FROM minutes_rebuild, coordinates",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --from and --to"),
        (["--from", "2026-01-01"], "give --from and a later --to"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "give --from and a later --to"),
        (["--resume", "--abandon"], "not both"),
        (["--resume", "--from", "2026-01-01"], "or one of --resume and --abandon"),
        (["--from", "2026-01-01", "--to", "2026-01-02", "--source", "memory"], "memory"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["rebuild", *arguments])
    assert done.exit_code == 2
    assert words in done.output
