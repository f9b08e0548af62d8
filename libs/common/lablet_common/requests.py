"""Requests and the inbox: how an accepted intent is kept, found, and decided exactly once.

The gateway accepts in one transaction: the Request, and a pointer in the inbox of the owner's shard. The owner takes
pointers in the order of their creation and decides in one fenced transaction that compares the pointer present, deletes
it, and writes the outcome together with what was decided. No pointer: nothing to do. So an accepted intent cannot be
lost, done twice or go unanswered, and the same key always leads to the same Request.

Not guaranteed: an order between shards; a request that is handed on stands last in its new line.
"""

import base64
import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID, uuid4, uuid5

from pydantic_core import to_json

from lablet_common.intents import Intent
from lablet_common.resources.kinds import REQUEST, Kind, inbox_key, inbox_prefix, kind_of
from lablet_common.resources.model import Fact, Metadata, Model, Resource
from lablet_common.resources.request import Problem, Request, RequestPhase, RequestSpec, RequestStatus
from lablet_common.store.api import (
    Compare,
    Get,
    InvalidRequest,
    KeyValue,
    OutcomeUnknown,
    Put,
    Store,
    StoreError,
    Target,
)
from lablet_common.store.changes import committed, decode, encode, update_in
from lablet_common.store.transaction import Transaction

_log = logging.getLogger(__name__)
_NAMESPACE = UUID("6f4bb5a5-8a0c-5a1f-9d7f-3b0a6c1d2e40")
_PREFIXES = {"reservation": "rsv", "series": "ser", "instance": "ins", "request": "req"}
_READS_AT_ONCE = 100
TOGETHER = 60
"""Most requests that one transaction brings: each writes two keys, of the 128 that there may be."""
MOST_BYTES = 320 * 1024
"""Largest request that is accepted. Its owner writes the outcome into it, and what it asked for into a resource: both must
have room under a key, or the request could never be closed and would hold up all behind it."""


class KeyReused(StoreError):
    """An idempotency key came again with another body. `request` is what it stands for."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"the idempotency key belongs to {request.id}, which asked for something else")
        self.request = request


def request_key(tenant: str, principal: str, route: str, idempotency_key: str) -> UUID:
    """The same four give the same UUIDv5, which is the event's id and the root of the ids made from it."""
    return uuid5(_NAMESPACE, json.dumps([tenant, principal, route, idempotency_key]))


@lru_cache(maxsize=256)
def new_ids(kind: Kind, key: UUID) -> tuple[str, str]:
    """Ids of the request and of the resource it would make: `req-…` and, for a reservation, `rsv-…` with the same 26
    characters."""
    code = base64.b32encode(key.bytes).decode().rstrip("=").lower()
    return f"req-{code}", f"{_PREFIXES.get(kind.name, kind.name)}-{code}"


def digest_of(body: bytes | dict[str, Any]) -> str:
    """SHA-256 of what was asked, hexadecimal; a mapping counts the same in any order of its fields."""
    raw = body if isinstance(body, bytes) else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(raw).hexdigest()


def build_request(
    intent: Intent,
    resource_id: str,
    body: Model,
    *,
    key: UUID,
    tenant: str,
    principal: str,
    role: str | None = None,
    shard: str,
    digest: str,
    at: datetime,
    trace_parent: str | None = None,
    meant_for: int | None = None,
) -> Request:
    """An accepted request that asks `intent` of the resource. `digest` is of the caller's own body (before defaults were
    filled in), `shard` where the owner's inbox takes it up (a pool, or `-`), `at` lab time, `meant_for` the revision of the
    resource that it rests on."""
    request_id, _ = new_ids(intent.kind, key)
    return Request(
        metadata=Metadata(
            id=request_id,
            uid=str(uuid4()),
            tenant=tenant,
            owner=principal,
            created_at=at,
            correlation_id=request_id,
            trace_parent=trace_parent,
        ),
        spec=RequestSpec(
            type=intent.type,
            subject=f"{intent.kind.name}/{resource_id}",
            data=body.to_dict(),
            event_id=str(key),
            service=intent.service,
            shard=shard,
            digest=digest,
            principal=principal,
            role=role,
            received_at=at,
            trace_parent=trace_parent,
            meant_for=meant_for,
        ),
        status=RequestStatus(phase=RequestPhase.ACCEPTED, last_fact=Fact(name="accepted", serial=1)),
    )


