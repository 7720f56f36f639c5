"""Arithmetic of the benchmarks, without clock or process."""

import math
from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]


def quantile(values: Sequence[float], share: float) -> float:
    """The value at or below which ``share`` of all lie (nearest rank); ``share`` in (0, 1].

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values, no quantile")
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max of at least one value, each rounded to a tenth."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(quantile(values, share), 1) for name, share in shares.items()}


def slope(points: Sequence[Point]) -> float:
    """Of the straight line nearest to the points (least squares), in units of y for one of x.

    Raises:
        ValueError: there are not two different x.
    """
    count = len(points)
    mean_x = sum(x for x, _ in points) / count if count else 0.0
    mean_y = sum(y for _, y in points) / count if count else 0.0
    square = sum((x - mean_x) ** 2 for x, _ in points)
    if square == 0.0:
        raise ValueError("a slope needs two different places")
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square


def at(points: Sequence[Point], x: float) -> float:
    """y at ``x`` on the line through points in order of x, which never goes back.

    Raises:
        ValueError: ``x`` lies outside.
    """
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y1 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    raise ValueError(f"{x} lies outside of what was measured")


def delays(sent: Sequence[float], seen: Sequence[tuple[float, int]]) -> list[float]:
    """How long each of a row of events took from being sent to being seen, for events that are seen in their order.

    Args:
        sent: when each was sent.
        seen: looks, in order of time: when, and how many were there.

    Raises:
        ValueError: not all were seen.
    """
    found: list[float] = []
    for when, count in seen:
        found += [when - one for one in sent[len(found) : count]]
    if len(found) < len(sent):
        raise ValueError(f"{len(sent) - len(found)} of {len(sent)} events were never seen")
    return found


def furthest_apart(values: Sequence[float]) -> float:
    """By which share the lowest value lies below the highest."""
    return 1.0 - min(values) / max(values)
