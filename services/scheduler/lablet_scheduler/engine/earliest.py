"""The first start from which everything fits: for "as soon as possible" and for the suggestion in a refusal.

As a start moves on, a slot loses minutes at its front and gains some at its end, so the first feasible start is the
beginning of the search or a minute at which something becomes free: a seat, a maintenance span, a cordon, a boot, a
counted licence. A sweep over the days first finds, for all workers at once, the first start at which each could take
one seat; no start before enough workers have come that far needs a look. The rest are tried one by one, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .calendar import Calendar, seats_amounts
from .filters import survey
from .fleet import BoolArray, IntArray
from .model import Minute, Placement, PlacementRequest, Refusal
from .place import place
from .timeline import PAGE

HORIZON = 53 * 7 * 24 * 60
"""How far ahead a search looks unless it is told otherwise, in minutes."""

_NEVER = int(np.iinfo(np.int32).max)


def earliest(
    calendar: Calendar, request: PlacementRequest, after: Minute | None = None, horizon: int = HORIZON
) -> Minute | None:
    """The first start at or after `after` (default: the request's) at which all seats fit for the request's length.

    Workers must be ready by then: boot times count, whatever `request.punctual` says. None when there is no such start
    within `horizon` minutes.
    """
    found = place_earliest(calendar, request, after, horizon)
    return found.request.start if isinstance(found, Placement) else None


def place_earliest(
    calendar: Calendar, request: PlacementRequest, after: Minute | None = None, horizon: int = HORIZON
) -> Placement | Refusal:
    """The placement at the earliest start; the refusal at the first start when there is none within the horizon."""
    start = max(request.start if after is None else after, request.now)
    first = _try(calendar, request, start)
    if isinstance(first, Placement) or first.permanent:
        return first
    last = start + horizon
    for candidate in _candidates(calendar, request, start, last):
        moved = replace(request, start=candidate, end=candidate + request.minutes, punctual=True)
        if int(survey(calendar, moved).seats.sum()) < request.seats:
            continue
        decision = place(calendar, moved)
        if isinstance(decision, Placement):
            return decision
    return first


def _try(calendar: Calendar, request: PlacementRequest, start: Minute) -> Placement | Refusal:
    return place(calendar, replace(request, start=start, end=start + request.minutes, punctual=True))


def _candidates(calendar: Calendar, request: PlacementRequest, after: Minute, last: Minute) -> Iterator[Minute]:
    """Starts worth a try, in order: nothing becomes free in between."""
    single = _single_seat_starts(calendar, request, after, last)
    lower = _enough_workers(calendar, request, single)
    if lower is None:
        return
    allowed = calendar.fleet.eligible(request.pool, request.demand).allowed
    extra = _standing_changes(calendar, request)
    if calendar.policy(request.pool).licence_limits:
        extra |= _licence_changes(calendar, request, lower, last)
    tried = after
    for day, page in calendar.timeline.days(lower, last + 1):
        marks = {at for at in extra if day <= at < day + PAGE}
        if page is not None:
            offsets = np.unique(page.bounds[: page.segments, allowed])
            marks |= {day + int(offset) for offset in offsets if offset < PAGE}
        for at in sorted(marks):
            if max(tried + 1, lower) <= at <= last:
                tried = at
                yield at


def _single_seat_starts(calendar: Calendar, request: PlacementRequest, after: Minute, last: Minute) -> IntArray:
    """For each worker a start before which not even one seat fits."""
    fleet = calendar.fleet
    eligible = fleet.eligible(request.pool, request.demand).allowed
    preparation = calendar.policy(request.pool).preparation
    begin = np.maximum(calendar.ready(request.now) + preparation, after).astype(np.int32)
    for column, until in fleet.cordoned.items():
        begin[column] = _NEVER if until is None else max(int(begin[column]), until)
    for name in request.exclude:
        if name in fleet.columns:
            begin[fleet.columns[name]] = _NEVER
    begin[~eligible] = _NEVER
    found: IntArray = np.full(fleet.width, _NEVER, dtype=np.int32)
    needs = np.array(seats_amounts(request.demand), dtype=np.int32)[:, None]
    empty = fleet.eligible(request.pool, request.demand).seats_when_empty
    length = request.minutes
    room_from = begin
    for day, page in calendar.timeline.days(after, last + length):
        if page is None:
            steps: list[tuple[IntArray | int, BoolArray]] = [(day + PAGE, eligible)]
        else:
            steps = []
            for row in range(page.segments):
                fits = (fleet.capacity - page.use[:, row] >= needs).all(axis=0)
                fits |= page.bounds[row] == PAGE
                steps.append((page.bounds[row + 1].astype(np.int32) + day, fits))
        for end, fits in steps:
            room_from = np.where(fits, room_from, np.maximum(room_from, end))
            ready = (found == _NEVER) & (room_from < _NEVER) & (room_from + length <= end)
            if ready.any():
                found = np.where(ready, room_from, found)
        if int(empty[found < _NEVER].sum()) >= request.seats:
            break  # the rooms of the others begin where they stand now, or later
    return np.where(found == _NEVER, np.where(begin < _NEVER, room_from, _NEVER), found).astype(np.int32)


def _enough_workers(calendar: Calendar, request: PlacementRequest, single: IntArray) -> Minute | None:
    """The first minute by which so many workers have room that the seats might fit."""
    empty = calendar.fleet.eligible(request.pool, request.demand).seats_when_empty
    order = np.argsort(single, kind="stable")
    enough = np.flatnonzero(np.cumsum(empty[order].astype(np.int64)) >= request.seats)
    if not len(enough):
        return None
    at = int(single[order[enough[0]]])
    return None if at == _NEVER else at


def _standing_changes(calendar: Calendar, request: PlacementRequest) -> set[Minute]:
    """Ends of cordons, and the minutes at which workers are ready."""
    preparation = calendar.policy(request.pool).preparation
    minutes = {int(at) for at in np.unique(calendar.ready(request.now) + preparation)}
    minutes |= {until for until in calendar.fleet.cordoned.values() if until is not None}
    return minutes


def _licence_changes(calendar: Calendar, request: PlacementRequest, start: Minute, end: Minute) -> set[Minute]:
    """Starts at which a counted licence may become free, or no longer be needed."""
    workers = [worker for worker in calendar.workers() if worker.pool == request.pool]
    leads = {calendar.lead(worker) for worker in workers}
    drops = calendar.licence_drops(request.pool, start - max(leads, default=0), end)
    marks = {at + lead for at in drops for lead in leads}
    for worker in workers:
        for duty in calendar.duties(worker.name):
            marks |= {duty.start, duty.end, duty.end + calendar.bridge(worker) + 1}
    return marks