def stale(request: Request, resource: Resource[Any, Any]) -> str | None:
    """What is to be said where the resource is not at the revision that the request is meant for, because another change was
    decided first; None where it is, or where any is fine."""
    if request.spec.meant_for in (None, resource.revision):
        return None
    changed = f"{kind_of(resource).name} {resource.id} was changed meanwhile"
    return (
        f"{changed}: this is meant for it at {request.spec.meant_for}, and it is at {resource.revision}: read it again"
    )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The Request as it is stored. `created` is False when the same key had brought it before."""

    request: Request
    created: bool


def pointer_of(request: Request, place: int = 0) -> Put:
    """What puts the request into its owner's inbox; `place`: among those of the same transaction."""
    named = {"tenant": request.tenant, "request": request.id} | ({"place": place} if place else {})
    return Put(inbox_key(request.spec.service, request.spec.shard, request.id), to_json(named))


def acceptable(request: Request) -> bytes:
    """The value under which it is accepted. Raises `InvalidRequest` for more than `MOST_BYTES`."""
    value = encode(request)
    if len(value) > MOST_BYTES:
        raise InvalidRequest(
            f"the request has {len(value):,} bytes; the most is {MOST_BYTES:,}: divide it, or leave some out"
        )
    return value


async def accept(store: Store, request: Request) -> Accepted:
    """Stores the request and its inbox pointer in one transaction. The same key and body lead to the stored request,
    decided or not. Raises `KeyReused` for another body, `InvalidRequest` for too large a one, and `StoreUnavailable`; it is
    safe to call again."""
    key = REQUEST.key_of(request)
    spec = request.spec
    absent = [Compare(key, Target.MOD, "=", 0)]
    value = acceptable(request)
    writes = [Put(key, value), pointer_of(request)]
    try:
        done = await store.txn(absent, writes, [Get(key)])
    except OutcomeUnknown:
        done = await store.txn(absent, writes, [Get(key)])  # its comparison makes the second try harmless
    if done.succeeded:
        return Accepted(cast("Request", committed(request, value, done.revision)), created=True)
    stored = cast("Request", decode(REQUEST, done.reads[0][0]))
    if stored.spec.digest != spec.digest:
        raise KeyReused(stored)
    return Accepted(stored, created=stored.metadata.uid == request.metadata.uid)


@dataclass(frozen=True, slots=True)
class Undecided:
    """A request that waits in an inbox, as both were read."""

    pointer: KeyValue
    request: Request

    @property
    def id(self) -> str:
        return self.request.id


_Pointer = tuple[KeyValue, dict[str, Any]]


def _place(pointer: _Pointer) -> tuple[int, int]:
    return pointer[0].create_revision, pointer[1].get("place", 0)


