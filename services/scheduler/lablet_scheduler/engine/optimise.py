"""Needing fewer worker-hours: moving seats that have not started yet, within their slots, so that workers can be off.

Placing reservations one by one as they come leaves workers on for what would have fitted elsewhere. `optimise` looks at
all of a pool's coming seats at once and answers with a plan: what to move, and what it saves. Seats of one reservation
may part. Every plan has been carried out on a copy of the calendar, with all its checks, before it is returned; only
`Replan.apply` changes the calendar itself, wholly or not at all.

It takes no notice of a pool's spreading policy (who asks for fewer worker-hours asks for packing), moves nothing that
could not be ready in time on a worker that is off, and counts power as `power_minutes` does. It finds good plans, not
always the best; `proven` says when there is none better.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .calendar import Calendar, Conflict
from .duty import power_spans
from .model import Booking, Explanation, Minute, NearestMiss
from .moves import Move, carry_out
from .optimise_load import Layout, lay_out
from .optimise_search import Search
from .ports import name_ports

BUDGET = 1_000_000
"""Steps (a seat tried on a worker in one situation); a core does some 400,000 to a million in a second."""

Step = tuple[Booking, str]
"""A seat as it is booked, and the worker that it goes to."""


@dataclass(frozen=True, slots=True)
class Replan:
    """What to move, and what that saves. As it stands it is the dry run."""

    pool: str
    moves: tuple[Move, ...]
    """Soonest slot first."""
    minutes_before: int
    """Worker-on minutes of the pool's bookings as they are, boots included."""
    minutes_after: int
    steps: int
    """The work that was done, in the budget's unit."""
    proven: bool
    """True: no plan saves more (moves not being capped)."""

    @property
    def saved_minutes(self) -> int:
        """Worker-on minutes saved."""
        return self.minutes_before - self.minutes_after

    def apply(self, calendar: Calendar) -> None:
        """Carries out all moves. Raises Conflict, and changes nothing, when the calendar has moved on meanwhile."""
        for step in self.moves:
            if calendar.booking(*step.before.key) != step.before:
                raise Conflict(step.before, NearestMiss(step.before.worker, "booking", 1, 0))
        carry_out(calendar, self.moves)


def optimise(
    calendar: Calendar,
    pool: str,
    now: Minute,
    *,
    seed: int,
    max_moves: int | None = None,
    budget: int = BUDGET,
    expired: Callable[[], bool] = lambda: False,
) -> Replan:
    """The best plan found within `budget` steps, or until `expired` says so. The calendar is not changed.

    Deterministic for a seed as long as `expired` does not interfere. At most `max_moves` seats move (None: any number).
    """
    layout = lay_out(calendar, pool, now)
    search = Search(layout, random.Random(seed), budget, expired, max_moves)
    search.run()
    before = _power(calendar, pool)
    for places in reversed(search.snapshots):
        scratch = calendar.copy()
        moves = tried_on(scratch, layout, steps_of(layout, places))
        if moves is not None and (after := _power(scratch, pool)) < before:
            proven = search.proven and places is search.snapshots[-1]
            return Replan(pool, tuple(moves), before, after, search.effort.steps, proven)
    return Replan(pool, (), before, before, search.effort.steps, search.proven and not search.snapshots)


def _power(calendar: Calendar, pool: str) -> int:
    names = [view.name for view in calendar.workers() if view.pool == pool]
    return sum(span.end - span.start for name in names for span in power_spans(calendar, name))


def tried_on(scratch: Calendar, layout: Layout, steps: Sequence[Step]) -> list[Move] | None:
    """Moves the seats on a calendar; None when it does not let them (port numbers too scattered, mostly): then some of
    them are off it."""
    for booking, _ in steps:
        scratch.release(booking.reservation, booking.seat)
    moves: list[Move] = []
    for booking, target in steps:
        view = scratch.worker(target)
        end = booking.until + scratch.policy(view.pool).turnaround
        numbers = scratch.free_ports(view, booking.start, end, len(booking.demand.ports), ())
        if numbers is None:
            return None
        after = replace(booking, worker=target, ports=name_ports(booking.demand, numbers))
        try:
            scratch.book(after)
        except Conflict:
            return None
        reason = f"moved from {booking.worker} to {target}, so that fewer workers have to be on"
        moves.append(Move(booking, after, Explanation(reason, considered=len(layout.workers), removed={})))
    return moves


def steps_of(layout: Layout, places: Sequence[int]) -> list[Step]:
    """Who has to go where, by start; seats of a load are alike, so those that can stay where they are do."""
    arriving: dict[int, list[int]] = {}
    leaving: dict[int, list[int]] = {}
    for seat, worker in enumerate(places):
        load = layout.load_of[seat]
        if layout.loads[load].movable:
            arriving.setdefault(load, []).append(worker)
            leaving.setdefault(load, []).append(seat)
    names = {view.name: number for number, view in enumerate(layout.workers)}
    steps: list[Step] = []
    for load, workers in arriving.items():
        going: list[Booking] = []
        for seat in leaving[load]:
            booking = layout.bookings[seat]
            home = names[booking.worker]
            if home in workers:
                workers.remove(home)
            else:
                going.append(booking)
        steps += [(booking, layout.workers[worker].name) for booking, worker in zip(going, workers, strict=True)]
    return sorted(steps, key=lambda step: (step[0].start, *step[0].key))
