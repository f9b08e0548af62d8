"""Intents: what people and other systems may ask for, as the bodies of API calls and the data of intent events.

A body says what is wanted and nothing else; who asks, for which tenant and under which key stands in the envelope. A
field at fault is refused with its path and the remedy. What needs a clock or the store (a slot in the past, an unknown
definition) is checked by the gateway on top.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lablet_common.resources.artifact import ArtifactRole
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    SERIES,
    TEMPLATE,
    WORKER,
    Kind,
    Service,
)
from lablet_common.resources.model import Instant, Labels, Minute, Model, Name, fault
from lablet_common.resources.reservation import (
    MAX_EXTENDABLE_MINUTES,
    MAX_SEATS,
    Claim,
    Explanation,
    Hold,
    ReservationSpec,
    RosterEntry,
    Slot,
)
from lablet_common.resources.series import MAX_OCCURRENCES
from lablet_common.resources.worker import Capacity, Minutes, PoolSpec, PortRange, TemplateSpec
from lablet_common.strangers import Free
from lablet_common.terms import SeriesCancel, SeriesChange, SeriesCreate, SeriesRequested

_Seats = Annotated[int, Field(ge=1, le=MAX_SEATS)]
_Extendable = Annotated[int, Field(ge=0, le=MAX_EXTENDABLE_MINUTES)]


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
    extendable_minutes: _Extendable = 0
    """By which those on the roster may make the slot longer themselves, all together."""
    hold: Hold | None = None

    @model_validator(mode="after")
    def _one_slot(self) -> Self:
        if self.pool is not None and self.pools:
            raise fault("pools", "give pool or pools, not both")
        if self.asap:
            if self.start is not None or self.end is not None:
                raise fault("asap", "asap finds the slot by itself: leave out start and end, give durationMinutes")
            if self.duration_minutes is None:
                raise fault("durationMinutes", "asap needs durationMinutes")
            return self
        if self.start is None:
            raise fault(
                "start", "start is missing: give start with end or durationMinutes, or asap with durationMinutes"
            )
        if (self.end is None) == (self.duration_minutes is None):
            raise fault("end", "give end or durationMinutes, one of the two")
        if self.end is not None and self.end <= self.start:
            raise fault("end", "end must be after start")
        if any(entry.seat > self.seats for entry in self.roster):
            raise fault("roster", f"the roster names a seat above {self.seats}")
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
    extendable_minutes: _Extendable = 0
    hold: Hold | None = None

    def spec(self) -> ReservationSpec:
        """Of the reservation that it asks for."""
        length = timedelta(minutes=self.duration_minutes)
        return ReservationSpec(
            definition=self.definition,
            pools=self.pools,
            seats=self.seats,
            start=self.start,
            end=self.end or (self.start + length if self.start else None),
            duration_minutes=self.duration_minutes,
            asap=self.asap,
            priority=self.priority,
            worker_selector=self.worker_selector,
            roster=self.roster,
            extendable_minutes=self.extendable_minutes,
            hold=self.hold,
        )


MAX_SIMULATED = 100


class SimulationCreate(Model):
    """What would become of these reservations, and of every date of these series, decided in their order, perhaps with
    another fleet? Nothing is booked. One of them, or a list, may stand for the whole."""

    reservations: Annotated[tuple[ReservationCreate, ...], Field(max_length=MAX_SIMULATED)] = ()
    series: Annotated[tuple[SeriesCreate, ...], Field(max_length=MAX_SIMULATED)] = ()
    """Their dates come after the reservations."""
    workers: Annotated[int, Field(ge=-10_000, le=10_000)] = 0
    """So many more workers than the pool has; below 0: fewer."""
    template: Name | None = None
    """The shape that all workers of the pool would have."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, dict) and "definition" in value:
            value = [value]
        if isinstance(value, list | tuple):
            terms = [one for one in value if isinstance(one, dict) and "rule" in one]
            return {"reservations": [one for one in value if one not in terms], "series": terms}
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.reservations and not self.series:
            raise fault("reservations", "nothing to simulate: give reservations or series")
        return self


class SimulateRequested(Model):
    """The what-if as the scheduler gets it: definitions, pools and shapes resolved."""

    wishes: Annotated[tuple[ReservationRequested, ...], Field(min_length=1, max_length=MAX_OCCURRENCES)]
    workers: int = 0
    shape: TemplateSpec | None = None
    """What all workers would be; None: what they are."""
    cost_per_hour_usd: float = 0.0
    """Of a worker, by its template."""


class SimulatedReservation(Model):
    """What one reservation would come to."""

    definition: str
    seats: int
    outcome: Literal["placed", "waitlisted", "rejected"]
    slot: Slot | None = None
    """What it would get; for one that would wait, what it asks for."""
    explanation: Explanation
    added_worker_hours: float = 0.0


