"""The wait list: who goes next when something has come free, and who may go ahead of whom.

Order: priority, then time of request. A later request may go first only if it delays none ahead, and to be sure of
that the rule is conservative: a request that still does not fit keeps the workers on which it came closest, as a
shadow that nobody behind it may use in its slot. So a small request slips past a large one in another slot, or on
workers that the large one would not get anyway, and never eats the room that the large one is waiting for.

What it does not do: it does not place anything. Each outcome is a proposal; book the placements in the given order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from .calendar import Calendar, seats_amounts
from .earliest import place_earliest
from .filters import everywhere, survey
from .fleet import BLOCKED, UNLIMITED
from .model import Minute, Placement, PlacementRequest, Refusal
from .place import place
from .score import FloatArray


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request on the wait list."""

    request: PlacementRequest
    requested_at: datetime
    """When it was made, to the instant (two of one minute have an order too): the earlier one is ahead at equal
    priority."""
    latest_start: Minute | None = None
    """For "as soon as possible": it may start later than `request.start`, up to here. None: only in its slot."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of one waiting request."""

    waiting: Waiting
    decision: Placement | Refusal
    overtook: tuple[str, ...] = ()
    """Reservations ahead of it that still wait (and are not delayed by it)."""


def waiting_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """The highest priority first, then the oldest request, then the reservation's id."""
    return sorted(waiting, key=lambda one: (-one.request.priority, one.requested_at, one.request.reservation))


def retry(calendar: Calendar, waiting: Iterable[Waiting], now: Minute) -> list[Retried]:
    """Tries all waiting requests in their order; the calendar is not changed. Slots that have begun are not tried."""
    scratch = calendar.copy()
    still: list[str] = []
    results: list[Retried] = []
    for one in waiting_order(waiting):
        request = replace(one.request, now=now)
        if one.latest_start is not None:
            begin = max(request.start, now)
            if one.latest_start < begin:
                continue
            decision = place_earliest(scratch, request, begin, one.latest_start - begin)
        elif request.start < now:
            continue
        else:
            decision = place(scratch, request)
        if isinstance(decision, Placement):
            scratch.book_all(decision.bookings(), check=False)
            results.append(Retried(one, decision, tuple(still)))
        else:
            _cast_shadow(scratch, decision.request)
            still.append(request.reservation)
            results.append(Retried(one, decision))
    return results


def _cast_shadow(scratch: Calendar, request: PlacementRequest) -> None:
    """Closes, for the request's slot, the workers on which its seats came closest to fitting."""
    view = survey(scratch, request)
    fits, peaks = everywhere(scratch, request, view)
    fleet = scratch.fleet
    columns = np.flatnonzero(view.eligibility.ever)
    if not len(columns):
        return
    needs = np.array(seats_amounts(request.demand)[:-1], dtype=np.int64)[:, None]
    capacity = np.maximum(fleet.capacity[:-1, columns].astype(np.int64), 1)
    lacking: FloatArray = np.maximum(needs - (capacity - peaks[:-1, columns]), 0).astype(np.float64) / capacity
    order = np.lexsort((fleet.rank[columns], lacking.max(axis=0), -fits[columns]))
    end = request.end + scratch.policy(request.pool).turnaround
    seats = request.seats
    for index in order:
        if seats <= 0:
            return
        column = int(columns[index])
        scratch.timeline.add(column, request.start, end, end, (0, 0, 0, 0, 0, BLOCKED))
        seats -= max(1, min(int(view.eligibility.seats_when_empty[column]), UNLIMITED))
