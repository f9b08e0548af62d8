"""Workers: the fleet's machines, their calendars, and what operators do with them."""

from datetime import timedelta
from typing import Annotated, cast

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from lablet_common.drains import DrainPlan, InvalidSpan, plan_of, span_of
from lablet_common.intents import Nothing, WorkerCordon, WorkerDrain, WorkerRegister, WorkerReplace
from lablet_common.loads import LoadOf, WorkerLoad
from lablet_common.resources.kinds import POOL, TEMPLATE, WORKER, worker_load_key
from lablet_common.resources.model import NAME_PATTERN, Instant, Model
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate
from lablet_common.store import Get
from lablet_common.store.repository import ResourcePage
from lablet_gateway import bookings, problems, reads
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
from lablet_gateway.calendar import WorkerCalendar, worker_calendar
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.fleet import FleetIntake
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/workers", tags=["workers"])
From = Annotated[Instant | None, Query(alias="from", description="Lab time; left out: now")]
To = Annotated[Instant | None, Query(description="Lab time; left out: a day after `from`")]


def _in_fleet(_: Worker) -> bool:
    return True


@router.get("", response_model=ListOf[Worker], responses=refusals(410))
async def list_workers(parts: WithParts, _: WithCaller, query: WithListQuery) -> Response:
    """All workers, by name."""
    found: ResourcePage[Worker] = await reads.page(parts, WORKER, query, _in_fleet)
    return reads.list_response(found)


@router.get("/{worker}", response_model=Worker, responses=refusals(404))
async def get_worker(
    worker: str,
    parts: WithParts,
    _: WithCaller,
    consistency: WithConsistency = "linearizable",
) -> Response:
    """One worker: its phase, machine, licence and latest scaling decision."""
    found = await reads.get(parts, WORKER, worker, consistency=consistency)
    if found is None:
        raise problems.unknown(WORKER.name, worker)
    return resource_response(found)


@router.get("/{worker}/calendar", response_model=WorkerCalendar, responses=refusals(404))
async def worker_bookings(
    worker: str, parts: WithParts, caller: WithCaller, begin: From = None, to: To = None
) -> Response:
    """Its bookings, when they need it on, and what is taken now; computed from the reservations."""
    found = cast("Worker | None", await reads.get(parts, WORKER, worker))
    if found is None:
        raise problems.unknown(WORKER.name, worker)
    pool = cast("WorkerPool | None", await reads.get(parts, POOL, found.spec.pool))
    window = bookings.window(parts, begin, to)
    known = await bookings.read(parts, found.spec.pool)
    spec = pool.spec if pool else None
    return model_response(
        worker_calendar(found, spec, known.reservations, known.instances, known.needs, window, caller.tenant)
    )


@router.get("/{worker}/load", response_model=LoadOf, responses=refusals(404))
async def worker_load(worker: str, parts: WithParts, _: WithCaller) -> Response:
    """What its machine uses now, as it told last: processors, memory, disk and the nodes that run. Left out while it
    is off or does not answer."""
    if await reads.get(parts, WORKER, worker) is None:
        raise problems.unknown(WORKER.name, worker)
    (found,) = await parts.lookups.ask((Get(worker_load_key(worker)),))
    return model_response(
        LoadOf(worker=worker, load=WorkerLoad.model_validate_json(found[0].value, extra="ignore") if found else None)
    )


async def _act(
    verb: str,
    worker: str,
    body: Model,
    parts: Parts,
    caller: Caller,
    envelope: tuple[str | None, str | None, str | None],
) -> Response:
    if_match, key, prefer = envelope
    ask = Ask(f"POST /workers/{worker}/{verb}", key, if_match)
    request = await Intake(parts, caller, ask).act(WORKER, f"{verb}.requested", worker, body)
    return await outcome_response(parts, request, prefer)


@router.post("/{worker}/register", status_code=202, response_model=None, responses=accepting(Worker, done=201))
async def register(
    worker: Annotated[str, Path(pattern=NAME_PATTERN)],
    body: WorkerRegister,
    parts: WithParts,
    caller: WithCaller,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """An agent's host joins a pool, or says anew what it has. A host's own token is for one name."""
    ask = Ask(f"POST /workers/{worker}/register", key)
    request = await FleetIntake(parts, caller, ask).register(worker, body)
    return await outcome_response(parts, request, prefer, done=201)


@router.post("/{worker}/drain", status_code=202, response_model=None, responses=accepting(Worker | DrainPlan, 412))
async def drain(
    worker: str,
    parts: WithParts,
    caller: WithCaller,
    body: WorkerDrain | None = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only tell what would happen")] = False,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Empties it: nothing new is placed, labs run to their end or the deadline. A dry run answers 200 with a plan: which
    seats would move, which labs would stay and until when, and which would be ended."""
    if dry_run:
        return model_response(await _drain_plan(worker, body or WorkerDrain(), parts))
    return await _act("drain", worker, body or WorkerDrain(), parts, caller, (if_match, key, prefer))


async def _drain_plan(name: str, asked: WorkerDrain, parts: Parts) -> DrainPlan:
    worker = cast("Worker | None", await reads.get(parts, WORKER, name))
    if worker is None:
        raise problems.unknown(WORKER.name, name)
    pool = cast("WorkerPool | None", await reads.get(parts, POOL, worker.spec.pool))
    template = cast("WorkerTemplate | None", await reads.get(parts, TEMPLATE, worker.spec.template))
    patience = template.spec.drain_timeout_minutes if template is not None else 0
    turnaround = pool.spec.turnaround_minutes if pool is not None else 0
    now = parts.clock.now()
    try:
        span = span_of(asked, now, timedelta(minutes=patience))
    except InvalidSpan as invalid:
        raise problems.invalid("until", str(invalid)) from invalid
    known = await bookings.read(parts, worker.spec.pool)
    return plan_of(name, span, known.reservations, known.instances, timedelta(minutes=turnaround), now)


@router.post("/{worker}/cancel-drain", status_code=202, response_model=None, responses=accepting(Worker, 412))
async def cancel_drain(
    worker: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Takes a drain back."""
    return await _act("drain-cancel", worker, body or Nothing(), parts, caller, (if_match, key, prefer))


@router.post("/{worker}/cordon", status_code=202, response_model=None, responses=accepting(Worker, 412))
async def cordon(
    worker: str,
    body: WorkerCordon,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Nothing new is placed on it; what runs or is booked stays."""
    return await _act("cordon", worker, body, parts, caller, (if_match, key, prefer))


@router.post("/{worker}/uncordon", status_code=202, response_model=None, responses=accepting(Worker, 412))
async def uncordon(
    worker: str,
    parts: WithParts,
    caller: WithCaller,
    body: Nothing | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Takes a cordon back."""
    return await _act("uncordon", worker, body or Nothing(), parts, caller, (if_match, key, prefer))


@router.post("/{worker}/replace", status_code=202, response_model=None, responses=accepting(Worker, 412))
async def replace(
    worker: str,
    parts: WithParts,
    caller: WithCaller,
    body: WorkerReplace | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Drains it and gives it a new machine once it is empty. Cancelling the drain takes this back."""
    return await _act("replace", worker, body or WorkerReplace(), parts, caller, (if_match, key, prefer))
