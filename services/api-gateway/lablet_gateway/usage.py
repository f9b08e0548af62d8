"""What a tenant has used and booked in a span: reservations, seats, hours of seats and workers, cost, by definition. Pure.

Counted is the part of each slot that lies in the span, for reservations that hold or held capacity; rejected, waiting,
expired and cancelled ones count as reservations only. A seat takes the part of a worker that its scarcest dimension says
(cpu, memory, storage, nodes): a lab of half a worker's memory costs half of the worker's price for its slot. The time a
worker is on without labs is nobody's and stands in no tenant's report. What was placed on a worker, or by a definition,
that is not known any more has seat-hours and no price: `unpricedSeatHours`.
"""

import csv
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lablet_common.resources.definition import Requirements
from lablet_common.resources.model import Instant, Model, format_time
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatState
from lablet_common.resources.worker import Capacity

_COUNTED = frozenset(
    {ReservationPhase.HELD, ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE, ReservationPhase.COMPLETED}
)


@dataclass(frozen=True, slots=True)
class Price:
    """Of one seat of a definition on a worker."""

    share: float
    """Part of the worker, 0 to 1."""
    per_hour_usd: float
    """Of the whole worker."""


Pricing = Callable[[str, str], Price | None]
"""Definition and worker → price; None where one of them is not known any more."""


class DefinitionUsage(Model):
    definition: str
    reservations: int
    seats: int
    seat_hours: float
    worker_hours: float
    cost_usd: float


class Usage(Model):
    """Hours are lab time."""

    tenant: str
    start: Instant
    end: Instant
    reservations: dict[str, int]
    """By phase."""
    seats: int
    seat_hours: float
    worker_hours: float
    """Hours of whole workers that the seats come to."""
    cost_usd: float
    """By the templates' prices."""
    unpriced_seat_hours: float
    definitions: tuple[DefinitionUsage, ...]


@dataclass(frozen=True, slots=True)
class Booked:
    """What counts of a reservation, at a twentieth of its memory: a report may be of all that were made in a year."""

    phase: ReservationPhase
    start: datetime
    end: datetime
    definition: str
    seats: int
    workers: tuple[str, ...]
    """Of its seats that are not lost."""

    @classmethod
    def of(cls, reservation: Reservation) -> "Booked":
        slot, made = reservation.slot, reservation.metadata.created_at
        return cls(
            reservation.status.phase,
            made if slot is None else slot.start,
            made + timedelta(minutes=1) if slot is None else slot.end,
            sys.intern(reservation.spec.definition),
            reservation.spec.seats,
            tuple(sys.intern(seat.worker) for seat in reservation.status.placement if seat.state is not SeatState.LOST),
        )


@dataclass(slots=True)
class _Sum:
    reservations: int = 0
    seats: int = 0
    seat_hours: float = 0.0
    worker_hours: float = 0.0
    cost: float = 0.0
    unpriced: float = 0.0
    prices: dict[str, Price | None] = field(default_factory=dict)


def share_of(needs: Requirements, capacity: Capacity, max_nodes: int) -> float:
    """The part of a worker that a seat takes, by its scarcest dimension; at most 1."""
    parts = (
        (needs.cpu_cores, capacity.cpu_cores),
        (needs.memory_gb, capacity.memory_gb),
        (needs.storage_gb, capacity.storage_gb),
        (needs.node_count, max_nodes),
    )
    return min(1.0, max((wanted / there for wanted, there in parts if there), default=0.0))


def usage(tenant: str, reservations: Iterable[Booked], start: datetime, end: datetime, pricing: Pricing) -> Usage:
    """Of the reservations whose slot (or, without one, whose making) lies in `[start, end)`."""
    phases: Counter[str] = Counter()
    by_definition: dict[str, _Sum] = defaultdict(_Sum)
    for reservation in reservations:
        if reservation.end <= start or reservation.start >= end:
            continue
        phases[str(reservation.phase)] += 1
        if reservation.phase in _COUNTED:
            hours = (min(reservation.end, end) - max(reservation.start, start)) / timedelta(hours=1)
            _add(by_definition[reservation.definition], reservation, hours, pricing)
    definitions = tuple(
        DefinitionUsage(
            definition=name,
            reservations=used.reservations,
            seats=used.seats,
            seat_hours=round(used.seat_hours, 3),
            worker_hours=round(used.worker_hours, 3),
            cost_usd=round(used.cost, 2),
        )
        for name, used in sorted(by_definition.items())
    )
    sums = by_definition.values()
    return Usage(
        tenant=tenant,
        start=start,
        end=end,
        reservations=dict(sorted(phases.items())),
        seats=sum(used.seats for used in sums),
        seat_hours=round(sum(used.seat_hours for used in sums), 3),
        worker_hours=round(sum(used.worker_hours for used in sums), 3),
        cost_usd=round(sum(used.cost for used in sums), 2),
        unpriced_seat_hours=round(sum(used.unpriced for used in sums), 3),
        definitions=definitions,
    )


def _add(total: _Sum, reservation: Booked, hours: float, pricing: Pricing) -> None:
    total.reservations += 1
    total.seats += reservation.seats
    total.seat_hours += reservation.seats * hours
    for worker in reservation.workers:
        if worker not in total.prices:
            total.prices[worker] = pricing(reservation.definition, worker)
        price = total.prices[worker]
        if price is None:
            total.unpriced += hours
            continue
        total.worker_hours += price.share * hours
        total.cost += price.share * hours * price.per_hour_usd


def as_csv(report: Usage) -> str:
    """The report as comma-separated values: a line for each definition, and one for all of them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(
        ("tenant", "from", "to", "definition", "reservations", "seats", "seatHours", "workerHours", "costUsd")
    )
    head = (report.tenant, format_time(report.start), format_time(report.end))
    for used in report.definitions:
        numbers = (used.reservations, used.seats, used.seat_hours, used.worker_hours, used.cost_usd)
        writer.writerow((*head, used.definition, *numbers))
    counted = sum(used.reservations for used in report.definitions)
    writer.writerow((*head, "", counted, report.seats, report.seat_hours, report.worker_hours, report.cost_usd))
    return text.getvalue()
