"""Series: a term of classes, as one recurrence rule and the reservations of its dates.

A date is named by the local day that the rule gave it, and keeps that name when it is moved. What happens to a single
date later on (it runs, it fails, somebody cancels it alone) stands in its reservation; the series says what was booked.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Minute, Model, Name, Resource, Status
from lablet_common.resources.reservation import ReservationSpec

MAX_OCCURRENCES = 400

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
"""A local date, ISO."""


class SeriesSpec(Model):
    rule: str
    """RFC 5545 RRULE."""
    timezone: str
    """IANA zone in which the rule's hours are meant."""
    first: Minute
    except_dates: tuple[Day, ...] = ()
    """Local dates left out."""
    mode: Literal["all", "fits"] = "all"
    """`all`: every date or none. `fits`: the dates that fit; the others are reported."""
    template: ReservationSpec
    """What each date asks for; its slot is the date's."""


class OccurrenceState(StrEnum):
    OPEN = "open"
    """Not placed yet."""
    HELD = "held"
    PLACED = "placed"
    UNFIT = "unfit"
    """It did not fit; `reason` says why."""
    CANCELLED = "cancelled"


class Occurrence(Model):
    """One date of the series."""

    date: Day
    """What the date is called, however it is moved."""
    start: Instant
    end: Instant
    state: OccurrenceState = OccurrenceState.OPEN
    reservation: str | None = None
    pool: Name | None = None
    """The pool that owns its reservation."""
    reason: str | None = None


class SeriesStage(StrEnum):
    """What is being done to the dates that are left."""

    PLACING = "placing"
    CONFIRMING = "confirming"
    RELEASING = "releasing"
    CHANGING = "changing"
    CANCELLING = "cancelling"


class SeriesWork(Model):
    """A request that is being worked off, step by step; kept here, so that whoever comes next goes on where it stopped."""

    request: str
    stage: SeriesStage
    pool: Name
    """Whose turn it is: the request's pointer lies in this pool's inbox."""
    left: tuple[Day, ...]
    """Dates not dealt with yet, in their order."""
    kept: dict[str, str] = {}
    """Dates that stay as they are, and why."""
    done: int = 0
    """Dates that have been changed or cancelled."""
    shift_days: int = 0
    shift_minutes: int = 0
    """By how much dates move, by the wall clock of the series' zone."""


class SeriesPhase(StrEnum):
    PENDING = "Pending"
    PLACED = "Placed"
    REFUSED = "Refused"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"
    """Its last date is over."""


class SeriesStatus(Status):
    phase: SeriesPhase
    pool: Name | None = None
    """The first pool: its owner takes all requests about the series, and ends it."""
    occurrences: Annotated[tuple[Occurrence, ...], Field(max_length=MAX_OCCURRENCES)] = ()
    work: SeriesWork | None = None


class Series(Resource[SeriesSpec, SeriesStatus]):
    machine = table(
        "Series",
        SeriesPhase.PENDING,
        {
            SeriesPhase.PENDING: {SeriesPhase.PLACED, SeriesPhase.REFUSED},
            SeriesPhase.PLACED: {SeriesPhase.CANCELLED, SeriesPhase.COMPLETED},
            SeriesPhase.REFUSED: set(),
            SeriesPhase.CANCELLED: set(),
            SeriesPhase.COMPLETED: set(),
        },
    )
    kind: Literal["Series"] = "Series"

    def occurrence(self, date: str) -> Occurrence | None:
        return next((one for one in self.status.occurrences if one.date == date), None)
