"""The first start from which everything fits: for "as soon as possible" and for the suggestion in a refusal.

As a start moves on, a slot loses minutes at its front and gains some at its end, so the first feasible start is the
beginning of the search or a minute at which something becomes free: a seat, a maintenance span, a cordon, a boot, a
counted licence. Three steps skip what cannot be it. A sweep over the days finds, for all workers at once, the first
start at which each could take one seat: nothing is tried before enough workers have come that far. A slot that was
tried and has too little room tells from its own minutes how far the start must move at least until its front no longer
stands in the way. Where only port numbers or counted licences refuse, every minute at which anything changes is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .calendar import Calendar, seats_amounts
from .filters import Survey, survey
from .fleet import BoolArray, IntArray
from .model import Minute, Placement, PlacementRequest, Refusal
from .place import place
from .timeline import PAGE, SOFT, LongArray

HORIZON = 53 * 7 * 24 * 60
"""How far ahead a search looks unless it is told otherwise, in minutes."""

_NEVER = 2**62
"""Beyond every minute; minutes of the far future do not fit in 32 bits."""


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
    single = _single_seat_starts(calendar, request, start, last)
    at = _enough_workers(calendar, request, single)
    changes: Iterator[Minute] | None = None
    while at is not None and at <= last:
        moved = replace(request, start=at, end=at + request.minutes, punctual=True)
        view = survey(calendar, moved)
        if view.fitting < request.seats:
            at = _front_clear(calendar, moved, single)
            continue
        if _some_may_be_on(calendar, moved, view):
            decision = place(calendar, moved)
            if isinstance(decision, Placement):
                return decision
        changes = changes or _changes(calendar, moved, at + 1, last)
        at = _first_after(changes, at)
    return first


def _first_after(changes: Iterator[Minute], at: Minute) -> Minute | None:
    return next((change for change in changes if change > at), None)


def _some_may_be_on(calendar: Calendar, request: PlacementRequest, view: Survey) -> bool:
    """Whether a counted licence is left for any of the workers that have room; workers that are off all around the slot are
    asked once for all that are alike. What is tried without one is refused, at many times the cost."""
    policy = calendar.policy(request.pool)
    if not policy.licence_limits:
        return True
    end = request.end + policy.turnaround
    refused: set[tuple[str, int]] = set()
    for column in view.columns.tolist():
        worker = calendar.fleet.view(column)
        lead = calendar.lead(worker)
        is_off = not calendar.duties(worker.name) or (
            calendar.added_power(worker, request.start, end) == [(request.start - lead, end)]
        )
        if is_off and (worker.licence, lead) in refused:
            continue
        if calendar.licence_room(worker, request.start, end, ()):
            return True
        if is_off:
            refused.add((worker.licence, lead))
    return False


def _try(calendar: Calendar, request: PlacementRequest, start: Minute) -> Placement | Refusal:
    return place(calendar, replace(request, start=start, end=start + request.minutes, punctual=True))


def _changes(calendar: Calendar, request: PlacementRequest, after: Minute, last: Minute) -> Iterator[Minute]:
    """The minutes at which anything changes that the request could depend on, in order."""
    allowed = calendar.fleet.eligible(request.pool, request.demand).allowed
    standing = _standing_changes(calendar, request)
    if calendar.policy(request.pool).licence_limits:
        standing |= _licence_changes(calendar, request, after, last)
    for day, page in calendar.timeline.days(after, last + 1):
        marks = {at for at in standing if day <= at < day + PAGE}
        if page is not None:
            offsets = np.unique(page.bounds[: page.segments, allowed])
            marks |= {day + int(offset) for offset in offsets if offset < PAGE}
        yield from (at for at in sorted(marks) if after <= at <= last)


def _front_clear(calendar: Calendar, request: PlacementRequest, single: LongArray) -> Minute:
    """A later start before which the seats cannot fit, given that they do not fit at `request.start`.

    What a worker can take from a start on is at most what fits in each of its minutes from there to the present end of
    the slot. Read from the end to the front this is a falling staircase per worker; their sum, read forward, says when
    the seats could fit at the earliest. The present end is returned where that lies beyond it.
    """
    start, soft_end = request.start, request.end
    end = soft_end + calendar.policy(request.pool).turnaround
    columns = np.flatnonzero(single < _NEVER)
    limits = calendar.fleet.eligible(request.pool, request.demand).limits
    for part in calendar.timeline.window(soft_end - 1, soft_end, soft_end):
        # who is full at the very end has no room for any start before it: most workers, where the search is long
        columns = columns[(part.peaks(columns) <= limits.take(columns, axis=1)).all(axis=0)]
    room: IntArray = np.full(len(columns), request.seats, dtype=np.int32)
    times: list[LongArray] = []
    gains: list[IntArray] = []
    for day, page in reversed(list(calendar.timeline.days(start, end))):
        if page is None:
            continue
        count = page.segments
        bounds = page.bounds[: count + 1].take(columns, axis=1).astype(np.int64) + day
        fits = _seats_per_segment(
            calendar, request, page.use[:count].take(columns, axis=2), bounds[:count] < soft_end, columns
        )
        meets = (bounds[:count] < end) & (bounds[1:] > start)
        # from the last segment to the first: what is left of each worker's room
        left = np.minimum.accumulate(np.where(meets, fits, request.seats)[::-1], axis=0)
        np.minimum(left, room, out=left)
        lost = np.concatenate([room[None], left[:-1]]) - left
        row, where = np.nonzero(lost)
        times.append(np.maximum(bounds[:0:-1][row, where], single[columns[where]]))
        gains.append(lost[row, where])
        room = left[-1]
        # whoever has no room left here has none for an earlier start either
        columns, room = columns[room > 0], room[room > 0]
    waiting = np.flatnonzero(single[columns] > start)
    times.append(single[columns[waiting]])
    gains.append(room[waiting])
    when = np.concatenate(times)
    order = np.argsort(when, kind="stable")
    total = int(room.sum()) - int(room[waiting].sum()) + np.cumsum(np.concatenate(gains)[order])
    enough = np.flatnonzero(total >= request.seats)
    clear = int(when[order[enough[0]]]) if len(enough) else soft_end
    return max(start + 1, min(clear, soft_end))


def _seats_per_segment(
    calendar: Calendar, request: PlacementRequest, use: IntArray, soft: BoolArray, columns: LongArray
) -> IntArray:
    """Seats that fit in each segment of a page on some workers (`use`: theirs); cpu, memory and storage count only where
    `soft`."""
    fits: IntArray = np.full(soft.shape, request.seats, dtype=np.int32)
    for row, need in enumerate(seats_amounts(request.demand)):
        if need:
            free = (calendar.fleet.capacity[row, columns] - use[:, row]) // np.int32(need)
            np.minimum(fits, np.where(soft, free, request.seats) if row < SOFT else free, out=fits)
    return np.maximum(fits, 0, out=fits)


def _single_seat_starts(calendar: Calendar, request: PlacementRequest, after: Minute, last: Minute) -> LongArray:
    """For each worker a start before which not even one seat fits."""
    fleet = calendar.fleet
    eligible = fleet.eligible(request.pool, request.demand).allowed
    preparation = calendar.policy(request.pool).preparation
    begin = np.maximum(calendar.ready(request.now).astype(np.int64) + preparation, after)
    for column, until in fleet.cordoned.items():
        begin[column] = _NEVER if until is None else max(int(begin[column]), until)
    for name in request.exclude:
        if name in fleet.columns:
            begin[fleet.columns[name]] = _NEVER
    begin[~eligible] = _NEVER
    found: LongArray = np.full(fleet.width, _NEVER, dtype=np.int64)
    most = fleet.capacity - np.array(seats_amounts(request.demand), dtype=np.int32)[:, None]
    empty = fleet.eligible(request.pool, request.demand).seats_when_empty
    length = request.minutes
    room_from = begin
    for day, page in calendar.timeline.days(after, last + length):
        if page is None:
            steps: list[tuple[LongArray | int, BoolArray]] = [(day + PAGE, eligible)]
        else:
            steps = []
            roomy = (page.use[: page.segments] <= most).all(axis=1)
            roomy |= page.bounds[: page.segments] == PAGE  # rows that a worker does not use
            ends = page.bounds[1 : page.segments + 1].astype(np.int64) + day
            steps += zip(ends, roomy, strict=True)
        for end, fits in steps:
            room_from = np.where(fits, room_from, np.maximum(room_from, end))
            ready = (found == _NEVER) & (room_from < _NEVER) & (room_from + length <= end)
            if ready.any():
                found = np.where(ready, room_from, found)
        if int(empty[found < _NEVER].sum()) >= request.seats:
            break  # the rooms of the others begin where they stand now, or later
    return np.where(found == _NEVER, np.where(begin < _NEVER, room_from, _NEVER), found)


def _enough_workers(calendar: Calendar, request: PlacementRequest, single: LongArray) -> Minute | None:
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
