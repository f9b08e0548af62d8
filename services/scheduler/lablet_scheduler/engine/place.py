"""Placing the seats of one slot: all of them or none, on as many workers as it takes.

One look at the calendar (`survey`) says how many seats fit where; then seat by seat the worker with the best score is
taken, and as a worker that has one seat is on anyway and fuller, the next seat tends to follow it. Where a pool packs,
the power that a worker adds is shared by the seats that it would take: four seats go to the one worker that holds them
all rather than to two that are a little cheaper each. Seats are alike and
workers independent, so this order never loses a placement, but for two things that are asked only of a chosen worker:
port numbers (first-fit may find none although the count would do) and counted licences, which workers compete for.
Where licences run out, a second pass takes the workers that hold most seats first.

`place` changes nothing: `calendar.book_all(placement.bookings())` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .calendar import Calendar
from .explain import explain_placement, explain_refusal
from .filters import Survey, survey
from .fleet import Fleet, IntArray, amounts_of
from .model import Placement, PlacementRequest, Refusal, SeatChoice, SeatPlacement, Span, Spreading
from .ports import name_ports
from .score import REFUSED, FloatArray, LongArray, fullness, in_use, key_of, keys


@dataclass(slots=True)
class Selection:
    """Seats given out so far, and what stood in the way."""

    workers: list[int] = field(default_factory=list)
    """Column of each seat, in the order of the seats."""
    ports: list[tuple[int, ...]] = field(default_factory=list)
    added: dict[int, int] = field(default_factory=dict)
    """Column → minutes of power that its first seat added."""
    full: dict[int, float] = field(default_factory=dict)
    no_ports: set[int] = field(default_factory=set)
    no_licence: set[int] = field(default_factory=set)


def place(calendar: Calendar, request: PlacementRequest) -> Placement | Refusal:
    """Finds workers for all seats of a slot, or says why there are none (an unknown pool has no workers)."""
    if request.max_minutes is not None and request.minutes > request.max_minutes:
        return explain_refusal(calendar, request, survey(calendar, request))
    view = survey(calendar, request)
    if int(view.seats.sum()) < request.seats:
        return explain_refusal(calendar, request, view)
    chosen = _select(calendar, request, view, most_seats_first=False)
    if len(chosen.workers) < request.seats and chosen.no_licence:
        chosen = _select(calendar, request, view, most_seats_first=True)
    if len(chosen.workers) < request.seats:
        return explain_refusal(calendar, request, view, chosen.no_ports, chosen.no_licence, len(chosen.workers))
    return _placement(calendar, request, view, chosen)


def simulate(calendar: Calendar, requests: Iterable[PlacementRequest]) -> list[Placement | Refusal]:
    """What would come of several requests, decided one after another; the calendar stays as it is."""
    scratch = calendar.copy()
    decisions: list[Placement | Refusal] = []
    for request in requests:
        decision = place(scratch, request)
        if isinstance(decision, Placement):
            scratch.book_all(decision.bookings(), check=False)
        decisions.append(decision)
    return decisions


def _select(calendar: Calendar, request: PlacementRequest, view: Survey, *, most_seats_first: bool) -> Selection:
    fleet, policy = calendar.fleet, calendar.policy(request.pool)
    end = request.end + policy.turnaround
    amounts = amounts_of(request.demand)
    added = calendar.gaps.added_minutes(request.start, end, fleet.lead, fleet.bridge)
    full = fullness(fleet, view.peaks, amounts)
    packs = policy.spreading is Spreading.PACK
    used = in_use(fleet, view.peaks, amounts) if packs else full.copy()
    weight = fleet.scale if packs else fleet.share
    key = keys(policy.spreading, view.late, added, used, fleet)
    if most_seats_first:
        # fewest licences: workers that are on anyway, then those that take most seats, then the rule
        order = np.lexsort((key, -view.seats, added > 0))
        key = np.empty_like(key)
        key[order] = np.arange(len(order))
    key = np.where(view.seats > 0, key, REFUSED)
    counted = bool(policy.licence_limits)
    together = packs and request.seats > 1 and not most_seats_first
    if together:
        key = _together(view, added, used, fleet, request.seats)
    per_seat: dict[int, float] = {}
    left: dict[int, int] = {}
    taken: dict[int, list[int]] = {}
    powered: dict[str, list[Span]] = {}
    out = Selection()
    while len(out.workers) < request.seats:
        column = int(key.argmin())
        if key[column] == REFUSED:
            break
        worker = fleet.view(column)
        numbers: tuple[int, ...] = ()
        if request.demand.ports:
            others = taken.get(column, [])
            found = calendar.free_ports(worker, request.start, end, len(request.demand.ports), others)
            if found is None:
                out.no_ports.add(column)
                key[column] = REFUSED
                continue
            numbers = found
        if column not in left:
            if counted and added[column] > 0:
                besides = powered.setdefault(worker.licence, [])
                if not calendar.licence_room(worker, request.start, end, besides):
                    out.no_licence.add(column)
                    key[column] = REFUSED
                    continue
                besides.extend(calendar.added_power(worker, request.start, end))
            left[column] = int(view.seats[column])
            out.added[column] = int(added[column])
            added[column] = 0  # it is on now
            out.full[column] = float(full[column])
            share = fleet.share[:, column]
            per_seat[column] = float(sum(amounts[i] * share[i] for i in range(4)))
        else:
            out.full[column] += per_seat[column]
        if numbers:
            taken.setdefault(column, []).extend(numbers)
        out.workers.append(column)
        out.ports.append(numbers)
        left[column] -= 1
        if not left[column]:
            key[column] = REFUSED
            if together and len(out.workers) < request.seats:
                fresh = _together(view, added, used, fleet, request.seats - len(out.workers))
                key = np.where(key == REFUSED, REFUSED, fresh)
        elif not most_seats_first:
            late = 0 if view.late is None else int(view.late[column])
            used[column] += float(sum(amounts[i] * weight[i, column] for i in range(4)))
            key[column] = key_of(policy.spreading, late, 0, float(used[column]), int(fleet.rank[column]))
    return out


def _together(view: Survey, added: IntArray, used: FloatArray, fleet: Fleet, wanted: int) -> LongArray:
    """Keys for seats that come together: the power that a worker adds counts per seat that it would take."""
    takes = np.clip(view.seats, 1, wanted)
    share = keys(Spreading.PACK, view.late, -(-added // takes), used, fleet)
    return np.where(view.seats > 0, share, REFUSED)


def _placement(calendar: Calendar, request: PlacementRequest, view: Survey, chosen: Selection) -> Placement:
    fleet = calendar.fleet
    seats: list[SeatPlacement] = []
    by_worker: dict[int, list[int]] = {}
    for number, column, ports in zip(request.numbers, chosen.workers, chosen.ports, strict=True):
        seats.append(SeatPlacement(number, fleet.view(column).name, name_ports(request.demand, ports)))
        by_worker.setdefault(column, []).append(number)
    choices = tuple(
        SeatChoice(
            worker=fleet.view(column).name,
            seats=tuple(numbers),
            added_on_minutes=chosen.added[column],
            late_minutes=0 if view.late is None else int(view.late[column]),
            fullness=round(chosen.full[column], 4),
        )
        for column, numbers in by_worker.items()
    )
    spreading = calendar.policy(request.pool).spreading
    return Placement(request, tuple(seats), explain_placement(request, view, choices, spreading is Spreading.PACK))
