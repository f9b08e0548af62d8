"""Pools: groups of like workers, and how full they are over time."""

from typing import Annotated, cast

from fastapi import APIRouter, Body
from starlette.responses import Response

from lablet_common.intents import Nothing, Optimisation, PoolApply, PoolOptimise, PoolReplace
from lablet_common.resources.kinds import POOL, WORKER
from lablet_common.resources.worker import Worker, WorkerPool
from lablet_common.store.repository import ResourcePage
from lablet_common.strangers import Free
from lablet_gateway import bookings, optimisation, problems, reads, simulation
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
from lablet_gateway.api.workers import From, To
from lablet_gateway.asking import Ask
from lablet_gateway.calendar import PoolCalendar, pool_calendar
from lablet_gateway.caller import WithCaller
from lablet_gateway.fleet import FleetIntake
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/pools", tags=["pools"])
_OPTIMISE = Body(default=PoolOptimise())


def _in_fleet(_: WorkerPool) -> bool:
    return True


@router.get("", response_model=ListOf[WorkerPool], responses=refusals(410))
async def list_pools(parts: WithParts, _: WithCaller, query: WithListQuery) -> Response:
    """All pools, by name."""
    found: ResourcePage[WorkerPool] = await reads.page(parts, POOL, query, _in_fleet)
    return reads.list_response(found)


@router.get("/{name}", response_model=WorkerPool, responses=refusals(404))
async def get_pool(
    name: str, parts: WithParts, _: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """One pool."""
    return resource_response(await _require(parts, name, consistency))


@router.get("/{name}/calendar", response_model=PoolCalendar, responses=refusals(404))
async def pool_capacity(name: str, parts: WithParts, caller: WithCaller, begin: From = None, to: To = None) -> Response:
    """Free capacity over time, and each worker's bookings. Other tenants' bookings carry no names."""
    pool = await _require(parts, name)
    window = bookings.window(parts, begin, to)

    def in_pool(worker: Worker) -> bool:
        return worker.spec.pool == name

    workers: list[Worker] = await reads.everything(parts, WORKER, in_pool)
    known = await bookings.read(parts, name)
    return model_response(
        pool_calendar(name, pool.spec, workers, known.reservations, known.instances, known.needs, window, caller.tenant)
    )


@router.post("/{name}:optimise", response_model=Optimisation, responses=accepting(Optimisation))
async def optimise(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    body: PoolOptimise = _OPTIMISE,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Moves seats that have not started to other workers, for the same slots, so that workers can be off longer; with
    `dryRun` only tells what would be moved and what that saves. Waits for the answer as long as a plan may be looked for
    and 10 seconds more; 202 when it takes longer."""
    asked = await optimisation.ask(parts, caller, Ask(f"POST /pools/{name}:optimise", key), name, body)
    patience = body.budget_seconds + simulation.WAIT_SECONDS
    return await simulation.answer_response(parts, asked, prefer, patience)


@router.put("/{name}", status_code=202, response_model=None, responses=accepting(WorkerPool, 412, 428))
async def put_pool(
    name: str,
    body: PoolApply,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Makes the pool, or replaces what it shall be (If-Match)."""
    request = await FleetIntake(parts, caller, Ask(f"PUT /pools/{name}", key, if_match)).apply(POOL, name, body)
    return await outcome_response(parts, request, prefer)


@router.patch("/{name}", status_code=202, response_model=None, responses=accepting(WorkerPool, 412, 428))
async def patch_pool(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    patch: Annotated[Free, Body(description="JSON merge patch of `{spec, labels}`", examples=[{"spec": {"max": 6}}])],
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Changes some fields (If-Match)."""
    request = await FleetIntake(parts, caller, Ask(f"PATCH /pools/{name}", key, if_match)).patch(POOL, name, patch)
    return await outcome_response(parts, request, prefer)


@router.delete("/{name}", status_code=202, response_model=None, responses=accepting(WorkerPool, 412))
async def delete_pool(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Deletes an empty pool."""
    ask = Ask(f"DELETE /pools/{name}", key, if_match)
    request = await Intake(parts, caller, ask).act(POOL, "delete.requested", name, Nothing())
    return await outcome_response(parts, request, prefer)


@router.post("/{name}/replace", status_code=202, response_model=None, responses=accepting(WorkerPool, 412))
async def replace_pool(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    body: PoolReplace | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Gives all its workers new machines, never more than `maxUnavailable` of them out of service at the same time. How
    far it has come stands in `status.rollout`."""
    ask = Ask(f"POST /pools/{name}/replace", key, if_match)
    request = await Intake(parts, caller, ask).act(POOL, "replace.requested", name, body or PoolReplace())
    return await outcome_response(parts, request, prefer)


@router.post("/{name}/cancel-replace", status_code=202, response_model=None, responses=accepting(WorkerPool, 412))
async def cancel_replace_pool(
    name: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Asks no further worker; those whose turn has come get their new machines."""
    ask = Ask(f"POST /pools/{name}/cancel-replace", key, if_match)
    request = await Intake(parts, caller, ask).act(POOL, "replace-cancel.requested", name, body or Nothing())
    return await outcome_response(parts, request, prefer)


async def _require(parts: Parts, name: str, consistency: reads.Consistency = "linearizable") -> WorkerPool:
    found = await reads.get(parts, POOL, name, consistency=consistency)
    if found is None:
        raise problems.unknown(POOL.name, name)
    return cast("WorkerPool", found)
