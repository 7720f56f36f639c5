"""A look at something again and again, in a thread beside what is measured."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Looks:
    """The error that ended them early, if any."""

    error: Exception | None = None


@contextmanager
def looking(look: Callable[[], object], every: float, name: str) -> Iterator[Looks]:
    """Call ``look`` every ``every`` seconds until the block ends, or until it raises."""
    looks = Looks()
    ended = threading.Event()

    def run() -> None:
        try:
            while not ended.is_set():
                began = time.monotonic()
                look()
                ended.wait(max(0.0, began + every - time.monotonic()))
        except Exception as error:
            looks.error = error

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()
