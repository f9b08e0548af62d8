"""Why a decision came out as it did: counts, the binding constraint, the nearest miss, and a sentence.

A worker is counted once, at the first filter that removes it. The binding constraint of a full slot is the dimension
that limits the most workers; where no worker comes as far as capacity, it is the filter that removed the most. A
refusal is permanent when the pool, empty and in order, could not take the seats either; failed and cordoned workers
count as in order there, because they come back. Its reasons are of that kind alone: nobody is "full" in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .calendar import DIMENSIONS, Calendar, seats_amounts, shortage
from .filters import MAINTENANCE_ROW, PORTS_ROW, Survey, everywhere
from .fleet import IntArray, amounts_of, capacity_of
from .model import (
    Dimension,
    Explanation,
    Filter,
    NearestMiss,
    PlacementRequest,
    Refusal,
    SeatChoice,
)
from .timeline import LongArray
from .wording import REASONS, seat_count, sentence, what_is_short, why, worker_count


def explain_placement(
    request: PlacementRequest, view: Survey, choices: tuple[SeatChoice, ...], packed: bool
) -> Explanation:
    """Why these workers."""
    feasible = len(view.columns)
    parts = [why(choice, packed) for choice in choices[:3]]
    if len(choices) > 3:
        parts.append(f"and {len(choices) - 3} more workers")
    summary = f"{seat_count(request.seats)} placed; {worker_count(feasible)} had room. " + "; ".join(parts) + "."
    return Explanation(
        summary=summary,
        considered=view.eligibility.considered,
        removed={**view.eligibility.removed, **view.removed},
        seats_wanted=request.seats,
        seats_fitting=request.seats,
        choices=choices,
        feasible=feasible,
    )


def explain_too_long(calendar: Calendar, request: PlacementRequest) -> Refusal:
    """Longer than the definition allows: no day of it is looked at, and there may be millions."""
    considered = calendar.fleet.eligible(request.pool, request.demand).considered
    too_long = NearestMiss(None, Filter.DURATION, request.minutes, request.max_minutes or 0)
    summary = f"The slot is {request.minutes} minutes long, the definition allows {request.max_minutes}."
    removed = {str(Filter.DURATION): considered}
    return Refusal(request, True, Explanation(summary, considered, removed, Filter.DURATION, too_long, request.seats))


def explain_refusal(
    calendar: Calendar,
    request: PlacementRequest,
    view: Survey,
    no_ports: Collection[int] = (),
    no_licence: Collection[int] = (),
    placed: int | None = None,
) -> Refusal:
    """Why not: `no_ports` and `no_licence` are the columns that came so far and failed there, `placed` the seats that
    had a place before (None: as many as capacity admits)."""
    considered = view.eligibility.considered
    possible = seats_ever(calendar, request, view)
    if considered > 0 and possible < request.seats:
        return _refused_for_ever(calendar, request, view, possible)
    removed = {**view.eligibility.removed, **view.removed}
    seats, peaks = everywhere(calendar, request, view)
    for name, count in _capacity_counts(calendar, request, view, seats, peaks).items():
        removed[name] = removed.get(name, 0) + count
    for name, columns in ((Filter.PORTS, no_ports), (Filter.LICENCE_COUNT, no_licence)):
        if columns:
            removed[name] = removed.get(name, 0) + len(columns)
    fitting = min(view.fitting, request.seats) if placed is None else placed
    binding, miss = _binding(calendar, request, view, removed, no_ports, no_licence, peaks)
    explanation = Explanation(
        summary=sentence(request, removed, considered, fitting, binding, miss),
        considered=considered,
        removed=removed,
        binding=binding,
        nearest=miss,
        seats_wanted=request.seats,
        seats_fitting=fitting,
        feasible=len(view.columns) - len(no_ports) - len(no_licence),
    )
    return Refusal(request, False, explanation)


def seats_ever(calendar: Calendar, request: PlacementRequest, view: Survey) -> int:
    """The seats that the pool could take with nothing booked and every worker in order."""
    limits = calendar.policy(request.pool).licence_limits
    empty = view.eligibility.seats_when_empty
    if not limits:
        return int(empty.sum())
    return sum(sum(seats[: limits.get(kind, len(seats))]) for kind, seats in _seats_by_licence(calendar, view).items())


def _seats_by_licence(calendar: Calendar, view: Survey) -> dict[str, list[int]]:
    """Licence kind → the seats of each of its workers when empty, the most first."""
    by_kind: dict[str, list[int]] = {}
    for column in np.flatnonzero(view.eligibility.ever):
        worker = calendar.fleet.view(int(column))
        by_kind.setdefault(worker.licence, []).append(int(view.eligibility.seats_when_empty[column]))
    return {kind: sorted(seats, reverse=True) for kind, seats in by_kind.items()}


def _refused_for_ever(calendar: Calendar, request: PlacementRequest, view: Survey, possible: int) -> Refusal:
    """Only what never changes counts here: who is full, cordoned or failed at the moment is not the reason."""
    considered = view.eligibility.considered
    removed = {name: count for name, count in view.eligibility.removed.items() if name != Filter.FAILED}
    admitted = int(view.eligibility.ever.sum())
    binding: str
    miss: NearestMiss | None
    if admitted and int(view.eligibility.seats_when_empty.sum()) >= request.seats:
        binding, miss = _short_licences(calendar, request, view)
    elif admitted:
        binding, miss = _short_dimension(
            calendar, request, np.flatnonzero(view.eligibility.ever), calendar.fleet.capacity
        )
    else:
        binding, miss = _short_filter(calendar, request, view, removed)
    reasons = [f"{count} {REASONS[name]}" for name, count in removed.items()]
    if admitted:
        held = f"{seat_count(possible)} when nothing is booked"
        which = "those that may host it hold" if reasons else "together they hold"
        if admitted == 1:
            which = "the one that may host it holds" if reasons else "it holds"
        reasons.append(f"{which} {held}")
    head = f"{seat_count(request.seats)} can never fit in pool {request.pool}"
    summary = f"{head}: of {worker_count(considered)}, {', '.join(reasons)}." + what_is_short(binding, miss)
    explanation = Explanation(
        summary=summary,
        considered=considered,
        removed=removed,
        binding=binding,
        nearest=miss,
        seats_wanted=request.seats,
        seats_fitting=possible,
    )
    return Refusal(request, True, explanation)


def _short_licences(calendar: Calendar, request: PlacementRequest, view: Survey) -> tuple[str, NearestMiss]:
    """How many workers would have to be on at the same time, and how many may be."""
    limits = calendar.policy(request.pool).licence_limits
    by_kind = _seats_by_licence(calendar, view)
    may = sum(min(limits.get(kind, len(seats)), len(seats)) for kind, seats in by_kind.items())
    needed, held = 0, 0
    for most in sorted((one for seats in by_kind.values() for one in seats), reverse=True):
        if held >= request.seats:
            break
        needed, held = needed + 1, held + most
    return Filter.LICENCE_COUNT, NearestMiss(None, Filter.LICENCE_COUNT, max(needed, may + 1), may)


def _capacity_counts(
    calendar: Calendar, request: PlacementRequest, view: Survey, seats: IntArray, peaks: IntArray
) -> dict[str, int]:
    full = view.candidates & (seats == 0)
    if not full.any():
        return {}
    free = calendar.fleet.capacity - peaks
    needs = np.array(seats_amounts(request.demand), dtype=np.int32)[:, None]
    short = free < needs
    maintained = full & short[MAINTENANCE_ROW]
    rest = full & ~maintained
    ports = rest & short[PORTS_ROW] & ~short[:PORTS_ROW].any(axis=0)
    counts = {
        Filter.MAINTENANCE: int(maintained.sum()),
        Filter.CAPACITY: int(rest.sum()) - int(ports.sum()),
        Filter.PORTS: int(ports.sum()),
    }
    return {name: count for name, count in counts.items() if count}


def _binding(
    calendar: Calendar,
    request: PlacementRequest,
    view: Survey,
    removed: Mapping[str, int],
    no_ports: Collection[int],
    no_licence: Collection[int],
    peaks: IntArray,
) -> tuple[str, NearestMiss | None]:
    if no_licence:
        worker = calendar.fleet.view(min(no_licence, key=lambda column: calendar.fleet.rank[column]))
        limit = calendar.licence_limit(worker) or 0
        return Filter.LICENCE_COUNT, NearestMiss(worker.name, Filter.LICENCE_COUNT, limit + 1, limit)
    if no_ports:
        worker = calendar.fleet.view(min(no_ports, key=lambda column: calendar.fleet.rank[column]))
        end = calendar.policy(request.pool).turnaround + request.end
        wanted, free = len(request.demand.ports), 0
        while free < wanted and calendar.free_ports(worker, request.start, end, free + 1, ()) is not None:
            free += 1
        return Dimension.PORTS, NearestMiss(worker.name, Dimension.PORTS, wanted, free)
    if view.candidates.any():
        return _short_dimension(calendar, request, np.flatnonzero(view.candidates), calendar.fleet.capacity - peaks)
    return _short_filter(calendar, request, view, removed)


def _short_filter(
    calendar: Calendar, request: PlacementRequest, view: Survey, removed: Mapping[str, int]
) -> tuple[str, NearestMiss | None]:
    """The filter that removed the most workers (of this pool, if it has any)."""
    counts = {name: count for name, count in removed.items() if name != Filter.POOL} or removed
    if not counts:
        return Filter.POOL, None
    order = list(Filter)
    name = max(counts, key=lambda each: (counts[each], -order.index(Filter(each))))
    return name, _miss_before_capacity(calendar, request, view, name)


def _short_dimension(
    calendar: Calendar, request: PlacementRequest, columns: LongArray, free: IntArray
) -> tuple[str, NearestMiss]:
    """The dimension that limits most of some workers, and the one of them that lacks the smallest share for one more
    seat (`free`: by row, of all workers)."""
    fleet = calendar.fleet
    needs = np.array(seats_amounts(request.demand), dtype=np.int64)
    asked = np.flatnonzero(needs)
    free = free[np.ix_(asked, columns)].astype(np.int64)
    needs = needs[asked][:, None]
    seats = np.clip(free // needs, 0, request.seats)
    least = seats.min(axis=0)
    limiting = asked[seats.argmin(axis=0)]
    counts = np.bincount(limiting[least < request.seats], minlength=MAINTENANCE_ROW + 1)
    row = int(counts.argmax())
    rest = free - least * needs
    capacity = np.maximum(fleet.capacity[np.ix_(asked, columns)], 1)
    lacking = ((needs - rest) / capacity).max(axis=0)
    lacking[least >= request.seats] = np.inf
    where = int(np.lexsort((fleet.rank[columns], lacking))[0])
    miss_row = int(((needs - rest) / capacity)[:, where].argmax())
    worker = fleet.view(int(columns[where]))
    miss = shortage(worker.name, int(asked[miss_row]), int(needs[miss_row, 0]), max(int(rest[miss_row, where]), 0))
    name = Filter.MAINTENANCE if row == MAINTENANCE_ROW else DIMENSIONS[row]
    return name, miss


def _miss_before_capacity(calendar: Calendar, request: PlacementRequest, view: Survey, name: str) -> NearestMiss | None:
    if name == Filter.BOOT and view.late is not None:
        late = np.where(view.eligibility.allowed, view.late, np.iinfo(np.int32).max)
        column = int(np.lexsort((calendar.fleet.rank, late))[0])
        ahead = max(request.start - request.now, 0)
        return NearestMiss(calendar.fleet.view(column).name, Filter.BOOT, ahead + int(late[column]), ahead)
    if name in (Filter.SIZE, Filter.NODE_LIMIT):
        amounts = amounts_of(request.demand)
        best: tuple[float, str, int, int] | None = None
        for worker in calendar.workers():
            if worker.pool != request.pool:
                continue
            capacity = capacity_of(worker)
            row = max(range(len(DIMENSIONS)), key=lambda i: (amounts[i] - capacity[i]) / max(amounts[i], 1))
            lacking = (amounts[row] - capacity[row]) / max(amounts[row], 1)
            if lacking > 0 and (best is None or lacking < best[0]):
                best = (lacking, worker.name, row, capacity[row])
        if best is not None:
            return shortage(best[1], best[2], amounts[best[2]], best[3])
    return None
