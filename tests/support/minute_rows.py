"""Minute rows one by one, for whoever looks at single ones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.fold.flush import Flush
from pipeline.fold.minutes import FIXED_DIMENSIONS, MinuteRows
from pipeline.fold.records import LogPartition


class MinuteKey(NamedTuple):
    """The dimensions of a minute row. ``minute`` is Unix seconds, a multiple of 60.

    ``further`` are the values of the further dimensions that the rules of the segment name, in their order.
    """

    minute: int
    agency: str
    service: str
    channel: str
    outcome: str
    stage: str
    further: tuple[str, ...] = ()


class MinuteRow(NamedTuple):
    """One row, for whoever looks at single ones; ``dimensions`` names what ``key.further`` holds."""

    log: LogPartition
    segment: int
    next_offset: int
    key: MinuteKey
    events: int
    duration_ms_sum: int
    histogram: dict[int, int]
    users: npt.NDArray[np.uint64]
    dimensions: tuple[str, ...]


def minute_rows(flush: Flush) -> list[MinuteRow]:
    """The minute rows of a flush."""
    return [row for part in flush.minute_parts for row in _single(part)]


def _single(part: MinuteRows) -> Iterator[MinuteRow]:
    fixed = zip(*(part.texts[name] for name in FIXED_DIMENSIONS), strict=True)
    further = list(zip(*(part.texts[name] for name in part.dimensions), strict=True)) or [()] * len(part)
    numbers = zip(part.minute.tolist(), part.events.tolist(), part.duration_ms_sum.tolist(), strict=True)
    each = zip(numbers, fixed, further, part.histogram, part.user_hashes, strict=True)
    for (minute, events, sum_), (agency, service, channel, outcome, stage), more, histogram, users in each:
        yield MinuteRow(
            part.log,
            part.segment,
            part.next_offset,
            MinuteKey(minute, agency, service, channel, outcome, stage, more),
            events,
            sum_,
            histogram,
            np.array(users, dtype=np.uint64),
            part.dimensions,
        )
