"""What the web server tells of a worker: its health, its state, its metrics; here of a worker of one process."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from sinks.prometheus import Metrics
from streams.health import Verdict
from streams.interfaces import Status

Answer = dict[str, Any]
"""What becomes JSON."""


class Source(Protocol):
    """A worker, of one process or of several."""

    async def health(self) -> Answer:
        """What ``/healthz`` and ``/readyz`` say, judged anew: ``ready``, ``alive`` if not, and why."""

    async def status(self) -> Answer:
        """What ``/api/status`` says."""

    async def exposition(self) -> bytes:
        """What ``/metrics`` says, in the Prometheus text format."""


class StatusSource(Protocol):
    """What tells the state of one process."""

    def status(self) -> Status:
        """The state now."""

    def look(self) -> Verdict:
        """How the worker is doing, judged anew."""


class ProcessReport(Struct, frozen=True):
    """All that one of several processes says of itself; ``freshness`` is the histogram of delays, by bucket."""

    health: Answer
    status: Answer
    freshness: Mapping[int, int]


class OneProcess:
    """The process that this code runs in."""

    def __init__(self, metrics: Metrics, source: StatusSource) -> None:
        self._metrics = metrics
        self._source = source

    async def health(self) -> Answer:
        """See :class:`Source`."""
        verdict, status = self._source.look(), self._source.status()
        return {
            "ready": verdict.ready,
            "state": verdict.state,
            "reason": verdict.reason,
            "since": datetime.fromtimestamp(verdict.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "write_seconds": verdict.write_seconds and round(verdict.write_seconds, 1),
            "stalled_seconds": round(verdict.stalled_seconds, 1),
            "assigned": status.assigned,
            "pending_events": status.pending_events,
            "pending_bytes": status.pending_bytes,
            "last_error": status.last_error,
            "last_flush_at": status.last_flush_at,
        }

    async def status(self) -> Answer:
        """See :class:`Source`."""
        status: Answer = msgspec.to_builtins(self._source.status())
        return status | freshness_quantiles(self._metrics.freshness.quantile_ms)

    async def exposition(self) -> bytes:
        """See :class:`Source`."""
        self._source.look()
        return self._metrics.exposition()

    async def report(self) -> ProcessReport:
        """All of it, for the process that started this one."""
        return ProcessReport(await self.health(), await self.status(), self._metrics.freshness.histogram)


def freshness_quantiles(quantile_ms: Callable[[float], float | None]) -> Answer:
    """The quantiles that ``/api/status`` shows, in milliseconds, None without events."""
    return {f"freshness_p{share}_ms": quantile_ms(share / 100) for share in (50, 99)}
