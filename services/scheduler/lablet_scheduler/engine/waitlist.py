"""The wait list: who goes next when something has come free, and who may go ahead of whom.

Order: priority, then time of request. A later request may go first only where it leaves alone what one ahead waits
for: a request that does not fit keeps the workers on which it came closest, as a shadow that nobody behind it may use
in its slot. So a small request slips past a large one in another slot or on other workers, and never eats the room that
the large one is waiting for.

What is kept is enough workers for all of its seats once these are empty, and no more: were every worker kept that could
ever take it, one large request would close a pool. Should another worker come free first, somebody behind may be on it.
Their licences are kept with them, and where counted licences ran out, every worker of their kind: whoever rides along on
one would keep its licence in use. Each that waits keeps workers of its own; where those ahead have closed all others for a
part of its slot, it keeps one of theirs for the whole of it. A request that may begin later keeps its first slot.

What it does not do: it does not place anything. Each outcome is a proposal; book the placements in the given order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from .calendar import Calendar, seats_amounts
from .earliest import place_earliest
from .filters import MAINTENANCE_ROW, everywhere, survey
from .fleet import UNLIMITED
from .model import Booking, Explanation, Filter, Minute, Placement, PlacementRequest, Refusal, Span
from .place import place
from .score import FloatArray
from .wording import seat_count


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request on the wait list."""

    request: PlacementRequest
    requested_at: datetime
    """When it was made, to the instant (two of one minute have an order too): the earlier one is ahead at equal
    priority."""
    latest_start: Minute | None = None
    """For "as soon as possible": it may start later than `request.start`, up to here. None: only in its slot."""

    @property
    def searches(self) -> bool:
        """More than one start comes into question: trying it may take long."""
        return self.latest_start is not None and self.latest_start > self.request.start


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
    return list(retry_each(calendar, waiting, now))


def retry_each(calendar: Calendar, waiting: Iterable[Waiting], now: Minute) -> Iterator[Retried]:
    """As `retry`, one after the other, so that the caller may rest in between: a millisecond or two each."""
    return _go_through(calendar.copy(), waiting, now)


def kept_for(calendar: Calendar, waiting: Iterable[Waiting], now: Minute, beside: str | None = None) -> Calendar:
    """A calendar on which, beside what is booked, the waiting requests have what they would get now, or keep what they
    wait for: what finds a place on it goes behind all of them and delays none. `beside`: a reservation that is booked
    and is to be changed; taken off that calendar, it finds its own room there, and no more of what is kept."""
    scratch = calendar.copy()
    for _ in _go_through(scratch, waiting, now, scratch.of(beside) if beside is not None else ()):
        pass
    return scratch


def behind(free: Placement, request: PlacementRequest, ahead: int) -> Refusal:
    """The refusal of a request that has room (`free`), were it not for those ahead who wait for it."""
    said = free.explanation
    who = "a request that is ahead waits" if ahead == 1 else f"{ahead} requests that are ahead wait"
    explanation = Explanation(
        summary=f"There is room for {seat_count(request.seats)}, but {who} for it: by priority, then by time of request.",
        considered=said.considered,
        removed={**said.removed, Filter.WAIT_LIST: said.feasible},
        binding=Filter.WAIT_LIST,
        seats_wanted=request.seats,
    )
    return Refusal(request, False, explanation)


def _go_through(
    scratch: Calendar, waiting: Iterable[Waiting], now: Minute, beside: Iterable[Booking] = ()
) -> Iterator[Retried]:
    """Books who finds a place and casts the shadows of those who find none."""
    shadows = _Shadows(scratch, frozenset(booking.worker for booking in beside))
    still: list[str] = []
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
            yield Retried(one, decision, tuple(still))
        else:
            shadows.cast(decision)
            still.append(request.reservation)
            yield Retried(one, decision)


@dataclass(slots=True)
class _Shadows:
    """What those who find no place keep."""

    scratch: Calendar
    filled: frozenset[str]
    """Workers of which only what is free is kept: who is booked there may be taken off, and has its room again."""
    kept: list[tuple[str, Span]] = field(default_factory=list)
    """What has been closed or filled so far."""

    def cast(self, refusal: Refusal) -> None:
        """Closes workers for the refused request's slot: those on which its seats came closest to fitting, as many as
        hold all of them when empty; where counted licences ran out, every worker of their kind."""
        scratch, request = self.scratch, refusal.request
        view = survey(scratch, request)
        fits, peaks = everywhere(scratch, request, view)
        fleet = scratch.fleet
        slot = Span(request.start, request.end + scratch.policy(request.pool).turnaround)
        usable = view.candidates.copy()
        for column in np.flatnonzero(usable & (peaks[MAINTENANCE_ROW] > 0)):
            usable[column] = not self._away(int(column), slot)
        columns = np.flatnonzero(usable)
        if refusal.explanation.removed.get(Filter.LICENCE_COUNT):
            self._close_kinds(request.pool, {fleet.view(int(one)).licence for one in columns}, slot)
            return
        # who is closed for a part of the slot, for somebody ahead, comes last: what is kept there is kept twice
        closed = [fleet.columns[name] for name, span in self.kept if span.start < slot.end and slot.start < span.end]
        needs = np.array(seats_amounts(request.demand)[:-1], dtype=np.int64)[:, None]
        capacity = np.maximum(fleet.capacity[:-1, columns].astype(np.int64), 1)
        lacking: FloatArray = np.maximum(needs - (capacity - peaks[:-1, columns]), 0).astype(np.float64) / capacity
        order = np.lexsort((fleet.rank[columns], lacking.max(axis=0), -fits[columns], np.isin(columns, closed)))
        seats = request.seats
        licences: Counter[str] = Counter()
        for index in order:
            if seats <= 0:
                return
            worker = fleet.view(int(columns[index]))
            limit = scratch.licence_limit(worker)
            if limit is not None and licences[worker.licence] >= limit:
                continue
            licences[worker.licence] += 1
            if limit is None or scratch.licence_room(worker, slot.start, slot.end, ()):
                self._close(worker.name, slot)
            else:
                self._close_kinds(request.pool, {worker.licence}, slot)
            seats -= max(1, min(int(view.eligibility.seats_when_empty[columns[index]]), UNLIMITED))

    def _away(self, column: int, slot: Span) -> bool:
        """It is down for maintenance in the slot, and not only closed for somebody ahead."""
        spans = self.scratch.fleet.view(column).maintenance
        return any(span.start < slot.end and slot.start < span.end for span in spans)

    def _close_kinds(self, pool: str, kinds: Collection[str], slot: Span) -> None:
        for worker in self.scratch.workers():
            if worker.pool == pool and worker.licence in kinds:
                self._close(worker.name, slot)

    def _close(self, name: str, slot: Span) -> None:
        if name in self.filled:
            self.scratch.fill(name, slot.start, slot.end)
        else:
            self.scratch.keep(name, slot.start, slot.end)
        self.kept.append((name, slot))
