"""Synthetic usage events of a catalogue's services. Deterministic: the same seed gives the same events.

The sequence is the same for one version of numpy, whose generators may change between versions. Nothing here is
data about real people or real agencies; :mod:`pipeline.generator.calibration` says what is published and what assumed.
"""

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.catalogue import Catalogue
from pipeline.generator.profiles import profiles_of
from pipeline.generator.rhythm import Rhythm, milliseconds
from pipeline.generator.uses import Block, draw_block, stage_event, use_events

BLOCK_EVENTS: Final = 16_384
LIVE_SPEED: Final = 1_440.0
"""In live events applications are worked on as if a day passed in a minute: stages show while one watches."""

Dict = dict[str, Any]
_Pending = list[tuple[int, int, int, Dict]]
"""A heap of (milliseconds since 1970, running number, stage, the use that started the application)."""


class Generator:
    """A source of synthetic CloudEvents, as JSON-ready dictionaries."""

    def __init__(self, catalogue: Catalogue, seed: int = 1) -> None:
        """Draw what the services of ``catalogue`` are like.

        Raises:
            ValueError: the catalogue has no service, or the seed is negative.
        """
        self._profiles = profiles_of(catalogue, seed)
        self._seed = seed
        self._live_rng = np.random.default_rng([seed, 3])
        self._live_pending: _Pending = []
        self._live_number = 0

    def events(self, start: datetime, end: datetime, count: int) -> Iterator[Dict]:
        """Exactly ``count`` events from ``start`` up to, not including, ``end``, in order of time.

        They follow the rhythm of day and week in Baku. Stages of applications count; those due after ``end`` are
        left out, as applications that are still open. Each call starts anew from the seed. Memory is bounded by a
        block of events and the open applications.

        Raises:
            ValueError: a moment without time zone, an empty period, or a negative count.
        """
        if count < 0:
            raise ValueError(f"count {count} is negative")
        return self._events(Rhythm(start, end), count)

    def _events(self, rhythm: Rhythm, count: int) -> Iterator[Dict]:
        rng = np.random.default_rng([self._seed, 2])
        pending: _Pending = []
        number = 0
        blocks = -(-count // BLOCK_EVENTS)
        edges = rhythm.times(np.arange(1, blocks + 1) / max(blocks, 1)).tolist()
        for index in range(blocks):
            begins, ends = count * index // blocks, count * (index + 1) // blocks
            last = index == blocks - 1
            block_end = rhythm.end if last else edges[index]
            due: list[tuple[int, int, Dict]] = []
            while pending and pending[0][0] < block_end and len(due) < ends - begins:
                time, order, stage, use = heapq.heappop(pending)
                # What had no room in an earlier block comes at the start of this one.
                time = max(time, edges[index - 1])
                due.append((time, order, stage_event(use, stage, time)))
            room = ends - begins - len(due)
            quantiles = (index + rng.random(room)) / blocks
            times = rhythm.times(quantiles)
            progress = (times - rhythm.start) / (rhythm.end - rhythm.start)
            block = draw_block(rng, self._profiles, times, progress)
            kept = _uses_that_fit(block, block_end, room)
            block = _first(block, kept)
            room -= kept
            for at, use in enumerate(use_events(rng, self._profiles, block)):
                time = int(block.times[at])
                due.append((time, number, use))
                number += 1
                for stage, delay in enumerate(block.delays[at].tolist() if "application" in use["data"] else ()):
                    when = time + delay
                    if delay < 0 or when >= rhythm.end:
                        continue
                    if when < block_end and room > 0:
                        room -= 1
                        due.append((when, number, stage_event(use, stage, when)))
                    else:
                        heapq.heappush(pending, (when, number, stage, use))
                    number += 1
            due.sort(key=lambda item: item[:2])
            for _, _, event in due:
                yield event

    def live(self, now: datetime, count: int, seconds: float = 1.0) -> list[Dict]:
        """``count`` events spread over the ``seconds`` before ``now``, in order of time.

        The same sequence of calls gives the same events. Applications are worked on :data:`LIVE_SPEED` times faster
        than in :meth:`events`, and each service has finished its move to the government cloud.

        Raises:
            ValueError: ``now`` without time zone, or a negative count.
        """
        if now.tzinfo is None:
            raise ValueError("now needs a time zone")
        if count < 0:
            raise ValueError(f"count {count} is negative")
        until = milliseconds(now)
        span = max(1, round(seconds * 1000))
        due: list[tuple[int, int, Dict]] = []
        # At most half are stages, so that uses never stop.
        while self._live_pending and self._live_pending[0][0] <= until and len(due) < count // 2:
            time, order, stage, use = heapq.heappop(self._live_pending)
            time = max(time, until - span + 1)
            due.append((time, order, stage_event(use, stage, time)))
        rng = self._live_rng
        times = np.sort(until - span + 1 + (rng.random(count - len(due)) * span).astype(np.int64))
        block = draw_block(rng, self._profiles, times, np.ones(len(times)), LIVE_SPEED)
        for at, use in enumerate(use_events(rng, self._profiles, block)):
            time = int(times[at])
            due.append((time, self._live_number, use))
            self._live_number += 1
            for stage, delay in enumerate(block.delays[at].tolist() if "application" in use["data"] else ()):
                if delay >= 0:
                    heapq.heappush(self._live_pending, (time + delay, self._live_number, stage, use))
                    self._live_number += 1
        due.sort(key=lambda item: item[:2])
        return [event for _, _, event in due]


def _uses_that_fit(block: Block, block_end: int, room: int) -> int:
    """How many of the first uses, with their stages due before ``block_end``, fill ``room`` events."""
    stages: npt.NDArray[np.int64] = ((block.delays >= 0) & (block.times[:, np.newaxis] + block.delays < block_end)).sum(
        axis=1
    )
    filled = np.cumsum(1 + stages)
    return min(int(np.searchsorted(filled, room, side="left")) + 1, len(filled)) if room else 0


def _first(block: Block, count: int) -> Block:
    return Block(
        block.times[:count],
        block.service[:count],
        block.channel[:count],
        block.outcome[:count],
        block.duration[:count],
        block.cloud[:count],
        block.delays[:count],
    )
