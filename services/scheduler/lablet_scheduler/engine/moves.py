"""Moving booked seats to other workers: all the moves of a plan, or none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .calendar import Calendar
from .model import Booking, Explanation


@dataclass(frozen=True, slots=True)
class Move:
    """One seat's old and new place."""

    before: Booking
    after: Booking
    explanation: Explanation


def carry_out(calendar: Calendar, moves: Sequence[Move]) -> None:
    """Carries out all moves. Raises Conflict, and changes nothing, when the calendar has moved on meanwhile."""
    for step in moves:
        calendar.release(step.before.reservation, step.before.seat)
    try:
        calendar.book_all(step.after for step in moves)
    except ValueError:
        calendar.book_all((step.before for step in moves), check=False)
        raise
