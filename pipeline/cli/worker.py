"""``xidmet worker``."""

import logging
import sys

import click
import msgspec

from pipeline.cli.main import member_of, settings_of
from pipeline.errors import SettingsError, XidmetError
from pipeline.log import configure_logging

logger = logging.getLogger(__name__)


@click.command(short_help="Fold the log into ClickHouse; serve the page and /metrics.")
@click.option("--migrate", is_flag=True, help="Create the schema and the topics first, if they are missing.")
@click.option("--processes", type=click.IntRange(1), help="Start so many processes; instead of worker.processes.")
@click.pass_context
def worker(context: click.Context, migrate: bool, processes: int | None) -> None:
    """Fold the log into ClickHouse and serve the page and /metrics, until stopped (Ctrl-C or SIGTERM).

    Any number of workers may run at once; Kafka shares the partitions among them. With several processes this one
    starts them, serves for all, and starts again what dies.
    """
    settings, member = settings_of(context), member_of(context)
    if member is None and processes is not None:
        worker_settings = msgspec.structs.replace(settings.worker, processes=processes)
        settings = msgspec.structs.replace(settings, worker=worker_settings)
    if migrate and member is None:
        from pipeline.cli.admin import migrate_all

        migrate_all(settings)
    if member is None and settings.worker.processes > 1:
        from pipeline.runtime.processes import run_processes

        configure_logging(settings.log, "parent")
        sys.exit(run_processes(settings))

    from pipeline.app import create_app
    from pipeline.runtime.worker import run_worker

    error = run_worker(create_app(settings, member=member), settings.worker.stop_seconds)
    if error is not None:
        if isinstance(error, XidmetError):
            raise error
        if isinstance(error, OSError):
            raise SettingsError(f"the worker's address web.host, web.port: {error}") from error
        logger.critical("the worker stopped", exc_info=error)
        sys.exit(1)
