"""``xidmet demo``."""

import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.catalogue import load_catalogue
from pipeline.cli.main import settings_of
from pipeline.cli.output import print_json
from pipeline.errors import AuditError, XidmetError
from pipeline.runtime.demo import Demo, Summary, fetch_json

_BARS = "▁▂▃▄▅▆▇█"


@click.command(short_help="See it all work on this machine, every event accounted for.")
@click.option("--seconds", type=click.FloatRange(1), help="End after so many seconds; default: Ctrl-C ends it.")
@click.option("--rate", type=click.FloatRange(1, 20_000), default=300, show_default=True, help="Events per second.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the synthetic events.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the database in this directory.")
@click.option("--json", "as_json", is_flag=True, help="No live view; the last line is one JSON object.")
@click.pass_context
def demo(
    context: click.Context, seconds: float | None, rate: float, seed: int, keep: Path | None, as_json: bool
) -> None:
    """See it work: broker, worker, ClickHouse and synthetic events on this machine, without Docker.

    Some events are invalid and some are sent twice on purpose. At the end every event is accounted for by SQL; the
    exit status is 0 only if it all adds up.
    """
    settings = settings_of(context)
    catalogue = load_catalogue(settings.catalogue_path)
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryDirectory(prefix="xidmet-demo-") as temporary:
        directory = keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        run = Demo(settings, catalogue, directory, rate, seed)
        _say("starting broker, worker and ClickHouse ...")
        began = time.monotonic()
        with run.running():
            _say(f"ready after {time.monotonic() - began:.1f} s")
            _say(f"page:     {run.url}/")
            _say(f"metrics:  {run.url}/metrics")
            _say(f"Kafka:    {run.bootstrap}")
            _say(f"SQL:      xidmet --set clickhouse.url=chdb:{directory / 'clickhouse'} query 'SELECT ...'")
            run.tell_history()
            _watch(run, stop, seconds, live=not as_json and sys.stdout.isatty())
            _say("accounting for every event ...")
            summary = run.settle()
    _report(summary, as_json=as_json)
    if not summary.adds_up:
        raise AuditError("the demonstration does not add up: see the account above")


def _watch(run: Demo, stop: threading.Event, seconds: float | None, *, live: bool) -> None:
    """Emit in a thread, show the ranking in this one."""
    failures: list[XidmetError] = []

    def emit() -> None:
        try:
            run.emit(stop, seconds)
        except XidmetError as error:
            failures.append(error)

    emitting = threading.Thread(target=emit, name="emitter")
    emitting.start()
    if live:
        with Live(Text("waiting for the first events ..."), refresh_per_second=4, transient=False) as view:
            while emitting.is_alive():
                with suppress(OSError, ValueError):
                    view.update(_picture(run, fetch_json(run.url + "/api/overview?minutes=60")))
                emitting.join(0.5)
    emitting.join()
    if failures:
        raise failures[0]


def _picture(run: Demo, overview: dict[str, Any]) -> Group:
    totals = overview["totals"]
    table = Table(header_style="bold", title_justify="left", title="Agencies by uses, last hour")
    for name in ("", "Agency", "Uses", "People", "Share", "Last minutes", "p50", "p95", "p99", "Failed"):
        table.add_column(name, justify="left" if name in ("Agency", "Last minutes") else "right")
    for item in overview["agencies"][:12]:
        table.add_row(
            str(item["rank"]),
            item["name"]["en"],
            f"{item['uses']:,}",
            f"{item['people']:,}",
            f"{item['share']:.1%}",
            _sparkline(item["trend"][-12:]),
            *(_duration(item[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            f"{item['failure_share']:.1%}",
        )
    head = Text(
        f"{totals['uses_per_second']:,.0f} uses/s   sent {run.sent.events:,}   counted {totals['accepted']:,}"
        f"   refused {totals['rejected']:,}   repeats {totals['duplicates']:,}   people {totals['people']:,}"
        f"   agencies {totals['agencies_reporting']}/{totals['agencies_registered']}\n"
        f"data as of {overview['data_as_of'] or '-'}   page {run.url}/   metrics {run.url}/metrics   Ctrl-C ends",
        style="bold",
    )
    return Group(head, table)


def _sparkline(numbers: list[int]) -> str:
    highest = max(numbers, default=0) or 1
    return "".join(_BARS[round((len(_BARS) - 1) * number / highest)] if number else " " for number in numbers)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.1f} s"


def _report(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    table = Table(title="Account of every event", title_justify="left", show_header=False)
    table.add_row("sent", f"{summary.events_sent:,}")
    table.add_row("counted (SQL, deduplicated ledger)", f"{summary.events_counted:,}")
    table.add_row("refused (dead letters)", f"{summary.rejected:,}")
    table.add_row("recognised as repeats", f"{summary.duplicates:,}")
    table.add_row("audit findings", str(summary.audit_errors))
    table.add_row("distinct people", f"{summary.people:,}")
    for share, value in (("p50", summary.freshness_p50_ms), ("p99", summary.freshness_p99_ms)):
        table.add_row(f"freshness {share}", "-" if value is None else f"{value:,.0f} ms")
    verdict = "It adds up." if summary.adds_up else "IT DOES NOT ADD UP."
    Console().print(table, Text(verdict, style="bold green" if summary.adds_up else "bold red"))


def _say(words: str) -> None:
    click.echo(words, err=True)
