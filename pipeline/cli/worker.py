"""``xidmet worker``."""

import logging
import sys

import click

from pipeline.cli.main import settings_of
from pipeline.errors import SettingsError, XidmetError

logger = logging.getLogger(__name__)


@click.command(short_help="Fold the log into ClickHouse; serve the page and /metrics.")
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
    error = run_worker(create_app(settings), settings.worker.stop_seconds)
    if error is not None:
        if isinstance(error, XidmetError):
            raise error
        if isinstance(error, OSError):
            raise SettingsError(f"the worker's address web.host, web.port: {error}") from error
        logger.critical("the worker stopped", exc_info=error)
        sys.exit(1)
