"""Keeps the worker's memory from creeping up over days: what it frees goes back to the system."""

import ctypes
import os
from typing import Final

# Numbers of mallopt(3).
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

_OPTIONS: Final = {
    # Blocks of this size and more, that is fetches and columns, are mapped each by itself and given back when freed.
    # By default the limit follows the largest block that was ever freed, up to 32 MiB: then they lie in the heap
    # between small blocks that live on, and their room is often of no use for the next ones.
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, 256 << 10),
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, 1 << 20),
    # Heaps, of which each thread would have its own.
    "MALLOC_ARENA_MAX": (_ARENA_MAX, 2),
}


def give_memory_back() -> bool:
    """Set the options of glibc's allocator that are not set in the environment; whether there is such an allocator."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*option) == 1 for name, option in _OPTIONS.items() if name not in os.environ)
