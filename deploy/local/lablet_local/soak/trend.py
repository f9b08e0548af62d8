"""How much a series has grown, whatever it did in between. Pure.

The slope is Theil and Sen's: the median of the slopes between all pairs of points. Up to 29 % of the points may be anything
(a pause of the machine, a garbage collection, a burst) without moving it; a leak moves all of them.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import median

Point = tuple[float, float]
"""When (seconds), and how much."""

MOST_POINTS = 240
"""More are thinned before the slope is taken: pairs grow with the square."""


def after_warm_up(points: Sequence[Point], seconds: float, part: float) -> list[Point]:
    """Those of the run's `seconds` that come after the first `part` of them."""
    return [(at, value) for at, value in points if seconds * part <= at <= seconds]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many, each the median of neighbours."""
    size = -(-len(points) // most)
    if size <= 1:
        return list(points)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(median(at for at, _ in group), median(value for _, value in group)) for group in groups]


def slope(points: Sequence[Point]) -> float:
    """Growth in a second. 0 where fewer than two moments were looked at."""
    few = thinned(points)
    slopes = [
        (after - before) / (late - early) for (early, before), (late, after) in combinations(few, 2) if late > early
    ]
    return median(slopes) if slopes else 0.0


def risen(points: Sequence[Point]) -> float:
    """What a counter has counted: its rises added up. Where it falls it has begun anew, and counts on from there."""
    return sum(max(0.0, after - before) for (_, before), (_, after) in pairwise(points))


def growth(points: Sequence[Point]) -> float:
    """What the slope makes of the time from the first to the last point."""
    return slope(points) * (points[-1][0] - points[0][0]) if points else 0.0
