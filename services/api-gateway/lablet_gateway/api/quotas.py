"""Quotas: what a tenant and each of its owners may have open. The schedulers hold them; here they are set and read."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from lablet_common.quotas import Ledger, Quota, QuotaState
from lablet_common.resources.kinds import ledger_key, quota_key
from lablet_common.resources.model import NAME_PATTERN
from lablet_common.store import Conflict, Get, KeyValue, Transaction
from lablet_gateway import problems
from lablet_gateway.answers import IfMatch, model_response, refusals
from lablet_gateway.caller import WithCaller
from lablet_gateway.deeds import deed_in
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=f"{PREFIX}/quotas", tags=["quotas"])
Tenant = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("/{tenant}", response_model=QuotaState, responses=refusals())
async def get_quota(tenant: Tenant, parts: WithParts, _: WithCaller) -> Response:
    """A tenant's limits and what it has open; a tenant without limits has none."""
    return await _state(parts, tenant)


@router.put("/{tenant}", response_model=QuotaState, responses=refusals(412, 428))
async def put_quota(
    tenant: Tenant, body: Quota, parts: WithParts, caller: WithCaller, if_match: IfMatch = None
) -> Response:
    """Sets the limits (If-Match, where there are some). What is open already stays; an empty quota takes all limits
    away."""
    present = await parts.store.get(quota_key(tenant))
    revision = 0 if present is None else present.mod_revision
    if present is not None and if_match is None:
        raise problems.PRECONDITION_REQUIRED("send If-Match with the ETag of the limits that the change is meant for")
    if if_match is not None and if_match.strip() not in ("*", f'"{revision}"'):
        raise problems.STALE(f"If-Match says {if_match}, but the limits are at {revision}: read them again")
    txn = Transaction().require(quota_key(tenant), mod_revision=revision).put(quota_key(tenant), body.to_json())
    before = None if present is None else Quota.model_validate_json(present.value)
    at = parts.clock.now()
    deed_in(txn, caller, "quota.set", f"quota/{tenant}", body.to_dict(), at=at, before=before, after=body)
    try:
        await txn.commit(parts.store)
    except Conflict as conflict:
        raise problems.STALE("the limits were changed meanwhile: read them again") from conflict
    return await _state(parts, tenant)


async def _state(parts: Parts, tenant: str) -> Response:
    quota, ledger = (await parts.store.txn([], [Get(quota_key(tenant)), Get(ledger_key(tenant))])).reads
    limits = Quota.model_validate_json(quota[0].value) if quota else Quota()
    counted = Ledger.model_validate_json(ledger[0].value) if quota and ledger else None
    response = model_response(
        QuotaState(
            tenant=tenant,
            limits=limits,
            used=None if counted is None else counted.total,
            owners={} if counted is None else counted.owners,
        )
    )
    response.headers["ETag"] = _etag(quota)
    return response


def _etag(found: tuple[KeyValue, ...] | list[KeyValue]) -> str:
    return f'"{found[0].mod_revision if found else 0}"'
