"""Requests: the outcome of whatever was accepted with 202."""

from typing import cast

from fastapi import APIRouter
from starlette.responses import Response

from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_gateway import problems, reads
from lablet_gateway.answers import Prefer, refusals, resource_response, wait_of
from lablet_gateway.caller import WithCaller
from lablet_gateway.parts import WithParts
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/requests", tags=["requests"])


@router.get("/{request_id}", response_model=Request, responses=refusals(404))
async def get_request(request_id: str, parts: WithParts, caller: WithCaller, prefer: Prefer = None) -> Response:
    """The request as it stands: Accepted, Decided (with what was made or changed) or Refused (with the problem). Kept
    for a day after the decision. `Prefer: wait=N` waits for the decision."""
    request = cast("Request | None", await reads.get(parts, REQUEST, request_id, caller.tenant))
    if request is None or not caller.sees_request(request):
        raise problems.unknown(REQUEST.name, request_id)
    wait = wait_of(prefer, parts.settings.gateway_max_wait_seconds)
    if wait is not None and not request.is_final:
        request = await parts.decisions.wait(request, wait)
    return resource_response(request)
