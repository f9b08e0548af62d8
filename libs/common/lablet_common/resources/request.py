"""Request: an accepted intent, and what became of it."""

from enum import StrEnum
from typing import Any, Literal

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Resource, Status


class Problem(Model):
    """Problem details (RFC 9457). `type` is stable; `errors` name the fields at fault."""

    type: str
    title: str
    status: int
    detail: str = ""
    errors: tuple[dict[str, str], ...] = ()
    """Each with `path`, `message` and, where there is one, `remedy`."""
    extensions: dict[str, Any] = {}


class RequestSpec(Model):
    type: str
    """CloudEvent type of the intent."""
    subject: str
    """`<kind>/<id>` of the resource it is about."""
    data: dict[str, Any]
    """What was asked, and only that."""
    event_id: str
    service: str
    """The owner that decides."""
    shard: str
    """Where the inbox pointer stands, or stood when it was decided: a pool, or `-`."""
    digest: str
    """SHA-256 of the body, to tell a retry from another request under the same key."""
    principal: str
    """Who asked."""
    role: str | None = None
    """In which role."""
    received_at: Instant
    trace_parent: str | None = None
    meant_for: int | None = None
    """Revision of the resource that the change is meant for (`If-Match`); its owner refuses it at another. None: at any."""


class Changed(Model):
    """What a change turned into what, where no resource's events tell it."""

    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class RequestPhase(StrEnum):
    ACCEPTED = "Accepted"
    DECIDED = "Decided"
    REFUSED = "Refused"


class RequestStatus(Status):
    phase: RequestPhase
    resource: str | None = None
    """`<kind>/<id>` of what was made or changed."""
    resource_phase: str | None = None
    problem: Problem | None = None
    decided_at: Instant | None = None
    answer: dict[str, Any] | None = None
    """What was found out, where only that was asked (a what-if)."""
    changed: Changed | None = None


class Request(Resource[RequestSpec, RequestStatus]):
    machine = table(
        "Request",
        RequestPhase.ACCEPTED,
        {
            RequestPhase.ACCEPTED: {RequestPhase.DECIDED, RequestPhase.REFUSED},
            RequestPhase.DECIDED: set(),
            RequestPhase.REFUSED: set(),
        },
    )
    kind: Literal["Request"] = "Request"
