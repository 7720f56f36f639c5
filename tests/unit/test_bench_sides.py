"""The sides of the comparison that count by themselves: what they tell is read, and compared with what was written."""

import io
import json
import os
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.compare.load import Load, Truth
from benchmarks.compare.programs.progress import Counting
from benchmarks.compare.servers import Servers
from benchmarks.compare.sides import kafka_engine, xidmet
from benchmarks.compare.sides.counting import Program
from benchmarks.compare.sides.registry import entries
from tests.support.cache import ServerUnavailable

TRUTH = Truth(events=3, uses=3, value_bytes=1, services=Counter({"a/b": 2, "a/c": 1}))


class _Server:
    """A server of which only the process is asked for: this one."""

    bootstrap = "nowhere:1"

    def __init__(self) -> None:

        self.pid = os.getpid()


def run(text: str) -> float:
    servers = Servers(cast(Any, _Server()), cast(Any, _Server()), TRUTH, TRUTH, 0.0)
    course = Program("told", "topic", (sys.executable, "-c", text)).run(servers, 30.0)
    return course.samples[-1].count


def test_a_program_that_tells_the_right_totals_is_measured() -> None:
    first, last = '{"count": 1, "at": 5.0}', '{"count": 3, "at": 6.0, "totals": {"a/b": [2, 1.5], "a/c": [1, 0]}}'
    assert run(f"print({first!r})\nprint('something else')\nprint({last!r})") == 3


def test_a_program_with_wrong_totals_fails() -> None:
    with pytest.raises(RuntimeError, match="told has 4 events instead of 3"):
        run('print(\'{"count": 3, "at": 6.0, "totals": {"a/b": [3, 1.5], "a/c": [1, 0]}}\')')


def test_a_program_that_ends_early_fails_with_its_words() -> None:
    with pytest.raises(RuntimeError, match=r"ended before(.|\n)*no broker there"):
        run('print(\'{"count": 1, "at": 5.0}\', flush=True)\nraise SystemExit("no broker there")')


def test_the_dictionary_adds_up_what_the_load_says() -> None:
    truth, told = Truth(), io.StringIO()
    counting = Counting(2_000)
    with redirect_stdout(told):
        for block in Load(2_000, 1_760_000_000_000).blocks():
            truth.add(block)
            assert counting.add(block.values[:1_500]) is False
            assert counting.add(block.values[1_500:]) is True
    last = json.loads(told.getvalue().splitlines()[-1])
    assert last["count"] == 2_000
    assert {key: count for key, (count, _) in last["totals"].items()} == dict(truth.services)
    assert sum(duration for _, duration in last["totals"].values()) > 0


def test_a_peer_that_cannot_be_installed_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> list[str]:
        raise ServerUnavailable("mvn is not installed")

    monkeypatch.setattr("benchmarks.compare.peers.streams_command", refuse)
    found = entries(2, "pip says no", tmp_path)
    for name, reason in (
        ("kafka_streams", "mvn is not installed"),
        ("quixstreams_plain", "pip says no"),
        ("quixstreams_windows", "pip says no"),
    ):
        assert found[name].side is None
        assert found[name].report.unavailable == reason
    assert all(entry.side is not None for name, entry in found.items() if name.startswith(("xidmet", "kafka_engine")))


def test_the_engine_writes_the_columns_of_the_ledger_and_the_measures_of_the_minutes() -> None:
    migrations = Path(__file__).resolve().parents[2] / "sinks" / "clickhouse" / "migrations"
    # A place in a batch is what the engine cannot tell; the other two are only for inserting.
    missing = {"batch_index", "time_ms", "user_hashes", "topic_id", "partition", "segment", "next_offset"}
    for name, mine, absent in (
        ("0002_ledger.sql", kafka_engine._LEDGER, {"batch_index", "time_ms"}),
        ("0003_minutes.sql", kafka_engine._MINUTES, missing),
    ):
        text = (migrations / name).read_text("utf-8").partition("ENGINE")[0]
        theirs = {line.split()[0] for line in text.splitlines() if line.startswith("    ")}
        ours = {line.split()[0] for line in mine.partition("ENGINE")[0].splitlines() if line.startswith("    ")}
        assert ours == theirs - absent


class _Answers:
    """A client that answers by the table or view that is asked."""

    def __init__(self, **rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        (name,) = [name for name in self._rows if f"FROM {name}" in sql]
        return self._rows[name]


def test_wrong_totals_of_xidmet_fail_by_service_and_by_uses() -> None:
    right = [("a", "b", 2), ("a", "c", 1)]
    xidmet.check(_Answers(events=right, usage=[(3,)]), TRUTH)
    with pytest.raises(RuntimeError, match="the view usage has 4 uses instead of 3"):
        xidmet.check(_Answers(events=right, usage=[(4,)]), TRUTH)
    # As many in all, but not of the same service.
    with pytest.raises(RuntimeError, match="the view events"):
        xidmet.check(_Answers(events=[("a", "b", 1), ("a", "c", 2)], usage=[(3,)]), TRUTH)


def test_wrong_totals_of_the_engine_fail_in_either_table() -> None:
    right = [("a", "b", 2), ("a", "c", 1)]
    kafka_engine.check(_Answers(ledger=right, minutes=right), TRUTH)
    with pytest.raises(RuntimeError, match="ledger rows hold 2 events instead of 3"):
        kafka_engine.check(_Answers(ledger=right[:1], minutes=right), TRUTH)
    with pytest.raises(RuntimeError, match="minute rows hold 5 events instead of 3"):
        kafka_engine.check(_Answers(ledger=right, minutes=[("a", "b", 4), ("a", "c", 1)]), TRUTH)


def test_the_engine_is_seen_through_the_table_that_is_behind() -> None:
    client = _Answers(ledger=[(3,)], minutes=[(2,)])
    assert kafka_engine.visible(client, 3)[1] == 2
    assert kafka_engine.visible(_Answers(ledger=[(1,)], minutes=[(3,)]), 3)[1] == 1