class Simulation(Model):
    """The answer to a what-if. Hours and cost are of power, boots included."""

    pool: str
    workers: int
    reservations: tuple[SimulatedReservation, ...]
    worker_hours_before: float
    """Of what is booked, with the fleet as it is."""
    worker_hours_after: float
    worker_hours_added: float
    cost_added_usd: float
    displaced: int = 0
    """Booked reservations that would lose their place, with the other fleet."""


class ReservationChange(Model):
    """A new end (extend, shorten), a new start (move), a new roster, or before it is set up other seats or another
    definition; what is left out stays."""

    start: Minute | None = None
    end: Minute | None = None
    roster: tuple[RosterEntry, ...] | None = None
    seats: _Seats | None = None
    definition: Annotated[str, Field(min_length=1, max_length=160)] | None = None
    """`name` or `name@version`; without a version the newest that is not deprecated."""
    extendable_minutes: _Extendable | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        parts = (self.start, self.end, self.roster, self.seats, self.definition, self.extendable_minutes)
        if all(part is None for part in parts):
            raise fault("end", "nothing to change: give start, end, roster, seats, definition or extendableMinutes")
        return self


class PoolOptimise(Model):
    """Move seats that have not started, within their slots, so that workers can be off longer."""

    dry_run: bool = False
    """Only tell what would be moved, and what that would save."""
    max_moves: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Seats moved at most."""
    budget_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Real seconds for which a plan is looked for."""


class SeatMove(Model):
    """One seat that changes its worker, for the same slot."""

    reservation: str
    seat: int
    frm: str = Field(alias="from")
    to: str
    slot: Slot


class Optimisation(Model):
    """What was found, and whether it was done. Hours are of power, boots included."""

    pool: str
    moves: tuple[SeatMove, ...]
    """Soonest slot first. Where not all are named, `moved` counts them."""
    moved: int
    worker_hours_before: float
    worker_hours_after: float
    worker_hours_saved: float
    cost_saved_usd: float = 0.0
    proven: bool = False
    """No plan saves more (the number of moves not being limited)."""
    committed: bool = False
    """The seats have been moved; False: it was only looked for, or there was nothing to move."""


class OptimiseRequested(PoolOptimise):
    """The intent as the scheduler gets it."""

    cost_per_hour_usd: float = 0.0
    """Of a worker, by its template."""


class ReservationClaims(Model):
    """Seats that wait for whoever shows the code with that hash. Earlier claims of these seats count no more."""

    claims: Annotated[tuple[Claim, ...], Field(max_length=MAX_SEATS)] = ()
    withdraw: bool = False
    """No earlier claim of any seat counts any more."""

    @model_validator(mode="after")
    def _hashed(self) -> Self:
        if any(claim.sha256 is None for claim in self.claims):
            raise fault("claims", "each claim needs the sha256 of its code")
        if not self.claims and not self.withdraw:
            raise fault("claims", "give claims, or withdraw those that are out")
        return self


class ReservationClaim(Model):
    """A seat for `user`, who has shown the code."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    user: Annotated[str, Field(min_length=1, max_length=128)]


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
    overrides: Free = {}
    """Fields of a definition's spec that win over what is inferred from the file."""
    approved: bool = False
    """Agents may run it. Set by the gateway from the sender's role, whatever the sender says."""


class WorkerRegister(Model):
    """A host that joins a pool as the worker of that name: what it has for labs."""

    pool: Name
    host: Annotated[str, Field(min_length=1, max_length=253)]
    """Where its labs' ports answer."""
    capacity: Capacity
    port_range: PortRange = PortRange()
    labels: Labels = {}
    version: Annotated[str, Field(max_length=64)] = ""
    """Of the agent."""


class WorkerDrain(Model):
    """Empty a worker for maintenance. Times are lab time."""

    at: Instant | None = None
    until: Instant | None = None
    deadline_minutes: Minutes | None = None
    message: str = ""
    force: bool = False
    """Labs that run are ended as soon as the drain begins, collected first."""

    @model_validator(mode="after")
    def _one_deadline(self) -> Self:
        if self.force and self.deadline_minutes is not None:
            raise fault("deadlineMinutes", "force ends labs at once: give force or deadlineMinutes, not both")
        return self


class WorkerReplace(Model):
    """A new machine for a worker, as soon as it is empty."""

    deadline_minutes: Minutes | None = None
    """Labs that still run so long from now are ended; left out: the template's drain timeout."""
    message: str = ""
    force: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _one_deadline(self) -> Self:
        if self.force and self.deadline_minutes is not None:
            raise fault("deadlineMinutes", "force ends labs at once: give force or deadlineMinutes, not both")
        return self


class PoolReplace(Model):
    """New machines for all workers of a pool, so many at a time."""

    max_unavailable: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Workers that may be without a machine, drained or failed at the same time."""
    deadline_minutes: Minutes | None = None
    """For each worker, from its turn on: when labs that still run are ended; left out: the template's drain timeout."""
    message: str = ""


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
    """Stored content that shall go: one object by its digest, or what an instance has left by the instance's id."""

    role: ArtifactRole | None = None
    """Only what is referred to in this role; None: in any."""
    reason: str = ""


