"""The audit, for a tenant's admins: who changed what, and one change with its before and after."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from lablet_common.resources.model import Instant, Model
from lablet_gateway import audit, problems
from lablet_gateway.answers import model_response, refusals
from lablet_gateway.audit import AuditEntry, AuditRecord, Wanted
from lablet_gateway.caller import WithCaller
from lablet_gateway.eventlog import Bounds
from lablet_gateway.parts import WithParts
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/audit", tags=["audit"])
_DAY = timedelta(days=1)
_CURSOR = re.compile(r"([a-z0-9]+)-([0-9]{1,19})")


class AuditList(Model):
    """Entries, oldest first. A page may be short and not the last: go on while there is a cursor."""

    items: tuple[AuditEntry, ...]
    next_cursor: Annotated[str | None, Field(serialization_alias="nextCursor")] = None


@router.get("", response_model=AuditList, responses=refusals(410))
async def list_audit(
    parts: WithParts,
    caller: WithCaller,
    principal: Annotated[str, Query(max_length=128, description="Who asked")] = "",
    subject: Annotated[str, Query(max_length=256, description="`<kind>/<id>`, or a kind")] = "",
    action: Annotated[str, Query(max_length=128, examples=["reservation.cancel"], description="Or a kind")] = "",
    outcome: Annotated[Literal["", "done", "refused"], Query(description="Left out: both")] = "",
    begin: Annotated[Instant | None, Query(alias="from", description="Left out: a day before `to`")] = None,
    to: Annotated[Instant | None, Query(description="Left out: now")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries of a page")] = 100,
    cursor: Annotated[str | None, Query(description="`nextCursor` of the page before")] = None,
) -> Response:
    """Changes of the tenant and refused tries, by when they were decided; times are lab time."""
    first = begin or (to or parts.clock.now()) - _DAY
    if to is not None and to <= first:
        raise problems.invalid("to", "must be after from")
    bounds = await parts.events.bounds()
    after = read_cursor(cursor, bounds) if cursor else None
    wanted = Wanted(principal, subject.strip("/"), action, outcome, first, to)
    found = await audit.page(parts.events, caller.tenant, wanted, after, limit)
    following = None if found.after is None else f"{bounds.epoch}-{found.after}"
    return model_response(AuditList(items=found.items, next_cursor=following))


@router.get("/{request_id}", response_model=AuditRecord, responses=refusals(404))
async def get_audit(request_id: str, parts: WithParts, caller: WithCaller) -> Response:
    """One change: what was asked, what came of it, and the fields that it made others."""
    found = await audit.record(parts.events, caller.tenant, request_id)
    if found is None:
        raise problems.unknown("decided request", request_id)
    return model_response(found)


def read_cursor(cursor: str, bounds: Bounds) -> int:
    """The number in the event stream after which the page begins. Raises 410 for a place in an earlier stream, 422."""
    form = _CURSOR.fullmatch(cursor)
    if form is not None and form[1] != bounds.epoch:
        raise problems.GONE("the event stream was made anew: begin again without cursor")
    if form is None or int(form[2]) > bounds.last:
        raise problems.invalid("cursor", "it is damaged", "take nextCursor as it stands, or leave it out")
    return int(form[2])
