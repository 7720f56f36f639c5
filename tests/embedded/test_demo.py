"""The demonstration as its users start it: a process that shows the pipeline and accounts for every event."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.contract.reasons import Reason
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]

KEYS = {
    "events_sent",
    "events_counted",
    "people",
    "rejected",
    "duplicates",
    "audit_errors",
    "freshness_p50_ms",
    "freshness_p99_ms",
    "top_agencies",
}
START_SECONDS = 60
END_SECONDS = 60


def environment(directory: Path) -> dict[str, str]:
    """Nothing of the settings of whoever runs the tests; temporary files where they can be told by their name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XIDMET_")}
    return kept | {"TMPDIR": str(directory)}


def xidmet(directory: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=directory,
        env=environment(directory),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def descendants(pid: int) -> set[int]:
    """Process ids of children, their children, and so on."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(after_name[1])
    found: set[int] = set()
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if text in command:
            found.append(f"{path.parent.name}: {command}")
    return found


def get(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def assert_adds_up(summary: dict[str, Any]) -> None:
    assert set(summary) >= KEYS
    assert summary["events_sent"] == summary["events_counted"] + summary["rejected"] + summary["duplicates"]
    assert summary["audit_errors"] == 0
    assert summary["events_sent"] > 100
    assert 0 < summary["people"] <= summary["events_counted"]
    assert 0 < summary["freshness_p50_ms"] <= summary["freshness_p99_ms"]
    ranking = [item["events"] for item in summary["top_agencies"]]
    assert ranking == sorted(ranking, reverse=True)
    assert 0 < sum(ranking) <= summary["events_counted"]


def test_a_run_of_some_seconds_accounts_for_every_event_and_leaves_nothing(tmp_path: Path) -> None:
    done = xidmet(tmp_path, "demo", "--seconds", "5", "--json", "--rate", "200")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert_adds_up(summary)
    assert summary["rejected"] > 0
    assert summary["duplicates"] > 0
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert processes_naming(tmp_path.name) == []
    assert list(tmp_path.glob("xidmet-demo-*")) == []


@dataclass
class Running:
    """A demonstration under way; ``url`` is that of its page."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    url: str
    said: Path
    printed: Path
    parts: set[int]

    @property
    def store(self) -> str:
        return f"clickhouse.url=chdb:{self.directory / 'kept' / 'clickhouse'}"

    def token(self) -> str:
        path = self.directory / "kept" / "clickhouse" / "worker.json"
        assert path.stat().st_mode & 0o777 == 0o600
        return str(json.loads(path.read_text())["token"])

    def overview(self) -> dict[str, Any]:
        status, body = get(f"{self.url}/api/overview?minutes=60")
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer


def start(directory: Path, *arguments: str) -> Running:
    said, printed = directory / "stderr", directory / "stdout"
    command = [sys.executable, "-m", "pipeline.cli", "--set", f"web.port={free_port()}", "demo", *arguments]
    with said.open("wb") as errors, printed.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "SQL:" in said.read_text() or process.poll() is not None, START_SECONDS, "the demonstration")
        found = re.search(r"^page: +(http://127\.0\.0\.1:\d+)/$", said.read_text(), re.MULTILINE)
        assert found, said.read_text()
    except BaseException:
        process.terminate()
        process.wait(END_SECONDS)
        raise
    return Running(process, directory, found[1], said, printed, descendants(process.pid))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with demonstration(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@contextmanager
def demonstration(directory: Path) -> Iterator[Running]:
    demo = start(directory, "--keep", "kept", "--json", "--rate", "300")
    try:
        wait_until(lambda: demo.overview()["totals"]["accepted"] > 300, 60, "the first events")
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.send_signal(signal.SIGTERM)
            demo.process.wait(END_SECONDS)


def test_the_page_answers_with_what_it_loads(running: Running) -> None:
    status, page = get(f"{running.url}/")
    assert status == 200
    assert b"<!doctype html>" in page[:100].lower()
    resources = {name.decode() for name in re.findall(rb'(?:src|href)="/?(static/[^"]+)"', page)}
    assert len(resources) >= 2
    for name in resources:
        assert get(f"{running.url}/{name}")[0] == 200
    for name in ("/static/../server.py", "/static/absent.js", "/static/%2e%2e%2fserver.py", "/absent"):
        assert get(running.url + name)[0] == 404


def test_the_overview_shows_agencies_and_totals(running: Running) -> None:
    overview = running.overview()
    assert overview["agencies"][0]["rank"] == 1
    totals = overview["totals"]
    assert totals["events"] == totals["accepted"] + totals["rejected"] + totals["duplicates"]
    assert 0 < totals["people"] <= totals["accepted"]
    for minutes in ("0", "-1", "x", "1.5", "99999999", ""):
        assert get(f"{running.url}/api/overview?minutes={minutes}")[0] == 400


def test_the_metrics_parse_and_tell_of_all_partitions(running: Running) -> None:
    status, text = get(f"{running.url}/metrics")
    assert status == 200
    samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
    assert sum(sample.value for sample in samples if sample.name == "xidmet_events_total") > 300
    durable = {sample.labels["partition"] for sample in samples if sample.name == "xidmet_durable_offset"}
    assert durable == {"0", "1", "2", "3"}
    assert {sample.value for sample in samples if sample.name == "xidmet_sink_up"} == {1}


def test_health_and_readiness_are_told(running: Running) -> None:
    assert json.loads(get(f"{running.url}/healthz")[1])["alive"] is True
    status, ready = get(f"{running.url}/readyz")
    found = json.loads(ready)
    assert (status, found["ready"], found["state"], found["reason"]) == (200, True, "consuming", "")
    status = json.loads(get(f"{running.url}/api/status")[1])
    assert (status["assigned"], status["last_error"], len(status["partitions"])) == (4, "", 4)


def test_another_process_queries_while_the_worker_has_the_database_open(running: Running) -> None:
    sql = "SELECT count() AS n, countIf(stage = '') AS uses FROM events"
    done = xidmet(running.directory, "--set", running.store, "query", sql)
    assert done.returncode == 0, done.stderr
    header, line = done.stdout.splitlines()
    assert header == "n\tuses"
    counted, uses = map(int, line.split("\t"))
    assert counted >= uses > 0
    later = xidmet(running.directory, "--set", running.store, "query", "-", "--json", stdin=sql)
    assert json.loads(later.stdout)[0]["n"] >= counted


def test_the_history_of_the_catalogue_is_told(running: Running) -> None:
    sql = "SELECT sum(services_digitised) AS digitised, sum(services_registered) AS registered"
    sql += " FROM coverage_at(at = '2013-07-15')"

    def told() -> bool:
        done = xidmet(running.directory, "--set", running.store, "query", "--json", sql)
        assert done.returncode == 0, done.stderr
        return bool(json.loads(done.stdout) == [{"digitised": 225, "registered": 417}])

    wait_until(told, 60, "the history in ClickHouse", every=0.5)


def test_top_ranks_the_agencies(running: Running) -> None:
    done = xidmet(running.directory, "--set", running.store, "top", "--json", "--period", "1h", "--limit", "3")
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)["ranking"]
    assert [item["rank"] for item in ranking] == [1, 2, 3]
    uses = [item["uses"] for item in ranking]
    assert uses == sorted(uses, reverse=True)
    table = xidmet(running.directory, "--set", running.store, "top", "--by", "service", "--language", "az")
    assert len(table.stdout.splitlines()) == 11


