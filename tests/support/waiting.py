"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], seconds: float, what: str, *, every: float = 0.02, context: str = ""
) -> None:
    """Return as soon as ``condition()`` is true; look again every ``every`` seconds.

    Raises:
        TimeoutError: it was not within ``seconds``; the message names ``what`` was awaited.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}{context}")
        time.sleep(every)