class Inbox:
    """What waits for one shard of a service."""

    def __init__(self, store: Store, service: str, shard: str) -> None:
        self._store = store
        self._prefix = inbox_prefix(service, shard)
        self.waiting = 0
        """How many waited in all when `pending` looked last."""

    async def pending(self, limit: int = 100) -> list[Undecided]:
        """The longest waiting first, by the pointers' create revisions, those of one transaction by their places; read
        linearizably. A few more than `limit` where it would divide what one transaction brought."""
        page = await self._store.range(self._prefix, limit=limit + TOGETHER, order_by_create=True)
        self.waiting = page.count
        pointers = sorted(((kv, json.loads(kv.value)) for kv in page.items), key=_place)
        revisions = [kv.create_revision for kv, _ in pointers]
        if len(pointers) > limit:
            del pointers[bisect_right(revisions, revisions[limit - 1]) :]
        undecided: list[Undecided] = []
        for at in range(0, len(pointers), _READS_AT_ONCE):
            undecided += await self._read(pointers[at : at + _READS_AT_ONCE])
        return undecided

    async def depth(self) -> int:
        """How many wait."""
        return (await self._store.range(self._prefix, limit=1, keys_only=True)).count

    async def _read(self, pointers: Sequence[_Pointer]) -> list[Undecided]:
        keys = [REQUEST.key(named["request"], named["tenant"]) for _, named in pointers]
        found = await self._store.txn([], [Get(key) for key in keys])
        undecided = []
        for (pointer, _), key, read in zip(pointers, keys, found.reads, strict=True):
            if not read:
                _log.error("an inbox pointer leads nowhere", extra={"pointer": pointer.key, "request": key})
                continue
            request = cast("Request", decode(REQUEST, read[0]))
            if request.status.phase is RequestPhase.ACCEPTED:  # else it was decided between the two reads
                undecided.append(Undecided(pointer, request))
        return undecided


def decide_in(
    txn: Transaction,
    undecided: Undecided,
    *,
    at: datetime,
    by: str,
    reason: str,
    resource: Resource[Any, Any] | None = None,
    resource_phase: str | None = None,
    answer: dict[str, Any] | None = None,
) -> Request:
    """Closes the request as done. `resource` is only named in the outcome: writing it is the caller's part of the same
    transaction. `answer` is what was found out, where only that was asked. Returns the request as it will stand, with the
    revision it was read at."""
    return _close_in(
        txn,
        undecided,
        RequestPhase.DECIDED,
        at=at,
        by=by,
        reason=reason,
        resource=resource,
        resource_phase=resource_phase,
        answer=answer,
    )


def refuse_in(
    txn: Transaction,
    undecided: Undecided,
    *,
    at: datetime,
    by: str,
    problem: Problem,
    resource: Resource[Any, Any] | None = None,
) -> Request:
    """Closes the request as refused, with the problem that its sender will read."""
    return _close_in(
        txn,
        undecided,
        RequestPhase.REFUSED,
        at=at,
        by=by,
        reason="Refused",
        message=problem.detail or None,
        problem=problem,
        resource=resource,
    )


def _close_in(
    txn: Transaction,
    undecided: Undecided,
    phase: RequestPhase,
    *,
    at: datetime,
    by: str,
    reason: str,
    resource: Resource[Any, Any] | None,
    resource_phase: str | None = None,
    **changes: Any,
) -> Request:
    if resource is not None:
        changes["resource"] = f"{kind_of(resource).name}/{resource.id}"
        changes["resource_phase"] = resource_phase or str(resource.phase)
    closed = undecided.request.moved(phase, at=at, by=by, reason=reason, decided_at=at, **changes)
    _take_in(txn, undecided)
    update_in(txn, closed)
    return closed


def hand_on_in(txn: Transaction, undecided: Undecided, service: str, shard: str) -> Request:
    """Moves the pointer to another shard's inbox, where it stands last, and notes the shard in the request, so that the
    intent goes out again and wakes its new owner. Raises `ValueError` for its own inbox."""
    key = inbox_key(service, shard, undecided.id)
    if key == undecided.pointer.key:
        raise ValueError(f"{undecided.id} is in the inbox of {service}/{shard} already")
    handed_on = undecided.request.respecified(service=service, shard=shard)
    _take_in(txn, undecided)
    txn.put(key, undecided.pointer.value)
    update_in(txn, handed_on)
    return handed_on


def _take_in(txn: Transaction, undecided: Undecided) -> None:
    txn.require(undecided.pointer.key, mod_revision=undecided.pointer.mod_revision)
    txn.delete(undecided.pointer.key)
