"""What a drain does to whom. Pure: the worker-controller decides by it, and the gateway tells by it what would happen.

A drain books a span of maintenance. What is booked in it and has not begun moves to another worker. A lab that runs stays
until its slot ends, or until the drain's deadline where its slot goes on longer: then it is collected, ended here, and runs
elsewhere for what is left where there is room. Nothing whose slot ends before the deadline is ever ended.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from lablet_common.intents import WorkerDrain, WorkerReplace
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.model import Instant, Model
from lablet_common.resources.reservation import Reservation, SeatState, Slot
from lablet_common.resources.worker import Maintenance, WorkerSpec

DRAIN = "drain"
REPLACE = "replace"

Fate = Literal["moves", "stays", "ends"]


class InvalidSpan(ValueError):
    """A span that ends before it begins."""


class DrainedSeat(Model):
    """One seat that the span concerns."""

    reservation: str
    seat: int
    instance: str
    phase: str
    """Of its instance; `Scheduled` where there is none yet."""
    slot: Slot
    fate: Fate
    until: Instant | None = None
    """How long its lab runs on this worker, where one does."""


class DrainPlan(Model):
    """What a drain would do, had it been asked for now."""

    worker: str
    frm: Instant = Field(alias="from")
    to: Instant
    deadline: Instant | None
    """When labs that still run are ended; None: none is."""
    seats: tuple[DrainedSeat, ...]


def span_of(asked: WorkerDrain | WorkerReplace, now: datetime, patience: timedelta, reason: str = DRAIN) -> Maintenance:
    """The span that a drain books. `patience`: the template's, for labs that run when nothing else was said. Raises
    `InvalidSpan`."""
    begin = _minute((asked.at if isinstance(asked, WorkerDrain) else None) or now)
    until = asked.until if isinstance(asked, WorkerDrain) else None
    given = timedelta(minutes=asked.deadline_minutes) if asked.deadline_minutes is not None else patience
    end = _minute(until) if until is not None else begin + max(given, timedelta(minutes=1))
    if end <= begin:
        raise InvalidSpan(f"until {end.isoformat()} is not after {begin.isoformat()}")
    deadline = begin if asked.force else begin + given
    return Maintenance.model_validate(
        {"from": begin, "to": end, "reason": reason, "deadline": deadline if deadline <= end else None}
    )


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def in_the_way(worker: WorkerSpec, start: datetime, end: datetime) -> Maintenance | None:
    """The first span in which nothing new may run between the two instants; a replacement counts for what is near."""
    return next((span for span in worker.maintenance if span.frm < end and start < span.to), None)


def evicted_at(worker: WorkerSpec, began: datetime, end: datetime) -> datetime | None:
    """When a lab that began there is ended before its slot is; None: it is not."""
    deadlines = [span.deadline for span in worker.maintenance if span.deadline is not None]
    return min((moment for moment in deadlines if began < moment < end), default=None)


def plan_of(
    name: str,
    span: Maintenance,
    reservations: Iterable[Reservation],
    instances: Mapping[str, Instance],
    turnaround: timedelta,
    now: datetime,
) -> DrainPlan:
    """Every seat on the worker that the span concerns, in the order of their slots."""
    seats = []
    for reservation in reservations:
        slot = reservation.slot
        if slot is None or not reservation.holds_capacity:
            continue
        for seat in reservation.status.placement:
            if seat.worker != name or seat.state is not SeatState.PLACED:
                continue
            instance = instances.get(seat.instance)
            begun = instance is not None and instance.phase not in (InstancePhase.PENDING, InstancePhase.FAILED)
            if instance is not None and instance.is_final:
                continue
            if not begun and not (span.frm < slot.end + turnaround and slot.start < span.to):
                continue
            fate, until = _fate(slot, begun=begun, span=span, now=now)
            phase = str(instance.phase) if instance is not None else str(reservation.phase)
            seats.append(
                DrainedSeat(
                    reservation=reservation.id,
                    seat=seat.seat,
                    instance=seat.instance,
                    phase=phase,
                    slot=slot,
                    fate=fate,
                    until=until,
                )
            )
    seats.sort(key=lambda one: (one.slot.start, one.instance))
    return DrainPlan.model_validate(
        {"worker": name, "from": span.frm, "to": span.to, "deadline": span.deadline, "seats": seats}
    )


def _fate(slot: Slot, *, begun: bool, span: Maintenance, now: datetime) -> tuple[Fate, datetime | None]:
    if not begun:
        return "moves", None
    if span.deadline is not None and span.deadline < slot.end:
        return "ends", max(span.deadline, now)
    return "stays", slot.end
