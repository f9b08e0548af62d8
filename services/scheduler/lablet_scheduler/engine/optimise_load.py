"""Who sits where, while the optimiser tries things: the seats of a pool by worker and by load.

A `Layout` is filled from the calendar once; from then on it changes by `move` alone. What cannot be moved is in it too,
because it shares power and capacity with what can: seats that have started, that start so soon that a worker that is
off could not be ready, or that sit where they would not be placed today (healing is not this module's business).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .calendar import Calendar
from .fleet import amounts_of
from .model import Booking, Demand, Minute, Span, WorkerView
from .optimise_states import Kind, Load
from .power import join_needs, powered
from .timeline import ROWS

Entry = tuple[Minute, Minute, int, int]
"""Start, end of the hold, load, seat."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some workers and a span: only seats whose holds lie within it may move."""

    workers: tuple[str, ...]
    span: Span

    def bookings(self, calendar: Calendar) -> Iterator[Booking]:
        """Everything with whose power a seat in the span can have to do: what it may overlap or be bridged to. Moving seats
        within the span changes the power of these by as much as it changes that of all."""
        for name in self.workers:
            reach = calendar.bridge(calendar.worker(name)) + 1
            yield from calendar.on_worker(name, self.span.start - reach, self.span.end + reach)


@dataclass(slots=True)
class Layout:
    """Seats (by number), workers (by number) and who is where."""

    workers: list[WorkerView]
    kinds: list[Kind]
    limits: list[int | None]
    """Per worker: how many of its licence kind may be on."""
    loads: list[Load] = field(default_factory=list)
    allowed: list[tuple[int, ...]] = field(default_factory=list)
    """Per load: the workers that may have it."""
    homes: list[dict[int, int]] = field(default_factory=list)
    """Per load: worker → seats there before."""
    bookings: list[Booking] = field(default_factory=list)
    load_of: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """Per seat: its worker."""
    entries: list[list[Entry]] = field(default_factory=list)
    """Per worker: its seats by start."""
    longest: int = 0
    """No hold is longer."""
    moved: int = 0
    """Seats that are not where they were."""
    counts: list[dict[int, int]] = field(default_factory=list)
    """Per load: worker → seats there now."""

    def move(self, seat: int, worker: int) -> None:
        """Puts a seat on another worker."""
        load, old = self.load_of[seat], self.at[seat]
        entry = (self.loads[load].start, self.loads[load].hold, load, seat)
        lane = self.entries[old]
        del lane[bisect_left(lane, entry)]
        insort(self.entries[worker], entry)
        counts, home = self.counts[load], self.homes[load]
        self.moved -= counts[old] > home.get(old, 0)
        counts[old] -= 1
        counts[worker] = counts.get(worker, 0) + 1
        self.moved += counts[worker] > home.get(worker, 0)
        self.at[seat] = worker

    def near(self, worker: int, start: Minute, end: Minute) -> list[Entry]:
        """A worker's seats whose holds touch `[start, end]`."""
        lane = self.entries[worker]
        first = bisect_left(lane, (start - self.longest,))
        last = bisect_left(lane, (end + 1,))
        return [entry for entry in lane[first:last] if entry[1] >= start]

    def minutes(self, worker: int) -> int:
        """Minutes of power that a worker's seats need."""
        kind = self.kinds[worker]
        spans = powered(join_needs(((one[0], one[1]) for one in self.entries[worker]), kind.bridge), kind.lead)
        return sum(span.end - span.start for span in spans)

    def licences_hold(self, workers: Sequence[int], start: Minute, end: Minute) -> bool:
        """Whether no more licences are in use than there are, in a span, of the kinds that these workers have."""
        kinds = {self.workers[one].licence: self.limits[one] for one in workers if self.limits[one] is not None}
        for licence, limit in kinds.items():
            changes: list[tuple[Minute, int]] = []
            for number, view in enumerate(self.workers):
                if view.licence == licence:
                    kind = self.kinds[number]
                    margin = kind.bridge + kind.lead
                    needs = [(one[0], one[1]) for one in self.near(number, start - margin, end + margin)]
                    for span in powered(join_needs(needs, kind.bridge), kind.lead):
                        changes += [(span.start, 1), (span.end, -1)]
            count = 0
            for at, change in sorted(changes):
                count += change
                if limit is not None and count > limit and start <= at < end:
                    return False
        return True


