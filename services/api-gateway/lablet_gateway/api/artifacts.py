"""Artifacts: stored content by digest, listed, downloaded and deleted. What is sent has been checked against the digest on
this very read; a link of the object store's own is the way around the gateway, and around that check.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from lablet_common.intents import ArtifactDelete
from lablet_common.objects import get_content
from lablet_common.resources.artifact import Artifact, ArtifactRole, object_key
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.resources.model import Instant, Model
from lablet_common.store.repository import ResourcePage
from lablet_gateway import problems, reads
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    Prefer,
    accepting,
    model_response,
    outcome_response,
    refusals,
)
from lablet_gateway.asking import Ask
from lablet_gateway.belonging import is_own, left_by
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithListQuery
from lablet_gateway.rights import PREFIX, PUBLIC_TENANT, Scope

router = APIRouter(prefix=f"{PREFIX}/artifacts", tags=["artifacts"])
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_LINK_MINUTES = 24 * 60
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]

OfInstance = Annotated[
    str | None,
    Query(max_length=160, description="The seat that has left it: a learner's right to it is then looked for there"),
]


class Link(Model):
    """A way to the object that needs no further rights, for a while (real time)."""

    url: str
    expires_at: Instant
    digest: str
    """What is fetched should have this SHA-256: nobody has checked it on the way."""
    bytes: int
    media_type: str


@router.get("", response_model=ListOf[Artifact], responses=refusals(410))
async def list_artifacts(parts: WithParts, caller: WithCaller, query: WithListQuery) -> Response:
    """The tenant's stored objects by digest, each with its latest uses and how many older ones there are."""
    found: ResourcePage[Artifact] = await reads.page(parts, ARTIFACT, query, caller.sees, tenant=caller.tenant)
    return reads.list_response(found)


@router.get(
    "/{digest}",
    response_class=Response,
    responses={
        200: {
            "content": {
                "*/*": {
                    "schema": {"description": "Any bytes"},
                    "example": "hostname r1\ninterface GigabitEthernet0/0\n",
                }
            },
            "description": "The object, with the media type it was stored under",
        },
        **refusals(404, 502),
    },
)
async def download_artifact(
    digest: Digest, parts: WithParts, caller: WithCaller, instance: OfInstance = None
) -> Response:
    """The object's bytes. A learner gets what belongs to own seats; of a seat that has left for the archive what it was the
    only one to leave, or with its id as `instance`."""
    artifact = await _find(parts, caller, digest, instance)
    data = await get_content(parts.objects, artifact.tenant, digest)
    name = next((reference.name for reference in reversed(artifact.status.references)), digest[:12])
    headers = {
        "ETag": f'"{digest}"',
        "Cache-Control": "private, max-age=86400, immutable",
        "Content-Disposition": f'attachment; filename="{_UNSAFE.sub("-", name)}"',
    }
    return Response(data, headers=headers, media_type=artifact.spec.media_type)


@router.get("/{digest}/link", response_model=Link, responses=refusals(404))
async def link_to_artifact(
    digest: Digest,
    parts: WithParts,
    caller: WithCaller,
    minutes: Annotated[int, Query(ge=1, le=_LONGEST_LINK_MINUTES, description="Real minutes that it works")] = 15,
    instance: OfInstance = None,
) -> Response:
    """A presigned link to the object store, for large files and for programs without a token."""
    artifact = await _find(parts, caller, digest, instance)
    url = await parts.objects.presign(object_key(artifact.tenant, digest), minutes * 60)
    spec = artifact.spec
    return model_response(
        Link(
            url=url,
            expires_at=datetime.now(UTC) + timedelta(minutes=minutes),
            digest=digest,
            bytes=spec.bytes,
            media_type=spec.media_type,
        )
    )


@router.delete("/{digest}", status_code=202, response_model=None, responses=accepting(Artifact, 412))
async def delete_artifact(
    digest: Digest,
    parts: WithParts,
    caller: WithCaller,
    role: Annotated[ArtifactRole | None, Query(description="Only its use in this role")] = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Deletes an object with all that refers to it. Refused while a definition that is not archived or an instance that
    has not ended needs it."""
    ask = Ask(f"DELETE /artifacts/{digest}", key, if_match)
    body = ArtifactDelete(role=role)
    request = await Intake(parts, caller, ask).act(ARTIFACT, "delete.requested", digest, body)
    return await outcome_response(parts, request, prefer)


async def _find(parts: Parts, caller: Caller, digest: str, instance: str | None) -> Artifact:
    for tenant in dict.fromkeys((caller.tenant, PUBLIC_TENANT)):
        artifact = cast("Artifact | None", await reads.get(parts, ARTIFACT, digest, tenant))
        if artifact is not None and (caller.scope is Scope.ALL or await _is_own(parts, caller, artifact, instance)):
            return artifact
    raise problems.unknown(ARTIFACT.name, digest)


async def _is_own(parts: Parts, caller: Caller, artifact: Artifact, instance: str | None) -> bool:
    if instance is not None:
        return await left_by(parts, caller, artifact, instance)
    return await is_own(parts, caller, artifact)
