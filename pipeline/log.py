"""Structured logs to standard error.

Levels: error, somebody must act; warning, the program acts and somebody may want to know; info, a state was entered;
debug, for developers.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from pipeline.settings import LogSettings

_QUIET = ("faust", "mode", "aiokafka", "aiohttp", "asyncio")
_process = ""
# These log every failed attempt, with a stack; the error that they raise says it once.
_SILENT = ("kafka", "clickhouse_driver", "faust.worker")


def configure_logging(settings: LogSettings, process: str = "") -> None:
    """Set up the root logger; libraries speak only from warning on unless the level is debug.

    ``process`` names this one among several that log to the same place; every line has it.
    """
    global _process
    _process = process
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
                static_fields={"process": process} if process else {},
            )
        )
    else:
        words = f"[{process}] " if process else ""
        handler.setFormatter(logging.Formatter(f"{{asctime}} {{levelname:<7}} {words}{{name}}: {{message}}", style="{"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    if settings.level != "debug":
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in _SILENT:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def process_name() -> str:
    """The name that :func:`configure_logging` was given; empty if this is the only process."""
    return _process
