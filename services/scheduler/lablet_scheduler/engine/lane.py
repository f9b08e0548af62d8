"""One worker's bookings in the order of their start, with its duties and port numbers.

The lane answers what the arrays cannot: which seats, which numbers, which exact spans. A *hold* is the span in which a
booking keeps licence nodes, ports and power: its slot plus the turnaround. The engine may also keep a worker on without
a booking (it is on at the moment and will be for a while); such an idle hold has no booking.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from .model import Booking, Minute, Span
from .power import join_needs, touched

Hold = tuple[Minute, Minute, str, int, Booking | None]
"""Start, end of the turnaround, reservation, seat, booking."""


class Lane:
    """What is booked on one worker."""

    __slots__ = ("_longest", "bridge", "duties", "holds", "owner")

    def __init__(self, owner: object, bridge: int) -> None:
        self.owner = owner
        self.bridge = bridge
        self.holds: list[Hold] = []
        self.duties: list[Span] = []
        self._longest = 0
        """No hold is or was longer: how far before a minute one has to begin looking."""

    def clone(self, owner: object) -> Lane:
        """A lane of its own with the same content."""
        twin = Lane(owner, self.bridge)
        twin.holds = self.holds.copy()
        twin.duties = self.duties.copy()
        twin._longest = self._longest
        return twin

    def add(self, holds: Sequence[Hold]) -> tuple[list[Span], list[Span]]:
        """Puts holds of one span in; returns the duties that they replaced and those that stand there now."""
        start, end = holds[0][0], holds[0][1]
        for hold in holds:
            insort(self.holds, hold)
        self._longest = max(self._longest, end - start)
        first, last = touched(self.duties, start, end, self.bridge)
        old = self.duties[first:last]
        new = [Span(min(start, old[0].start), max(end, old[-1].end))] if old else [Span(start, end)]
        if old != new:
            self.duties[first:last] = new
        return old, new

    def lay(self, holds: Sequence[Hold]) -> None:
        """Puts many holds in at once; the duties that stand there then are known from all of them."""
        self.holds = sorted([*self.holds, *holds], key=lambda hold: hold[:4])
        self._longest = max([self._longest, *(end - start for start, end, *_ in holds)])
        self.duties = join_needs(((hold[0], hold[1]) for hold in self.holds), self.bridge)

    def take(self, holds: Sequence[Hold]) -> tuple[list[Span], list[Span]]:
        """Takes holds of one span out; returns the duty that they belonged to and those that are left of it."""
        start, end = holds[0][0], holds[0][1]
        for hold in holds:
            # shorter than the hold itself, the key sorts just before it
            del self.holds[bisect_left(self.holds, hold[:4])]
        first, last = touched(self.duties, start, end, 0)
        old = self.duties[first:last]
        begin = bisect_left(self.holds, (old[0].start,))
        close = bisect_left(self.holds, (old[-1].end,))
        new = join_needs(((kept[0], kept[1]) for kept in self.holds[begin:close]), self.bridge)
        if old != new:
            self.duties[first:last] = new
        return old, new

    def within(self, start: Minute, end: Minute) -> list[Hold]:
        """The holds that overlap `[start, end)`, in the order of their start."""
        first = bisect_left(self.holds, (start - self._longest,))
        last = bisect_left(self.holds, (end,))
        return [hold for hold in self.holds[first:last] if hold[1] > start]

    def crowd(self, start: Minute, end: Minute) -> int:
        """How many holds `within` has to look at."""
        return bisect_left(self.holds, (end,)) - bisect_left(self.holds, (start - self._longest,))

    def ports_in_use(self, start: Minute, end: Minute) -> set[int]:
        """The port numbers that somebody holds at some instant of `[start, end)`."""
        return {number for hold in self.within(start, end) if hold[4] is not None for _, number in hold[4].ports}
