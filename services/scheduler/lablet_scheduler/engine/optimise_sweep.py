"""Giving some seats to some workers anew, the rest staying where it is: one sweep over time.

The seats are taken in the order of their start, and every way to give them out is followed at once, as a set of
`Partial`s. Two ways that leave the workers in the same states (up to an exchange of like workers) have the same future,
so only the cheaper one is kept; when more than `width` are left, the cheapest are. A sweep that never had to drop any
is exact: nothing cheaper exists. Otherwise it is a beam search, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter

from .optimise_states import StateBook

MINUTE = 1000
"""A minute of power in points. A move costs `move_points`: at least one, so that of equal plans the one with fewer
moves wins."""

Link = tuple["Link", int] | None
"""The choices that led to a partial solution, last one first."""

Partial = tuple[int, tuple[int, ...], Link]
"""Points so far, the state of each worker, the choices."""


@dataclass(frozen=True, slots=True)
class Item:
    """One seat to be given out."""

    load: int
    positions: tuple[int, ...]
    """The workers (by place in the sweep) that it may go to; one for a seat that stays."""
    home: Mapping[int, int]
    """Worker → seats of this load that were there before the optimiser began."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The best that a sweep found."""

    points: int
    choices: list[int]
    """The worker of each item."""


@dataclass(slots=True)
class Effort:
    """Counts the work in steps looked at, so that a budget means the same on every machine, and says when to stop."""

    steps: int = 0
    stop: Callable[[], bool] = lambda: False


def sweep(
    book: StateBook,
    empty: Sequence[int],
    alike: int,
    items: Sequence[Item],
    *,
    width: int,
    below: int,
    move_points: int,
    effort: Effort,
) -> tuple[Swept | None, bool]:
    """The cheapest way found to give out the items, if it has fewer points than `below`, and whether it is certain
    that there is no cheaper one.

    `empty` has the workers' first states; the first `alike` of them carry nothing that stays, so that like ones among
    them may be exchanged. Items are ordered by start.
    """
    beam: list[Partial] = [(0, tuple(empty), None)]
    exact = True
    minute: int | None = None
    loads, all_steps, enter = book.loads, book.steps, book.enter
    for item in items:
        if effort.stop():
            return None, False
        load = item.load
        if loads[load].start != minute:
            minute = loads[load].start
            beam = _aged(book, beam, minute, alike)
        known = all_steps[load]
        positions, home = item.positions, item.home
        found: dict[tuple[int, ...], Partial] = {}
        for points, states, link in beam:
            tried: set[tuple[int, bool]] = set()
            for position in positions:
                state = states[position]
                effort.steps += 1
                step = known[state] if state in known else enter(state, load)
                if step is None:
                    continue
                after, added, before = step
                total = points + added * MINUTE
                moved = before >= home.get(position, 0)
                if moved:
                    total += move_points
                if total >= below:
                    continue
                if position < alike:
                    if (state, moved) in tried:
                        continue
                    tried.add((state, moved))
                reached = (*states[:position], after, *states[position + 1 :])
                key = (*sorted(reached[:alike]), *reached[alike:]) if alike > 1 else reached
                other = found.get(key)
                if other is None or total < other[0]:
                    found[key] = (total, reached, (link, position))
        if not found:
            return None, exact
        if len(found) > width:
            exact = False
            beam = nsmallest(width, found.values(), key=itemgetter(0))
        else:
            beam = list(found.values())
    points, _, link = min(beam, key=itemgetter(0))
    choices: list[int] = []
    while link is not None:
        link, position = link
        choices.append(position)
    choices.reverse()
    return Swept(points, choices), exact


def _aged(book: StateBook, beam: list[Partial], minute: int, alike: int) -> list[Partial]:
    known, age = book.aged(minute), book.age
    found: dict[tuple[int, ...], Partial] = {}
    for points, states, link in beam:
        later = tuple([known[state] if state in known else age(state, minute) for state in states])
        key = (*sorted(later[:alike]), *later[alike:]) if alike > 1 else later
        other = found.get(key)
        if other is None or points < other[0]:
            found[key] = (points, later, link)
    return list(found.values())
