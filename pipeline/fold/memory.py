"""The ids that the fold remembers, so that an event sent again is counted once.

The memory of a segment is the accepted events of itself and of the M segments before it. It depends on the log alone:
after a restart it is read back from the coordinates of those segments.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

_NOBODY: Final = bytes(8)


def event_hashes(sources: list[str], event_ids: list[str]) -> npt.NDArray[np.uint64]:
    """64 bits each that stand for (source, id), which CloudEvents 1.0 calls the identity of an event, of n events.

    XXH3 is not keyed; among the ids of a few segments a collision by chance has a probability below 1e-12 an event.
    """
    return _hashes(
        [xxh3_64_digest(f"{source}\0{id_}".encode()) for source, id_ in zip(sources, event_ids, strict=True)]
    )


def user_hashes(users: list[str]) -> npt.NDArray[np.uint64]:
    """64-bit hashes of n pseudonyms; 0 for an absent one."""
    return _hashes([xxh3_64_digest(user.encode()) if user else _NOBODY for user in users])


def _hashes(digests: list[bytes]) -> npt.NDArray[np.uint64]:
    """Digests, which are big-endian, as numbers; much quicker than by way of Python's integers."""
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


class Memory:
    """Event hashes of the current segment and of ``depth`` segments before it.

    Args:
        before: hashes of the segments before, oldest first, as many as :func:`reach` says.
        depth: how many of them the current segment looks into, at most.
    """

    def __init__(self, before: Iterable[Iterable[int]], depth: int) -> None:
        self._before: deque[set[int]] = deque(set(hashes) for hashes in before)
        self._current: set[int] = set()
        self._depth = depth

    def first_seen(self, hashes: list[int]) -> list[bool] | None:
        """Remember the hashes; say for each whether it was new, or None when all were (the usual case)."""
        known = [self._current, *islice(reversed(self._before), self._depth)]
        fresh = set(hashes)
        if len(fresh) == len(hashes) and all(fresh.isdisjoint(old) for old in known):
            self._current |= fresh
            return None
        mask = []
        for value in hashes:
            new = not any(value in old for old in known)
            if new:
                self._current.add(value)
            mask.append(new)
        return mask

    def end_segment(self, next_depth: int) -> None:
        """Start the memory of the next segment, which looks into ``next_depth`` segments before it."""
        self._before.append(self._current)
        self._current = set()
        self._depth = next_depth
        while len(self._before) > next_depth:
            self._before.popleft()


def reach(depth: int, depths_before: Sequence[int]) -> int:
    """How many segments back a segment's memory reaches; what a worker that folded on without a restart remembers.

    Rules that ask for more than those before cannot bring back what was forgotten: the memory then grows by one segment
    with each. A worker that starts in the middle must not remember more, or it would decide otherwise.

    Args:
        depth: of the segment's own rules.
        depths_before: of the rules of the segments before it, newest first; at least ``depth`` of them if there are.
    """
    return min([depth, *(one + steps for steps, one in enumerate(depths_before[:depth], 1))])
