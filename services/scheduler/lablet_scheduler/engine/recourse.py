"""Bounded recourse: after seats have come or gone, a few others move so that less power is needed.

Placing one by one and never looking back leaves workers on for what would have fitted elsewhere; the literature calls it
*recourse* when an online algorithm may undo a bounded number of its choices with each arrival. `settle` looks around one
`Stir` (where seats have just come or gone), at some workers and a stretch of time, whatever the size of the pool. What it
may move and how power is counted is the optimiser's business (`optimise_load`); what it finds has been tried on the
calendar, with all its checks, and undone again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .calendar import Calendar
from .model import Booking, Minute, PlacementRequest, Span, Spreading
from .moves import Move
from .optimise import Replan, steps_of, tried_on
from .optimise_load import Part, lay_out
from .place import best_for_a_seat
from .recourse_search import Recourse

BUDGET = 40_000
"""Seats looked at beside those that are tried, at most, in one look: some ten milliseconds."""
CROWD = 600
"""Seats that a look takes in, at most: where there are more, it reaches less far."""
WORKERS = 10
"""Workers looked at, at most."""
REACH = 12 * 60
"""Minutes before and after the stir in which seats may move."""
PRICE = 20
"""Minutes of power that each move has to save: nobody is moved for less."""
_LEAST = 60
"""Minutes: a look that would have to reach less far than that is not worth it."""
_ASKED = 4
"""Seats for which the pool is asked who would take them best."""


@dataclass(frozen=True, slots=True)
class Stir:
    """Seats have come to these workers, or left them, in a slot."""

    workers: tuple[str, ...]
    start: Minute
    end: Minute


def settle(
    calendar: Calendar,
    pool: str,
    now: Minute,
    stir: Stir,
    *,
    max_moves: int,
    quiet: int = 0,
    price: int = PRICE,
    budget: int = BUDGET,
) -> Replan:
    """The moves found around a stir, at most `max_moves` seats, worth more than `price` minutes of power each; the minutes
    before and after are those of what was looked at. Nobody
    moves who starts less than `quiet` minutes from now, or in a pool that spreads. The calendar is as it was afterwards."""
    known = [name for name in dict.fromkeys(stir.workers) if name in calendar.fleet.columns][: WORKERS // 2]
    span = around(stir)
    span = Span(max(span.start, now + quiet), span.end)
    if not known or max_moves < 1 or span.end <= span.start or calendar.policy(pool).spreading is Spreading.SPREAD:
        return Replan(pool, (), 0, 0, 0, proven=False)
    names = _around(calendar, pool, now, known, stir)
    part = _part(calendar, names, span, stir)
    if part is None:
        return Replan(pool, (), 0, 0, 0, proven=False)
    layout = lay_out(calendar, pool, now, part)
    before = sum(layout.minutes(worker) for worker in range(len(names)))
    search = Recourse(layout, stir.start, max_moves, price, budget)
    search.run()
    after = sum(layout.minutes(worker) for worker in range(len(names)))
    moves: list[Move] | None = None
    steps = steps_of(layout, layout.at)
    if steps and before - after > price * len(steps):
        try:
            moves = tried_on(calendar, layout, steps)
        finally:
            for booking, _ in steps:
                calendar.release(*booking.key)
            calendar.book_all((booking for booking, _ in steps), check=False)
    if not moves:
        return Replan(pool, (), before, before, search.steps, proven=False)
    return Replan(pool, tuple(moves), before, after, search.steps, proven=False)


def _part(calendar: Calendar, names: Sequence[str], span: Span, stir: Stir) -> Part | None:
    """What a look takes in: all that lies in the span, or where that is too much, less on both sides; None: there is too
    much even beside the stir itself."""
    reach = REACH
    while reach > _LEAST:
        close = Span(max(span.start, stir.start - reach), min(span.end, stir.end + reach))
        if close.start < close.end and _few(calendar, names, close):
            return Part(tuple(names), close)
        reach //= 2
    return None


def _few(calendar: Calendar, names: Sequence[str], span: Span) -> bool:
    seats = 0
    for name in names:
        reach = calendar.bridge(calendar.worker(name)) + 1
        seats += calendar.crowd(name, span.start - reach, span.end + reach)
        if seats > CROWD:
            return False
    return True


def around(stir: Stir) -> Span:
    """The stretch of time in which a stir may move seats."""
    return Span(stir.start - REACH, stir.end + REACH)


def _around(calendar: Calendar, pool: str, now: Minute, known: list[str], stir: Stir) -> list[str]:
    """The workers of the stir, and those that would best take what is on them."""
    small = _all_of(calendar, pool)
    if small:
        return small
    names = list(known)
    seats: dict[tuple[str, Minute], Booking] = {}
    for name in known:
        for booking in calendar.on_worker(name, stir.start, stir.end):
            seats.setdefault((booking.reservation, booking.start), booking)
    asked = sorted(seats.values(), key=lambda one: (abs(one.start - stir.start), *one.key))[:_ASKED]
    for number, booking in enumerate(asked):
        room = (WORKERS - len(names)) // (len(asked) - number)
        request = PlacementRequest(
            booking.reservation, pool, booking.demand, booking.start, booking.end, now=now, exclude=frozenset(names)
        )
        names += best_for_a_seat(calendar, request, room)
    return names


def _all_of(calendar: Calendar, pool: str) -> list[str]:
    """A pool's workers by name; none when they are too many to be looked at."""
    names: list[str] = []
    for name in calendar.fleet.columns:
        if calendar.worker(name).pool == pool:
            names.append(name)
            if len(names) > WORKERS:
                return []
    return sorted(names)
