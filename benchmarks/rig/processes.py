"""Resident memory and CPU time of processes, from /proc, and a thread that samples them."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rig.background import Looks, looking

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``at`` seconds of the monotonic clock: ``done`` events, resident MB (10^6 bytes), CPU seconds so far."""

    at: float
    done: int
    rss_mb: float
    cpu_s: Mapping[str, float]


@dataclass(slots=True)
class Watched:
    """What :func:`watching` found."""

    samples: list[Sample] = field(default_factory=list)
    looks: Looks = field(default_factory=Looks)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process now and at its peak, in MB of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
    return kib["VmRSS"] * 1024 / 1e6, kib["VmHWM"] * 1024 / 1e6


@contextmanager
def watching(worker: int, others: Mapping[str, int], done: Callable[[], int], every: float = 1.0) -> Iterator[Watched]:
    """Sample every ``every`` seconds until the block ends.

    Args:
        worker: process id whose memory counts.
        others: process ids by name; their CPU time is sampled, with that of ``worker`` under that name.
        done: how many events are done.
        every: seconds between samples.
    """
    watched = Watched()
    pids = {"worker": worker, **others}

    def sample() -> None:
        cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
        watched.samples.append(Sample(time.monotonic(), done(), memory_mb(worker)[0], cpu))

    with looking(sample, every, "watch") as watched.looks:
        yield watched
