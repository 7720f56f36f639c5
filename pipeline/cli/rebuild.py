"""``xidmet rebuild``: make tables anew from the log or the ledger, and exchange them."""

from contextlib import closing
from datetime import UTC, datetime
from typing import get_args

import click

from pipeline.cli.main import MOMENT, settings_of
from pipeline.cli.output import print_json, print_rows
from pipeline.errors import AuditError, SettingsError, StoreError
from pipeline.runtime import rebuild as work_on
from sinks.clickhouse.client import Client
from sinks.clickhouse.rebuild_plan import Wanted
from sinks.clickhouse.rebuild_state import Record, unfinished

_SHOWN = 20


@click.command(short_help="Make tables anew from the log or the ledger.")
@click.option("--from", "start", type=MOMENT, help="Start of the period of record time stamps, UTC.")
@click.option("--to", "end", type=MOMENT, help="End of the period, UTC.")
@click.option(
    "--source",
    type=click.Choice(get_args(Wanted)),
    default="auto",
    show_default=True,
    help="auto takes the ledger where the log no longer reaches.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be made anew, and from what.")
@click.option("--resume", is_flag=True, help="Go on with a rebuild that was killed.")
@click.option("--abandon", is_flag=True, help="Drop what a rebuild that was killed has made.")
@click.option("--keep-old", is_flag=True, help="Keep the old tables, under names that end in _before_rebuild.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def rebuild(
    context: click.Context,
    start: datetime | None,
    end: datetime | None,
    source: Wanted,
    dry_run: bool,
    resume: bool,
    abandon: bool,
    keep_old: bool,
    as_json: bool,
) -> None:
    """Make the closed segments of a period anew in shadow tables, check them, and exchange the tables.

    Workers go on meanwhile. Exit code 10 if other numbers come out than the receipts say: then nothing is exchanged.
    """
    if resume and abandon:
        raise click.UsageError("--resume or --abandon, not both")
    if (resume or abandon) == bool(start or end):
        raise click.UsageError("give --from and --to, or one of --resume and --abandon")
    if not (resume or abandon) and not (start and end and start < end):
        raise click.UsageError("give --from and a later --to")
    settings = settings_of(context)
    if settings.clickhouse.cluster:
        raise SettingsError("clickhouse.cluster is set; xidmet rebuild exchanges tables of one server only")
    with closing(work_on.open_for_writing(settings)) as client:
        record = unfinished(client)
        if abandon:
            _abandon(client, record)
            click.echo("abandoned; the live tables are as they were", err=True)
            return
        if record is not None:
            work_on.refuse_living(record)
            if not resume and not dry_run and record.state != "exchanging":
                raise StoreError(f"rebuild {record.id} was not finished; run xidmet rebuild --resume or --abandon")
        if resume and record is None:
            raise StoreError("there is no unfinished rebuild")
        if record is not None and not dry_run:
            if not resume:
                click.echo(f"rebuild {record.id} is finished first; run again for your period", err=True)
            work = work_on.go_on(client, record)
        else:
            assert start is not None
            assert end is not None
            first, last = start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
            plan = work_on.plan(client, settings, first, last, source, keep_old)
            if dry_run or not plan.runs:
                _show(work_on.planned(client, plan), as_json)
                return
            click.echo("claim: no other rebuild runs", err=True)
            work = work_on.begin(client, plan)
        try:
            outcome = work_on.run(client, settings, work, lambda step, words: click.echo(f"{step}: {words}", err=True))
        except AuditError:
            raise
        except BaseException:
            click.echo("not finished: xidmet rebuild --resume goes on, --abandon drops what was made", err=True)
            raise
    _show(outcome, as_json)


def _abandon(client: Client, record: Record | None) -> None:
    if record is None:
        raise StoreError("there is no unfinished rebuild")
    work_on.abandon(client, record)


def _show(outcome: work_on.Outcome, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    rows = [
        ("rebuild", outcome.id or "-"),
        ("state", outcome.state),
        ("from", f"{outcome.start:%Y-%m-%d %H:%M:%S} UTC"),
        ("to", f"{outcome.end:%Y-%m-%d %H:%M:%S} UTC"),
        ("tables", ", ".join(outcome.tables)),
        ("further dimensions", ", ".join(outcome.dimensions) or "none"),
        ("segments", outcome.segments),
        ("from the log", outcome.from_log),
        ("from the ledger", outcome.from_ledger),
        ("events in them", outcome.events),
        ("differences", len(outcome.differences)),
        ("seconds", round(outcome.seconds, 1)),
    ]
    print_rows(["entry", "value"], rows, as_json=False, title="Rebuild")
    if outcome.differences:
        shown = [(item.table, item.where, item.words) for item in outcome.differences[:_SHOWN]]
        print_rows(["table", "where", "what differed"], shown, as_json=False, title="What was mended")
        if len(outcome.differences) > _SHOWN:
            click.echo(f"and {len(outcome.differences) - _SHOWN:,} more; --json has them all", err=True)
