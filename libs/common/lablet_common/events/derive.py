"""From a commit to its events: a pure function of what stood under a key before and after.

The same commit always gives the same events, to the byte: ids, times and message ids come from the resource and its
revision, so a bridge may publish again as often as it likes. What this does not promise: that `time` is exact for a
commit that moved nothing (it is the latest moment that the resource records), or that a replayed event names the fact
of a commit in the middle (only the latest is known by then).
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cloudevents.core.v1.event import CloudEvent
from pydantic_core import to_json

from lablet_common.events import subjects
from lablet_common.events.binding import event_of
from lablet_common.events.catalogue import EVENTS, WITHOUT_FACT, ScalingData, schema_url, type_of
from lablet_common.events.reading import SEQUENCE_DIGITS
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import REQUEST, Kind
from lablet_common.resources.model import Resource, fact_of_phase
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Scaling, Worker, WorkerPool

MAX_DATA_BYTES = 64 * 1024
"""A larger body stays behind; `dataref` says where to read what it told of."""
MAX_OPTIONAL_LENGTH = 1024
"""Characters. Outside systems name causes and correlations by words of their own; a longer one is left out of the event and
stands in the resource alone. With that no event comes near to what NATS takes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way out."""

    subject: str
    """The NATS subject."""
    event: CloudEvent
    msg_id: str
    """`Nats-Msg-Id`: the same for every resend."""


def derive(
    kind: Kind,
    before: Resource[Any, Any] | None,
    after: Resource[Any, Any] | None,
    revision: int,
    *,
    source: str,
    replayed: bool = False,
) -> list[Outgoing]:
    """The events of the commit at `revision` that turned `before` into `after` (None: the key was or is absent).

    One state event; for a worker whose scaling decision changed a scaling event as well; for a new request (or one
    handed on to another shard) the stored intent."""
    if after is None:
        return [_state(kind, "deleted", before, before, revision, source, replayed)] if before is not None else []
    after = after if after.revision == revision else after.at_revision(revision)
    if before is not None and before.metadata.uid != after.metadata.uid:
        before = None
    events = [_state(kind, _fact(kind, before, after), before, after, revision, source, replayed)]
    if isinstance(after, Worker):
        old = before.status.scaling if isinstance(before, Worker) else None
        if after.status.scaling is not None and _decision(after.status.scaling) != _decision(old):
            events.append(_scaling(after, after.status.scaling, revision, source, replayed))
    if isinstance(after, Request) and after.status.phase is RequestPhase.ACCEPTED:
        handed_on = isinstance(before, Request) and _address(before) != _address(after)
        if before is None or handed_on:
            events.append(_intent(after, revision, source, replayed, handed_on=handed_on))
    return events


def pool_of(resource: Resource[Any, Any]) -> str:
    """The pool that a resource belongs to, or `-`."""
    if isinstance(resource, Reservation):
        return resource.status.pool or resource.spec.pools[0]
    if isinstance(resource, Instance):
        return resource.spec.pool
    if isinstance(resource, Worker):
        return resource.spec.pool
    if isinstance(resource, WorkerPool):
        return resource.metadata.id
    return subjects.NO_POOL


def message_id(tenant: str, source: str, event_id: str) -> str:
    """`Nats-Msg-Id`: JetStream's de-duplication is stream-wide, so nobody may be able to choose somebody else's."""
    return hashlib.sha256(f"{tenant}\0{source}\0{event_id}".encode()).hexdigest()[:40]


def data_url(kind: Kind, resource: Resource[Any, Any]) -> str:
    """Where the API gives the resource as it stands when it is asked: `sequence` says which version was told."""
    if kind.name == "artifact":  # its own address is that of the bytes
        return f"/api/v1/artifacts?fieldSelector={quote(f'metadata.id={resource.id}', safe='=')}"
    plural = kind.name if kind.name.endswith("s") else f"{kind.name}s"
    path = quote(resource.id, safe="")
    if kind.name == "definition":
        name, _, version = resource.id.partition("@")
        path = f"{quote(name, safe='')}/versions/{quote(version, safe='')}"
    return f"/api/v1/{plural}/{path}"


def _fact(kind: Kind, before: Resource[Any, Any] | None, after: Resource[Any, Any]) -> str:
    stamp = after.status.last_fact
    old = before.status.last_fact if before is not None else None
    fact: str
    if stamp is not None and (old is None or stamp.serial != old.serial):
        fact = stamp.name
    elif before is None or before.status.phase != after.status.phase:
        fact = fact_of_phase(after.status.phase)
    else:
        return "changed"
    if type_of(kind.name, fact) in EVENTS:
        return fact
    if (kind.name, fact) not in WITHOUT_FACT:
        _log.warning("a fact that is not in the catalogue", extra={"kind": kind.name, "fact": fact, "id": after.id})
    return "created" if before is None and type_of(kind.name, "created") in EVENTS else "changed"


def _state(
    kind: Kind,
    fact: str,
    before: Resource[Any, Any] | None,
    shown: Resource[Any, Any] | None,
    revision: int,
    source: str,
    replayed: bool,
) -> Outgoing:
    assert shown is not None
    resource = shown.public()
    body = resource.to_json()
    if before is not None:
        body = b'{"previousPhase":"' + str(before.status.phase).encode() + b'",' + body[1:]
    stamp = resource.status.last_fact
    attributes = _attributes(
        event_id=f"{kind.name}/{resource.metadata.uid}/{revision}",
        event_type=type_of(kind.name, fact),
        source=source,
        subject=f"{kind.name}/{resource.id}",
        time=_latest(resource),
        revision=revision,
        tenant=resource.tenant,
        pool=pool_of(resource),
        replayed=replayed,
        traceparent=resource.metadata.trace_parent,
        correlationid=resource.metadata.correlation_id or (resource.id if isinstance(resource, Request) else None),
        causationid=stamp.cause if stamp is not None and fact == stamp.name else None,
    )
    subject = subjects.event_subject(resource.tenant, kind.name, pool_of(resource), resource.id)
    return _outgoing(subject, attributes, body, resource.tenant, data_url(kind, resource))


def _scaling(worker: Worker, scaling: Scaling, revision: int, source: str, replayed: bool) -> Outgoing:
    fact = "held" if scaling.direction == "held" else f"{scaling.direction}.{scaling.state}"
    data = ScalingData(
        worker=worker.id,
        pool=worker.spec.pool,
        phase=str(worker.status.phase),
        direction=scaling.direction,
        state=scaling.state,
        rule=scaling.rule,
        message=scaling.message,
        at=scaling.at,
    )
    attributes = _attributes(
        event_id=f"scaling/{worker.metadata.uid}/{revision}",
        event_type=type_of("scaling", fact),
        source=source,
        subject=f"worker/{worker.id}",
        time=scaling.at,
        revision=revision,
        tenant=worker.tenant,
        pool=worker.spec.pool,
        replayed=replayed,
        traceparent=worker.metadata.trace_parent,
        causationid=f"worker/{worker.metadata.uid}/{revision}",
    )
    subject = subjects.event_subject(worker.tenant, "scaling", worker.spec.pool, worker.id)
    return _outgoing(subject, attributes, data.to_json(), worker.tenant, "")


def _intent(request: Request, revision: int, source: str, replayed: bool, *, handed_on: bool) -> Outgoing:
    """The event that was accepted, as its owner gets it. Handed on, it has to pass the broker's de-duplication again."""
    spec = request.spec
    target_kind, _, target_id = spec.subject.partition("/")
    attributes = _attributes(
        event_id=spec.event_id,
        event_type=spec.type,
        source=source,
        subject=spec.subject,
        time=spec.received_at,
        revision=revision,
        tenant=request.tenant,
        pool=spec.shard,
        replayed=replayed,
        traceparent=spec.trace_parent or request.metadata.trace_parent,
        correlationid=request.metadata.correlation_id or request.id,
        causationid=f"request/{request.metadata.uid}/{revision}",
    )
    subject = subjects.intent_subject(spec.service, spec.shard, target_kind, target_id or subjects.NO_POOL)
    out = _outgoing(subject, attributes, to_json(spec.data), request.tenant, data_url(REQUEST, request))
    if handed_on:
        return Outgoing(out.subject, out.event, message_id(request.tenant, source, f"{spec.event_id}\0{spec.shard}"))
    return out


