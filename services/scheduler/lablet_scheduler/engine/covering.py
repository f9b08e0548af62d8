"""Which workers to switch on, or keep on for longer, for seats that come together: the cheapest set that holds them all.

Taking the cheapest worker for one seat after the other is dear when seats come together: four seats may go to four
workers that are each a little cheaper than the one that would hold all four. The cheapest set is a covering problem,
and a small one: of the workers that hold equally many seats only the cheapest few can be in it, as many as would hold
all the seats by themselves. So it is solved exactly, seat count by seat count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .fleet import IntArray
from .timeline import LongArray

Link = tuple[int, "Link"] | None
"""The members of a set, the last one first."""


def worth_a_look(holds: IntArray, wanted: int) -> LongArray:
    """Of items in the order of their price, by the seats that each holds: those that the cheapest set is made of."""
    counts = np.flatnonzero(np.bincount(holds)).tolist()
    found = [np.flatnonzero(holds == count)[: -(-wanted // count)] for count in counts if count]
    return np.sort(np.concatenate(found)) if found else np.flatnonzero(holds)


def cheapest_cover(holds: Sequence[int], prices: Sequence[int], wanted: int) -> list[int]:
    """The items that together hold so many seats at the lowest sum of prices, in their order; all of them when even they
    do not hold so many. Of equal sums the one found first stays, so the order of the items decides."""
    if sum(holds) <= wanted:
        return list(range(len(holds)))
    costs: list[int | None] = [0] + [None] * wanted
    links: list[Link] = [None] * (wanted + 1)
    for item, (count, price) in enumerate(zip(holds, prices, strict=True)):
        for seats in range(wanted, 0, -1):
            rest = max(seats - count, 0)
            before, known = costs[rest], costs[seats]
            if before is not None and (known is None or before + price < known):
                costs[seats] = before + price
                links[seats] = (item, links[rest])
    found: list[int] = []
    link = links[wanted]
    while link is not None:
        item, link = link
        found.append(item)
    return found[::-1]
