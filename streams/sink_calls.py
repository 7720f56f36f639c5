"""Calls of the sink: one at a time, in a thread beside the event loop, and what became of them."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.errors import BrokerError
from streams.interfaces import IngestMetrics

logger = logging.getLogger(__name__)
R = TypeVar("R")


class SinkCalls:
    """Runs the calls and remembers the last error.

    Attributes:
        error: words of the last error, empty since a call succeeded.
        error_of_kafka: whether it was Kafka's, not ClickHouse's.
        error_ended_at: when the last error ended, on the clock.
    """

    def __init__(self, metrics: IngestMetrics, clock: Callable[[], float]) -> None:
        self.error = ""
        self.error_of_kafka = False
        self.error_ended_at = 0.0
        self._metrics = metrics
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink")
        # Those that have not returned: since when, and what they do.
        self._under_way: dict[object, tuple[float, str]] = {}

    async def run(self, what: str, call: Callable[..., R], *arguments: object) -> R:
        """Run a call in the thread, after those before it; ``what`` it does is for people."""
        key = object()
        self._under_way[key] = self._clock(), what
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(*arguments))
        finally:
            del self._under_way[key]

    @property
    def oldest(self) -> tuple[float | None, str]:
        """Since when the oldest call has been under way, and what it does; (None, "") if none is."""
        return min(self._under_way.values(), default=(None, ""))

    def failed(self, error: Exception, words: str) -> None:
        """A call failed and is tried again; ``words`` say what that means. Logged once an error."""
        self._metrics.flush_failed(error)
        if str(error) != self.error:
            logger.error(words, extra={"error": str(error)})
        self.error = str(error)
        self.error_of_kafka = isinstance(error, BrokerError)

    def recovered(self, words: str) -> None:
        """A call succeeded; ``words`` are logged if the one before failed."""
        if self.error:
            logger.warning(words)
            self.error = ""
            self.error_ended_at = self._clock()

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._thread.shutdown()
