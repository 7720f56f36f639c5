"""Several processes as one worker, for the web server: asked at once, each for a few seconds at most, and joined."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from pipeline.fold.histogram import quantile
from pipeline.runtime.supervisor import Child
from pipeline.settings import RejectedSettings
from pipeline.web.source import Answer, ProcessReport, freshness_quantiles
from sinks.prometheus import Metrics
from sinks.prometheus_merge import MergedMetrics
from streams.health import State

logger = logging.getLogger(__name__)

ASK_SECONDS: Final = 5.0
"""A process that does not answer for longer counts as not answering; shorter than Prometheus waits."""
LOOK_SECONDS: Final = 5.0
"""How often all are asked for their metrics: what a process counted since is missing in the sums if it is killed."""
SILENT_SECONDS: Final = 30.0
"""A process that runs and has not answered for so long hangs."""
# The worst first: the state of several processes is the first that one of them has.
_WORST: Final = (
    State.STUCK,
    State.WAITING_FOR_CLICKHOUSE,
    State.WAITING_FOR_KAFKA,
    State.BACK_PRESSURE,
    State.STARTING,
    State.UNASSIGNED,
    State.REBALANCING,
    State.CONSUMING,
)


class Joint:
    """Implements :class:`pipeline.web.source.Source` for processes that this one started.

    Args:
        children: the processes.
        own: metrics of this process: hours and days, audits, restarts.
        rejected: the limits of the alarm for refused events.
    """

    def __init__(self, children: Sequence[Child], own: Metrics, rejected: RejectedSettings) -> None:
        self._children = children
        self._merged = MergedMetrics(own, rejected)
        self._answered_at: dict[int, float] = {}
        self._session: aiohttp.ClientSession | None = None

    async def health(self) -> Answer:
        """Ready if every process is; each process's own answer is in ``processes``."""
        processes = [
            {"process": child.number} | (report.health if report else self._silent(child))
            for child, report in await self._reports()
        ]
        worst = min((one["state"] for one in processes), key=_WORST.index)
        said = [f"process {one['process']}: {one['reason']}" for one in processes if one["reason"]]
        errors = [one["last_error"] for one in processes if one["last_error"]]
        writes = [one["write_seconds"] for one in processes if one["write_seconds"] is not None]
        return {
            "alive": not any(one.get("hangs") for one in processes),
            "ready": all(one["ready"] for one in processes),
            "state": worst,
            "reason": "; ".join(said),
            "since": min((one["since"] for one in processes if one["state"] == worst and one["since"]), default=None),
            "write_seconds": max(writes, default=None),
            "stalled_seconds": max(one["stalled_seconds"] for one in processes),
            "assigned": sum(one["assigned"] for one in processes),
            "pending_events": sum(one["pending_events"] for one in processes),
            "pending_bytes": sum(one["pending_bytes"] for one in processes),
            "last_error": errors[0] if errors else "",
            "last_flush_at": max(one["last_flush_at"] for one in processes),
            "processes": processes,
        }

    async def status(self) -> Answer:
        """The sums, and the partitions of all processes, each with its process."""
        answers = [(child.number, report) for child, report in await self._reports() if report is not None]
        partitions: list[Answer] = [
            partition | {"process": number} for number, report in answers for partition in report.status["partitions"]
        ]
        delays: dict[int, int] = {}
        for _, report in answers:
            for bucket, count in report.freshness.items():
                delays[bucket] = delays.get(bucket, 0) + count
        errors = [report.status["last_error"] for _, report in answers if report.status["last_error"]]
        return {
            "assigned": sum(report.status["assigned"] for _, report in answers),
            "pending_events": sum(report.status["pending_events"] for _, report in answers),
            "pending_bytes": sum(report.status["pending_bytes"] for _, report in answers),
            "last_error": errors[0] if errors else "",
            "last_flush_at": max((report.status["last_flush_at"] for _, report in answers), default=0.0),
            "partitions": sorted(partitions, key=lambda one: (one["topic"], one["partition"])),
        } | freshness_quantiles(lambda share: quantile(delays, share) if delays else None)

    async def exposition(self) -> bytes:
        """All metrics as of now; of a process that does not answer, the counters as of its last answer."""
        answering = await self.refresh()
        return self._merged.exposition(answering, len(self._children))

    async def refresh(self) -> list[int]:
        """Ask all processes for their metrics; the numbers of those that answered."""
        return [number for number in await asyncio.gather(*map(self._refresh, self._children)) if number is not None]

    async def _refresh(self, child: Child) -> int | None:
        answer = await self._ask(child, "/metrics")
        if answer is None:
            return None
        # At once: when the process has ended, its last word is among those that are kept.
        self._merged.said(child.number, answer.decode())
        return child.number

    async def look(self) -> None:
        """Ask for the metrics every few seconds, for as long as this runs."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    def ended(self, number: int) -> None:
        """A process has ended."""
        self._merged.ended(number)

    async def close(self) -> None:
        """Give connections back."""
        if self._session is not None:
            await self._session.close()

    async def _reports(self) -> list[tuple[Child, ProcessReport | None]]:
        answers = await asyncio.gather(*(self._ask(child, "/api/process") for child in self._children))
        return [
            (child, None if answer is None else msgspec.json.decode(answer, type=ProcessReport))
            for child, answer in zip(self._children, answers, strict=True)
        ]

    def _silent(self, child: Child) -> dict[str, Any]:
        """The health of a process that does not answer."""
        answered_at = max(self._answered_at.get(child.number, 0.0), child.started_at)
        seconds = time.monotonic() - answered_at
        hangs = child.running and seconds >= SILENT_SECONDS
        words = f"has not answered for {seconds:.0f} s" if child.running else child.words
        return {
            "ready": False,
            "hangs": hangs,
            "state": State.STUCK if hangs else State.STARTING,
            "reason": words,
            "since": None,
            "write_seconds": None,
            "stalled_seconds": 0.0,
            "assigned": 0,
            "pending_events": 0,
            "pending_bytes": 0,
            "last_error": "",
            "last_flush_at": 0.0,
        }

    async def _ask(self, child: Child, path: str) -> bytes | None:
        """The answer of a process; None if it gives none, or not in time, or has ended meanwhile."""
        asked = child.process
        if child.port is None:
            return None
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS))
        try:
            async with self._session.get(f"http://127.0.0.1:{child.port}{path}") as answer:
                answer.raise_for_status()
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.debug("a process does not answer", extra={"worker": child.number, "error": repr(error)})
            return None
        self._answered_at[child.number] = time.monotonic()
        return content if child.process is asked and child.running else None
