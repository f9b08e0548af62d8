"""What is booked where and when: calendars of workers and pools, computed on read from reservations. Pure.

A seat takes its definition's requirements on its worker from the slot's start to its end, and until the lab is gone
when that is later. Half-open spans; instants are lab time. Not guaranteed: that what is free here can be had: ports,
licences and turnaround are the scheduler's to judge.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from lablet_common.resources.definition import Requirements
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.model import Instant, Model
from lablet_common.resources.reservation import Reservation, SeatState
from lablet_common.resources.worker import Maintenance, PoolSpec, Worker, WorkerPhase

RequirementsOf = Callable[[Reservation], Requirements | None]
_DIGITS = 6


class Amount(Model):
    """Capacity in the dimensions that people ask about."""

    cpu_cores: float = 0
    memory_gb: float = 0
    storage_gb: float = 0
    nodes: int = 0
    seats: int = 0


class Booking(Model):
    """One seat on a worker."""

    seat: int
    start: Instant
    end: Instant
    reservation: str | None = None
    """None where it belongs to another tenant."""
    definition: str | None = None
    instance: str | None = None
    phase: str | None = None


class Span(Model):
    start: Instant
    end: Instant


class WorkerCalendar(Model):
    worker: str
    pool: str
    phase: str
    schedulable: bool
    capacity: Amount
    allocated: Amount
    """What is taken at this moment."""
    bookings: tuple[Booking, ...]
    power_spans: tuple[Span, ...]
    """When the bookings need the machine on, boot, its reserve and preparation included."""
    maintenance: tuple[Maintenance, ...]


class Step(Model):
    """A stretch in which nothing changes."""

    start: Instant
    end: Instant
    workers: int
    """That may take seats in it."""
    booked: Amount
    free: Amount


class PoolCalendar(Model):
    pool: str
    start: Instant
    end: Instant
    now: Instant
    steps: tuple[Step, ...]
    workers: tuple[WorkerCalendar, ...]


@dataclass(frozen=True, slots=True)
class _Seat:
    worker: str
    start: datetime
    end: datetime
    needs: Requirements
    booking: Booking


@dataclass(frozen=True, slots=True)
class Window:
    start: datetime
    end: datetime
    now: datetime


def pool_calendar(
    pool: str,
    spec: PoolSpec,
    workers: Iterable[Worker],
    reservations: Iterable[Reservation],
    instances: Mapping[str, Instance],
    needs: RequirementsOf,
    window: Window,
    tenant: str,
) -> PoolCalendar:
    """The pool's calendar in `window`; other tenants' bookings are shown without their names."""
    members = sorted(workers, key=lambda worker: worker.id)
    seats = list(_seats(reservations, instances, needs, window, tenant))
    by_worker: dict[str, list[_Seat]] = defaultdict(list)
    for seat in seats:
        by_worker[seat.worker].append(seat)
    return PoolCalendar(
        pool=pool,
        start=window.start,
        end=window.end,
        now=window.now,
        steps=tuple(_steps(members, seats, window)),
        workers=tuple(_worker(worker, spec, by_worker[worker.id], window) for worker in members),
    )


def worker_calendar(
    worker: Worker,
    spec: PoolSpec | None,
    reservations: Iterable[Reservation],
    instances: Mapping[str, Instance],
    needs: RequirementsOf,
    window: Window,
    tenant: str,
) -> WorkerCalendar:
    """The same for one worker."""
    seats = _seats(reservations, instances, needs, window, tenant)
    return _worker(worker, spec, (seat for seat in seats if seat.worker == worker.id), window)


def _seats(
    reservations: Iterable[Reservation],
    instances: Mapping[str, Instance],
    needs: RequirementsOf,
    window: Window,
    tenant: str,
) -> Iterable[_Seat]:
    for reservation in reservations:
        slot = reservation.slot
        if slot is None:
            continue
        requirements = needs(reservation) or Requirements(cpu_cores=0, memory_gb=0, node_count=0)
        for place in reservation.status.placement:
            instance = instances.get(place.instance)
            running = instance is not None and instance.status.phase is not InstancePhase.TERMINATED
            if not running and (not reservation.holds_capacity or place.state is SeatState.LOST):
                continue
            gone = instance is not None and not running
            end = max(slot.end, window.now) if running else slot.end
            if gone or end <= window.start or slot.start >= window.end:
                continue
            own = reservation.tenant == tenant
            booking = Booking(
                seat=place.seat,
                start=slot.start,
                end=end,
                reservation=reservation.id if own else None,
                definition=reservation.spec.definition if own else None,
                instance=place.instance if own else None,
                phase=str(instance.phase) if instance is not None else str(reservation.phase),
            )
            yield _Seat(place.worker, slot.start, end, requirements, booking)


def _worker(worker: Worker, spec: PoolSpec | None, seats: Iterable[_Seat], window: Window) -> WorkerCalendar:
    """Of the seats on it."""
    mine = sorted(seats, key=lambda seat: (seat.start, seat.booking.seat))
    return WorkerCalendar(
        worker=worker.id,
        pool=worker.spec.pool,
        phase=str(worker.phase),
        schedulable=_takes_seats(worker, window.now),
        capacity=_capacity([worker]),
        allocated=_sum(seat for seat in mine if seat.start <= window.now < seat.end),
        bookings=tuple(seat.booking for seat in mine),
        power_spans=tuple(_power(worker, spec, mine)),
        maintenance=worker.spec.maintenance,
    )


def _power(worker: Worker, spec: PoolSpec | None, seats: Iterable[_Seat]) -> Iterable[Span]:
    """Needs joined over gaps for which switching off does not pay."""
    boot = worker.spec.boot_minutes
    lead = timedelta(minutes=spec.lead_of(boot) if spec else boot)
    turnaround = timedelta(minutes=spec.turnaround_minutes if spec else 0)
    bridge = max(timedelta(minutes=spec.scale_down_grace_minutes if spec else 0), lead)
    start = end = None
    for seat in seats:
        need_end = seat.end + turnaround
        if start is None or end is None:
            start, end = seat.start, need_end
        elif seat.start - end <= bridge:
            end = max(end, need_end)
        else:
            yield Span(start=start - lead, end=end)
            start, end = seat.start, need_end
    if start is not None and end is not None:
        yield Span(start=start - lead, end=end)


def _steps(workers: list[Worker], seats: list[_Seat], window: Window) -> Iterable[Step]:
    """One pass over time: seats are added and taken off where they begin and end, and who is open is looked at only where
    that may change."""
    edges = {window.start, window.end}
    turns: dict[datetime, list[tuple[_Seat, int]]] = defaultdict(list)
    for seat in seats:
        turns[max(seat.start, window.start)].append((seat, 1))
        turns[seat.end].append((seat, -1))
    doors = {at for worker in workers for at in _doors(worker)}
    instants = sorted(edge for edge in edges | turns.keys() | doors if window.start <= edge <= window.end)
    taken: dict[str, _Tally] = defaultdict(_Tally)
    booked, capacity, open_names = _Tally(), Amount(), None
    for start, end in pairwise(instants):
        for seat, sign in turns.get(start, ()):
            booked.count(seat.needs, sign)
            taken[seat.worker].count(seat.needs, sign)
        if open_names is None or start in doors:
            open_workers = [worker for worker in workers if _takes_seats(worker, start)]
            open_names, capacity = {worker.id for worker in open_workers}, _capacity(open_workers)
        free = _Tally()
        free.add(booked, -1)
        for name in taken.keys() - open_names:
            free.add(taken[name], 1)
        yield Step(start=start, end=end, workers=len(open_names), booked=booked.amount(), free=free.left_of(capacity))


def _doors(worker: Worker) -> Iterable[datetime]:
    """When a worker opens or closes to seats, as far as that is written down."""
    for rest in worker.spec.maintenance:
        yield from (rest.frm, rest.to)
    if worker.spec.unschedulable is not None and worker.spec.unschedulable.until is not None:
        yield worker.spec.unschedulable.until


@dataclass(slots=True)
class _Tally:
    """A running sum of needs. Rounded when it is read: what is added and taken off again leaves no dust."""

    cpu_cores: float = 0
    memory_gb: float = 0
    storage_gb: float = 0
    nodes: int = 0
    seats: int = 0

    def count(self, needs: Requirements, sign: int) -> None:
        self.cpu_cores += sign * needs.cpu_cores
        self.memory_gb += sign * needs.memory_gb
        self.storage_gb += sign * needs.storage_gb
        self.nodes += sign * needs.node_count
        self.seats += sign

    def add(self, other: "_Tally", sign: int) -> None:
        self.cpu_cores += sign * other.cpu_cores
        self.memory_gb += sign * other.memory_gb
        self.storage_gb += sign * other.storage_gb
        self.nodes += sign * other.nodes

    def amount(self) -> Amount:
        return self._rounded(Amount(), seats=self.seats)

    def left_of(self, capacity: Amount) -> Amount:
        """The capacity with this (which is below zero) added to it."""
        return self._rounded(capacity)

    def _rounded(self, base: Amount, seats: int = 0) -> Amount:
        return Amount(
            cpu_cores=round(base.cpu_cores + self.cpu_cores, _DIGITS),
            memory_gb=round(base.memory_gb + self.memory_gb, _DIGITS),
            storage_gb=round(base.storage_gb + self.storage_gb, _DIGITS),
            nodes=base.nodes + self.nodes,
            seats=seats,
        )


def _takes_seats(worker: Worker, at: datetime) -> bool:
    cordon = worker.spec.unschedulable
    if cordon is not None and (cordon.until is None or at < cordon.until):
        return False
    if worker.status.phase in (WorkerPhase.FAILED, WorkerPhase.TERMINATING):
        return False
    return not any(rest.frm <= at < rest.to for rest in worker.spec.maintenance)


def _capacity(workers: Iterable[Worker]) -> Amount:
    members = list(workers)
    specs = [worker.spec for worker in members]
    return Amount(
        cpu_cores=sum(spec.capacity.cpu_cores for spec in specs),
        memory_gb=sum(spec.capacity.memory_gb for spec in specs),
        storage_gb=sum(spec.capacity.storage_gb for spec in specs),
        nodes=sum(worker.nodes for worker in members),
    )


def _sum(seats: Iterable[_Seat]) -> Amount:
    taken = _Tally()
    for seat in seats:
        taken.count(seat.needs, 1)
    return taken.amount()
