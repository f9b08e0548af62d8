"""Placing the seats of one slot: all of them or none, on as many workers as it takes.

One look at the calendar (`survey`) says how many seats fit where; then seat by seat the worker with the best score is
taken, and as a worker that has one seat is on anyway and fuller, the next seat tends to follow it. Where a pool packs
and seats come together, the workers that have to be switched on for them are chosen as a set (`covering`). Seats are
alike and workers independent, so this order never loses a placement, but for two things that are asked only of a chosen
worker: port numbers (first-fit may find none although the count would do) and counted licences, which workers compete
for. Where licences run out, a second pass takes the workers that hold most seats first.

`place` changes nothing: `calendar.book_all(placement.bookings())` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .calendar import Calendar
from .covering import cheapest_cover, worth_a_look
from .explain import explain_placement, explain_refusal, explain_too_long
from .filters import Survey, survey
from .fleet import IntArray, amounts_of
from .model import Placement, PlacementRequest, Refusal, SeatChoice, SeatPlacement, Span, Spreading
from .ports import lowest_free, name_ports
from .score import REFUSED, FloatArray, fullness, in_use, key_of, keys, price_of
from .timeline import LongArray


@dataclass(slots=True)
class Selection:
    """Seats given out so far, and what stood in the way."""

    workers: list[int] = field(default_factory=list)
    """Column of each seat, in the order of the seats."""
    ports: list[tuple[int, ...]] = field(default_factory=list)
    added: dict[int, int] = field(default_factory=dict)
    """Column → minutes of power that its first seat added."""
    no_ports: set[int] = field(default_factory=set)
    no_licence: set[int] = field(default_factory=set)


def place(calendar: Calendar, request: PlacementRequest) -> Placement | Refusal:
    """Finds workers for all seats of a slot, or says why there are none (an unknown pool has no workers)."""
    if request.max_minutes is not None and request.minutes > request.max_minutes:
        return explain_too_long(calendar, request)
    view = survey(calendar, request)
    if view.fitting < request.seats:
        return explain_refusal(calendar, request, view)
    chosen = _select(calendar, request, view, most_seats_first=False)
    if len(chosen.workers) < request.seats and chosen.no_licence:
        chosen = _select(calendar, request, view, most_seats_first=True)
    if len(chosen.workers) < request.seats:
        return explain_refusal(calendar, request, view, chosen.no_ports, chosen.no_licence, len(chosen.workers))
    return _placement(calendar, request, view, chosen)


def best_for_a_seat(calendar: Calendar, request: PlacementRequest, most: int) -> list[str]:
    """The workers that a single seat would be placed on first, the best first, at most so many."""
    view = survey(calendar, request)
    if most < 1 or not view.fitting:
        return []
    roomy = Roomy.of(calendar, request, view)
    key = roomy.keys(calendar.policy(request.pool).spreading)
    order = np.argsort(key)[:most]
    return [calendar.fleet.view(int(roomy.columns[one])).name for one in order if key[one] != REFUSED]


def _select(calendar: Calendar, request: PlacementRequest, view: Survey, *, most_seats_first: bool) -> Selection:
    policy = calendar.policy(request.pool)
    if policy.spreading is Spreading.PACK and not most_seats_first:
        free = Roomy.on_anyway(calendar, request, view)
        if free is not None:
            chosen = _take(calendar, request, free, most_seats_first=False)
            if len(chosen.workers) == request.seats:
                return chosen
    return _take(calendar, request, Roomy.of(calendar, request, view), most_seats_first=most_seats_first)


def _take(calendar: Calendar, request: PlacementRequest, roomy: Roomy, *, most_seats_first: bool) -> Selection:
    fleet, policy = calendar.fleet, calendar.policy(request.pool)
    packed = policy.spreading is Spreading.PACK
    end = request.end + policy.turnaround
    amounts, names = amounts_of(request.demand), len(request.demand.ports)
    together = packed and request.seats > 1 and not most_seats_first
    key = roomy.keys(policy.spreading)
    if together:
        key = roomy.covering(key, request.seats)
    if most_seats_first:
        # fewest licences: workers that are on anyway, then those that take most seats, then the rule
        order = np.lexsort((key, -roomy.seats, roomy.added > 0))
        key[order] = np.arange(len(order))
    counted = bool(policy.licence_limits)
    numbers_in_use: dict[int, set[int]] = {}
    powered: dict[str, list[Span]] = {}
    out = Selection()
    while (left := request.seats - len(out.workers)) and len(key):
        place_in = int(key.argmin())
        if key[place_in] == REFUSED:
            break
        column = int(roomy.columns[place_in])
        worker = fleet.view(column)
        # the next seat would go to the same worker, which is on now and fuller; but not where seats are spread
        take = min(left, int(roomy.seats[place_in])) if packed or most_seats_first else 1
        numbers: tuple[int, ...] = ()
        if names:
            if column not in numbers_in_use:
                numbers_in_use[column] = calendar.ports_in_use(worker, request.start, end)
            numbers = lowest_free(worker.port_start, worker.port_end, numbers_in_use[column], take * names)
            take = len(numbers) // names
            if not take:
                out.no_ports.add(column)
                key = roomy.without(place_in, key, left, together=together)
                continue
        if column not in out.added:
            if counted and roomy.added[place_in] > 0:
                besides = powered.setdefault(worker.licence, [])
                if not calendar.licence_room(worker, request.start, end, besides):
                    out.no_licence.add(column)
                    key = roomy.without(place_in, key, left, together=together)
                    continue
                besides.extend(calendar.added_power(worker, request.start, end))
            out.added[column] = int(roomy.added[place_in])
            roomy.added[place_in] = 0  # it is on now
        if names:
            numbers_in_use[column].update(numbers[: take * names])
        for seat in range(take):
            out.workers.append(column)
            out.ports.append(numbers[seat * names : (seat + 1) * names])
        roomy.seats[place_in] -= take
        if not roomy.seats[place_in]:
            key[place_in] = REFUSED
        elif not packed and not most_seats_first:
            roomy.used[place_in] += sum(amounts[i] * fleet.share[i, column] for i in range(4))
            key[place_in] = roomy.key_when_on(policy.spreading, place_in)
    return out


@dataclass(slots=True)
class Roomy:
    """The workers that have room for a seat: what the score asks of them. Shrinking to them first makes the rest cheap."""

    columns: LongArray
    seats: IntArray
    """Seats that still fit."""
    added: IntArray
    """Minutes of power that the next seat adds."""
    used: FloatArray
    """What is in use with one more seat, as the score counts it."""
    late: IntArray | None
    rank: LongArray

    @classmethod
    def of(cls, calendar: Calendar, request: PlacementRequest, view: Survey) -> Roomy:
        """All of a survey."""
        fleet, columns = calendar.fleet, view.columns
        lead, bridge = fleet.lead.take(columns), fleet.bridge.take(columns)
        end = request.end + calendar.policy(request.pool).turnaround
        added = calendar.gaps.added_minutes(request.start, end, lead, bridge, columns)
        late = None if view.late is None else view.late.take(columns)
        return cls._priced(calendar, request, columns, view.seats.copy(), view.peaks, added, late)

    @classmethod
    def on_anyway(cls, calendar: Calendar, request: PlacementRequest, view: Survey) -> Roomy | None:
        """Those of a survey that add no power and are ready in time, where they have room for all seats: then nobody
        else comes into question (of a pool that packs), and no price needs to be worked out."""
        end = request.end + calendar.policy(request.pool).turnaround
        off = calendar.gaps.idle(request.start, end, view.columns)
        if view.late is not None:
            off |= view.late.take(view.columns) > 0
        on = np.flatnonzero(~off)
        seats = view.seats.take(on)
        if int(seats.sum()) < request.seats:
            return None
        added: IntArray = np.zeros(len(on), dtype=np.int32)
        return cls._priced(calendar, request, view.columns.take(on), seats, view.peaks.take(on, axis=1), added, None)

    @classmethod
    def _priced(
        cls,
        calendar: Calendar,
        request: PlacementRequest,
        columns: LongArray,
        seats: IntArray,
        peaks: IntArray,
        added: IntArray,
        late: IntArray | None,
    ) -> Roomy:
        fleet = calendar.fleet
        use = in_use if calendar.policy(request.pool).spreading is Spreading.PACK else fullness
        used = use(fleet, peaks, amounts_of(request.demand), columns)
        return cls(columns, seats, added, used, late, fleet.rank.take(columns))

    def keys(self, spreading: Spreading) -> LongArray:
        """Their keys for a single seat."""
        return keys(spreading, self.late, self.added, self.used, self.rank)

    def covering(self, key: LongArray, wanted: int) -> LongArray:
        """The keys (of a pool that packs; `key`: for a single seat) for seats that come together: who is on and ready in
        time keeps its key, and of the others only the set that adds least power for the seats that remain."""
        there = self.seats > 0
        costs = self.added > 0
        if self.late is not None:
            costs |= self.late > 0
        costs &= there
        left = wanted - int(self.seats[there & ~costs].sum())
        only = np.where(costs | ~there, REFUSED, key)
        if left <= 0:
            return only
        dear = np.where(costs, key, REFUSED)
        best = int(dear.argmin())
        if self.seats[best] >= left:
            only[best] = key[best]  # the cheapest of all holds them alone
            return only
        order = np.flatnonzero(costs)
        order = order[np.argsort(key[order])]
        holds = np.minimum(self.seats[order], left)
        looked = worth_a_look(holds, left)
        chosen = cheapest_cover(holds[looked].tolist(), [price_of(one) for one in key[order[looked]].tolist()], left)
        members = order[looked[chosen]]
        only[members] = key[members]
        return only

    def without(self, place_in: int, key: LongArray, wanted: int, *, together: bool) -> LongArray:
        """The keys when a worker turns out not to do."""
        self.seats[place_in] = 0
        key[place_in] = REFUSED
        return self.covering(self.keys(Spreading.PACK), wanted) if together else key

    def key_when_on(self, spreading: Spreading, place_in: int) -> int:
        """The key of a worker that has got a seat just now, for the next one."""
        late = 0 if self.late is None else int(self.late[place_in])
        return key_of(spreading, late, 0, float(self.used[place_in]), int(self.rank[place_in]))


def _placement(calendar: Calendar, request: PlacementRequest, view: Survey, chosen: Selection) -> Placement:
    fleet = calendar.fleet
    names = {column: fleet.view(column).name for column in chosen.added}
    seats: list[SeatPlacement] = []
    by_worker: dict[int, list[int]] = {}
    for number, column, ports in zip(request.numbers, chosen.workers, chosen.ports, strict=True):
        seats.append(SeatPlacement(number, names[column], name_ports(request.demand, ports)))
        by_worker.setdefault(column, []).append(number)
    columns = list(by_worker)
    where = np.searchsorted(view.columns, columns)
    needs = np.array(amounts_of(request.demand)[:4], dtype=np.int32)[:, None]
    counts = np.array([len(numbers) for numbers in by_worker.values()], dtype=np.int32)
    in_use_then = view.peaks[:4].take(where, axis=1) + needs * counts
    full = np.add.reduce(in_use_then * fleet.share.take(columns, axis=1), axis=0).round(4).tolist()
    late = [0] * len(columns) if view.late is None else view.late.take(columns).tolist()
    choices = tuple(
        SeatChoice(names[column], tuple(by_worker[column]), chosen.added[column], late_by, full_then)
        for column, late_by, full_then in zip(columns, late, full, strict=True)
    )
    packed = calendar.policy(request.pool).spreading is Spreading.PACK
    return Placement(request, tuple(seats), explain_placement(request, view, choices, packed))
