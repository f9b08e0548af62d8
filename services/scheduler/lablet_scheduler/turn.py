"""Whose turn it is: who asks for room goes behind those who wait for the same room.

The order is that of the wait list: by priority, then by the time of the request. Room that nobody ahead waits for in the
slot is anybody's; where somebody waits, what those ahead would take or keep is taken out of the calendar first
(`engine.kept_for`), and the decision is made on what is left. A change of what is booked is a request like any other, made
when the change was asked for; the room that it has already is its own.
"""

from datetime import datetime, timedelta

from lablet_common.resources.reservation import Reservation
from lablet_scheduler import engine
from lablet_scheduler.state import PoolState
from lablet_scheduler.waiting import Order
from lablet_scheduler.wishes import is_job, tried, waiting_request

_ROUNDS = 4
"""Slots that are looked at for a suggestion: each may have others who wait in it."""


class Turn:
    """Of one request. Nothing on the pool's own calendar is changed."""

    def __init__(
        self, state: PoolState, order: Order, now: datetime, horizon: timedelta, beside: str | None = None
    ) -> None:
        """`horizon`: how far ahead a place is looked for; `beside`: the reservation that is to be changed."""
        self.ahead: dict[str, engine.Waiting] = {}
        """Those ahead for whom room is kept."""
        self.booked = state.calendar
        """What is booked, and what is kept."""
        self._state = state
        self._order = order
        self._now = now
        self._horizon = horizon
        self._beside = beside
        self._free: engine.Calendar | None = None

    @property
    def calendar(self) -> engine.Calendar:
        """The calendar to decide on: what is booked and what is kept, without the reservation that is to be changed."""
        if self._beside is None:
            return self.booked
        if self._free is None:
            self._free = self.booked.copy()
            self._free.release(self._beside)
        return self._free

    def gives_way(self, start: engine.Minute, end: engine.Minute, *, to_jobs: bool = True) -> bool:
        """Keeps room for those ahead whose slots touch this one, too; False when there is nobody more. Jobs begin whenever a
        place comes free, so that they are not in the way of everybody (`to_jobs`)."""
        found = {one.request.reservation: one for one in self._in_the_way(start, end, to_jobs)}
        if found.keys() <= self.ahead.keys():
            return False
        self.ahead |= found
        now = engine.minute_floor(self._now)
        self.booked = engine.kept_for(self._state.calendar, self.ahead.values(), now, self._beside)
        self._free = None
        return True

    def soonest(self, wanted: engine.PlacementRequest) -> engine.Minute | None:
        """The first start from its slot's on, within the horizon, at which the request would be granted, as far as that is
        known now."""
        after = max(wanted.start, engine.minute_ceil(self._now))
        for _ in range(_ROUNDS):
            at = engine.earliest(self.calendar, wanted, after, int(self._horizon / timedelta(minutes=1)))
            if at is None or not self.gives_way(at, at + wanted.minutes):
                return at
        return None

    def _in_the_way(self, start: engine.Minute, end: engine.Minute, to_jobs: bool) -> list[engine.Waiting]:
        """Those ahead of it on the wait list whose slots touch the one that it would get."""
        state = self._state
        if not state.waitlist:
            return []
        rest, soon = state.pool.spec.turnaround_minutes, engine.from_minute(engine.minute_ceil(self._now))
        opens, closes = engine.from_minute(start - rest), engine.from_minute(end + rest)

        def most(first: Reservation) -> int | None:
            slot = first.slot  # thousands may wait, in other slots mostly
            begin = soon if slot is None else slot.start
            until = begin + timedelta(minutes=first.spec.duration_minutes) if slot is None else slot.end
            if begin >= closes or until <= opens:
                return 0
            if state.demand(first) is None or (not to_jobs and is_job(state, first)):
                return 0
            return tried(state, first)

        ahead = state.waitlist.ahead_of(self._order, most)
        return [waiting_request(state, reservation, self._now, self._horizon) for reservation in ahead]