def test_the_audit_finds_nothing_while_events_are_written(running: Running) -> None:
    for _ in range(3):
        done = xidmet(running.directory, "--set", running.store, "audit", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert report["findings"] == []
        assert report["accepted"] > 0


def test_a_faulty_query_is_told_and_hurts_nobody(running: Running) -> None:
    for sql in ("SELECT * FROM nowhere", "SELECT throwIf(number = 5) FROM numbers(10)", "SELECT"):
        done = xidmet(running.directory, "--set", running.store, "query", sql)
        assert done.returncode == 7
        assert done.stderr.startswith(f"xidmet: the worker at {running.url} refuses: ")
        assert done.stderr.count("\n") == 1
        assert running.overview()["totals"]["accepted"] > 0


def test_sql_needs_the_token_of_the_file(running: Running) -> None:
    body = json.dumps({"sql": "SELECT 1 AS one"}).encode()
    url = f"{running.url}/api/sql"
    token = running.token()
    assert get(url, body)[0] == 401
    for header in ("", "Bearer ", "Bearer wrong", f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer \xff"):
        assert get(url, body, Authorization=header)[0] == 401
    status, answer = get(url, body, Authorization=f"Bearer {token}")
    assert (status, json.loads(answer)["rows"]) == (200, [[1]])
    assert get(url)[0] == 405


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'INTO OUTFILE; DROP TABLE ledger' AS text -- ; drop",
        "(SELECT 1 AS text) UNION ALL (SELECT 1 AS text);",
        "with 1 as text select text",
        "SHOW TABLES LIKE 'ledger'",
        "describe (SELECT 1 AS text)",
        "/* how */ EXPLAIN SELECT 1",
        "EXISTS TABLE ledger",
    ],
)
def test_sql_that_reads_is_answered_however_it_is_written(running: Running, sql: str) -> None:
    body = json.dumps({"sql": sql}).encode()
    status, answer = get(f"{running.url}/api/sql", body, Authorization=f"Bearer {running.token()}")
    assert (status, bool(json.loads(answer).get("rows"))) == (200, True), answer


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO ledger (agency) VALUES ('x')",
        "DROP TABLE ledger",
        "TRUNCATE TABLE receipts",
        "ALTER TABLE ledger DELETE WHERE 1",
        "CREATE TABLE t (n UInt8) ENGINE = Memory",
        "SET max_threads = 1",
        "SYSTEM SHUTDOWN",
        "  (\n insert into ledger (agency) values ('x')",
        "/* SELECT */ DROP TABLE ledger",
        "",
        "SELECT 1; DROP TABLE ledger",
        "SELECT 1 INTO OUTFILE '/tmp/xidmet-outfile-test'",
        "EXPLAIN SELECT 1; DROP TABLE ledger",
        "SELECT 1) ; DROP TABLE ledger; SELECT (1",
        "WITH y AS (SELECT 'x' AS agency) INSERT INTO ledger (agency) SELECT agency FROM y",
        "SELECT 1 FORMAT CSV",
    ],
)
def test_sql_that_does_not_read_is_refused(running: Running, sql: str) -> None:
    body = json.dumps({"sql": sql}).encode()
    status, answer = get(f"{running.url}/api/sql", body, Authorization=f"Bearer {running.token()}")
    assert status in (400, 403, 503), answer
    assert "error" in json.loads(answer)
    assert running.overview()["totals"]["accepted"] > 0


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"not json", b'{"sql": 5}', b'{"sql": "SELECT 1", "parameters": 3}']
)
def test_a_faulty_request_for_sql_is_the_askers_fault(running: Running, body: bytes) -> None:
    status, answer = get(f"{running.url}/api/sql", body, Authorization=f"Bearer {running.token()}")
    assert status == 400, answer
    assert "error" in json.loads(answer)


