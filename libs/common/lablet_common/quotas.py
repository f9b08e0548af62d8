"""Quotas: how much a tenant and each of its owners may have open, and the ledger of what they have.

The gateway writes the limits, the owners of the pools the ledger, in the same transactions as the reservations: each
such transaction compares the limits, and where there are any, the ledger. So the ledger is the sum of the open
reservations at every revision, and two pools cannot both grant what is left. Limits are changed, never deleted.
"""

from typing import Annotated

from pydantic import Field

from lablet_common.resources.model import Model
from lablet_common.resources.reservation import Reservation, ReservationPhase

QUOTAS = "/quotas/"
LEDGERS = "/ledgers/"
_Limit = Annotated[int | None, Field(ge=0)]


class Limits(Model):
    """None: no limit."""

    open_seats: _Limit = None
    """Seats of reservations that wait, are held or scheduled, or run."""
    open_seat_hours: _Limit = None
    """Their seats times their slots."""
    longest_slot_minutes: _Limit = None
    furthest_ahead_days: _Limit = None
    """From now to the start."""
    total_extension_minutes: _Limit = None
    """By which a reservation may come to end later than it asked for at first, all in all."""


class Quota(Model):
    """The limits of a tenant as a whole and of each owner in it, and how long its work is kept."""

    tenant: Limits = Limits()
    owner: Limits = Limits()
    retention_days: Annotated[float | None, Field(gt=0, le=36_525)] = None
    """Lab days that the tenant's collected work, exports and reports are kept; None: as the artifact-service is set."""


class Usage(Model):
    """What is open."""

    seats: int = 0
    seat_minutes: int = 0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(seats=self.seats + other.seats, seat_minutes=self.seat_minutes + other.seat_minutes)

    def minus(self, other: "Usage") -> "Usage":
        return Usage(seats=self.seats - other.seats, seat_minutes=self.seat_minutes - other.seat_minutes)


class Ledger(Model):
    """The open reservations of a tenant, summed by owner; owners with nothing open are left out."""

    owners: dict[str, Usage] = {}

    @property
    def total(self) -> Usage:
        total = Usage()
        for usage in self.owners.values():
            total = total.plus(usage)
        return total

    def of(self, owner: str) -> Usage:
        return self.owners.get(owner, Usage())

    def entered(self, owner: str, change: Usage) -> "Ledger":
        """The ledger with a change of one owner's usage."""
        owners = dict(self.owners)
        owners[owner] = self.of(owner).plus(change)
        return Ledger(owners={name: usage for name, usage in sorted(owners.items()) if usage != Usage()})


class QuotaState(Model):
    """The limits, and what is open. Without limits nothing is counted: then `used` is missing, as it is until the first
    decision after the limits were set."""

    tenant: str
    limits: Quota
    used: Usage | None = None
    owners: dict[str, Usage] = {}


def usage_of(reservation: Reservation | None) -> Usage:
    """What a reservation counts for while it is open."""
    if reservation is None or reservation.is_final or reservation.status.phase is ReservationPhase.PENDING:
        return Usage()
    minutes = (
        reservation.spec.duration_minutes
        if reservation.slot is None
        else int(reservation.slot.duration.total_seconds() // 60)
    )
    return Usage(seats=reservation.spec.seats, seat_minutes=reservation.spec.seats * minutes)


def owner_of(reservation: Reservation) -> str:
    """Under whose name it stands in the ledger."""
    return reservation.metadata.owner or ""
