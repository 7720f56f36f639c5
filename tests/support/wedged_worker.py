"""A worker that tests can wedge: run as a program with a directory and settings.

While the directory holds a file of that name, ``write`` lets no write of results return, ``resume`` no reading of
positions, ``poll`` no poll of the consumer. Nothing raises an error: that is the point.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faust.types import TP

from pipeline.app import create_app
from pipeline.fold.flush import Flush
from pipeline.fold.resume import ResumePoint
from pipeline.fold.rules import Rules
from pipeline.log import configure_logging
from pipeline.runtime.results import Results
from pipeline.runtime.worker import run_worker
from pipeline.settings import load_settings
from streams.transport import BatchConsumerThread


def main(directory: Path, flags: list[str]) -> int:
    """Run until a signal; 0 if nothing made it crash."""
    settings = load_settings(environment={}, flags=flags)
    configure_logging(settings.log)

    class WedgedResults(Results):
        def resume(self, log_starts: Mapping[TP, int], next_rules: Rules) -> dict[TP, ResumePoint]:
            _wait(directory / "resume")
            return super().resume(log_starts, next_rules)

        def write(self, flush: Flush) -> None:
            _wait(directory / "write")
            super().write(flush)

    fetch = BatchConsumerThread._fetch_records

    async def fetch_if_free(self: BatchConsumerThread, *arguments: Any, **options: Any) -> Any:
        fetched = await fetch(self, *arguments, **options)
        while (directory / "poll").exists():
            await asyncio.sleep(0.05)
        return fetched

    BatchConsumerThread._fetch_records = fetch_if_free  # type: ignore[method-assign]
    return 1 if run_worker(create_app(settings, WedgedResults), settings.worker.stop_seconds) else 0


def _wait(file: Path) -> None:
    while file.exists():
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
