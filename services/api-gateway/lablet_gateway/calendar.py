"""What is booked where and when: calendars of workers and pools, computed on read from reservations. Pure.

A seat takes its definition's requirements on its worker from the slot's start to its end, and until the lab is gone
when that is later. Half-open spans; instants are lab time. Not guaranteed: that what is free here can be had: ports,
licences and turnaround are the scheduler's to judge.
"""

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
    """When the bookings need the machine on, boot and preparation included."""
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
    return PoolCalendar(
        pool=pool,
        start=window.start,
        end=window.end,
        now=window.now,
        steps=tuple(_steps(members, seats, window)),
        workers=tuple(_worker(worker, spec, seats, window) for worker in members),
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
    return _worker(worker, spec, list(_seats(reservations, instances, needs, window, tenant)), window)


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
    mine = sorted(
        (seat for seat in seats if seat.worker == worker.id), key=lambda seat: (seat.start, seat.booking.seat)
    )
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
    lead = timedelta(minutes=worker.spec.boot_minutes + (spec.preparation_minutes if spec else 0))
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
    edges = {window.start, window.end}
    for seat in seats:
        edges |= {seat.start, seat.end}
    for worker in workers:
        for rest in worker.spec.maintenance:
            edges |= {rest.frm, rest.to}
        if worker.spec.unschedulable is not None and worker.spec.unschedulable.until is not None:
            edges.add(worker.spec.unschedulable.until)
    instants = sorted(edge for edge in edges if window.start <= edge <= window.end)
    for start, end in pairwise(instants):
        open_workers = [worker for worker in workers if _takes_seats(worker, start)]
        names = {worker.id for worker in open_workers}
        busy = [seat for seat in seats if seat.start <= start < seat.end]
        capacity = _capacity(open_workers)
        taken = _sum(seat for seat in busy if seat.worker in names)
        free = Amount(
            cpu_cores=capacity.cpu_cores - taken.cpu_cores,
            memory_gb=capacity.memory_gb - taken.memory_gb,
            storage_gb=capacity.storage_gb - taken.storage_gb,
            nodes=capacity.nodes - taken.nodes,
        )
        yield Step(start=start, end=end, workers=len(open_workers), booked=_sum(busy), free=free)


def _takes_seats(worker: Worker, at: datetime) -> bool:
    cordon = worker.spec.unschedulable
    if cordon is not None and (cordon.until is None or at < cordon.until):
        return False
    if worker.status.phase in (WorkerPhase.FAILED, WorkerPhase.TERMINATING):
        return False
    return not any(rest.frm <= at < rest.to for rest in worker.spec.maintenance)


def _capacity(workers: Iterable[Worker]) -> Amount:
    specs = [worker.spec for worker in workers]
    return Amount(
        cpu_cores=sum(spec.capacity.cpu_cores for spec in specs),
        memory_gb=sum(spec.capacity.memory_gb for spec in specs),
        storage_gb=sum(spec.capacity.storage_gb for spec in specs),
        nodes=sum(spec.max_nodes for spec in specs),
    )


def _sum(seats: Iterable[_Seat]) -> Amount:
    taken = list(seats)
    return Amount(
        cpu_cores=sum(seat.needs.cpu_cores for seat in taken),
        memory_gb=sum(seat.needs.memory_gb for seat in taken),
        storage_gb=sum(seat.needs.storage_gb for seat in taken),
        nodes=sum(seat.needs.node_count for seat in taken),
        seats=len(taken),
    )
