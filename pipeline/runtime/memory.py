"""Keeps the worker's memory from creeping up over days: what it frees goes back to the system."""

import ctypes
import os
from typing import Final

# Numbers of mallopt(3).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

_OPTIONS: Final = {
    # By default the limit from which blocks are mapped each by itself follows the largest block that was ever freed, up
    # to 32 MiB. A lower one costs time: fetches and columns of some 100 KiB are made and freed all the time.
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, 8 << 20),
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, 64 << 20),
    # Heaps, of which each thread would have its own.
    "MALLOC_ARENA_MAX": (_ARENA_MAX, 2),
}
TRIM_SECONDS: Final = 20.0
"""Pause between two calls of :func:`trim`: what is freed between small blocks that live on goes back only then."""


def give_memory_back() -> bool:
    """Set the options of glibc's allocator that are not set in the environment; whether there is such an allocator."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*option) == 1 for name, option in _OPTIONS.items() if name not in os.environ)


def trim() -> None:
    """Give free pages inside the heaps back to the system; without glibc nothing happens."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim(0)