def test_refused_events_have_all_reasons(running: Running) -> None:
    sql = "SELECT arrayJoin(mapKeys(rejected)) AS reason FROM segments GROUP BY reason"

    def reasons() -> set[str]:
        done = xidmet(running.directory, "--set", running.store, "query", "--json", sql)
        return {row["reason"] for row in json.loads(done.stdout)}

    wait_until(lambda: reasons() == {reason.value for reason in Reason}, 60, "an event refused for every reason")


def test_an_interrupt_ends_it_with_the_account_and_a_database_that_can_be_read(tmp_path: Path) -> None:
    with demonstration(tmp_path) as demo:
        assert len(demo.parts) >= 2
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(END_SECONDS) == 0, demo.said.read_text()
    (line,) = demo.printed.read_text().splitlines()
    summary = json.loads(line)
    assert_adds_up(summary)
    assert "Traceback" not in demo.said.read_text()
    log = (tmp_path / "kept" / "worker.log").read_text()
    assert '"level": "ERROR"' not in log, log
    assert "Traceback" not in log
    assert processes_naming(tmp_path.name) == []
    assert [pid for pid in demo.parts if Path(f"/proc/{pid}").exists()] == []
    assert not (tmp_path / "kept" / "clickhouse" / "worker.json").exists()
    done = xidmet(tmp_path, "--set", demo.store, "query", "SELECT count() AS n FROM events")
    assert done.stdout.splitlines() == ["n", str(summary["events_counted"])], done.stderr
    assert xidmet(tmp_path, "--set", demo.store, "audit").returncode == 0
