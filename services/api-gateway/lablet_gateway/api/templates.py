"""Templates: the shapes that a pool's workers can have."""

from typing import Annotated, cast

from fastapi import APIRouter, Body
from starlette.responses import Response

from lablet_common.intents import Nothing, TemplateApply
from lablet_common.resources.kinds import TEMPLATE
from lablet_common.resources.worker import WorkerTemplate
from lablet_common.store.repository import ResourcePage
from lablet_common.strangers import Free
from lablet_gateway import problems, reads
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    Prefer,
    accepting,
    outcome_response,
    refusals,
    resource_response,
)
from lablet_gateway.asking import Ask
from lablet_gateway.caller import WithCaller
from lablet_gateway.fleet import FleetIntake
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/templates", tags=["templates"])


def _in_fleet(_: WorkerTemplate) -> bool:
    return True


@router.get("", response_model=ListOf[WorkerTemplate], responses=refusals(410))
async def list_templates(parts: WithParts, _: WithCaller, query: WithListQuery) -> Response:
    """All templates, by name."""
    found: ResourcePage[WorkerTemplate] = await reads.page(parts, TEMPLATE, query, _in_fleet)
    return reads.list_response(found)


@router.get("/{name}", response_model=WorkerTemplate, responses=refusals(404))
async def get_template(
    name: str, parts: WithParts, _: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """One template."""
    return resource_response(await _require(parts, name, consistency))


@router.put("/{name}", status_code=202, response_model=None, responses=accepting(WorkerTemplate, 412, 428))
async def put_template(
    name: str,
    body: TemplateApply,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Makes the template, or replaces what it shall be (If-Match)."""
    request = await FleetIntake(parts, caller, Ask(f"PUT /templates/{name}", key, if_match)).apply(TEMPLATE, name, body)
    return await outcome_response(parts, request, prefer)


@router.patch("/{name}", status_code=202, response_model=None, responses=accepting(WorkerTemplate, 412, 428))
async def patch_template(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    patch: Annotated[
        Free, Body(description="JSON merge patch of `{spec, labels}`", examples=[{"spec": {"maxNodes": 60}}])
    ],
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Changes some fields (If-Match)."""
    request = await FleetIntake(parts, caller, Ask(f"PATCH /templates/{name}", key, if_match)).patch(
        TEMPLATE, name, patch
    )
    return await outcome_response(parts, request, prefer)


@router.delete("/{name}", status_code=202, response_model=None, responses=accepting(WorkerTemplate, 412))
async def delete_template(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Deletes a template that no pool uses."""
    ask = Ask(f"DELETE /templates/{name}", key, if_match)
    request = await Intake(parts, caller, ask).act(TEMPLATE, "delete.requested", name, Nothing())
    return await outcome_response(parts, request, prefer)


async def _require(parts: Parts, name: str, consistency: reads.Consistency = "linearizable") -> WorkerTemplate:
    found = await reads.get(parts, TEMPLATE, name, consistency=consistency)
    if found is None:
        raise problems.unknown(TEMPLATE.name, name)
    return cast("WorkerTemplate", found)
