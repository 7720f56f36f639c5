"""Memory of processes over time, from /proc, and whether it is bounded and does not grow."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

EVERY_SECONDS: Final = 1.0
# Growth is judged when a process lived long enough to have filled its caches and its memory of repeats.
_LEAST_SAMPLES: Final = 120
_GROWTH: Final = 1.25
_GROWTH_MB: Final = 30.0


class Life(Struct):
    """Memory of one process in MiB: ``samples`` of (seconds since the start of the watch, resident), ``peak``."""

    name: str
    samples: list[tuple[float, float]] = []
    peak: float = 0.0

    def faults(self, bound_mb: float) -> list[str]:
        """What is wrong with it: more than the bound, or steady growth."""
        found = []
        if self.peak > bound_mb:
            found.append(f"{self.name}: {self.peak:.0f} MiB resident at its peak, more than {bound_mb:.0f}")
        if len(self.samples) >= _LEAST_SAMPLES:
            quarter = len(self.samples) // 4
            early, late = (
                statistics.median(size for _, size in part)
                for part in (self.samples[quarter : 2 * quarter], self.samples[-quarter:])
            )
            if late > early * _GROWTH + _GROWTH_MB:
                found.append(f"{self.name}: grew from {early:.0f} to {late:.0f} MiB (medians of two quarters)")
        return found


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process now and at its peak, in MiB; zeros if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0.0, 0.0
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
    return int(found.get("VmRSS", 0)) / 1024, int(found.get("VmHWM", 0)) / 1024


@contextmanager
def watched(processes: Callable[[], list[tuple[str, int]]]) -> Iterator[dict[str, Life]]:
    """Sample the (name, process id) that ``processes`` gives, every second, until the block ends."""
    lives: dict[str, Life] = {}
    done = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            for name, pid in processes():
                now, peak = resident_mb(pid)
                if now:
                    life = lives.setdefault(name, Life(name))
                    life.samples.append((round(time.monotonic() - began, 1), round(now, 1)))
                    life.peak = max(life.peak, peak)

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield lives
    finally:
        done.set()
        thread.join()