class AssessmentCompleted(Model):
    """From the assessment system; `passed` may stand beside the score or inside it, points as `points`/`score` of
    `maximum`/`max`."""

    instance: str = ""
    """Its id, which the event's subject names as well."""
    passed: bool | None = None
    score: Free | float | None = None
    message: str = ""

    @model_validator(mode="after")
    def _understood(self) -> Self:
        inside = self.score if isinstance(self.score, dict) else {}
        said = inside.get("passed")
        if said is not None and not isinstance(said, bool):
            raise fault("score.passed", "passed is true or false")
        if said is not None and self.passed is not None and said != self.passed:
            raise fault("passed", "passed stands beside the score and inside it, and the two differ")
        for name, value in (("points", self.points), ("maximum", self.maximum)):
            if value is not None and not _is_number(value):
                raise fault(f"score.{name}", f"{name} is a number")
        return self

    @property
    def verdict(self) -> bool | None:
        """Passed or not, wherever it stands."""
        inside = self.score.get("passed") if isinstance(self.score, dict) else None
        return self.passed if self.passed is not None else inside

    @property
    def points(self) -> Any:
        """A number, or None; checked when the body is read."""
        return self._number("points", "score")

    @property
    def maximum(self) -> Any:
        return self._number("maximum", "max")

    def _number(self, *names: str) -> Any:
        if not isinstance(self.score, dict):
            return self.score if "points" in names else None
        return next((self.score[name] for name in names if self.score.get(name) is not None), None)


class GradingCompleted(AssessmentCompleted):
    """A verdict, which must be there."""

    @model_validator(mode="after")
    def _verdict_there(self) -> Self:
        if self.verdict is None:
            raise fault("passed", "give passed, beside the score or inside it")
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that may be asked: `io.lablet.<kind>.<verb>.v1`, decided by the kind's owner."""

    kind: Kind
    verb: str
    body: type[Model]
    """What the owner gets as data."""
    prefix: str = ""
    """The word in the type where that is not the kind's."""
    decider: Service | None = None
    """Who decides where that is not the kind's owner."""

    @property
    def word(self) -> str:
        return self.prefix or self.kind.name

    @property
    def type(self) -> str:
        return f"io.lablet.{self.word}.{self.verb}.v1"

    @property
    def service(self) -> Service:
        return self.decider or self.kind.owner


_ALL = (
    Intent(DEFINITION, "publish.requested", DefinitionPublish),
    Intent(DEFINITION, "deprecate.requested", Nothing),
    Intent(DEFINITION, "approve.requested", Nothing),
    Intent(DEFINITION, "archive.requested", Nothing),
    Intent(ARTIFACT, "delete.requested", ArtifactDelete),
    Intent(RESERVATION, "requested", ReservationRequested),
    Intent(RESERVATION, "simulate.requested", SimulateRequested),
    Intent(RESERVATION, "confirm.requested", Nothing),
    Intent(RESERVATION, "change.requested", ReservationChange),
    Intent(RESERVATION, "cancel.requested", Nothing),
    Intent(RESERVATION, "open-claims.requested", ReservationClaims),
    Intent(RESERVATION, "claim.requested", ReservationClaim),
    Intent(SERIES, "requested", SeriesRequested),
    Intent(SERIES, "change.requested", SeriesChange),
    Intent(SERIES, "cancel.requested", SeriesCancel),
    Intent(INSTANCE, "start.requested", Nothing),
    Intent(INSTANCE, "stop.requested", Nothing),
    Intent(INSTANCE, "collect.requested", Nothing),
    Intent(INSTANCE, "retry.requested", Nothing),
    Intent(INSTANCE, "collection.completed", AssessmentCompleted, "assessment"),
    Intent(INSTANCE, "grading.completed", GradingCompleted, "assessment"),
    Intent(WORKER, "register.requested", WorkerRegister),
    Intent(WORKER, "drain.requested", WorkerDrain),
    Intent(WORKER, "drain-cancel.requested", Nothing),
    Intent(WORKER, "cordon.requested", WorkerCordon),
    Intent(WORKER, "uncordon.requested", Nothing),
    Intent(WORKER, "replace.requested", WorkerReplace),
    Intent(POOL, "apply.requested", PoolApply),
    Intent(POOL, "delete.requested", Nothing),
    Intent(POOL, "replace.requested", PoolReplace),
    Intent(POOL, "replace-cancel.requested", Nothing),
    Intent(POOL, "optimise.requested", OptimiseRequested, decider=Service.SCHEDULER),
    Intent(TEMPLATE, "apply.requested", TemplateApply),
    Intent(TEMPLATE, "delete.requested", Nothing),
)
INTENTS: Mapping[str, Intent] = {intent.type: intent for intent in _ALL}
"""By event type."""

ASSESSMENTS: Literal["io.lablet.assessment."] = "io.lablet.assessment."
"""What these types begin with: outside systems tell of what they did to an instance, also when it has ended."""
