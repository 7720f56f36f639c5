"""The machine of a run, without its name: cores, model, memory, kernel."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str]:
    """What a reader needs to judge absolute figures."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _value("/proc/cpuinfo", "model name") or platform.machine(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def _memory() -> str:
    kilobytes = _value("/proc/meminfo", "MemTotal").split()
    return f"{int(kilobytes[0]) / (1 << 20):.0f} GiB" if kilobytes else "unknown"


def _value(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
