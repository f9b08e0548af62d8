"""What may be asked of a series: the bodies of API calls and the data of intent events. See `intents`."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lablet_common.resources.model import Labels, Minute, Model, Name, fault
from lablet_common.resources.reservation import MAX_SEATS, ReservationSpec, RosterEntry
from lablet_common.resources.series import Day, SeriesSpec

_Seats = Annotated[int, Field(ge=1, le=MAX_SEATS)]
_Minutes = Annotated[int, Field(ge=1, le=527_040)]
Scope = Literal["this", "following", "all"]


class SeriesCreate(Model):
    """Seats of a definition on every date of a rule, at the same local time."""

    definition: Annotated[str, Field(min_length=1, max_length=160)]
    """`name` or `name@version`; without a version the newest that is not deprecated."""
    seats: _Seats = 1
    pool: Name | None = None
    pools: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    start: Minute
    """Of the first date; its local time is that of all."""
    end: Minute | None = None
    duration_minutes: _Minutes | None = None
    rule: Annotated[str, Field(min_length=1, max_length=512)]
    """RFC 5545 RRULE by the day, week, month or year, such as `FREQ=WEEKLY;BYDAY=TU;COUNT=14`."""
    timezone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """IANA zone."""
    except_dates: Annotated[tuple[Day, ...], Field(max_length=400)] = ()
    """Local dates left out."""
    mode: Literal["all", "fits"] = "all"
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    labels: Labels = {}
    worker_selector: Labels = {}
    roster: tuple[RosterEntry, ...] = ()

    @model_validator(mode="after")
    def _one_slot(self) -> Self:
        if self.pool is not None and self.pools:
            raise fault("pools", "give pool or pools, not both")
        if (self.end is None) == (self.duration_minutes is None):
            raise fault("end", "give end or durationMinutes, one of the two")
        if self.end is not None and self.end <= self.start:
            raise fault("end", "end must be after start")
        if any(entry.seat > self.seats for entry in self.roster):
            raise fault("roster", f"the roster names a seat above {self.seats}")
        return self

    @property
    def minutes(self) -> int:
        """The length of each date."""
        if self.duration_minutes is not None:
            return self.duration_minutes
        assert self.end is not None
        return int((self.end - self.start) / timedelta(minutes=1))


class SeriesRequested(Model):
    """The intent as the scheduler gets it: definition and pools resolved, the id settled."""

    id: str
    owner: str
    rule: str
    timezone: str
    first: Minute
    except_dates: tuple[Day, ...] = ()
    mode: Literal["all", "fits"] = "all"
    template: ReservationSpec
    labels: Labels = {}

    def spec(self) -> SeriesSpec:
        """Of the series that it asks for."""
        return SeriesSpec(
            rule=self.rule,
            timezone=self.timezone,
            first=self.first,
            except_dates=self.except_dates,
            mode=self.mode,
            template=self.template,
        )


class SeriesChange(Model):
    """Another slot, length, number of seats, definition or roster for some dates; what is left out stays. Dates that have
    begun stay as they are."""

    scope: Scope = "all"
    """`this` date, this and the `following`, or `all`."""
    date: Day | None = None
    """The date that `this` and `following` mean; for `all` the one that `start` is about: the next, if not given."""
    start: Minute | None = None
    """The new start of `date`. The others move by as many local days and minutes."""
    duration_minutes: _Minutes | None = None
    seats: _Seats | None = None
    definition: Annotated[str, Field(min_length=1, max_length=160)] | None = None
    roster: tuple[RosterEntry, ...] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        asked = (self.start, self.duration_minutes, self.seats, self.definition, self.roster)
        if all(part is None for part in asked):
            raise fault("start", "nothing to change: give start, durationMinutes, seats, definition or roster")
        _need_date(self.scope, self.date)
        return self


class SeriesCancel(Model):
    """Gives dates back. Those that have begun run to their end, unless `this` names one."""

    scope: Scope = "all"
    date: Day | None = None
    reason: Annotated[str, Field(max_length=256)] = ""

    @model_validator(mode="after")
    def _named(self) -> Self:
        _need_date(self.scope, self.date)
        return self


class RehearsedDate(Model):
    """How one date of a series would come out."""

    date: Day
    start: Minute
    end: Minute
    fits: bool
    pool: Name | None = None
    """Where it would be placed."""
    reason: str = ""
    """Why there, or what forbids it."""


class SeriesRehearsal(Model):
    """What would become of a series, in the order of its dates. Hours and cost are of power, boots included."""

    dates: tuple[RehearsedDate, ...]
    granted: bool
    """The series as it is asked for would be placed."""
    worker_hours_added: float = 0.0
    cost_added_usd: float = 0.0

    @property
    def unfit(self) -> int:
        return sum(not one.fits for one in self.dates)


def _need_date(scope: Scope, date: str | None) -> None:
    if scope != "all" and date is None:
        raise fault("date", f"scope {scope} needs the date that is meant, as YYYY-MM-DD")
