"""Run a Faust application in this process, with our logs and our exit codes."""

import logging

import faust
import mode.loop

logger = logging.getLogger(__name__)


class _Worker(faust.Worker):
    """Faust's worker without its own logging set-up, terminal art and redirected output."""

    def _setup_logging(self) -> None:
        """Logging is set up by :mod:`pipeline.log`."""

    def on_init(self) -> None:
        """Do not change the process's title or streams."""


def run_worker(app: faust.App) -> BaseException | None:
    """Run until a signal or a crash; what made it crash, or None.

    SIGINT and SIGTERM write what is left and stop.
    """
    mode.loop.use("uvloop")
    worker = _Worker(app, quiet=True, redirect_stdouts=False, override_logging=False)
    worker.spinner = None
    outcome: BaseException | None = None
    try:
        worker.execute_from_commandline()
    except SystemExit as done:
        outcome = done if done.code else None
    except BaseException as error:
        outcome = error
    return _reason(worker, app) or outcome


def _reason(worker: faust.Worker, app: faust.App) -> BaseException | None:
    """What ended the worker: Faust itself only says that it ended."""
    for reason in (getattr(app, "start_error", None), app.crash_reason, worker.crash_reason):
        if isinstance(reason, BaseException):
            return reason
    return None