def lay_out(calendar: Calendar, pool: str, now: Minute, part: Part | None = None) -> Layout:
    """A pool's seats that are not over, as they are on the calendar; of all its workers, or of a part."""
    if part is None:
        views = [view for view in calendar.workers() if view.pool == pool]
    else:
        views = [calendar.worker(name) for name in part.workers]
    numbers = {view.name: number for number, view in enumerate(views)}
    fleet, policy = calendar.fleet, calendar.policy(pool)
    layout = Layout(
        workers=views,
        kinds=[_kind(calendar, view) for view in views],
        limits=[calendar.licence_limit(view) for view in views],
        entries=[[] for _ in views],
    )
    movable_from = now + max((calendar.lead(view) for view in views), default=0)
    known: dict[tuple[object, ...], int] = {}
    special = [number for number, view in enumerate(views) if view.unschedulable or view.maintenance]
    admitted: dict[tuple[Demand, frozenset[int]], tuple[int, ...]] = {}
    found = calendar.bookings() if part is None else part.bookings(calendar)
    for booking in sorted((one for one in found if one.worker in numbers), key=lambda one: (one.start, *one.key)):
        hold = booking.until + policy.turnaround
        if hold + MARGIN < now:
            continue
        worker = numbers[booking.worker]
        movable = not booking.started and booking.start >= movable_from
        if part is not None:
            movable = movable and part.span.start <= booking.start and hold <= part.span.end
        allowed: tuple[int, ...] = (worker,)
        if movable:
            closed = frozenset(one for one in special if not _open(views[one], booking.start, hold))
            passed = fleet.eligible(pool, booking.demand).allowed
            known_allowed = admitted.get((booking.demand, closed))
            if known_allowed is None:
                known_allowed = admitted[booking.demand, closed] = tuple(
                    number for name, number in numbers.items() if passed[fleet.columns[name]] and number not in closed
                )
            allowed = known_allowed
            if worker in closed or not passed[fleet.columns[booking.worker]]:
                movable, allowed = False, (worker,)
        same = (booking.reservation, booking.demand, booking.start, booking.until, movable)
        load = known.get(same)
        if load is None:
            load = known[same] = len(layout.loads)
            amounts = amounts_of(booking.demand)[: ROWS - 1]
            layout.loads.append(Load(booking.start, booking.until, hold, amounts, movable))
            layout.allowed.append(allowed)
            layout.homes.append({})
            layout.counts.append({})
        seat = len(layout.bookings)
        layout.bookings.append(booking)
        layout.load_of.append(load)
        layout.at.append(worker)
        for counts in (layout.homes[load], layout.counts[load]):
            counts[worker] = counts.get(worker, 0) + 1
        layout.entries[worker].append((booking.start, hold, load, seat))
        layout.longest = max(layout.longest, hold - booking.start)
    for lane in layout.entries:
        lane.sort()
    return layout


MARGIN = 2 * 24 * 60
"""Seats that ended longer ago than any boot and grace take are of no consequence."""


def _kind(calendar: Calendar, view: WorkerView) -> Kind:
    column = calendar.fleet.columns[view.name]
    capacity = tuple(int(most) for most in calendar.fleet.capacity[: ROWS - 1, column])
    state = (view.failed, view.unschedulable, view.unschedulable_until, view.maintenance)
    offer = (view.runtime, view.licence, view.version, view.node_definitions, tuple(sorted(view.labels.items())))
    return Kind(capacity, calendar.lead(view), calendar.bridge(view), (state, offer))


def _open(view: WorkerView, start: Minute, end: Minute) -> bool:
    """Whether a worker's own state admits a hold, as the filters `unschedulable` and `maintenance` have it."""
    if view.unschedulable and (view.unschedulable_until is None or start < view.unschedulable_until):
        return False
    return not any(span.start < end and start < span.end for span in view.maintenance)
