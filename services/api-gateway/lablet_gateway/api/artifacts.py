"""Artifacts: downloads by digest. What is sent has been checked against the digest on this very read."""

import re
from typing import Annotated, cast

from fastapi import APIRouter, Path
from starlette.responses import Response

from lablet_common.objects import get_content
from lablet_common.resources.artifact import Artifact
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, RESERVATION
from lablet_common.resources.reservation import Reservation
from lablet_gateway import problems, reads
from lablet_gateway.answers import refusals
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.rights import PREFIX, PUBLIC_TENANT, Scope

router = APIRouter(prefix=f"{PREFIX}/artifacts", tags=["artifacts"])
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]


@router.get(
    "/{digest}",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The object, with the media type it was stored under",
        },
        **refusals(404, 502),
    },
)
async def download_artifact(digest: Digest, parts: WithParts, caller: WithCaller) -> Response:
    """The object's bytes. A learner gets what belongs to own seats."""
    artifact = await _find(parts, caller, digest)
    data = await get_content(parts.objects, artifact.tenant, digest)
    name = next((reference.name for reference in artifact.status.references), digest[:12])
    headers = {
        "ETag": f'"{digest}"',
        "Cache-Control": "private, max-age=86400, immutable",
        "Content-Disposition": f'attachment; filename="{_UNSAFE.sub("-", name)}"',
    }
    return Response(data, headers=headers, media_type=artifact.spec.media_type)


async def _find(parts: Parts, caller: Caller, digest: str) -> Artifact:
    for tenant in dict.fromkeys((caller.tenant, PUBLIC_TENANT)):
        artifact = cast("Artifact | None", await reads.get(parts, ARTIFACT, digest, tenant))
        if artifact is not None and (caller.scope is Scope.ALL or await _is_own(parts, caller, artifact)):
            return artifact
    raise problems.unknown(ARTIFACT.name, digest)


async def _is_own(parts: Parts, caller: Caller, artifact: Artifact) -> bool:
    for reference in artifact.status.references:
        kind, _, name = reference.subject.partition("/")
        if kind != INSTANCE.name:
            continue
        instance = cast("Instance | None", await reads.get(parts, INSTANCE, name))
        if instance is None:
            continue
        owner = cast("Reservation | None", await reads.get(parts, RESERVATION, instance.spec.reservation))
        if caller.sees_instance(instance, owner):
            return True
    return False
