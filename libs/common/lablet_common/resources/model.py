"""What all resources have in common: metadata, a wanted spec, an observed status, and moves that explain themselves.

Resources are immutable values. A change makes a new value (`moved`, `observed`, `respecified`), which a service then
commits with compare-and-swap on `metadata.resource_version`. Each change stamps `status.last_fact`, from which the
bridge names the event of that commit.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from lablet_common.resources.machine import StateMachine
from lablet_common.resources.weight import name_fields

_FIRST_YEAR, _LAST_YEAR = 1000, 8999
"""Of lab time: whoever counts on from a moment, however far, stays within what a `datetime` can say."""

HISTORY_LIMIT = 50
"""Moves kept in a resource; older ones are found in the event stream and the archive."""

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Names that people give (pools, templates, definitions, tenants): DNS labels."""

D = TypeVar("D", bound=date)


class Model(BaseModel):
    """Immutable, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_inf_nan="constants",
        str_min_length=0,  # a text with a bound is looked at: without, half of a surrogate pair would pass
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        name_fields(cls)

    def to_json(self) -> bytes:
        """The stored and published form: camelCase, fields without a value left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def fault(field: str, message: str) -> PydanticCustomError:
    """An error about several fields, laid at the door of one: its path is in the context, under `field`."""
    return PydanticCustomError("fault", "{message}", {"field": field, "message": message})


def _in_calendar(value: D) -> D:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"that moment is beyond the calendar, which goes from the year {_FIRST_YEAR} to {_LAST_YEAR}")
    return value


def _as_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone: write it as RFC 3339, for example 2027-03-01T09:00:00Z")
    return _in_calendar(value).astimezone(UTC)


def _whole_minute(value: datetime) -> datetime:
    if value.second or value.microsecond:
        raise ValueError("slots begin and end on whole minutes: leave the seconds at 00")
    return value


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with a Z, as it stands everywhere in Lablet."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Instant = Annotated[datetime, AfterValidator(_as_utc)]
"""A moment in lab time, always UTC; pydantic itself writes it just as `format_time` does."""
Date = Annotated[date, AfterValidator(_in_calendar)]
Minute = Annotated[Instant, AfterValidator(_whole_minute)]
"""An instant on a whole minute, as slots use them."""
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Labels = dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[str, Field(max_length=256)]]


class Metadata(Model):
    """Who a resource is. `resource_version` is the etcd mod_revision; it is never stored, only filled in on read."""

    id: str
    uid: str
    tenant: str = "default"
    owner: str | None = None
    labels: Labels = {}
    annotations: Labels = {}
    created_at: Instant
    deletion_timestamp: Instant | None = None
    finalizers: tuple[str, ...] = ()
    resource_version: str | None = None
    generation: int = 1
    correlation_id: str | None = None
    """The first request of the chain of causes that made this resource."""
    trace_parent: str | None = None
    """W3C trace context of the span that created it; later phases start traces of their own and link to it."""


class Condition(Model):
    """An observation that is independent of the phase, such as `Degraded` or `Unknown`."""

    type: str
    status: bool = True
    reason: str | None = None
    message: str | None = None
    since: Instant


class Move(Model):
    """One step through the state machine, as it is kept and published."""

    frm: str = Field(alias="from")
    to: str
    at: Instant
    by: str
    """The service that moved it, as in the `source` of its events."""
    reason: str
    message: str | None = None


class Fact(Model):
    """What the latest commit meant. `serial` grows with every stamp, so that one commit can be told from the next."""

    name: str
    serial: int
    cause: str | None = None
    """Id of the event or request that led to it."""


