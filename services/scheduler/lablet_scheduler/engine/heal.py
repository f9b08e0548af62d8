"""Moving seats when a worker is lost, has to be emptied, or was needed longer than planned.

Only the seats that are touched move. All of them are planned, the soonest first, before any is moved: the result is a
`Plan`, and `Plan.apply` carries it out in one go. A seat that has no other place keeps its own and is listed as stuck,
with the reason. Started seats are never moved off a worker that still runs; when their worker is lost they get their
lab elsewhere for the rest of the slot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from .calendar import Calendar
from .model import Booking, Explanation, Minute, Placement, PlacementRequest, Span
from .place import place


@dataclass(frozen=True, slots=True)
class Move:
    """One seat's old and new place."""

    before: Booking
    after: Booking
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Stuck:
    """A seat that cannot move, and why."""

    booking: Booking
    reason: str
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Moves, soonest slot first, and what stays where it is."""

    moves: tuple[Move, ...] = ()
    stuck: tuple[Stuck, ...] = ()

    def apply(self, calendar: Calendar) -> None:
        """Carries out all moves. Raises Conflict, and changes nothing, when the calendar has moved on meanwhile."""
        for step in self.moves:
            calendar.release(step.before.reservation, step.before.seat)
        try:
            calendar.book_all(step.after for step in self.moves)
        except ValueError:
            calendar.book_all((step.before for step in self.moves), check=False)
            raise


def heal(calendar: Calendar, lost: Collection[str], now: Minute) -> Plan:
    """Where the seats of lost workers go. Slots that are over do not count; a started seat gets what is left of its
    slot, from `now` on. The calendar is not changed."""
    touched = [
        booking for name in sorted(set(lost)) for booking in calendar.on_worker(name, now, _LAST) if booking.end > now
    ]
    return relocate(calendar, touched, now, avoid=frozenset(lost))


def vacate(calendar: Calendar, worker: str, span: Span, now: Minute) -> Plan:
    """Where the seats go that hold a worker in a span (turnaround included), so that it can be maintained then.
    Started seats are stuck. The calendar is not changed."""
    touched = calendar.on_worker(worker, span.start, span.end)
    started = tuple(Stuck(booking, "its lab runs there") for booking in touched if booking.started)
    plan = relocate(calendar, [booking for booking in touched if not booking.started], now, avoid=frozenset({worker}))
    return replace(plan, stuck=started + plan.stuck)


def relocate(calendar: Calendar, bookings: Iterable[Booking], now: Minute, avoid: frozenset[str] = frozenset()) -> Plan:
    """Another place for each of some seats, in the same slot (what is left of it), the soonest first.

    The seats need not be on the calendar any more (displaced ones are not). The calendar is not changed.
    """
    order = sorted(bookings, key=lambda booking: (max(booking.start, now), -booking.priority, *booking.key))
    stuck: dict[tuple[str, int], Stuck] = {}
    while True:
        moves, more = _try_moves(calendar, [one for one in order if one.key not in stuck], now, avoid)
        if not more:
            break
        # what cannot move keeps its place, so the moves are planned again around it
        stuck |= {one.booking.key: one for one in more}
    return Plan(tuple(moves), tuple(stuck[one.key] for one in order if one.key in stuck))


def _try_moves(
    calendar: Calendar, order: Sequence[Booking], now: Minute, avoid: frozenset[str]
) -> tuple[list[Move], list[Stuck]]:
    scratch = calendar.copy()
    for booking in order:
        scratch.release(booking.reservation, booking.seat)
    moves: list[Move] = []
    stuck: list[Stuck] = []
    for booking in order:
        request = PlacementRequest(
            reservation=booking.reservation,
            pool=calendar.worker(booking.worker).pool,
            demand=booking.demand,
            start=max(booking.start, now),
            end=booking.end,
            now=now,
            priority=booking.priority,
            exclude=avoid,
            seat_numbers=(booking.seat,),
        )
        decision = place(scratch, request)
        if isinstance(decision, Placement):
            (after,) = decision.bookings()
            scratch.book(after, check=False)
            moves.append(Move(booking, after, decision.explanation))
        else:
            stuck.append(Stuck(booking, decision.explanation.summary, decision.explanation))
    return moves, stuck


_LAST = 2**30
"""After every minute that a slot can have."""
