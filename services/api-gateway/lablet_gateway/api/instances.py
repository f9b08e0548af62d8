"""Instances: the seats' labs, what can be asked of them, how to reach them, what they left behind."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from lablet_common.intents import ArtifactDelete, Nothing
from lablet_common.resources.artifact import ArtifactRole
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import ARTIFACT, INSTANCE
from lablet_common.resources.model import Instant, Model
from lablet_common.resources.request import Request
from lablet_common.store.repository import ResourcePage
from lablet_gateway import archive, outputs, pending, reads, uses
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    Prefer,
    accepting,
    model_response,
    outcome_response,
    refusals,
    resource_response,
)
from lablet_gateway.asking import Ask
from lablet_gateway.belonging import own_seats
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.pods import Pod, describe
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX, Scope

router = APIRouter(prefix=f"{PREFIX}/instances", tags=["instances"])
InstanceId = Annotated[str, Path(examples=["ins-ab12cd34-1"])]


class Port(Model):
    """Where one named port of the lab answers."""

    name: str
    host: str
    port: int


class Access(Model):
    """How a seat's user reaches the lab. Ports answer while the phase is Running."""

    instance: str
    reservation: str
    seat: int
    phase: str
    usable: bool
    start: Instant
    end: Instant
    now: Instant
    host: str | None = None
    ports: tuple[Port, ...] = ()


class InstanceArtifact(Model):
    """A file that belongs to an instance; download it under `/artifacts/{digest}`."""

    name: str
    role: str
    digest: str
    bytes: int
    media_type: str
    attempt: int


class InstanceArtifacts(Model):
    items: tuple[InstanceArtifact, ...]


@router.get("", response_model=ListOf[Instance], responses=refusals(410))
async def list_instances(
    parts: WithParts, caller: WithCaller, query: WithListQuery, span: archive.WithSpan
) -> Response:
    """Instances by id; a learner's own seats only. With `archived=true` those of the archive."""
    if span is not None:
        visible = caller.sees if caller.scope is Scope.ALL else await own_seats(parts, caller)
        old = await archive.page(parts, INSTANCE, caller, span, query, visible)
        return reads.list_response(old, archived=True)
    if caller.scope is Scope.ALL:
        found: ResourcePage[Instance] = await reads.page(parts, INSTANCE, query, caller.sees)
    else:
        found = await reads.page(parts, INSTANCE, query, await own_seats(parts, caller))
    return reads.list_response(found)


