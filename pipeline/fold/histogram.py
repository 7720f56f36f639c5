"""Durations as log-spaced buckets that merge by addition.

Bucket i holds the whole milliseconds d with GAMMA**(i-1) < d <= GAMMA**i, bucket ``ZERO_BUCKET`` holds 0. With
GAMMA = (1 + a) / (1 - a), the estimate 2 * GAMMA**i / (GAMMA + 1) is within relative error a of every duration in
the bucket, and so is every quantile read from the buckets.

Source: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
VLDB 2019, definition of buckets and proposition 3.
"""

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.contract.events import MAX_DURATION_MS

RELATIVE_ERROR: Final = 0.01
GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
ZERO_BUCKET: Final = -1


def _upper_bounds() -> npt.NDArray[np.int64]:
    """floor(GAMMA**i) for i = 0, 1, ... up to the longest duration.

    In decimal arithmetic of fixed precision: floating point logarithms differ between C libraries, and two workers
    must never put one duration into two buckets.
    """
    context = Context(prec=40)
    gamma = context.divide(Decimal("1.01"), Decimal("0.99"))
    bounds, bound = [], Decimal(1)
    while bound < MAX_DURATION_MS:
        bounds.append(int(bound))
        bound = context.multiply(bound, gamma)
    bounds.append(int(bound))
    return np.array(bounds, dtype=np.int64)


_BOUNDS: Final = _upper_bounds()
BUCKETS: Final = len(_BOUNDS)


def whole_milliseconds(durations: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Round n durations in milliseconds, halves up."""
    return np.floor(durations + 0.5).astype(np.int64)


def bucket_of(durations: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of each of n whole durations in milliseconds, 0 to one day."""
    buckets = np.searchsorted(_BOUNDS, durations, side="left")
    return np.where(durations == 0, ZERO_BUCKET, buckets)


def bucket_starts() -> tuple[list[int], list[int]]:
    """For computing buckets elsewhere: ``starts``, ascending from 0, and as many ``buckets``.

    A duration d > 0 belongs to the bucket beside the highest start below d. Buckets that hold no whole number, such as
    those between 1 and 2 milliseconds, do not occur.
    """
    first: dict[int, int] = {}
    for bucket, bound in enumerate(_BOUNDS.tolist()):
        first.setdefault(bound, bucket)
    return [0, *list(first)[:-1]], list(first.values())


def estimate(bucket: int) -> float:
    """The duration in milliseconds that stands for a bucket."""
    return 0.0 if bucket == ZERO_BUCKET else float(2 * GAMMA**bucket / (GAMMA + 1))


def quantile(histogram: Mapping[int, int], share: float) -> float:
    """The duration in milliseconds below or at which ``share`` (0 to 1) of a non-empty histogram lies.

    The rank is ceil(share * n), at least 1: the value that at least that share does not exceed.
    """
    rank = max(1, -int(-share * sum(histogram.values()) // 1))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            return estimate(bucket)
    raise ValueError("the histogram is empty")
