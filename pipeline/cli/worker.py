"""``xidmet worker``."""

import sys

import click

from pipeline.cli.main import settings_of
from pipeline.errors import XidmetError


@click.command()
@click.option("--migrate", is_flag=True, help="Create the schema and the topics first, if they are missing.")
@click.pass_context
def worker(context: click.Context, migrate: bool) -> None:
    """Fold the log into ClickHouse and serve the page and /metrics, until stopped (Ctrl-C or SIGTERM).

    Any number of workers may run at once; Kafka shares the partitions among them.
    """
    from pipeline.app import create_app
    from pipeline.runtime.worker import run_worker

    settings = settings_of(context)
    if migrate:
        from pipeline.cli.admin import migrate_all

        migrate_all(settings)
    error = run_worker(create_app(settings))
    if error is not None:
        if isinstance(error, XidmetError):
            raise error
        click.echo(f"xidmet: the worker stopped: {type(error).__name__}: {error}", err=True)
        sys.exit(1)
