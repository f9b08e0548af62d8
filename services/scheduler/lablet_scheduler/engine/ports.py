"""Port numbers: the lowest that are free on a worker for a whole slot.

A number belongs to a seat from the start of its slot to the end of the turnaround after it; the next seat may have it
from that minute on. Choosing the lowest keeps ranges tidy, but it is first-fit: in a nearly full range the numbers may
be so scattered over time that no single one is free for the whole slot although the count would allow it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import Demand


def lowest_free(first: int, last: int, used: set[int], count: int) -> tuple[int, ...]:
    """The `count` lowest numbers of `first`..`last` (included) that are not used; fewer when there are too few."""
    found: list[int] = []
    number = first
    while len(found) < count and number <= last:
        if number not in used:
            found.append(number)
        number += 1
    return tuple(found)


def name_ports(demand: Demand, numbers: Iterable[int]) -> tuple[tuple[str, int], ...]:
    """Numbers given to the demand's port names, in its order."""
    return tuple(zip(demand.ports, numbers, strict=True))