def _attributes(
    *,
    event_id: str,
    event_type: str,
    source: str,
    subject: str,
    time: datetime,
    revision: int,
    tenant: str,
    pool: str,
    replayed: bool,
    **optional: str | None,
) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "subject": subject,
        "time": time,
        "datacontenttype": "application/json",
        "dataschema": schema_url(event_type),
        "sequence": str(revision).zfill(SEQUENCE_DIGITS),
        "tenant": tenant,
    }
    if pool != subjects.NO_POOL:
        attributes["partitionkey"] = pool
    if replayed:
        attributes["replayed"] = "true"
    attributes |= {name: value for name, value in optional.items() if value and len(value) <= MAX_OPTIONAL_LENGTH}
    return attributes


def _outgoing(subject: str, attributes: dict[str, Any], body: bytes, tenant: str, url: str) -> Outgoing:
    large = len(body) > MAX_DATA_BYTES
    if large:
        attributes["dataref"] = url
    event = event_of(attributes, None if large else body)
    return Outgoing(subject, event, message_id(tenant, attributes["source"], attributes["id"]))


def _latest(resource: Resource[Any, Any]) -> datetime:
    return max(_moments(resource))


def _moments(resource: Resource[Any, Any]) -> Iterator[datetime]:
    yield resource.metadata.created_at
    if resource.metadata.deletion_timestamp is not None:
        yield resource.metadata.deletion_timestamp
    if resource.status.history:
        yield resource.status.history[-1].at
    for condition in resource.status.conditions:
        yield condition.since
    if isinstance(resource, Worker) and resource.status.scaling is not None:
        yield resource.status.scaling.at


def _decision(scaling: Scaling | None) -> tuple[str, str, str] | None:
    return (scaling.direction, scaling.state, scaling.rule) if scaling is not None else None


def _address(request: Request) -> tuple[str, str]:
    return request.spec.service, request.spec.shard
