"""``xidmet reconcile``."""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import click

from pipeline.cli.main import MOMENT, settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.errors import AuditError, StoreError
from pipeline.runtime.endpoint import find_endpoint, open_client
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import parse_url
from sinks.clickhouse.periods import DAMAGE, recompute
from sinks.clickhouse.schema import require_schema

_PROGRESS_SECONDS: Final = 2.0


@click.command(short_help="Recompute hours and days; say what changed and why.")
@click.option("--from", "start", type=MOMENT, required=True, help="Start of the time, UTC.")
@click.option("--to", "end", type=MOMENT, required=True, help="End of the time, UTC, not included.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def reconcile(context: click.Context, start: datetime, end: datetime, dry_run: bool, as_json: bool) -> None:
    """Recompute the hours and days that the time touches: closed ones from the ledger, open ones from the minutes.

    Exit code 10 if stored numbers were damaged, or if rows that they were computed from are gone.
    """
    settings = settings_of(context)
    first, last = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    if first >= last:
        raise click.UsageError("the time ends before it starts")
    if not dry_run:
        _refuse_beside_worker(settings.clickhouse)
    with closing(open_client(settings.clickhouse)) as client:
        require_schema(client, settings.clickhouse)
        changes = recompute(
            client,
            first,
            last,
            settings.periods.time_zone,
            datetime.now(UTC),
            grace_seconds=settings.periods.grace_seconds,
            dry_run=dry_run,
            progress=_progress(),
        )
    if as_json:
        print_json({"from": first, "to": last, "dry_run": dry_run, "changes": changes})
    else:
        names = ["table", "start", "from", "before", "after", "cause", "words"]
        rows = [
            (
                item.table,
                f"{item.start:%Y-%m-%d %H:%M}" if item.table == "hours" else f"{item.start:%Y-%m-%d}",
                item.source,
                item.before,
                item.after,
                item.cause,
                item.words,
            )
            for item in changes
        ]
        if rows:
            title = f"Would change; days are of {settings.periods.time_zone}" if dry_run else "Changed"
            print_rows(names, rows, as_json=False, title=title)
        else:
            click.echo("nothing to change" if dry_run else "nothing changed")
    damaged = [item for item in changes if item.cause in DAMAGE]
    if damaged:
        one = damaged[0]
        raise AuditError(
            f"{len(damaged)} hours and days were not what they were computed from; the first: {one.table}"
            f" {one.start:%Y-%m-%d %H:%M}: {one.words}; see docs/audit.md"
        )


def _refuse_beside_worker(settings: ClickHouseSettings) -> None:
    directory = parse_url(settings.url).directory
    endpoint = find_endpoint(directory) if directory else None
    if endpoint is not None:
        raise StoreError(
            f"the worker at {endpoint.url} has the database open and keeps hours and days up to date itself;"
            " stop it to reconcile, or see with --dry-run what would change"
        )


def _progress() -> Callable[[int, int], None]:
    """Says on standard error how far it is, every few seconds, so that short runs are silent."""
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _PROGRESS_SECONDS:
            said = time.monotonic()
            print(f"{done} of {total} hours and days", file=sys.stderr, flush=True)

    return say
