"""The calendar: every worker's bookings over time, kept in step in all its forms.

A booking lives in four places: with its reservation, on its worker's lane (spans, port numbers), in the timeline and
the gap index (arrays that answer for all workers at once) and in the licence ledgers. This is the only module that
changes them, always together. `book` refuses what does not fit; with `check=False` it takes the caller's word (a fact
read back from the store, an overrun), so that the calendar can say how far a fact is over the limit.

`copy` is cheap: what-if questions run on copies, which share everything until one side writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise

import numpy as np

from .fleet import BLOCKED, Fleet, IntArray, amounts_of
from .lane import Hold, Lane
from .licences import LicenceLedger
from .model import Booking, Demand, Dimension, Filter, Minute, NearestMiss, PoolPolicy, Span, WorkerView
from .ports import lowest_free
from .power import GapIndex, added_power, powered
from .timeline import Amounts, Timeline

DIMENSIONS = tuple(Dimension)
"""The timeline's first rows, in its order."""


class Conflict(ValueError):
    """A booking does not fit on its worker; `miss` says what is short and by how much."""

    def __init__(self, booking: Booking, miss: NearestMiss) -> None:
        super().__init__(
            f"{booking.reservation}/{booking.seat} does not fit on {booking.worker}: "
            f"{miss.dimension} needs {miss.needed:g}, free {miss.free:g}"
        )
        self.booking = booking
        self.miss = miss


