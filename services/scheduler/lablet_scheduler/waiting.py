"""The wait list of a pool, kept in order as reservations come and go: thousands of jobs may wait, and a look at the first of
them must not cost a look at all.

Those that ask for the same thing stand in one line. Where the first of a line finds no place the others find none, so who
looks for places goes over the heads of the lines.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from datetime import datetime
from itertools import islice

from lablet_common.resources.reservation import Reservation, Slot

Order = tuple[int, datetime, str]
"""By priority, then by the time since which they wait, then by id."""
Likeness = tuple[object, ...]


def order_of(reservation: Reservation) -> Order:
    since = reservation.status.waiting_since or reservation.metadata.created_at
    return -reservation.spec.priority, since, reservation.id


def likeness_of(reservation: Reservation) -> Likeness:
    """Equal for those that ask for the same thing; where a slot is asked for, it is part of it."""
    spec = reservation.spec
    selector = tuple(sorted(spec.worker_selector.items()))
    wanted = (spec.definition, spec.seats, spec.duration_minutes, spec.priority, selector)
    return (reservation.tenant, *wanted, spec.asap, None if spec.asap else reservation.slot)


class WaitList:
    """Of one pool. Reservations are put anew whenever they change."""

    def __init__(self) -> None:
        self._lines: dict[Likeness, list[Order]] = {}
        self._places: dict[str, tuple[Likeness, Order]] = {}
        self._waiting: dict[str, Reservation] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, reservation: Reservation) -> None:
        """Puts it where it belongs."""
        place = likeness_of(reservation), order_of(reservation)
        if self._places.get(reservation.id) != place:
            self.drop(reservation.id)
            insort(self._lines.setdefault(place[0], []), place[1])
            self._places[reservation.id] = place
        self._waiting[reservation.id] = reservation

    def drop(self, reservation_id: str) -> None:
        """It waits no more, if it did."""
        place = self._places.pop(reservation_id, None)
        if place is None:
            return
        del self._waiting[reservation_id]
        line = self._lines[place[0]]
        del line[bisect_left(line, place[1])]
        if not line:
            del self._lines[place[0]]

    def touches(self, slot: Slot) -> bool:
        """Whether somebody waits for room at some instant of a slot; who wants it as soon as possible waits for any."""
        heads = (self._waiting[line[0][2]].slot for line in self._lines.values())
        return any(wanted is None or (wanted.start < slot.end and slot.start < wanted.end) for wanted in heads)

    def last_like(self, reservation: Reservation) -> Reservation | None:
        """The last of those that wait for the same thing."""
        line = self._lines.get(likeness_of(reservation))
        return None if line is None else self._waiting[line[-1][2]]

    def ahead_of(self, order: Order, most: Callable[[Reservation], int | None]) -> list[Reservation]:
        """Those before a place in the order of the whole list, line by line. `most` as for `heads`."""
        found: list[Reservation] = []
        for line in self._lines.values():
            if line[0] < order:
                before = line[: bisect_left(line, order)]
                found += (self._waiting[name] for _, _, name in islice(before, most(self._waiting[line[0][2]])))
        return found

    def heads(self, most: Callable[[Reservation], int | None]) -> tuple[list[Reservation], int]:
        """The first ones of each line in the order of the whole list, and how many of them stand before the first that is
        left out. `most` says how many of a line, from its first reservation; None: all of it."""
        chosen: list[Order] = []
        left_out: list[Order] = []
        for line in self._lines.values():
            limit = most(self._waiting[line[0][2]])
            chosen += islice(line, limit)
            if limit and limit < len(line):
                left_out.append(line[limit])
        chosen.sort()
        cut = bisect_left(chosen, min(left_out)) if left_out else len(chosen)
        return [self._waiting[order[2]] for order in chosen], cut
