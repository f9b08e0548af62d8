"""Which workers could take a seat in a slot, and what removed the others.

The timeless filters come remembered from the fleet; here time is added: cordons that end, boot times, maintenance and
the free capacity at the slot's worst minute. A `Survey` is one look at the calendar; nothing is chosen in it. Exact
port numbers and counted licences are asked only of workers that are about to be chosen (see `place`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calendar import Calendar, seats_amounts
from .fleet import BoolArray, Eligibility, IntArray
from .model import Dimension, Filter, PlacementRequest
from .timeline import ROWS

MAINTENANCE_ROW = ROWS - 1
PORTS_ROW = list(Dimension).index(Dimension.PORTS)


@dataclass(slots=True)
class Survey:
    """What the calendar says about a request, by column."""

    eligibility: Eligibility
    candidates: BoolArray
    """Workers that only capacity can still refuse."""
    seats: IntArray
    """Seats that fit on each worker in the slot; 0 where a filter refuses it."""
    peaks: IntArray
    """What is used at the worst minute of the slot, by row."""
    late: IntArray | None
    """Minutes after the start at which each worker can be ready; None: all are in time."""
    removed: dict[str, int]
    """Workers that the filters up to `boot` removed."""


def survey(calendar: Calendar, request: PlacementRequest) -> Survey:
    """Looks at every worker for one slot."""
    fleet = calendar.fleet
    eligibility = fleet.eligible(request.pool, request.demand)
    candidates = eligibility.allowed
    removed: dict[str, int] = {}
    if request.exclude or fleet.cordoned:
        candidates = candidates.copy()
        columns = [fleet.columns[name] for name in sorted(request.exclude) if name in fleet.columns]
        _remove(candidates, columns, Filter.EXCLUDED, removed)
        cordoned = [column for column, until in fleet.cordoned.items() if until is None or request.start < until]
        _remove(candidates, cordoned, Filter.UNSCHEDULABLE, removed)
    policy = calendar.policy(request.pool)
    late: IntArray | None = None
    if request.start - request.now < fleet.longest_lead:
        late = np.maximum(calendar.ready(request.now) + policy.preparation - request.start, 0)
        if request.punctual:
            in_time = candidates & (late == 0)
            if gone := int(candidates.sum()) - int(in_time.sum()):
                removed[Filter.BOOT] = gone
            candidates = in_time
    peaks = calendar.timeline.peaks(request.start, request.end, request.end + policy.turnaround)
    seats = _seats_that_fit(fleet.capacity, peaks, request, candidates)
    return Survey(eligibility, candidates, seats, peaks, late, removed)


def _remove(candidates: BoolArray, columns: list[int], name: Filter, removed: dict[str, int]) -> None:
    gone = [column for column in columns if candidates[column]]
    if gone:
        candidates[gone] = False
        removed[name] = len(gone)


def _seats_that_fit(capacity: IntArray, peaks: IntArray, request: PlacementRequest, candidates: BoolArray) -> IntArray:
    free = capacity - peaks
    seats = np.where(candidates, np.int32(request.seats), np.int32(0))
    for row, need in enumerate(seats_amounts(request.demand)):
        if need == 1:
            np.minimum(seats, free[row], out=seats)
        elif need:
            np.minimum(seats, free[row] // np.int32(need), out=seats)
    return np.maximum(seats, 0, out=seats)
