"""``xidmet import csv`` on a real Kafka and a real ClickHouse: published figures, corrections, and what is refused."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import KafkaServer
from tests.support.pipeline_run import ROOT, PipelineRun, clean_environment
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

# Published of e-gov.az.
PUBLISHED = "Dövr;Say\n2015-12;710 981\n2016-H1;8 155 155\n"
WORDS = ("--map", "period=Dövr", "--map", "uses=Say")


@pytest.fixture
def run(kafka_server: KafkaServer, clickhouse_database: str, tmp_path: Path) -> Iterator[PipelineRun]:
    run = PipelineRun(kafka_server.bootstrap, clickhouse_database, tmp_path)
    run.run("migrate")
    yield run
    run.stop()


def imported(run: PipelineRun, text: str, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run.run("import", "csv", "-", *words, "--json", stdin=text.encode()))
    return {name: answer[name] for name in ("figures", "new", "replaced", "taken_back", "said")}


def stored(run: PipelineRun) -> list[tuple[Any, ...]]:
    return run.query("SELECT toString(start), length, toUInt64(value), source FROM imported ORDER BY start")


def test_published_figures_are_imported_corrected_and_taken_back(run: PipelineRun) -> None:
    nothing = {"figures": 2, "new": 0, "replaced": 0, "taken_back": 0, "said": 0}
    assert imported(run, PUBLISHED, *WORDS, "--dry-run") == nothing | {"new": 2}
    assert imported(run, PUBLISHED, *WORDS, "--source", "urn:example:report") == nothing | {"new": 2, "said": 2}
    assert imported(run, PUBLISHED, *WORDS) == nothing
    run.start_worker()
    source = "urn:example:report"
    expected = [("2015-12-01", "month", 710_981, source), ("2016-01-01", "half_year", 8_155_155, source)]
    wait_until(lambda: stored(run) == expected, 60, "the figures in ClickHouse", every=0.2)
    corrected = PUBLISHED.replace("710 981", "710 982")
    assert imported(run, corrected, *WORDS, "--source", source) == nothing | {"replaced": 1, "said": 1}
    expected[0] = ("2015-12-01", "month", 710_982, source)
    wait_until(lambda: stored(run) == expected, 60, "the correction in ClickHouse", every=0.2)
    half = "Dövr;Say\n2016-H1;8 155 155\n"
    assert imported(run, half, *WORDS, "--void") == {**nothing, "figures": 1, "taken_back": 1, "said": 1}
    wait_until(lambda: stored(run) == expected[:1], 60, "the figure to be taken back", every=0.2)
    assert run.query("SELECT count() FROM events") == [(0,)]
    assert run.query("SELECT origin, uses FROM uses_by_origin") == [("imported", 710_982)]


def test_a_file_with_a_wrong_row_says_nothing(run: PipelineRun) -> None:
    done = subprocess.run(
        run.command("import", "csv", "-", *WORDS),
        input=(PUBLISHED + "2016-07;many\n").encode(),
        capture_output=True,
        timeout=120,
        cwd=ROOT,
        env=clean_environment(),
    )
    assert done.returncode == 5
    assert "standard input: line 4: uses 'many' is no number" in done.stderr.decode()
    (_, figures) = json.loads(run.run("project", "--json"))
    assert figures["statements"] == 0
    assert stored(run) == []
