"""A plan's moves are carried out as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lablet_scheduler.engine import Booking, Calendar, Conflict, Demand, Explanation, Move, PoolPolicy
from lablet_scheduler.engine.moves import carry_out

FOUR = Demand(cpu_cores=4)


def test_two_seats_change_places_and_nothing_is_done_when_the_calendar_has_moved_on(worker):
    calendar = Calendar([PoolPolicy("default")], [worker("w-1", cpu_cores=4), worker("w-2", cpu_cores=4)])
    one, other = Booking("one", 1, "w-1", 6000, 6100, FOUR), Booking("other", 1, "w-2", 6000, 6100, FOUR)
    calendar.book_all([one, other])
    said = Explanation("moved", considered=2, removed={})
    moves = [Move(one, replace(one, worker="w-2", end=6200), said), Move(other, replace(other, worker="w-1"), said)]
    calendar.book(Booking("quick", 1, "w-2", 6100, 6110, FOUR))
    with pytest.raises(Conflict):
        carry_out(calendar, moves)
    assert set(calendar.bookings()) >= {one, other}
    calendar.release("quick")
    carry_out(calendar, moves)
    assert {booking.reservation: booking.worker for booking in calendar.bookings()} == {"one": "w-2", "other": "w-1"}
