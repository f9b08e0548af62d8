"""Intents: what people and other systems may ask for, as the bodies of API calls and the data of intent events.

A body says what is wanted and nothing else; who asks, for which tenant and under which key stands in the envelope. A
field at fault is refused with its path and the remedy. What needs a clock or the store (a slot in the past, an unknown
definition) is checked by the gateway on top.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lablet_common.resources.artifact import ArtifactRole
from lablet_common.resources.kinds import DEFINITION, INSTANCE, POOL, RESERVATION, TEMPLATE, WORKER, Kind, Service
from lablet_common.resources.model import Instant, Labels, Minute, Model, Name
from lablet_common.resources.reservation import MAX_SEATS, Hold, RosterEntry
from lablet_common.resources.worker import PoolSpec, TemplateSpec


def _fault(field: str, message: str) -> PydanticCustomError:
    """An error about several fields, laid at the door of one: its path is in the context, under `field`."""
    return PydanticCustomError("fault", "{message}", {"field": field, "message": message})


_Seats = Annotated[int, Field(ge=1, le=MAX_SEATS)]


class ReservationCreate(Model):
    """Seats of a definition for a slot (`start` with `end` or `durationMinutes`) or as soon as possible."""

    definition: Annotated[str, Field(min_length=1, max_length=160)]
    """`name` or `name@version`; without a version the newest that is not deprecated."""
    seats: _Seats = 1
    pool: Name | None = None
    pools: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    start: Minute | None = None
    end: Minute | None = None
    duration_minutes: Annotated[int, Field(ge=1, le=527_040)] | None = None
    asap: bool = False
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    labels: Labels = {}
    worker_selector: Labels = {}
    roster: tuple[RosterEntry, ...] = ()
    hold: Hold | None = None

    @model_validator(mode="after")
    def _one_slot(self) -> Self:
        if self.pool is not None and self.pools:
            raise _fault("pools", "give pool or pools, not both")
        if self.asap:
            if self.start is not None or self.end is not None:
                raise _fault("asap", "asap finds the slot by itself: leave out start and end, give durationMinutes")
            if self.duration_minutes is None:
                raise _fault("durationMinutes", "asap needs durationMinutes")
            return self
        if self.start is None:
            raise _fault(
                "start", "start is missing: give start with end or durationMinutes, or asap with durationMinutes"
            )
        if (self.end is None) == (self.duration_minutes is None):
            raise _fault("end", "give end or durationMinutes, one of the two")
        if self.end is not None and self.end <= self.start:
            raise _fault("end", "end must be after start")
        if any(entry.seat > self.seats for entry in self.roster):
            raise _fault("roster", f"the roster names a seat above {self.seats}")
        return self

    @property
    def minutes(self) -> int:
        """The slot's length."""
        if self.duration_minutes is not None:
            return self.duration_minutes
        assert self.start is not None
        assert self.end is not None
        return int((self.end - self.start) / timedelta(minutes=1))


class ReservationRequested(Model):
    """The intent as the scheduler gets it: definition and pools resolved, the id settled."""

    id: str
    owner: str
    definition: str
    pools: tuple[Name, ...]
    seats: _Seats
    start: Minute | None = None
    end: Minute | None = None
    duration_minutes: int
    asap: bool = False
    priority: int = 0
    labels: Labels = {}
    worker_selector: Labels = {}
    roster: tuple[RosterEntry, ...] = ()
    hold: Hold | None = None


class ReservationChange(Model):
    """A new end (extend, shorten), a new start (move) or a new roster; what is left out stays."""

    start: Minute | None = None
    end: Minute | None = None
    roster: tuple[RosterEntry, ...] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.start is None and self.end is None and self.roster is None:
            raise _fault("end", "nothing to change: give start, end or roster")
        return self


class Nothing(Model):
    """An intent that needs no further words."""

    reason: str = ""


class DefinitionPublish(Model):
    """A lab file that was uploaded to staging (claim check)."""

    name: Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] | None = None
    staging: str
    """Key of the uploaded file."""
    digest: str
    bytes: int
    overrides: dict[str, Any] = {}
    """Fields of a definition's spec that win over what is inferred from the file."""


class WorkerDrain(Model):
    """Empty a worker for maintenance. Times are lab time."""

    at: Instant | None = None
    until: Instant | None = None
    deadline_minutes: Annotated[int, Field(ge=0)] | None = None
    message: str = ""
    force: bool = False


class WorkerCordon(Model):
    reason: Annotated[str, Field(min_length=1, max_length=256)]
    until: Instant | None = None


class PoolApply(Model):
    spec: PoolSpec
    labels: Labels = {}


class TemplateApply(Model):
    spec: TemplateSpec
    labels: Labels = {}


class ArtifactDelete(Model):
    role: ArtifactRole | None = None


class AssessmentCompleted(Model):
    """From the assessment system; `passed` may stand beside the score or inside it."""

    instance: str
    passed: bool | None = None
    score: dict[str, Any] | float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that may be asked: `io.lablet.<kind>.<verb>.v1`, decided by the kind's owner."""

    kind: Kind
    verb: str
    body: type[Model]
    """What the owner gets as data."""

    @property
    def type(self) -> str:
        return f"io.lablet.{self.kind.name}.{self.verb}.v1"

    @property
    def service(self) -> Service:
        return self.kind.owner


_ALL = (
    Intent(DEFINITION, "publish.requested", DefinitionPublish),
    Intent(DEFINITION, "deprecate.requested", Nothing),
    Intent(RESERVATION, "requested", ReservationRequested),
    Intent(RESERVATION, "confirm.requested", Nothing),
    Intent(RESERVATION, "change.requested", ReservationChange),
    Intent(RESERVATION, "cancel.requested", Nothing),
    Intent(INSTANCE, "start.requested", Nothing),
    Intent(INSTANCE, "stop.requested", Nothing),
    Intent(INSTANCE, "collect.requested", Nothing),
    Intent(INSTANCE, "retry.requested", Nothing),
    Intent(WORKER, "drain.requested", WorkerDrain),
    Intent(WORKER, "drain-cancel.requested", Nothing),
    Intent(WORKER, "cordon.requested", WorkerCordon),
    Intent(WORKER, "uncordon.requested", Nothing),
    Intent(WORKER, "replace.requested", Nothing),
    Intent(POOL, "apply.requested", PoolApply),
    Intent(POOL, "delete.requested", Nothing),
    Intent(TEMPLATE, "apply.requested", TemplateApply),
    Intent(TEMPLATE, "delete.requested", Nothing),
)
INTENTS: Mapping[str, Intent] = {intent.type: intent for intent in _ALL}
"""By event type."""

ASSESSMENTS: Literal["io.lablet.assessment."] = "io.lablet.assessment."