@router.get("/{instance_id}", response_model=Instance, responses=refusals(404))
async def get_instance(
    instance_id: InstanceId, parts: WithParts, caller: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """One seat's lab: its phase, its nodes, its attempts."""
    found, archived = await archive.instance(parts, caller, instance_id, consistency)
    return resource_response(found, headers=archive.ARCHIVED if archived else None)


async def _act(
    verb: str,
    instance_id: str,
    body: Nothing | None,
    parts: Parts,
    caller: Caller,
    if_match: str | None,
    key: str | None,
    prefer: str | None,
) -> Response:
    ask = Ask(f"POST /instances/{instance_id}/{verb}", key, if_match)
    request = await Intake(parts, caller, ask).act(INSTANCE, f"{verb}.requested", instance_id, body or Nothing())
    return await outcome_response(parts, request, prefer)


@router.post("/{instance_id}/start", status_code=202, response_model=None, responses=accepting(Instance, 412))
async def start(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Starts a stopped lab again, inside its slot."""
    return await _act("start", instance_id, body, parts, caller, if_match, key, prefer)


@router.post("/{instance_id}/stop", status_code=202, response_model=None, responses=accepting(Instance, 412))
async def stop(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Ends the lab before its slot does."""
    return await _act("stop", instance_id, body, parts, caller, if_match, key, prefer)


@router.post("/{instance_id}/collect", status_code=202, response_model=None, responses=accepting(Instance, 412))
async def collect(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Collects the configurations now; the lab goes on."""
    return await _act("collect", instance_id, body, parts, caller, if_match, key, prefer)


@router.post("/{instance_id}/retry", status_code=202, response_model=None, responses=accepting(Instance, 412))
async def retry(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Tries a failed lab again."""
    return await _act("retry", instance_id, body, parts, caller, if_match, key, prefer)


@router.get("/{instance_id}/access", response_model=Access, responses=refusals(404))
async def access(instance_id: InstanceId, parts: WithParts, caller: WithCaller) -> Response:
    """Ports and console addresses: for the seat's own user, the reservation's owner and admins."""
    instance = await pending.instance(parts, caller, instance_id)
    host = instance.status.host
    ports = (Port(name=name, host=host, port=number) for name, number in sorted(instance.spec.ports.items()) if host)
    return model_response(
        Access(
            instance=instance.id,
            reservation=instance.spec.reservation,
            seat=instance.spec.seat,
            phase=str(instance.phase),
            usable=instance.status.phase is InstancePhase.RUNNING,
            start=instance.spec.start,
            end=instance.spec.end,
            now=parts.clock.now(),
            host=host,
            ports=tuple(ports),
        )
    )


@router.get("/{instance_id}/pod", response_model=Pod, responses=refusals(404, 502))
async def pod(instance_id: InstanceId, parts: WithParts, caller: WithCaller) -> Response:
    """The lab as a grader needs it: its devices with their interfaces, and where each named port answers."""
    return model_response(await describe(parts, await pending.instance(parts, caller, instance_id)))


@router.get("/{instance_id}/artifacts", response_model=InstanceArtifacts, responses=refusals(404))
async def artifacts(instance_id: InstanceId, parts: WithParts, caller: WithCaller) -> Response:
    """The rendered lab, collected configurations, exports and reports of a seat."""
    instance, _ = await archive.instance(parts, caller, instance_id)
    subject = f"{INSTANCE.name}/{instance.id}"

    items = [
        InstanceArtifact(
            name=use.reference.name,
            role=use.reference.role,
            digest=use.artifact.spec.digest,
            bytes=use.artifact.spec.bytes,
            media_type=use.artifact.spec.media_type,
            attempt=use.reference.attempt,
        )
        for use in await uses.of_subject(parts, subject, instance.tenant)
    ]
    items.sort(key=lambda item: (item.attempt, item.role, item.name))
    return model_response(InstanceArtifacts(items=tuple(items)))


@router.get("/{instance_id}/output", response_model=outputs.Output, responses=refusals(404, 409))
async def output(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    node: Annotated[str | None, Query(description="Of the manifest; left out: its only node", max_length=63)] = None,
    position: Annotated[int, Query(ge=0, description="Of the first byte wanted")] = 0,
    limit: Annotated[int, Query(ge=1, le=262_144, description="Bytes")] = 65_536,
    wait: Annotated[int, Query(ge=0, le=20, description="Seconds to wait for something new")] = 0,
) -> Response:
    """What a node of a process lab has written: while it runs and, from what was collected, afterwards."""
    instance = await pending.instance(parts, caller, instance_id)
    return model_response(await outputs.read(parts, instance, node, position, limit, wait))


@router.delete("/{instance_id}/artifacts", status_code=202, response_model=None, responses=accepting(Request))
async def delete_artifacts(
    instance_id: InstanceId,
    parts: WithParts,
    caller: WithCaller,
    role: Annotated[ArtifactRole | None, Query(description="Only what was kept in this role")] = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Deletes what an instance that has ended left behind. Content that others left as well stays theirs."""
    ask = Ask(f"DELETE /instances/{instance_id}/artifacts", key)
    body = ArtifactDelete(role=role)
    request = await Intake(parts, caller, ask).act(ARTIFACT, "delete.requested", instance_id, body)
    return await outcome_response(parts, request, prefer)
