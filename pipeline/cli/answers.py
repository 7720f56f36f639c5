"""``xidmet top``, ``xidmet query`` and ``xidmet audit``: questions to ClickHouse, wherever the settings say it is."""

import re
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import get_args

import click
import msgspec

from pipeline.catalogue import load_catalogue
from pipeline.cli.main import MOMENT, settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.errors import AuditError
from pipeline.runtime.endpoint import open_client
from sinks.clickhouse.audit import audit as run_audit
from sinks.clickhouse.popularity import By, Metric, last_period
from sinks.clickhouse.popularity import top as run_top

_PERIOD = re.compile(r"([0-9]{1,4})(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Period(click.ParamType):
    """A length of time such as 15m, 24h, 7d or 4w."""

    name = "period"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse it."""
        if isinstance(value, timedelta):
            return value
        found = _PERIOD.fullmatch(str(value))
        if not found or not int(found[1]):
            self.fail(f"{value!r} is not a period; write for instance 15m, 24h, 7d or 4w", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.command(short_help="Rank agencies or services, with the change.")
@click.option(
    "--period", type=Period(), default="24h", show_default=True, help="Length of the period: 15m, 24h, 7d, 4w."
)
@click.option("--from", "start", type=MOMENT, help="Start of the period, UTC.")
@click.option("--until", "end", type=MOMENT, help="End of the period, UTC; default now.")
@click.option("--by", type=click.Choice(get_args(By)), default="agency", show_default=True, help="What is ranked.")
@click.option("--metric", type=click.Choice(get_args(Metric)), default="uses", show_default=True, help="Ranked by.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Length of the list.")
@click.option("--language", type=click.Choice(["az", "en", "ru"]), default="en", show_default=True, help="Of names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def top(
    context: click.Context,
    period: timedelta,
    start: datetime | None,
    end: datetime | None,
    by: By,
    metric: Metric,
    limit: int,
    language: str,
    as_json: bool,
) -> None:
    """Rank agencies or services by uses or people, with the change from the period before."""
    settings = settings_of(context)
    if end is None and start is None:
        first, last = last_period(period, datetime.now(UTC))
    elif end is None:
        assert start is not None
        first, last = start.replace(tzinfo=UTC), datetime.now(UTC)
    else:
        last = end.replace(tzinfo=UTC)
        first = start.replace(tzinfo=UTC) if start else last - period
    if first >= last:
        raise click.UsageError("the period ends before it starts")
    with closing(open_client(settings.clickhouse)) as client:
        ranking = run_top(client, first, last, by, metric)[:limit]
    if as_json:
        print_json({"from": first, "until": last, "by": by, "metric": metric, "ranking": ranking})
        return
    catalogue = load_catalogue(settings.catalogue_path)
    names = ["rank", "agency", "name", "uses", "people", "share %", "before", "change %", "failed %"]
    names += ["p50 ms", "p95 ms", "p99 ms"]
    rows = []
    for item in ranking:
        agency = catalogue.by_code.get(item.agency)
        name = getattr(agency.name, language) if agency else item.agency
        if item.service and agency:
            service = next((one for one in agency.services if one.code == item.service), None)
            name = getattr(service.name, language) if service else item.service
        now, before = (item.uses, item.previous_uses) if metric == "uses" else (item.people, item.previous_people)
        change = round(100 * (now - before) / before, 1) if before else None
        code = f"{item.agency}/{item.service}" if item.service else item.agency
        durations = [round(value) for value in (item.p50_ms, item.p95_ms, item.p99_ms)]
        row = [item.rank, code, name, item.uses, item.people, round(100 * item.share, 1), before, change]
        rows.append([*row, round(100 * item.failure_share, 1), *durations])
    title = f"{by} by {metric}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    print_rows(names, rows, as_json=False, title=title)


@click.command(short_help="Run SQL; the analysts' way in.")
@click.argument("sql", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def query(context: click.Context, sql: str | None, as_json: bool) -> None:
    """Run SQL against the ClickHouse of the settings; from standard input if none is given.

    Analysts' views: usage, hourly, daily, weekly, monthly, agency_hours, events, segments, agencies, services.
    See docs/analysts.md.
    """
    text = sql if sql and sql != "-" else sys.stdin.read()
    if not text.strip():
        raise click.UsageError("no SQL given")
    with closing(open_client(settings_of(context).clickhouse)) as client:
        rows = client.query(text.strip().rstrip(";"))
    print_rows(rows.names, rows.rows, as_json=as_json)


@click.command(short_help="Prove that the totals add up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def audit(context: click.Context, as_json: bool) -> None:
    """Check receipts, coordinates, minutes and ledger against each other; exit code 10 if they do not add up."""
    with closing(open_client(settings_of(context).clickhouse)) as client:
        report = run_audit(client)
    if as_json:
        print_json(report)
    else:
        totals = msgspec.to_builtins(report)
        findings = totals.pop("findings")
        print_rows(["entry", "number"], list(totals.items()), as_json=False, title="Totals of all segments")
        if findings:
            rows = [(item["check"], item["where"], item["words"]) for item in findings]
            print_rows(["check", "where", "words"], rows, as_json=False, title="Findings")
    if report.findings:
        first = report.findings[0]
        raise AuditError(f"{len(report.findings)} findings; the first: {first.where}: {first.words}; see docs/audit.md")
