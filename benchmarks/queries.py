"""The analysts' questions on a year of minutes and 100 million events: how long, how much is read, by which view.

Starts a real ClickHouse server, lets it make the year itself (45 agencies, 400 services, as unevenly used as the
published figures say; hours and days by the statements of the workers), and asks each question of
benchmarks/year/questions.py several times with other parameters. 100 million events need about 15 GB of disk.

With --keep DIR the year stays there, and the next run with the same DIR and --events asks it again; a year that was cut
off while it was made is made anew.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.year import fill, shape  # noqa: E402
from benchmarks.year.measure import Asker, forget, measure, percentile  # noqa: E402
from benchmarks.year.questions import QUESTIONS  # noqa: E402
from benchmarks.year.report import machine, page, table, too_slow  # noqa: E402
from pipeline.settings import ClickHouseSettings  # noqa: E402
from pipeline.web.overview import overview  # noqa: E402
from sinks.clickhouse.audit import audit  # noqa: E402
from sinks.clickhouse.client import Client, Parameters, Rows, connect  # noqa: E402
from sinks.clickhouse.popularity import top  # noqa: E402
from sinks.clickhouse.schema import migrate  # noqa: E402
from tests.support import ClickHouseServer  # noqa: E402

DATABASE = "year"
RESULTS = ROOT / "benchmarks" / "QUERIES.md"
SERVER_MEMORY = 6 * 1024**3
MERGE_SECONDS = 1800.0


class Reading:
    """A client for questions that counts what they read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.queries = self.rows = 0

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """Ask, and count the rows by what the server says to the driver."""
        self.queries += 1
        answer = self._client.query(sql, parameters)
        driver: Any = self._client
        progress = driver._driver.last_query.progress
        self.rows += progress.rows
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def say(words: str) -> None:
    """Tell how far it has got, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def make(client: Client, events: int, marker: Path) -> float:
    """Fill the tables; the seconds it took."""
    began = time.perf_counter()
    fill.fill(client, events, say)
    settle(client)
    seconds = time.perf_counter() - began
    marker.write_text(json.dumps({"events": events, "seconds": round(seconds)}), "utf-8")
    say(f"filled in {seconds:.0f} s")
    return seconds


def settle(client: Client) -> None:
    """Wait until ClickHouse has merged what it wants to merge, as it has in a database that grew in a year."""
    give_up = time.monotonic() + MERGE_SECONDS
    quiet = 0
    while quiet < 10:
        ((running,),) = client.query("SELECT count() AS running FROM system.merges").rows
        quiet = 0 if running else quiet + 1
        if time.monotonic() > give_up:
            raise TimeoutError(f"{running} merges still run after {MERGE_SECONDS:.0f} s")
        time.sleep(0.5)


def commands(client: Client, repetitions: int) -> list[dict[str, Any]]:
    """What ``xidmet top`` and the page ask, by the functions behind them."""
    end = shape.END
    catalogue = shape.catalogue()

    def tops(length: timedelta, by: Any) -> Callable[[Client], object]:
        return lambda reading: top(reading, end - length, end, by)

    asked: dict[str, tuple[str, Callable[[Client], object]]] = {
        "top 24h": ("`xidmet top`, 24 hours, by agency", tops(timedelta(days=1), "agency")),
        "top 7d by service": ("`xidmet top --period 7d --by service`", tops(timedelta(days=7), "service")),
        "top 4w": ("`xidmet top --period 4w`", tops(timedelta(weeks=4), "agency")),
        "page, 60 minutes": ("the page, 60 minutes", lambda reading: overview(reading, catalogue, 60, end)),
        "page, a day": ("the page, a day", lambda reading: overview(reading, catalogue, 1440, end)),
    }
    answers = []
    for name, (words, ask) in asked.items():
        say(name)
        seconds: list[float] = []
        for _ in range(repetitions + 1):
            reading = Reading(client)
            began = time.perf_counter()
            ask(reading)
            seconds.append(time.perf_counter() - began)
        answers.append(
            {
                "name": name,
                "words": words,
                "p50_ms": 1000 * median(seconds[1:]),
                "p95_ms": 1000 * percentile(seconds[1:], 0.95),
                "rows_read": reading.rows,
            }
        )
    return answers


def audited(client: Client) -> dict[str, Any]:
    """The whole audit, once."""
    say("audit")
    reading = Reading(client)
    began = time.perf_counter()
    report = audit(reading, shape.END.timestamp())
    return {
        "seconds": time.perf_counter() - began,
        "queries": reading.queries,
        "rows_read": reading.rows,
        "segments": report.segments,
        "hours": report.hours,
        "days": report.days,
        "repeats": report.repeats,
        "server_gb": SERVER_MEMORY // 1024**3,
        "findings": len(report.findings),
    }


def run(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fill unless it is filled, and ask everything."""
    marker = directory / "filled.json"
    known = json.loads(marker.read_text("utf-8")) if marker.exists() else None
    if known is not None and known["events"] != options.events:
        raise SystemExit(f"{directory} holds {known['events']} events; ask for as many, or name another directory")
    if known is None and (directory / "data").exists():
        say("a year that was cut off is made anew")
        shutil.rmtree(directory / "data")
    with ClickHouseServer(directory, memory_bytes=SERVER_MEMORY) as server:
        server.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        settings = ClickHouseSettings(url=server.database_url(DATABASE), query_timeout_seconds=MERGE_SECONDS)
        applied = migrate(settings)
        with closing(connect(settings)) as client:
            filled = known["seconds"] if known else make(client, options.events, marker)
            if applied:
                settle(client)
            asker = Asker(server.http_url, DATABASE, server.native_port)
            figures: dict[str, Any] = {
                "events": options.events,
                "repetitions": options.repetitions,
                "fill_seconds": filled,
                "machine": machine(),
                "clickhouse": client.query("SELECT version() AS version").one()[0],
                "tables": client.query(
                    "SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, count() AS parts FROM system.parts"
                    " WHERE active AND database = currentDatabase() GROUP BY table ORDER BY bytes DESC"
                ).dicts(),
            }
            chosen = [question for question in QUESTIONS if options.only in question.name]
            cold = None if options.warm else lambda: forget(server.data_path, asker)
            figures["questions"] = []
            for question in chosen:
                say(question.name)
                figures["questions"].append(measure(asker, question, options.repetitions, cold))
            figures["commands"] = commands(client, options.repetitions) if not options.only else []
            figures["audit"] = audited(client) if not (options.only or options.no_audit) else None
            asker.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000_000, help="events of the year (default 100,000,000)")
    parser.add_argument("--repetitions", type=int, default=20, help="askings of each question (default 20)")
    parser.add_argument(
        "--keep", metavar="DIR", type=Path, help="keep the year in this directory, or ask the one there"
    )
    parser.add_argument("--only", default="", help="only questions with this in their name")
    parser.add_argument("--warm", action="store_true", help="leave out the asking with no file in memory")
    parser.add_argument("--no-audit", action="store_true", help="leave out the audit")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write-results", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    if options.events < 500_000 or options.repetitions < 1:
        parser.error("at least 500,000 events and one repetition")
    if options.write_results and (options.only or options.no_audit or options.warm):
        parser.error("--write-results needs everything: without --only, --warm and --no-audit")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        figures = run(options.keep.resolve(), options)
    else:
        with tempfile.TemporaryDirectory(prefix="xidmet-year-") as directory:
            figures = run(Path(directory), options)
    if options.write_results:
        RESULTS.write_text(page(figures), "utf-8")
    print(json.dumps(figures) if options.json else table(figures))
    slow = too_slow(figures)
    if slow:
        say(f"more than 200 ms: {', '.join(item['name'] for item in slow)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
