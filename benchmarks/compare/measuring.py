"""What a round of a side costs: progress over time, CPU seconds and peak memory of every process, told apart by role.

CPU and memory come from proc(5): user and system time of all threads, and the highest resident size since the round
began (VmHWM, set back by writing 5 to clear_refs; the highest sample where that is not allowed).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.rig import processes

EVERY_SECONDS: Final = 0.1

Pids = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """At Unix time ``at`` so many events were visible; ``cpu`` is seconds used so far by role, at ``cpu_at``."""

    at: float
    count: int
    cpu_at: float
    cpu: Mapping[str, float]


@dataclass(slots=True)
class Course:
    """A round of a side from its start: samples in order of time, and the peak memory of each process by role."""

    began: float
    samples: list[Sample] = field(default_factory=list)
    peak_bytes: dict[str, list[int]] = field(default_factory=dict)


def descendants(pid: int) -> list[int]:
    """A process and all below it that are there."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text("ascii").split()]
            except OSError:
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far; 0 if it is gone."""
    try:
        return processes.cpu_seconds(pid)
    except OSError:
        return 0.0


def resident_bytes(pid: int, name: str = "VmRSS") -> int:
    """``VmRSS`` or ``VmHWM`` of a process; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> bool:
    """Begin VmHWM anew; whether that was allowed."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


class Watch:
    """Watches processes through a round."""

    def __init__(self, servers: Pids) -> None:
        """``servers`` run already: their CPU time until now, and their peak, are not the round's."""
        self._fixed = {role: list(pids) for role, pids in servers.items()}
        self._before = {pid: cpu_seconds(pid) for pids in self._fixed.values() for pid in pids}
        self._peaks: dict[str, dict[int, int]] = {role: {} for role in self._fixed}
        self._trusted = {pid for pids in self._fixed.values() for pid in pids if forget_peak(pid)}
        self._ended: dict[int, float] = {}
        self.course = Course(time.time())

    def sample(self, side: Sequence[int], at: float, count: int) -> None:
        """Note progress and what has been used; ``side`` are the processes of the side itself."""
        now = time.time()
        pids = dict(self._fixed)
        pids["side"] = [below for pid in side for below in descendants(pid)]
        cpu: dict[str, float] = {}
        for role, of_role in pids.items():
            for pid in of_role:
                self._ended[pid] = max(self._ended.get(pid, 0.0), cpu_seconds(pid) - self._before.get(pid, 0.0))
                peak = resident_bytes(pid, "VmHWM" if role == "side" or pid in self._trusted else "VmRSS")
                of = self._peaks.setdefault(role, {})
                of[pid] = max(of.get(pid, 0), peak)
            cpu[role] = sum(self._ended[pid] for pid in self._peaks.get(role, {}))
        self.course.samples.append(Sample(at, count, now, cpu))
        self.course.peak_bytes = {role: list(of.values()) for role, of in self._peaks.items()}


def follow(
    watch: Watch,
    side: Callable[[], Sequence[int]],
    progress: Callable[[], tuple[float, int]],
    expected: int,
    limit_seconds: float,
) -> Course:
    """Sample ten times a second until ``expected`` events are visible.

    Args:
        watch: of this round.
        side: the processes of the side, as they are now.
        progress: Unix time and count of the newest news; may raise to end the round.
        expected: events.
        limit_seconds: bound from the start of the round.

    Raises:
        TimeoutError: they were not within the limit.
    """
    while True:
        at, count = progress()
        watch.sample(side(), at, count)
        if count >= expected:
            return watch.course
        if time.time() - watch.course.began > limit_seconds:
            raise TimeoutError(f"{count:,} of {expected:,} events within {limit_seconds:.0f} s")
        time.sleep(EVERY_SECONDS)
