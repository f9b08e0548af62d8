"""Usage: what a tenant has booked and used, and what that came to, as JSON or as a table for a spreadsheet."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from lablet_common import archive
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import DEFINITION, RESERVATION, TEMPLATE, WORKER
from lablet_common.resources.model import Instant
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Worker, WorkerTemplate
from lablet_gateway import problems, reads
from lablet_gateway.answers import model_response, refusals
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.rights import PREFIX, PUBLIC_TENANT
from lablet_gateway.usage import Booked, Price, Usage, as_csv, share_of, usage

router = APIRouter(prefix=PREFIX, tags=["usage"])
_MONTH = timedelta(days=30)
_MOST = timedelta(days=400)
_LATER = timedelta(days=31)
"""How long after its slot's begin a reservation may have ended, to be found in the archive."""
_TABLE = """tenant,from,to,definition,reservations,seats,seatHours,workerHours,costUsd\r
default,2027-02-01T00:00:00Z,2027-03-01T00:00:00Z,ospf-basics@1.0.0,3,36,72.0,14.5,11.6\r
default,2027-02-01T00:00:00Z,2027-03-01T00:00:00Z,,3,36,72.0,14.5,11.6\r
"""
_CSV = {"text/csv": {"schema": {"type": "string"}, "example": _TABLE}}


@router.get("/usage", response_model=Usage, responses={200: {"content": _CSV}, **refusals(404)})
async def get_usage(
    parts: WithParts,
    caller: WithCaller,
    tenant: Annotated[str | None, Query(description="The caller's own")] = None,
    begin: Annotated[Instant | None, Query(alias="from", description="Left out: 30 days before `to`")] = None,
    to: Annotated[Instant | None, Query(description="Left out: now")] = None,
    form: Annotated[
        Literal["json", "csv"], Query(alias="format", description="`csv`: a table for spreadsheets")
    ] = "json",
) -> Response:
    """Reservations, seats, hours of seats and workers and their cost in a span of at most 400 days, by definition; what
    is archived by now is in it."""
    if tenant not in (None, caller.tenant):
        raise problems.unknown("tenant", str(tenant))
    end = to or parts.clock.now()
    start = begin or end - _MONTH
    if end <= start:
        raise problems.invalid("to", "must be after from")
    if end - start > _MOST:
        raise problems.invalid("from", f"the span has {(end - start).days} days; the most is {_MOST.days}")
    report = usage(
        caller.tenant, await _reservations(parts, caller, start, end), start, end, await _prices(parts, caller)
    )
    if form == "csv":
        name = f"usage-{caller.tenant}-{start:%Y%m%d}-{end:%Y%m%d}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(as_csv(report), headers=headers, media_type="text/csv; charset=utf-8")
    return model_response(report)


async def _reservations(parts: Parts, caller: Caller, start: datetime, end: datetime) -> Collection[Booked]:
    """Those in the store and those in the archive, each once; the store knows better. Of the archive, one at a time is in
    memory."""

    def in_tenant(reservation: Reservation) -> bool:
        return reservation.tenant == caller.tenant

    found: dict[str, Booked] = {}
    first, last = (start - timedelta(days=1)).date(), min(end + _LATER, parts.clock.now()).date()
    async for _, old in archive.days(parts.objects, RESERVATION, caller.tenant, first, last, _named):
        found |= dict(old)
    here: list[Reservation] = await reads.everything(parts, RESERVATION, in_tenant)
    return (found | {one.id: Booked.of(one) for one in here}).values()


def _named(reservation: Reservation) -> tuple[str, Booked]:
    return reservation.id, Booked.of(reservation)


class _Prices:
    """What a seat costs, by what is known of definitions, workers and templates."""

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        workers: Mapping[str, Worker],
        templates: Mapping[str, WorkerTemplate],
    ) -> None:
        self._definitions = definitions
        self._workers = workers
        self._templates = templates

    def __call__(self, definition_id: str, worker_name: str) -> Price | None:
        definition, worker = self._definitions.get(definition_id), self._workers.get(worker_name)
        template = self._templates.get(worker.spec.template) if worker is not None else None
        if definition is None or worker is None or template is None:
            return None
        share = share_of(definition.spec.requirements, worker.spec.capacity, worker.nodes)
        return Price(share, template.spec.cost_per_hour_usd)


async def _prices(parts: Parts, caller: Caller) -> _Prices:
    readable = (PUBLIC_TENANT, caller.tenant)
    definitions: list[Definition] = await reads.everything(parts, DEFINITION, lambda one: one.tenant in readable)
    workers: list[Worker] = await reads.everything(parts, WORKER, lambda _: True)
    templates: list[WorkerTemplate] = await reads.everything(parts, TEMPLATE, lambda _: True)
    own_last = sorted(definitions, key=lambda one: one.tenant == caller.tenant)
    return _Prices(
        {one.id: one for one in own_last},
        {one.id: one for one in workers},
        {one.id: one for one in templates},
    )
