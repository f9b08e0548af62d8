"""Reservation: seats of one definition for one slot, all or none."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Labels, Minute, Model, Name, Resource, Status

MAX_SEATS = 100


class Slot(Model):
    """Half-open `[start, end)` on whole minutes."""

    start: Minute
    end: Minute

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def overlaps(self, other: "Slot") -> bool:
        return self.start < other.end and other.start < self.end


class Hold(Model):
    """A reservation that is kept for its owner until it is confirmed or expires."""

    expires_at: Instant


class RosterEntry(Model):
    """Who may use a seat."""

    seat: Annotated[int, Field(ge=1, le=MAX_SEATS)]
    user: str


class Claim(Model):
    """A seat that waits for whoever shows the code with this hash."""

    seat: Annotated[int, Field(ge=1, le=MAX_SEATS)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the code, hexadecimal; it never leaves the store."""


MAX_EXTENDABLE_MINUTES = 1440


class ReservationSpec(Model):
    definition: str
    """`name@version`, resolved when the request was accepted."""
    pools: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)] = ("default",)
    """First choice first."""
    seats: Annotated[int, Field(ge=1, le=MAX_SEATS)] = 1
    start: Minute | None = None
    """None: as soon as possible."""
    end: Minute | None = None
    duration_minutes: Annotated[int, Field(ge=1)]
    asap: bool = False
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    worker_selector: Labels = {}
    roster: tuple[RosterEntry, ...] = ()
    claims: tuple[Claim, ...] = ()
    """Seats for which a claim link is out; each link counts once."""
    extendable_minutes: Annotated[int, Field(ge=0, le=MAX_EXTENDABLE_MINUTES)] = 0
    """By which those on the roster may make the slot longer themselves, all together."""
    hold: Hold | None = None
    series: str | None = None
    """The series that it is a date of."""
    occurrence: str | None = None
    """Which date of the series, by its local day."""


class SeatState(StrEnum):
    PLACED = "placed"
    LOST = "lost"
    """Its worker was lost and nothing else could take it: the seat has failed."""


class SeatPlacement(Model):
    """Where one seat runs."""

    seat: int
    worker: str
    ports: dict[str, int] = {}
    instance: str
    state: SeatState = SeatState.PLACED
    attempt: int = 1
    """Grows each time the seat is moved after its instance had begun."""


class Suggestion(Model):
    """The nearest slot that would fit."""

    start: Instant
    end: Instant


class Explanation(Model):
    """Why a decision came out as it did, in words and as data."""

    summary: str
    considered: int = 0
    """Workers looked at."""
    removed: dict[str, int] = {}
    """Workers that each filter removed."""
    binding: str | None = None
    """The dimension that decided."""
    nearest_miss: dict[str, Any] | None = None
    """The worker that came closest, and what it lacked."""
    earliest: Suggestion | None = None
    chosen: dict[str, Any] | None = None
    """For a placement: why these workers."""


class ReservationPhase(StrEnum):
    PENDING = "Pending"
    HELD = "Held"
    SCHEDULED = "Scheduled"
    WAITLISTED = "Waitlisted"
    ACTIVE = "Active"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"
    FAILED = "Failed"


class ReservationStatus(Status):
    phase: ReservationPhase
    pool: Name | None = None
    """The one pool that owns it."""
    slot: Slot | None = None
    """What it was given; for a fixed slot, what was asked for."""
    placement: tuple[SeatPlacement, ...] = ()
    explanation: Explanation | None = None
    outcomes: dict[str, str] = {}
    """Seat number → the last phase its instance reached, when the reservation has ended."""
    waiting_since: Instant | None = None
    extended_minutes: int = 0
    """By which its slot has become longer, all extensions together."""


class Reservation(Resource[ReservationSpec, ReservationStatus]):
    machine = table(
        "Reservation",
        {
            ReservationPhase.PENDING,
            ReservationPhase.HELD,
            ReservationPhase.SCHEDULED,
            ReservationPhase.WAITLISTED,
            ReservationPhase.REJECTED,
            ReservationPhase.CANCELLED,
        },
        {
            ReservationPhase.PENDING: {
                ReservationPhase.HELD,
                ReservationPhase.SCHEDULED,
                ReservationPhase.WAITLISTED,
                ReservationPhase.REJECTED,
                ReservationPhase.CANCELLED,
            },
            ReservationPhase.HELD: {
                ReservationPhase.SCHEDULED,
                ReservationPhase.CANCELLED,
                ReservationPhase.EXPIRED,
            },
            ReservationPhase.WAITLISTED: {
                ReservationPhase.SCHEDULED,
                ReservationPhase.CANCELLED,
                ReservationPhase.EXPIRED,
            },
            ReservationPhase.SCHEDULED: {
                ReservationPhase.SCHEDULED,
                ReservationPhase.WAITLISTED,
                ReservationPhase.ACTIVE,
                ReservationPhase.CANCELLED,
                ReservationPhase.EXPIRED,
                ReservationPhase.FAILED,
            },
            ReservationPhase.ACTIVE: {
                ReservationPhase.ACTIVE,
                ReservationPhase.COMPLETED,
                ReservationPhase.FAILED,
                ReservationPhase.CANCELLED,
            },
            ReservationPhase.COMPLETED: set(),
            ReservationPhase.REJECTED: set(),
            ReservationPhase.CANCELLED: set(),
            ReservationPhase.EXPIRED: set(),
            ReservationPhase.FAILED: set(),
        },
    )
    kind: Literal["Reservation"] = "Reservation"

    def public(self) -> Self:
        """Without the hashes of claim codes."""
        if not self.spec.claims:
            return self
        open_seats = tuple(Claim(seat=claim.seat) for claim in self.spec.claims)
        return self.model_copy(update={"spec": self.spec.model_copy(update={"claims": open_seats})})

    @property
    def slot(self) -> Slot | None:
        """The slot it was given, else the one it asks for; None while an "as soon as possible" waits."""
        if self.status.slot is not None:
            return self.status.slot
        if self.spec.start is not None and self.spec.end is not None:
            return Slot(start=self.spec.start, end=self.spec.end)
        return None

    @property
    def holds_capacity(self) -> bool:
        """Its placement is booked on the calendar."""
        return self.status.phase in (ReservationPhase.HELD, ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE)

    def seat(self, number: int) -> SeatPlacement | None:
        return next((p for p in self.status.placement if p.seat == number), None)
