"""API keys: made by a tenant's admins for machines, shown once, narrowed by scopes, ended by time or by hand."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, cast
from uuid import UUID, uuid4

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from lablet_common.requests import KeyReused, digest_of, new_ids, request_key
from lablet_common.resources.key import ApiKey, KeyPhase, KeySpec, KeyStatus
from lablet_common.resources.kinds import KEY, REQUEST
from lablet_common.resources.model import Fact, Instant, Metadata, Model, Name
from lablet_common.resources.request import Request
from lablet_common.store import Conflict, OutcomeUnknown, Transaction
from lablet_common.store.changes import create_in, update_in
from lablet_common.store.repository import ResourcePage
from lablet_gateway import problems, reads
from lablet_gateway.answers import IdempotencyKey, model_response, refusals, resource_response
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.deeds import SOURCE, deed_in
from lablet_gateway.identity import Principal, Role
from lablet_gateway.identity.keys import new_secret, token_of
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithListQuery
from lablet_gateway.rights import KEY_SCOPES, PREFIX, scopes_beyond

router = APIRouter(prefix=f"{PREFIX}/keys", tags=["keys"])
_DAYS = 90
_MOST_DAYS = 5 * 366
KeyId = Annotated[str, Path(pattern=r"^key-[a-z2-7]{26}$")]


class KeyCreate(Model):
    """A key to be made. It acts as `key:<name>`."""

    name: Name
    role: Role = Role.MACHINE
    scopes: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """What it is narrowed to: `<area>:read` or `<area>:write` (which includes reading); empty: all that the role may."""
    days: Annotated[int, Field(ge=1, le=_MOST_DAYS)] = _DAYS
    """Real days until it ends."""


class KeyMade(Model):
    """A key, and the token that is never shown again."""

    key: ApiKey
    token: str | None = None
    """Null where the same Idempotency-Key has brought this key before."""


@router.post("", status_code=201, response_model=KeyMade, responses=refusals(409))
async def create_key(body: KeyCreate, parts: WithParts, caller: WithCaller, key: IdempotencyKey = None) -> Response:
    """Makes a key. The token in the answer is shown this once; what is kept is its hash."""
    if caller.principal.key is not None:
        raise problems.FORBIDDEN("a key makes no keys: a person has to")
    _check(body, caller)
    root = request_key(caller.tenant, caller.name, "POST /keys", key or uuid4().hex)
    secret, digest = new_secret()
    now = datetime.now(UTC).replace(microsecond=0)
    _, key_id = new_ids(KEY, root)
    made = ApiKey(
        metadata=Metadata(
            id=key_id, uid=str(uuid4()), tenant=caller.tenant, owner=caller.name, created_at=parts.clock.now()
        ),
        spec=KeySpec(
            name=body.name,
            role=body.role.value,
            scopes=tuple(sorted(set(body.scopes))),
            expires_at=now + timedelta(days=body.days),
            sha256=digest,
        ),
        status=KeyStatus(last_fact=Fact(name="created", serial=1)),
    )
    txn = Transaction()
    create_in(txn, made)
    deed_in(txn, caller, "key.create", f"key/{key_id}", body.to_dict(), at=parts.clock.now(), key=root)
    try:
        done = await txn.commit(parts.store)
    except (Conflict, OutcomeUnknown) as failed:
        return await _again(parts, caller, root, body, made, secret, failed)
    return model_response(KeyMade(key=made.at_revision(done.revision).public(), token=token_of(made, secret)), 201)


@router.get("", response_model=ListOf[ApiKey], responses=refusals(410))
async def list_keys(parts: WithParts, caller: WithCaller, query: WithListQuery) -> Response:
    """The tenant's keys, without their secrets; those that ended go after 30 days."""

    def own(found: ApiKey) -> bool:
        return found.tenant == caller.tenant

    found: ResourcePage[ApiKey] = await reads.page(parts, KEY, query, own, tenant=caller.tenant)
    used = await parts.key_uses.last(caller.tenant)
    items = tuple(_with_use(item, used) for item in found.items)
    return reads.list_response(ResourcePage(items, found.revision, found.next_cursor))


@router.get("/{key_id}", response_model=ApiKey, responses=refusals(404))
async def get_key(key_id: KeyId, parts: WithParts, caller: WithCaller) -> Response:
    """One key, without its secret."""
    found = await _stored(parts, caller, key_id)
    return resource_response(_with_use(found, await parts.key_uses.last(caller.tenant)))


@router.delete("/{key_id}", response_model=ApiKey, responses=refusals(404, 409))
async def revoke_key(
    key_id: KeyId,
    parts: WithParts,
    caller: WithCaller,
    reason: Annotated[str, Query(max_length=256, description="Kept in the history and the audit")] = "",
) -> Response:
    """Ends a key at once, on every replica. Revoking twice is no error."""
    found = await _stored(parts, caller, key_id)
    if found.phase == KeyPhase.REVOKED:
        return resource_response(found)
    at = parts.clock.now()
    revoked = found.moved(
        KeyPhase.REVOKED,
        at=at,
        by=SOURCE,
        reason="Revoked",
        message=reason or f"by {caller.name}",
        ended_at=datetime.now(UTC).replace(microsecond=0),
    )
    txn = Transaction()
    update_in(txn, revoked)
    deed_in(txn, caller, "key.revoke", f"key/{key_id}", {"reason": reason}, at=at)
    try:
        done = await txn.commit(parts.store)
    except Conflict:
        present = await _stored(parts, caller, key_id)
        if present.phase != KeyPhase.REVOKED:
            raise
        return resource_response(present)  # somebody else was quicker: it has ended all the same
    return resource_response(revoked.at_revision(done.revision))


def _check(body: KeyCreate, caller: Caller) -> None:
    """Raises 422 for scopes that there are not, or that the role has no right to."""
    errors = [
        problems.field_error(f"scopes[{at}]", f"there is no scope {scope}", problems.nearest(scope, KEY_SCOPES))
        for at, scope in enumerate(body.scopes)
        if scope not in KEY_SCOPES
    ]
    if not errors:
        acting = Principal(body.name, body.role, caller.tenant)
        errors = [
            problems.field_error("scopes", f"a key of role {body.role} may never use {scope}", "leave it out")
            for scope in scopes_beyond(body.scopes, acting)
        ]
    if errors:
        raise problems.several(errors)


async def _again(
    parts: Parts, caller: Caller, root: UUID, body: KeyCreate, made: ApiKey, secret: str, failed: Exception
) -> Response:
    """The answer where the same Idempotency-Key may have made the key before, or this very call has."""
    request_id, key_id = new_ids(REQUEST, root)[0], new_ids(KEY, root)[1]
    request = cast("Request | None", await reads.get(parts, REQUEST, request_id, caller.tenant))
    if request is None:
        raise failed
    if request.spec.digest != digest_of(body.to_dict()):
        raise KeyReused(request)
    found = await _stored(parts, caller, key_id)
    ours = found.spec.sha256 == made.spec.sha256
    return model_response(KeyMade(key=found.public(), token=token_of(found, secret) if ours else None), 201)


async def _stored(parts: Parts, caller: Caller, key_id: str) -> ApiKey:
    found = cast("ApiKey | None", await reads.get(parts, KEY, key_id, caller.tenant))
    if found is None:
        raise problems.unknown("key", key_id)
    return found


def _with_use(key: ApiKey, used: dict[str, datetime]) -> ApiKey:
    at: Instant | None = used.get(key.id)
    return key.model_copy(update={"status": key.status.model_copy(update={"last_used_at": at})})
