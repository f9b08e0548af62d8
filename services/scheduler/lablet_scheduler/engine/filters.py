"""Which workers could take a seat in a slot, and what removed the others.

The timeless filters come remembered from the fleet; here time is added: cordons that end, boot times, maintenance and
the free capacity at the slot's worst minute. A `Survey` is one look at the calendar; nothing is chosen in it. Exact
port numbers and counted licences are asked only of workers that are about to be chosen (see `place`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calendar import Calendar
from .fleet import BoolArray, Eligibility, IntArray
from .model import Dimension, Filter, PlacementRequest
from .room import with_room
from .timeline import ROWS, LongArray

MAINTENANCE_ROW = ROWS - 1
PORTS_ROW = list(Dimension).index(Dimension.PORTS)


@dataclass(slots=True)
class Survey:
    """What the calendar says about a request."""

    eligibility: Eligibility
    candidates: BoolArray
    """By column: workers that only capacity can still refuse."""
    columns: LongArray
    """Those of them with room for a seat, in the order of their columns."""
    seats: IntArray
    """For each of `columns`, the seats that fit in the slot (as many as are wanted at most)."""
    peaks: IntArray
    """For each of `columns`, what is used at the worst minute of the slot, by row."""
    late: IntArray | None
    """By column, minutes after the start at which each worker can be ready; None: all are in time."""
    removed: dict[str, int]
    """Workers that the filters up to `boot` removed."""

    @property
    def fitting(self) -> int:
        """Seats that fit in all."""
        return int(self.seats.sum())


def survey(calendar: Calendar, request: PlacementRequest) -> Survey:
    """Looks for the workers that have room for a seat in one slot."""
    fleet = calendar.fleet
    eligibility = fleet.eligible(request.pool, request.demand)
    candidates = eligibility.allowed
    removed: dict[str, int] = {}
    if request.exclude or fleet.cordoned:
        candidates = candidates.copy()
        excluded = [fleet.columns[name] for name in sorted(request.exclude) if name in fleet.columns]
        _remove(candidates, excluded, Filter.EXCLUDED, removed)
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
    parts = calendar.timeline.window(request.start, request.end, request.end + policy.turnaround)
    columns, seats, peaks = with_room(calendar.timeline, eligibility, parts, request.seats, candidates)
    return Survey(eligibility, candidates, columns, seats, peaks, late, removed)


def everywhere(calendar: Calendar, request: PlacementRequest, view: Survey) -> tuple[IntArray, IntArray]:
    """The seats that fit on each worker (0 where a filter refuses it) and the peaks of all: for refusals, which look at
    those that have no room. By column."""
    end = request.end + calendar.policy(request.pool).turnaround
    peaks = calendar.timeline.peaks(request.start, request.end, end)
    seats = np.zeros(calendar.fleet.width, dtype=np.int32)
    seats[view.columns] = view.seats
    return seats, peaks


def _remove(candidates: BoolArray, columns: list[int], name: Filter, removed: dict[str, int]) -> None:
    gone = [column for column in columns if candidates[column]]
    if gone:
        candidates[gone] = False
        removed[name] = len(gone)
