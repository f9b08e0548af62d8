"""Why a decision came out as it did: counts, the binding constraint, the nearest miss, and a sentence.

A worker is counted once, at the first filter that removes it. The binding constraint of a full slot is the dimension
that limits the most workers; where no worker comes as far as capacity, it is the filter that removed the most. A
refusal is permanent when the pool, empty and in order, could not take the seats either; failed and cordoned workers
count as in order there, because they come back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .calendar import DIMENSIONS, Calendar, seats_amounts, shortage
from .filters import MAINTENANCE_ROW, PORTS_ROW, Survey
from .fleet import amounts_of, capacity_of
from .model import (
    Dimension,
    Explanation,
    Filter,
    NearestMiss,
    PlacementRequest,
    Refusal,
    SeatChoice,
)

_REASONS: Mapping[str, str] = {
    Filter.POOL: "in another pool",
    Filter.EXCLUDED: "excluded by the request",
    Filter.SELECTOR: "without the wanted labels",
    Filter.RUNTIME: "with another runtime",
    Filter.LICENCE: "with a licence kind that may not host it",
    Filter.VERSION: "with a runtime version out of range",
    Filter.NODE_DEFINITIONS: "without a needed node definition",
    Filter.NODE_LIMIT: "with too small a node limit",
    Filter.SIZE: "too small even when empty",
    Filter.FAILED: "failed",
    Filter.UNSCHEDULABLE: "cordoned",
    Filter.BOOT: "not up in time",
    Filter.MAINTENANCE: "in maintenance",
    Filter.CAPACITY: "full",
    Filter.PORTS: "without free ports",
    Filter.LICENCE_COUNT: "without a free licence",
}

_QUANTITIES: Mapping[str, str] = {
    Dimension.CPU: "CPU cores",
    Dimension.MEMORY: "GB of memory",
    Dimension.STORAGE: "GB of storage",
    Dimension.NODES: "licensed nodes",
    Dimension.PORTS: "ports",
    Filter.MAINTENANCE: "minutes without maintenance",
    Filter.LICENCE_COUNT: "licences",
    Filter.BOOT: "minutes to boot and prepare",
    Filter.DURATION: "minutes",
}


def explain_placement(
    request: PlacementRequest, view: Survey, choices: tuple[SeatChoice, ...], packed: bool
) -> Explanation:
    """Why these workers."""
    feasible = int((view.seats > 0).sum())
    parts = [_why(choice, packed) for choice in choices[:3]]
    if len(choices) > 3:
        parts.append(f"and {len(choices) - 3} more workers")
    summary = f"{_seats(request.seats)} placed; {_workers(feasible)} had room. " + "; ".join(parts) + "."
    return Explanation(
        summary=summary,
        considered=view.eligibility.considered,
        removed={**view.eligibility.removed, **view.removed},
        seats_wanted=request.seats,
        seats_fitting=request.seats,
        choices=choices,
        feasible=feasible,
    )


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
    if request.max_minutes is not None and request.minutes > request.max_minutes:
        too_long = NearestMiss(None, Filter.DURATION, request.minutes, request.max_minutes)
        summary = f"The slot is {request.minutes} minutes long, the definition allows {request.max_minutes}."
        removed = {str(Filter.DURATION): considered}
        return Refusal(
            request, True, Explanation(summary, considered, removed, Filter.DURATION, too_long, request.seats)
        )
    removed = {**view.eligibility.removed, **view.removed}
    for name, count in _capacity_counts(calendar, request, view).items():
        removed[name] = removed.get(name, 0) + count
    for name, columns in ((Filter.PORTS, no_ports), (Filter.LICENCE_COUNT, no_licence)):
        if columns:
            removed[name] = removed.get(name, 0) + len(columns)
    fitting = min(int(view.seats.sum()), request.seats) if placed is None else placed
    permanent = considered > 0 and not fits_ever(calendar, request, view)
    binding, miss = _binding(calendar, request, view, removed, no_ports, no_licence, permanent)
    explanation = Explanation(
        summary=_sentence(request, removed, considered, fitting, binding, miss, permanent),
        considered=considered,
        removed=removed,
        binding=binding,
        nearest=miss,
        seats_wanted=request.seats,
        seats_fitting=fitting,
        feasible=int((view.seats > 0).sum()) - len(no_ports) - len(no_licence),
    )
    return Refusal(request, permanent, explanation)


def fits_ever(calendar: Calendar, request: PlacementRequest, view: Survey) -> bool:
    """True when the pool, with nothing booked and every worker in order, could take all seats."""
    limits = calendar.policy(request.pool).licence_limits
    empty = view.eligibility.seats_when_empty
    if not limits:
        return int(empty.sum()) >= request.seats
    by_kind: dict[str, list[int]] = {}
    for column in np.flatnonzero(view.eligibility.ever):
        worker = calendar.fleet.view(int(column))
        by_kind.setdefault(worker.licence, []).append(int(empty[column]))
    total = 0
    for kind, seats in by_kind.items():
        seats.sort(reverse=True)
        total += sum(seats[: limits.get(kind, len(seats))])
    return total >= request.seats


def _capacity_counts(calendar: Calendar, request: PlacementRequest, view: Survey) -> dict[str, int]:
    full = view.candidates & (view.seats == 0)
    if not full.any():
        return {}
    free = calendar.fleet.capacity - view.peaks
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
    permanent: bool,
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
    candidates = view.candidates if not permanent else view.eligibility.ever
    if candidates.any():
        return _short_dimension(calendar, request, view, permanent)
    counts = {name: count for name, count in removed.items() if name != Filter.POOL} or removed
    if not counts:
        return Filter.POOL, None
    order = list(Filter)
    name = max(counts, key=lambda each: (counts[each], -order.index(Filter(each))))
    return name, _miss_before_capacity(calendar, request, view, name)


def _short_dimension(
    calendar: Calendar, request: PlacementRequest, view: Survey, permanent: bool
) -> tuple[str, NearestMiss | None]:
    """The dimension that limits most workers, and the worker that lacks the smallest share for one more seat."""
    fleet = calendar.fleet
    if permanent:
        free, columns = fleet.capacity, np.flatnonzero(view.eligibility.ever)
    else:
        free, columns = fleet.capacity - view.peaks, np.flatnonzero(view.candidates)
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


def _sentence(
    request: PlacementRequest,
    removed: Mapping[str, int],
    considered: int,
    fitting: int,
    binding: str,
    miss: NearestMiss | None,
    permanent: bool,
) -> str:
    if not considered:
        return f"Pool {request.pool} has no workers."
    if permanent:
        head = f"{_seats(request.seats)} can never fit in pool {request.pool}"
    elif fitting and fitting < request.seats:
        head = f"Only {fitting} of {_seats(request.seats)} fit in this slot"
    else:
        head = f"No room for {_seats(request.seats)} in this slot"
    reasons = [f"{count} {_REASONS[name]}" for name, count in removed.items()]
    text = f"{head}: of {_workers(considered)}, " + (", ".join(reasons) if reasons else "all have too little") + "."
    quantity = _QUANTITIES.get(binding)
    if quantity is not None:
        text += f" What is short: {quantity}."
    if miss is not None and miss.worker is not None and miss.dimension in _QUANTITIES:
        unit = _QUANTITIES[miss.dimension]
        text += f" Nearest: {miss.worker} has {miss.free:g} of the {miss.needed:g} {unit} for one more seat."
    return text


def _why(choice: SeatChoice, packed: bool) -> str:
    seats = ", ".join(str(seat) for seat in choice.seats[:5]) + (", …" if len(choice.seats) > 5 else "")
    power = f"adds {choice.added_on_minutes} minutes of power" if choice.added_on_minutes else "is on anyway"
    rank = "least added power, then fullest" if packed else "emptiest, then least added power"
    late = f", ready {choice.late_minutes} minutes late" if choice.late_minutes else ""
    return f"{choice.worker} takes seat {seats}: it {power}{late} and is then {choice.fullness:.0%} full ({rank})"


def _seats(count: int) -> str:
    return "1 seat" if count == 1 else f"{count} seats"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
