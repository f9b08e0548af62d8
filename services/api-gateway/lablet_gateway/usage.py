"""What a tenant has used and booked in a span: reservations, seats and seat-hours, by definition. Pure.

Seat-hours count the part of each slot that lies in the span, for reservations that hold or held capacity; rejected,
waiting, expired and cancelled ones count as reservations only.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from lablet_common.resources.model import Instant, Model
from lablet_common.resources.reservation import Reservation, ReservationPhase, Slot

_COUNTED = frozenset(
    {ReservationPhase.HELD, ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE, ReservationPhase.COMPLETED}
)


class DefinitionUsage(Model):
    definition: str
    reservations: int
    seats: int
    seat_hours: float


class Usage(Model):
    """Hours are lab time."""

    tenant: str
    start: Instant
    end: Instant
    reservations: dict[str, int]
    """By phase."""
    seats: int
    seat_hours: float
    definitions: tuple[DefinitionUsage, ...]


def usage(tenant: str, reservations: Iterable[Reservation], start: datetime, end: datetime) -> Usage:
    """Of the reservations whose slot (or, without one, whose making) lies in `[start, end)`."""
    phases: Counter[str] = Counter()
    by_definition: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for reservation in reservations:
        slot = reservation.slot or Slot.model_construct(
            start=reservation.metadata.created_at, end=reservation.metadata.created_at + timedelta(minutes=1)
        )
        if slot.end <= start or slot.start >= end:
            continue
        phases[str(reservation.phase)] += 1
        if reservation.status.phase in _COUNTED:
            hours = (min(slot.end, end) - max(slot.start, start)) / timedelta(hours=1)
            by_definition[reservation.spec.definition].append((reservation.spec.seats, hours))
    definitions = tuple(
        DefinitionUsage(
            definition=name,
            reservations=len(used),
            seats=sum(seats for seats, _ in used),
            seat_hours=round(sum(seats * hours for seats, hours in used), 3),
        )
        for name, used in sorted(by_definition.items())
    )
    return Usage(
        tenant=tenant,
        start=start,
        end=end,
        reservations=dict(sorted(phases.items())),
        seats=sum(entry.seats for entry in definitions),
        seat_hours=round(sum(entry.seat_hours for entry in definitions), 3),
        definitions=definitions,
    )