class Status(Model):
    """What has been observed. Kinds extend it; `phase` is narrowed to the kind's enum."""

    phase: str
    reason: str | None = None
    message: str | None = None
    conditions: tuple[Condition, ...] = ()
    history: tuple[Move, ...] = ()
    last_fact: Fact | None = None

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type if it is true now."""
        return next((c for c in self.conditions if c.type == kind and c.status), None)


SpecT = TypeVar("SpecT", bound=Model)
StatusT = TypeVar("StatusT", bound=Status)


def fact_of_phase(phase: str) -> str:
    """`Scheduled` → `scheduled`, `DrainCancelled` → `drain-cancelled`."""
    return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(phase))


class Resource(Model, Generic[SpecT, StatusT]):
    """A kind's stored form. Subclasses set `machine` and narrow `spec` and `status`."""

    machine: ClassVar[StateMachine]

    kind: str
    schema_version: Annotated[int, Field(ge=1, strict=True)] = 1
    """Of the shape in which it is stored (see `schema`)."""
    metadata: Metadata
    spec: SpecT
    status: StatusT

    @property
    def id(self) -> str:
        return self.metadata.id

    @property
    def tenant(self) -> str:
        return self.metadata.tenant

    @property
    def phase(self) -> str:
        return self.status.phase

    @property
    def revision(self) -> int:
        """The mod_revision this value was read at; 0 for one that has not been stored yet."""
        return int(self.metadata.resource_version or 0)

    def public(self) -> Self:
        """What may leave the system: the resource without what is secret in it."""
        return self

    @property
    def is_final(self) -> bool:
        """No phase may follow the present one."""
        return self.machine.is_final(self.status.phase)

    def at_revision(self, revision: int) -> Self:
        """The same value as read at `revision`."""
        return self._with(metadata=self.metadata.model_copy(update={"resource_version": str(revision)}))

    def moved(
        self,
        to: str,
        *,
        at: datetime,
        by: str,
        reason: str,
        message: str | None = None,
        fact: str | None = None,
        cause: str | None = None,
        **changes: Any,
    ) -> Self:
        """The resource in phase `to`, with the move in its history and `changes` applied to its status. The event is
        named after the phase, or `fact`. Raises `IllegalTransition`."""
        self.machine.check(self.metadata.id, self.status.phase, to)
        phase = type(self.status.phase)(to)
        move = Move(frm=str(self.status.phase), to=str(to), at=at, by=by, reason=reason, message=message)
        history = (*self.status.history, move)[-HISTORY_LIMIT:]
        return self._with_status(
            fact or fact_of_phase(to), cause, phase=phase, reason=reason, message=message, history=history, **changes
        )

    def observed(self, fact: str = "changed", *, cause: str | None = None, **changes: Any) -> Self:
        """The resource with `changes` in its status and no move; the event is named `fact`."""
        return self._with_status(fact, cause, **changes)

    def respecified(self, fact: str = "changed", *, cause: str | None = None, **changes: Any) -> Self:
        """The resource with `changes` in its spec and the next generation."""
        checked = type(self.spec).model_validate(self.spec.model_dump() | changes)
        spec = self.spec.model_copy(update={name: getattr(checked, name) for name in changes})
        metadata = self.metadata.model_copy(update={"generation": self.metadata.generation + 1})
        return self._with(spec=spec, metadata=metadata)._with_status(fact, cause)

    def with_condition(
        self, kind: str, status: bool, *, at: datetime, reason: str | None = None, message: str | None = None
    ) -> tuple[Condition, ...]:
        """The conditions with this one set; `since` is kept while its truth does not change. For use as
        `resource.observed(conditions=resource.with_condition(…))`."""
        old = next((c for c in self.status.conditions if c.type == kind), None)
        since = old.since if old is not None and old.status == status else at
        new = Condition(type=kind, status=status, reason=reason, message=message, since=since)
        return (*(c for c in self.status.conditions if c.type != kind), new)

    def relabelled(self, labels: Labels) -> Self:
        return self._with(metadata=self.metadata.model_copy(update={"labels": labels}))

    def marked_for_deletion(self, at: datetime) -> Self:
        """The resource with a deletion timestamp; the first mark stays."""
        stamp = self.metadata.deletion_timestamp or at
        return self._with(metadata=self.metadata.model_copy(update={"deletion_timestamp": stamp}))._with_status(
            "changed", None
        )

    def without_finalizer(self, name: str) -> Self:
        rest = tuple(f for f in self.metadata.finalizers if f != name)
        return self._with(metadata=self.metadata.model_copy(update={"finalizers": rest}))._with_status("changed", None)

    def _with(self, **parts: Any) -> Self:
        return self.model_copy(update=parts)

    def _with_status(self, fact: str, cause: str | None, **changes: Any) -> Self:
        unknown = set(changes) - set(type(self.status).model_fields)
        if unknown:
            raise TypeError(f"{self.kind}.status has no field {', '.join(sorted(unknown))}")
        serial = self.status.last_fact.serial + 1 if self.status.last_fact else 1
        stamp = Fact(name=fact, serial=serial, cause=cause)
        return self._with(status=self.status.model_copy(update=changes | {"last_fact": stamp}))
