"""Run a Faust application in this process, with our logs and our exit codes."""

import faulthandler
import logging
import os
import signal
import threading

import faust
import mode.loop

from pipeline.runtime.memory import give_memory_back

logger = logging.getLogger(__name__)


class _Worker(faust.Worker):
    """Faust's worker without its own logging set-up, terminal art and redirected output; it surely stops."""

    stop_seconds = 90.0
    end_at_once: threading.Timer | None = None

    def _setup_logging(self) -> None:
        """Logging is set up by :mod:`pipeline.log`."""

    def on_init(self) -> None:
        """Do not change the process's title or streams."""

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        if self.end_at_once is None:
            self.end_at_once = threading.Timer(self.stop_seconds, _end_at_once, [self.stop_seconds])
            self.end_at_once.daemon = True
            self.end_at_once.start()
        super()._schedule_shutdown(signal)


def _end_at_once(seconds: float) -> None:
    """Whatever hangs: the receipts say where a successor goes on, as after a kill."""
    logger.critical("told to stop and not stopped after %g s: the worker ends at once; nothing is lost", seconds)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(1)


def run_worker(app: faust.App, stop_seconds: float = 90.0) -> BaseException | None:
    """Run until a signal or a crash; what made it crash, or None.

    SIGINT and SIGTERM write what is left and stop. What has not stopped after ``stop_seconds`` ends the process with
    code 1 and a trace of all threads on standard error.
    """
    give_memory_back()
    mode.loop.use("uvloop")
    worker = _Worker(app, quiet=True, redirect_stdouts=False, override_logging=False)
    worker.spinner = None
    worker.stop_seconds = stop_seconds
    outcome: BaseException | None = None
    try:
        worker.execute_from_commandline()
    except SystemExit as done:
        outcome = done if done.code else None
    except BaseException as error:
        outcome = error
    if worker.end_at_once is not None:
        worker.end_at_once.cancel()
    return _reason(worker, app) or outcome


def _reason(worker: faust.Worker, app: faust.App) -> BaseException | None:
    """What ended the worker: Faust itself only says that it ended."""
    for reason in (getattr(app, "start_error", None), app.crash_reason, worker.crash_reason):
        if isinstance(reason, BaseException):
            return reason
    return None
