"""Series: a term of classes, as one recurrence rule and its reservations."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Minute, Model, Resource, Status
from lablet_common.resources.reservation import ReservationSpec

MAX_OCCURRENCES = 400


class SeriesSpec(Model):
    rule: str
    """RFC 5545 RRULE."""
    timezone: str
    """IANA zone in which the rule's hours are meant."""
    first: Minute
    except_dates: tuple[str, ...] = ()
    """Local dates left out, ISO."""
    mode: Literal["all", "fits"] = "all"
    template: ReservationSpec


class Occurrence(Model):
    start: Instant
    reservation: str | None = None
    fits: bool = False
    reason: str | None = None


class SeriesPhase(StrEnum):
    PENDING = "Pending"
    PLACED = "Placed"
    REFUSED = "Refused"
    CANCELLED = "Cancelled"


class SeriesStatus(Status):
    phase: SeriesPhase
    occurrences: Annotated[tuple[Occurrence, ...], Field(max_length=MAX_OCCURRENCES)] = ()


class Series(Resource[SeriesSpec, SeriesStatus]):
    machine = table(
        "Series",
        SeriesPhase.PENDING,
        {
            SeriesPhase.PENDING: {SeriesPhase.PLACED, SeriesPhase.REFUSED, SeriesPhase.CANCELLED},
            SeriesPhase.PLACED: {SeriesPhase.CANCELLED},
            SeriesPhase.REFUSED: set(),
            SeriesPhase.CANCELLED: set(),
        },
    )
    kind: Literal["Series"] = "Series"
