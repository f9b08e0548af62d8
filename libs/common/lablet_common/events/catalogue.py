"""The catalogue: every event type, what its data is, and who may send it.

State types come from the table of facts below; intent types from `lablet_common.intents`. A test walks the kinds' state
machines against this table.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lablet_common.intents import INTENTS
from lablet_common.resources.kinds import KINDS, Service
from lablet_common.resources.model import Instant, Model, Resource
from lablet_common.resources.request import Problem

PREFIX = "io.lablet"
SCHEMA_BASE = os.environ.get("CLOUDEVENTS_SCHEMA_BASE") or "https://lablet.io/schemas/"
"""`dataschema` is this, the type and `.json`. Every gateway serves the documents below `/api/v1/schemas/`; the variable
makes its public address known to all services, and is the same for the whole life of a process."""


class ScalingData(Model):
    """A decision about a worker's power, with the rule that made it."""

    worker: str
    pool: str
    phase: str
    """Of the worker, in the commit of the decision."""
    direction: str
    state: str
    rule: str
    message: str = ""
    at: Instant


class IngressRefused(Model):
    """Why an event from an outside system was not taken."""

    event_id: str
    type: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event: `io.lablet.<kind>.<fact>.v1`."""

    kind: str
    """The word in type and subject; a resource kind's name, or `scaling`, `assessment`, `ingress`."""
    fact: str
    data: type[Model]
    """The model of `data`. State events carry `previousPhase` beside it."""
    intent: bool = False
    service: Service | None = None
    """Who sends a state event, or decides an intent; None: outside systems."""

    @property
    def type(self) -> str:
        return type_of(self.kind, self.fact)

    @property
    def schema_url(self) -> str:
        return schema_url(self.type)

    @property
    def is_state(self) -> bool:
        """It tells the state of a resource (and not a wish, or a note beside it)."""
        return issubclass(self.data, Resource)


def type_of(kind: str, fact: str) -> str:
    return f"{PREFIX}.{kind}.{fact}.v1"


def schema_url(event_type: str) -> str:
    return f"{SCHEMA_BASE}{event_type}.json"


COMMON_FACTS = ("changed", "deleted")
"""Facts of every kind: a commit without a phase move, and the end."""

FACTS: Mapping[str, tuple[str, ...]] = {
    "request": ("accepted", "decided", "refused"),
    "key": ("created", "revoked"),
    "definition": ("published", "approved", "deprecated", "archived"),
    "series": ("placed", "refused", "cancelled", "completed"),
    "reservation": (
        "pending",
        "held",
        "scheduled",
        "waitlisted",
        "rejected",
        "moved",
        "active",
        "completed",
        "cancelled",
        "expired",
        "failed",
        "starting-soon",
        "ending-soon",
        "at-risk",
    ),
    "instance": (
        "pending",
        "instantiating",
        "running",
        "collecting",
        "grading",
        "graded",
        "stopping",
        "stopped",
        "exported",
        "terminated",
        "failed",
    ),
    "worker": (
        "offline",
        "provisioning",
        "starting",
        "licensing",
        "ready",
        "draining",
        "drain-cancelled",
        "stopping",
        "terminating",
        "failed",
        "unknown",
        "cordoned",
        "uncordoned",
    ),
    "pool": ("created",),
    "template": ("created",),
    "artifact": ("stored", "rendered", "collected", "exported"),
}
"""Further facts of each kind."""

SCALING_FACTS = ("up.decided", "up.completed", "down.decided", "down.completed", "held")

WITHOUT_FACT: frozenset[tuple[str, str]] = frozenset(
    {("series", "pending"), ("artifact", "deleting"), ("pool", "active"), ("template", "active"), ("key", "active")}
)
"""Phases that have no fact of their own: (kind, fact of the phase). Their commits are `created` or `changed`."""


def _catalogue() -> dict[str, EventType]:
    types = [
        EventType(kind.name, fact, kind.model, service=kind.owner)
        for kind in KINDS.values()
        for fact in (*FACTS[kind.name], *COMMON_FACTS)
    ]
    types += [EventType("scaling", fact, ScalingData, service=Service.WORKERS) for fact in SCALING_FACTS]
    types += [EventType(i.word, i.verb, i.body, intent=True, service=i.service) for i in INTENTS.values()]
    types.append(EventType("ingress", "refused", IngressRefused, service=Service.GATEWAY))
    return {event.type: event for event in types}


EVENTS: Mapping[str, EventType] = _catalogue()
"""Every type that Lablet sends or takes."""