class Calendar:
    """All bookings of the pools that it is given."""

    def __init__(self, policies: Iterable[PoolPolicy] = (), workers: Iterable[WorkerView] = ()) -> None:
        self._owner = object()
        self._policies: dict[str, PoolPolicy] = {policy.pool: policy for policy in policies}
        self.fleet = Fleet()
        self.timeline = Timeline()
        self.gaps = GapIndex(reach=1)
        self._lanes: dict[str, Lane] = {}
        self._of: dict[str, tuple[Booking, ...]] = {}
        self._ledgers: dict[tuple[str, str], LicenceLedger] = {}
        views = list(workers)
        self.timeline.widen(len(views))
        for view in views:
            self.put_worker(view)

    # -- workers and policies ------------------------------------------------------------------------------------

    def policy(self, pool: str) -> PoolPolicy:
        """A pool's policy (the defaults for a pool that has none)."""
        found = self._policies.get(pool)
        if found is None:
            found = self._policies[pool] = PoolPolicy(pool)
        return found

    def put_policy(self, policy: PoolPolicy) -> None:
        """Adds or replaces a pool's policy; the calendar is laid out again where it matters."""
        if self._policies.get(policy.pool) != policy:
            self._policies[policy.pool] = policy
            if any(view.pool == policy.pool for view in self.workers()):
                self._rebuild()

    def workers(self) -> Iterator[WorkerView]:
        """All workers, by name."""
        for name in sorted(self.fleet.columns):
            yield self.worker(name)

    def worker(self, name: str) -> WorkerView:
        """One worker. Raises LookupError when it is not known."""
        column = self.fleet.columns.get(name)
        if column is None:
            raise LookupError(f"no worker {name} on the calendar")
        return self.fleet.view(column)

    def put_worker(self, view: WorkerView) -> None:
        """Adds a worker or replaces what is known of it; its bookings stay, also where they no longer fit."""
        known = self.fleet.columns.get(view.name)
        if known is not None:
            old = self.fleet.view(known)
            if old == view:
                return
            moved = (old.pool, old.licence, old.boot_minutes) != (view.pool, view.licence, view.boot_minutes)
            if moved and self._lanes[view.name].holds:
                self._place_worker(view)
                self._rebuild()
                return
            self._mark(old, -1)
        elif not self.fleet.free_columns and len(self.fleet.views) >= self.timeline.columns:
            self.timeline.widen(len(self.fleet.views) + 1)
        self._place_worker(view)
        if view.name not in self._lanes:
            self._lanes[view.name] = Lane(self._owner, self.bridge(view))
        else:
            self._own(view.name).bridge = self.bridge(view)
        if self.bridge(view) + 1 > self.gaps.reach:
            self._rebuild()
            return
        self._mark(view, 1)

    def remove_worker(self, name: str) -> None:
        """Takes a worker out. Raises ValueError while it has bookings."""
        view = self.worker(name)
        if any(hold[4] is not None for hold in self._lanes[name].holds):
            raise ValueError(f"worker {name} still has bookings")
        self._mark(view, -1)
        del self._lanes[name]
        self.fleet.remove(name)

    def lead(self, view: WorkerView) -> int:
        """Minutes from power-on to the start of a slot."""
        policy = self.policy(view.pool)
        reserve = view.boot_minutes if policy.reserve is None else policy.reserve
        return view.boot_minutes + reserve + policy.preparation

    def bridge(self, view: WorkerView) -> int:
        """The longest rest between two needs through which the worker stays on."""
        return max(self.policy(view.pool).grace, self.lead(view))

    # -- bookings ------------------------------------------------------------------------------------------------

    def book(self, booking: Booking, *, check: bool = True) -> None:
        """Puts a seat on its worker. Raises Conflict when it does not fit, ValueError when it is already there."""
        self._book([booking], check)

    def book_all(self, bookings: Iterable[Booking], *, check: bool = True) -> None:
        """Puts all of them on the calendar, or none when one does not fit."""
        done: list[Booking] = []
        try:
            for alike in _alike(bookings):
                for group in (alike,) if not check or self._fit(alike) else ([one] for one in alike):
                    self._book(group, check)
                    done += group
        except ValueError:
            for booking in done:
                self.release(booking.reservation, booking.seat)
            raise

    def load(self, bookings: Iterable[Booking]) -> Iterator[str]:
        """Enters facts of reservations that are not on the calendar yet, worker by worker, as `book_all` without a check
        would, many times as fast. Yields each worker when its bookings are in, so that the caller may rest in between; it
        has to be gone through to the end. Raises LookupError for a worker that is not known."""
        by_worker: dict[str, list[Booking]] = {}
        for booking in bookings:
            by_worker.setdefault(booking.worker, []).append(booking)
        for name, booked in by_worker.items():
            view = self.worker(name)
            column, rest, lane = self.fleet.columns[name], self.policy(view.pool).turnaround, self._own(name)
            self.timeline.lay(
                column, [(one.start, one.until, one.until + rest, amounts_of(one.demand)) for one in booked]
            )
            before = lane.duties
            lane.lay([(one.start, one.until + rest, one.reservation, one.seat, one) for one in booked])
            self._power_changed(view, before, lane.duties)
            self.gaps.lay(column, lane.duties)
            for one in booked:
                self._of[one.reservation] = (*self._of.get(one.reservation, ()), one)
            yield name

    def _book(self, alike: list[Booking], check: bool) -> None:
        """Seats of one reservation that are alike, which together fit or are a single one."""
        booked = self._of.get(alike[0].reservation, ())
        for number, booking in enumerate(alike):
            if any(other.seat == booking.seat for other in (*booked, *alike[:number])):
                raise ValueError(f"{booking.reservation}/{booking.seat} is booked already")
        if check and len(alike) == 1 and (miss := self.conflict(alike[0])) is not None:
            raise Conflict(alike[0], miss)
        self._enter(alike, 1)
        self._of[alike[0].reservation] = (*booked, *alike)

    def release(self, reservation: str, seat: int | None = None) -> tuple[Booking, ...]:
        """Takes one seat or all seats of a reservation off the calendar and returns them (none: nothing was there)."""
        booked = self._of.get(reservation, ())
        gone = tuple(booking for booking in booked if seat is None or booking.seat == seat)
        for alike in _alike(gone):
            self._enter(alike, -1)
        rest = () if seat is None else tuple(booking for booking in booked if booking.seat != seat)
        if rest:
            self._of[reservation] = rest
        else:
            self._of.pop(reservation, None)
        return gone

    def replace(self, booking: Booking, *, check: bool = True) -> None:
        """Puts a seat's new booking in the place of the old one; when it does not fit (Conflict) the old one stays."""
        old = self.release(booking.reservation, booking.seat)
        try:
            self.book(booking, check=check)
        except Conflict:
            self.book_all(old, check=False)
            raise

    def of(self, reservation: str) -> tuple[Booking, ...]:
        """A reservation's bookings, by seat."""
        return tuple(sorted(self._of.get(reservation, ()), key=lambda booking: booking.seat))

    def booking(self, reservation: str, seat: int) -> Booking | None:
        """One seat's booking."""
        return next((kept for kept in self._of.get(reservation, ()) if kept.seat == seat), None)

    def bookings(self) -> Iterator[Booking]:
        """All bookings."""
        for booked in self._of.values():
            yield from booked

    def reservations(self) -> list[str]:
        """Those with bookings."""
        return list(self._of)

    def on_worker(self, name: str, start: Minute, end: Minute) -> list[Booking]:
        """The bookings that hold a worker (turnaround included) at some instant of a span."""
        self.worker(name)
        return [hold[4] for hold in self._lanes[name].within(start, end) if hold[4] is not None]

    def crowd(self, name: str, start: Minute, end: Minute) -> int:
        """An upper bound of the bookings that `on_worker` gives, without looking at each."""
        self.worker(name)
        return self._lanes[name].crowd(start, end)

    def hold_end(self, booking: Booking) -> Minute:
        """The end of a booking's turnaround."""
        return booking.until + self.policy(self.worker(booking.worker).pool).turnaround

    def duties(self, name: str) -> list[Span]:
        """The spans in which a worker is needed, those through which it stays on joined (idle power included)."""
        self.worker(name)
        return list(self._lanes[name].duties)

    def holds(self, name: str) -> list[tuple[Minute, Minute]]:
        """Start and end of each booking's hold on a worker, by start."""
        self.worker(name)
        return [(hold[0], hold[1]) for hold in self._lanes[name].holds if hold[4] is not None]

    def copy(self) -> Calendar:
        """An independent calendar with the same content."""
        twin = Calendar.__new__(Calendar)
        twin._owner = object()
        twin._policies = self._policies.copy()
        twin.fleet = self.fleet.copy()
        twin.timeline = self.timeline.copy()
        twin.gaps = self.gaps.copy()
        twin._lanes = self._lanes.copy()
        twin._of = self._of.copy()
        twin._ledgers = {key: ledger.copy() for key, ledger in self._ledgers.items()}
        self._owner = object()
        return twin

    def forget(self, before: Minute) -> None:
        """Drops the pages of days that lie wholly before a minute; nothing may be placed or released there any more."""
        self.timeline.forget(before)
        self.gaps.forget(before)

    def keep(self, name: str, start: Minute, end: Minute) -> None:
        """Closes a worker for a span and counts its licence as in use there, as far as there is one: for calendars that are
        thrown away."""
        view = self.worker(name)
        self.timeline.add(self.fleet.columns[name], start, end, end, (0, 0, 0, 0, 0, BLOCKED))
        self._keep_licence(view, start, end)

    def fill(self, name: str, start: Minute, end: Minute) -> None:
        """As `keep`, but takes what is free there instead of closing it: what is booked there now, and is released later,
        leaves exactly its own room behind."""
        view = self.worker(name)
        column = self.fleet.columns[name]
        capacity: list[int] = self.fleet.capacity[:, column].tolist()
        for begin, after, used in list(self.timeline.steps(column, start, end)):
            cpu, memory, storage, nodes, ports, _ = (max(m - there, 0) for m, there in zip(capacity, used, strict=True))
            self.timeline.add(column, begin, after, after, (cpu, memory, storage, nodes, ports, 0))
        self._keep_licence(view, start, end)

    def _keep_licence(self, view: WorkerView, start: Minute, end: Minute) -> None:
        if (limit := self.licence_limit(view)) is not None:
            self._ledger(view).fill(self.added_power(view, start, end), limit)

    # -- what fits -----------------------------------------------------------------------------------------------

    def conflict(self, booking: Booking) -> NearestMiss | None:
        """What a booking lacks on its worker, besides what the worker's state allows; None when it fits."""
        column = self.fleet.columns.get(booking.worker)
        if column is None:
            raise LookupError(f"no worker {booking.worker} on the calendar")
        view = self.fleet.view(column)
        amounts = amounts_of(booking.demand)
        end = self.hold_end(booking)
        peaks = self.timeline.peak(column, booking.start, booking.until, end)
        for row, (need, used) in enumerate(zip(amounts, peaks, strict=True)):
            free = int(self.fleet.capacity[row, column]) - used
            if need > free or free < 0:
                return shortage(view.name, row, need, free)
        if booking.ports:
            numbers = {number for _, number in booking.ports}
            clash = numbers & self._lanes[view.name].ports_in_use(booking.start, end)
            outside = {number for number in numbers if not view.port_start <= number <= view.port_end}
            if clash or outside:
                return NearestMiss(view.name, Dimension.PORTS, len(numbers), len(numbers) - len(clash | outside))
        if not self.licence_room(view, booking.start, end, ()):
            limit = self.licence_limit(view)
            return NearestMiss(view.name, Filter.LICENCE_COUNT, (limit or 0) + 1, limit or 0)
        return None

    def _fit(self, alike: list[Booking]) -> bool:
        """Whether seats that are alike fit together (False may also mean: look at them one by one)."""
        first = alike[0]
        if len(alike) == 1 or first.worker not in self.fleet.columns:
            return False
        end = self.hold_end(first)
        column = self.fleet.columns[first.worker]
        peaks = self.timeline.peak(column, first.start, first.until, end)
        for need, used, most in zip(amounts_of(first.demand), peaks, self.fleet.capacity[:, column], strict=True):
            if used + len(alike) * need > most:
                return False
        numbers = [number for booking in alike for _, number in booking.ports]
        view = self.fleet.view(column)
        return (
            len(set(numbers)) == len(numbers)
            and all(view.port_start <= number <= view.port_end for number in numbers)
            and self._lanes[view.name].ports_in_use(first.start, end).isdisjoint(numbers)
            and self.licence_room(view, first.start, end, ())
        )

    def ports_in_use(self, view: WorkerView, start: Minute, end: Minute) -> set[int]:
        """The port numbers of a worker that somebody holds at some instant of a span."""
        return self._lanes[view.name].ports_in_use(start, end)

    def free_ports(
        self, view: WorkerView, start: Minute, end: Minute, count: int, taken: Iterable[int]
    ) -> tuple[int, ...] | None:
        """The lowest `count` numbers that nobody holds in a span, those in `taken` left out."""
        used = self._lanes[view.name].ports_in_use(start, end)
        used.update(taken)
        found = lowest_free(view.port_start, view.port_end, used, count)
        return found if len(found) == count else None

    def licence_limit(self, view: WorkerView) -> int | None:
        """How many workers of its licence kind its pool may have on; None: not limited."""
        return self.policy(view.pool).licence_limits.get(view.licence)

    def licence_room(self, view: WorkerView, start: Minute, end: Minute, besides: Iterable[Span]) -> bool:
        """True when a worker may also be on for a hold, `besides` being spans that this decision has already used."""
        limit = self.licence_limit(view)
        if limit is None:
            return True
        ledger = self._ledger(view)
        others = list(besides)
        for span in self.added_power(view, start, end):
            inner = {at for other in others for at in other if span.start < at < span.end}
            for begin, close in pairwise(sorted({*span, *inner})):
                count = sum(1 for other in others if other.start <= begin < other.end)
                if ledger.peak(Span(begin, close)) + count + 1 > limit:
                    return False
        return True

    def added_power(self, view: WorkerView, start: Minute, end: Minute) -> list[Span]:
        """The spans in which a worker would be on for a hold and is not yet."""
        lane = self._lanes[view.name]
        return added_power(lane.duties, start, end, self.lead(view), lane.bridge)

    def licence_drops(self, pool: str, start: Minute, end: Minute) -> list[Minute]:
        """The minutes of a span at which one of a pool's counted licences comes free."""
        return sorted(
            {at for (owner, _), ledger in self._ledgers.items() if owner == pool for at in ledger.drops(start, end)}
        )

    def counted_licences(self) -> dict[tuple[str, str], int]:
        """How many there are of each limited kind of licence, by pool and kind."""
        return {
            (pool, kind): most
            for pool, policy in self._policies.items()
            for kind, most in policy.licence_limits.items()
        }

    def licences_in_use(self, pool: str, kind: str) -> list[tuple[Minute, int]]:
        """Where the number of a kind's licences in use changes, and to what."""
        ledger = self._ledgers.get((pool, kind))
        return [] if ledger is None else ledger.steps()

    def licences_over(self, view: WorkerView) -> list[Span]:
        """The spans in which more workers of a licence kind would be on than its pool may have."""
        limit = self.licence_limit(view)
        return [] if limit is None else self._ledger(view).over(limit)

    def ready(self, now: Minute) -> IntArray:
        """For each column the first minute at which its worker can be ready, by its power and its bookings."""
        known = self.fleet.ready
        planned = self.gaps.ready(now, self.fleet.lead, self.fleet.boot)
        return np.where(known >= 0, np.maximum(known, now), planned).astype(np.int32)

    # -- keeping the forms in step -------------------------------------------------------------------------------

    def _place_worker(self, view: WorkerView) -> None:
        column = self.fleet.put(view, self.lead(view), self.bridge(view), self.timeline.columns)
        self.gaps.widen(self.timeline.columns)
        assert column < self.timeline.columns

    def _own(self, name: str) -> Lane:
        lane = self._lanes[name]
        if lane.owner is not self._owner:
            lane = self._lanes[name] = lane.clone(self._owner)
        return lane

    def _ledger(self, view: WorkerView) -> LicenceLedger:
        return self._ledgers.setdefault((view.pool, view.licence), LicenceLedger())

    def _enter(self, alike: list[Booking], sign: int) -> None:
        """Enters (or with sign −1 takes out) seats of one reservation that are alike, on one worker."""
        first = alike[0]
        view = self.worker(first.worker)
        end = self.hold_end(first)
        cpu, memory, storage, nodes, ports, blocked = amounts_of(first.demand)
        n = len(alike)
        amounts: Amounts = (n * cpu, n * memory, n * storage, n * nodes, n * ports, n * blocked)
        self.timeline.add(self.fleet.columns[view.name], first.start, first.until, end, amounts, sign)
        self._hold(view, [(first.start, end, one.reservation, one.seat, one) for one in alike], sign)

    def _hold(self, view: WorkerView, holds: list[Hold], sign: int) -> None:
        lane = self._own(view.name)
        old, new = lane.add(holds) if sign > 0 else lane.take(holds)
        if old == new:
            return
        self._power_changed(view, old, new)
        reach = lane.bridge + 1
        start, end = holds[0][0], holds[0][1]
        self.gaps.refresh(self.fleet.columns[view.name], lane.duties, start - reach, end + reach)

    def _power_changed(self, view: WorkerView, old: list[Span], new: list[Span]) -> None:
        if self.licence_limit(view) is not None:
            lead = self.lead(view)
            ledger = self._ledger(view)
            ledger.add(powered(old, lead), -1)
            ledger.add(powered(new, lead))

    def _mark(self, view: WorkerView, sign: int) -> None:
        """Enters (or takes out) what a worker's own state occupies: maintenance, and power that is on anyway."""
        column = self.fleet.columns[view.name]
        for span in view.maintenance:
            blocked: Amounts = (0, 0, 0, 0, 0, BLOCKED)
            self.timeline.add(column, span.start, span.end, span.end, blocked, sign)
        idle = self._idle(view)
        if idle is not None:
            self._hold(view, [(idle.start, idle.end, "", 0, None)], sign)

    def _idle(self, view: WorkerView) -> Span | None:
        if view.on_since is None or view.on_until is None:
            return None
        start = min(view.on_since + self.lead(view), view.on_until - 1)
        return Span(start, view.on_until)

    def _rebuild(self) -> None:
        views = list(self.workers())
        booked = list(self.bookings())
        self.timeline = Timeline(self.timeline.columns)
        self.gaps = GapIndex(self.timeline.columns, max([self.gaps.reach, *(self.bridge(view) + 1 for view in views)]))
        self._ledgers = {}
        for view in views:
            self.fleet.put(view, self.lead(view), self.bridge(view), self.timeline.columns)
            self._lanes[view.name] = Lane(self._owner, self.bridge(view))
        for view in views:
            self._mark(view, 1)
        self._of = {}
        for _ in self.load(booked):
            pass


def _alike(bookings: Iterable[Booking]) -> Iterator[list[Booking]]:
    """Neighbours in a row of bookings that are the same but for their seat and port numbers."""
    for _, group in groupby(bookings, key=_same):
        yield list(group)


def _same(one: Booking) -> tuple[object, ...]:
    return (one.reservation, one.worker, one.start, one.end, one.occupied_end, one.demand)


def shortage(worker: str, row: int, need: int, free: int) -> NearestMiss:
    """What is short on a worker, in the units of the demand."""
    if row >= len(DIMENSIONS):
        return NearestMiss(worker, Filter.MAINTENANCE, 1, 0)
    scale = 1000 if row < 3 else 1
    return NearestMiss(worker, DIMENSIONS[row], need / scale, free / scale)


def seats_amounts(demand: Demand) -> Amounts:
    """What a seat uses of each row, with 1 in the row that maintenance fills."""
    cpu, memory, storage, nodes, ports, _ = amounts_of(demand)
    return (cpu, memory, storage, nodes, ports, 1)


__all__ = ["DIMENSIONS", "Calendar", "Conflict", "seats_amounts", "shortage"]
