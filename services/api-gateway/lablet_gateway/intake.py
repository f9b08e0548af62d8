"""What is asked becomes a Request: looked up under its key, checked against the present state, accepted in one
transaction. Routes and inbound events go through the same doors.

A repeated key is answered before anything else is checked, so that a retry gets the first answer even when the slot has
begun or the definition has changed since; and once more before it is refused, as the first try may have been let in
meanwhile, by another gateway, and be what has changed the state. What the owner alone can judge (does it fit?) is not judged
here; and what a change is meant for goes with it, to be compared once more. Not guaranteed: that a booking which is refused,
as its slot has begun, is not followed by an earlier try that was still on its way.
"""

import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from lablet_common.intents import (
    INTENTS,
    AssessmentCompleted,
    DefinitionPublish,
    Intent,
    PoolApply,
    ReservationChange,
    ReservationClaim,
    ReservationClaims,
    ReservationCreate,
    ReservationRequested,
    TemplateApply,
    WorkerRegister,
)
from lablet_common.objects import digest_of as content_digest
from lablet_common.requests import KeyReused, build_request, digest_of, new_ids, request_key
from lablet_common.resources.artifact import staging_key
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import INSTANCE_PREFIX
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    POOL,
    REQUEST,
    RESERVATION,
    TEMPLATE,
    WORKER,
    Kind,
    inbox_key,
)
from lablet_common.resources.model import Model, Resource, format_time
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Claim, Reservation, ReservationPhase
from lablet_common.resources.worker import MOST_LEAD_MINUTES, PoolSpec, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.store import Get, KeyValue
from lablet_common.store.changes import decode
from lablet_common.telemetry.traces import current_trace_parent
from lablet_gateway import archive, catalogue, pending, problems, reads
from lablet_gateway.admission import Crowded
from lablet_gateway.answers import check_match
from lablet_gateway.caller import Caller
from lablet_gateway.identity.keys import OWNER_PREFIX
from lablet_gateway.parts import Parts
from lablet_gateway.problems import field_error
from lablet_gateway.rights import Scope, approves
from lablet_gateway.seats import check_more_time, hash_of, new_code, reservation_of

_T = TypeVar("_T")
_OBJECT_KEY = re.compile(r"(?=.{1,512}$)[A-Za-z0-9._=@+~-]+(?:/[A-Za-z0-9._=@+~-]+)*")
DEFAULT_POOL = "default"
NO_SHARD = "-"
_POOL_LEADS = ("scale_down_grace_minutes", "preparation_minutes", "boot_reserve_minutes", "turnaround_minutes")
_TEMPLATE_LEADS = ("boot_minutes",)
_FINAL_IS_FINE = frozenset({"io.lablet.reservation.cancel.requested.v1"})
"""Asked of something that has ended in just that way, they are no error; the owner says so."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The envelope of one ask: under which key, from where, about which state."""

    route: str
    """What the key belongs to: `METHOD /path` or the events' door."""
    key: str | None = None
    """The caller's idempotency key; None: this ask stands for itself."""
    if_match: str | None = None
    correlation: str | None = None
    """The first request of a chain of causes, where the caller names one."""


def intent_of(kind: Kind, verb: str) -> Intent:
    return INTENTS[f"io.lablet.{kind.name}.{verb}.v1"]


class Intake:
    """The doors, for one caller."""

    def __init__(self, parts: Parts, caller: Caller, ask: Ask) -> None:
        self._parts = parts
        self._caller = caller
        self._ask = ask
        self._meant_for: int | None = None
        """Revision that the ask rests on, once that has been looked at."""
        self._key: UUID = request_key(caller.tenant, caller.name, ask.route, ask.key or uuid4().hex)

    async def reserve(self, body: ReservationCreate) -> Request:
        """A new reservation. Raises 422 for an unknown definition or pool and for a slot that has passed."""
        request = self.plain(body)
        if request is None:
            digest = digest_of(body.to_dict())
            found = await self._resolve(
                RESERVATION, digest, body.definition, _pools_of(body), self._errors_of(body), listed=bool(body.pools)
            )
            if isinstance(found, Request):
                return found
            request = self._reservation(body, found, digest)
        return await self._accepted(RESERVATION, request)

    def plain(self, body: ReservationCreate) -> Request | None:
        """What asks for a new reservation, ready to be accepted; None where the store has to be asked about it first, or
        where something is wrong with it. A repeated key shows when the request is accepted."""
        if self._errors_of(body) or (definition := self._known(body.definition, _pools_of(body))) is None:
            return None
        return self._reservation(body, definition, digest_of(body.to_dict()))

    def _reservation(self, body: ReservationCreate, definition: Definition, digest: str) -> Request:
        pools = _pools_of(body)
        _, reservation_id = new_ids(RESERVATION, self._key)
        data = ReservationRequested(
            id=reservation_id,
            owner=self._caller.name,
            definition=definition.id,
            pools=pools,
            seats=body.seats,
            start=body.start,
            end=body.end,
            duration_minutes=body.minutes,
            asap=body.asap,
            priority=body.priority,
            labels=body.labels,
            worker_selector=body.worker_selector,
            roster=body.roster,
            extendable_minutes=body.extendable_minutes,
            hold=body.hold,
        )
        return self._request(intent_of(RESERVATION, "requested"), reservation_id, data, pools[0], digest)

    def _errors_of(self, body: ReservationCreate) -> list[dict[str, str]]:
        return self._slot_errors(body.start, body.hold.expires_at if body.hold is not None else None)

    async def _resolve(
        self,
        kind: Kind,
        digest: str,
        wanted: str,
        pools: Sequence[str],
        errors: list[dict[str, str]],
        *,
        listed: bool,
    ) -> Definition | Request:
        """The definition meant, or the request that the same key has brought before. Raises 422 for `errors`, and for a
        definition or pool that there is not; `listed`: the caller gave pools and not one pool."""
        if not errors and (definition := self._known(wanted, pools)) is not None:
            return definition  # a repeated key shows when the request is accepted
        lookups = (
            self._earlier(kind),
            *catalogue.reads_of(self._caller.tenant, wanted),
            *(Get(POOL.key(pool)) for pool in pools),
        )
        earlier, *found = await self._parts.lookups.ask(lookups)
        if earlier:
            return _same(earlier[0], digest)
        definition = catalogue.choose(self._parts, wanted, found[: -len(pools)])
        errors = errors + await self._definition_errors(wanted, definition)
        missing = [
            (at, pool) for at, (pool, kvs) in enumerate(zip(pools, found[-len(pools) :], strict=True)) if not kvs
        ]
        if missing:
            errors += await self._unknown_pools(missing, listed=listed)
        if errors or definition is None:
            raise invalid(errors)
        return definition

    def _known(self, wanted: str, pools: Sequence[str]) -> Definition | None:
        """The definition, where the caches show that all is as it must be: an exact version never changes, and what is
        in the caller's own tenant comes before any other."""
        definition = catalogue.known(self._parts, self._caller.tenant, wanted)
        if definition is None or not definition.may_run:
            return None
        cached = self._parts.caches[POOL]
        return definition if all(cached.get(pool) is not None for pool in pools) else None

    async def _definition_errors(self, wanted: str, definition: Definition | None) -> list[dict[str, str]]:
        """What forbids to run it."""
        if definition is None:
            remedy = problems.nearest(wanted, await catalogue.names(self._parts, self._caller.tenant))
            return [field_error("definition", f"there is no definition {wanted}", remedy)]
        if not definition.may_run:
            said = f"{definition.id} runs processes on agents' hosts and no operator has approved it"
            return [field_error("definition", said, f"ask an operator: lablet definition approve {definition.id}")]
        return []

    async def _definition_id(self, wanted: str | None) -> str | None:
        """The id of the definition that a change names. Raises 422."""
        if wanted is None:
            return None
        definition = await catalogue.find(self._parts, self._caller.tenant, wanted)
        errors = await self._definition_errors(wanted, definition)
        if errors or definition is None:
            raise invalid(errors)
        return definition.id

    async def change(self, reservation_id: str, body: ReservationChange, *, must_match: bool = False) -> Request:
        """Another slot, roster, number of seats or definition for a reservation. Raises what `act` does, and 422."""
        digest = digest_about(reservation_id, body)
        if body.definition is not None:  # a name may mean another version by now
            if repeated := await self._repeated(RESERVATION, digest):
                return repeated
            body = body.model_copy(update={"definition": await self._definition_id(body.definition)})
        return await self.act(
            RESERVATION, "change.requested", reservation_id, body, must_match=must_match, digest=digest
        )

    async def open_claims(self, reservation_id: str, seats: tuple[int, ...]) -> tuple[Request, Mapping[int, str]]:
        """New claim links for these seats, or for all that nobody sits on, and their codes by seat. A repeated key is known
        by the seats that were named and gets no codes: they were shown. Raises what `act` does, and 409 where every seat
        has its user."""
        intent = intent_of(RESERVATION, "open-claims.requested")
        digest = digest_of({"subject": reservation_id, "seats": seats})
        if repeated := await self._repeated(RESERVATION, digest):
            return repeated, {}
        found = await self._unless_repeated(RESERVATION, digest, self._claimable(intent, reservation_id, seats))
        if isinstance(found, Request):
            return found, {}
        wanted, shard = found
        codes = {seat: new_code(reservation_id) for seat in wanted}
        body = ReservationClaims(claims=tuple(Claim(seat=seat, sha256=hash_of(code)) for seat, code in codes.items()))
        request = await self._accept(intent, reservation_id, body, shard, digest)
        return request, codes if request.spec.data == body.to_dict() else {}

    async def _claimable(
        self, intent: Intent, reservation_id: str, seats: tuple[int, ...]
    ) -> tuple[tuple[int, ...], str]:
        found, shard = await self._addressed(intent, reservation_id)
        spec = cast("Reservation", found).spec
        taken = {entry.seat for entry in spec.roster}
        wanted = seats or tuple(seat for seat in range(1, spec.seats + 1) if seat not in taken)
        if not wanted:
            raise problems.CONFLICT(f"every seat of {reservation_id} has its user already: change the roster first")
        return wanted, shard

    async def claim(self, code: str) -> Request | Reservation:
        """A seat for who shows its code; the reservation, where they sit in it already. Raises 404 for a code that does not
        count, or not any more."""
        reservation_id = reservation_of(code)
        if reservation_id is None:
            raise _unknown_link()
        body = ReservationClaim(sha256=hash_of(code), user=self._caller.name)
        digest = digest_about(reservation_id, body)
        found = await self._unless_repeated(RESERVATION, digest, self._reservation_of(reservation_id, body))
        if isinstance(found, Request) or self._caller.is_on_roster(found):
            return found
        shard = await self._shard_of(found)
        return await self._accept(intent_of(RESERVATION, "claim.requested"), found.id, body, shard, digest)

    async def _reservation_of(self, reservation_id: str, body: ReservationClaim) -> Reservation:
        """The one that the link is for, if it counts or the caller needs none."""
        caller = self._caller
        found = await pending.reservation(self._parts, caller.tenant, reservation_id)
        if found is None or found.tenant != caller.tenant:
            raise _unknown_link()
        if not caller.is_on_roster(found) and not any(one.sha256 == body.sha256 for one in found.spec.claims):
            raise _unknown_link()
        return found

    async def publish(self, name: str, version: str | None, topology: bytes, overrides: dict[str, Any]) -> Request:
        """A lab file: put into staging under the request's id, then asked for by its digest (claim check)."""
        intent = intent_of(DEFINITION, "publish.requested")
        content = content_digest(topology)
        digest = digest_of({"name": name, "version": version, "content": content, "overrides": overrides})
        if repeated := await self._repeated(intent.kind, digest):
            return repeated
        request_id, _ = new_ids(DEFINITION, self._key)
        staged = staging_key("uploads", self._caller.tenant, request_id)
        body = DefinitionPublish(
            name=name,
            version=version,
            staging=staged,
            digest=content,
            bytes=len(topology),
            overrides=overrides,
            approved=approves(self._caller.principal),
        )
        await self._parts.objects.put(staged, topology, "application/yaml")
        return await self._accept(intent, f"{name}@{version}" if version else name, body, NO_SHARD, digest)

    async def publish_staged(self, body: DefinitionPublish) -> Request:
        """A lab file that its sender has put into the tenant's own staging already. Raises 422 for another place."""
        intent = intent_of(DEFINITION, "publish.requested")
        digest = digest_of(body.to_dict())
        if repeated := await self._repeated(intent.kind, digest):
            return repeated
        own = staging_key("uploads", self._caller.tenant, "")
        if not body.staging.startswith(own) or ".." in body.staging or not _OBJECT_KEY.fullmatch(body.staging):
            # an object store refuses to look for some keys at all, and whoever has to would wait until it does
            remedy = "letters, digits and ._=@+~- between single slashes, at most 512; or upload with POST /definitions"
            raise problems.invalid("data.staging", f"not a key below {own}", remedy)
        body = body.model_copy(update={"approved": approves(self._caller.principal)})
        subject = f"{body.name}@{body.version}" if body.version else body.name
        return await self._accept(intent, subject, body, NO_SHARD, digest)

    async def act(
        self,
        kind: Kind,
        verb: str,
        resource_id: str,
        body: Model,
        *,
        must_match: bool = False,
        digest: str | None = None,
    ) -> Request:
        """An act on something that exists. Raises 404, 403, 409 for what has ended, 412 and 428."""
        intent = intent_of(kind, verb)
        digest = digest or digest_about(resource_id, body)
        if repeated := await self._repeated(kind, digest):
            return repeated
        found = await self._unless_repeated(
            kind, digest, self._addressed(intent, resource_id, body, must_match=must_match)
        )
        if isinstance(found, Request):
            return found
        resource, shard = found
        return await self._accept(intent, resource.id, body, shard, digest)

    async def _addressed(
        self, intent: Intent, resource_id: str, body: Model | None = None, *, must_match: bool = False
    ) -> tuple[Resource[Any, Any], str]:
        """What `act` is about, and the shard of its owner. Raises what `act` does."""
        kind = intent.kind
        resource, shard = await self._target(kind, resource_id, body)
        self._meant_for = check_match(self._ask.if_match, resource, required=must_match)
        if resource.is_final and kind in (RESERVATION, INSTANCE) and not _already_so(intent, resource):
            raise problems.ILLEGAL_TRANSITION(
                f"{kind.name} {resource_id} is {resource.phase}: nothing can be asked of it any more",
                phase=str(resource.phase),
            )
        return resource, shard

    async def register(self, name: str, body: WorkerRegister) -> Request:
        """A host that joins as the worker of that name. Raises 403 for another's name, 422 for an unknown pool."""
        if self._caller.scope is not Scope.ALL and self._caller.name.removeprefix(OWNER_PREFIX) != name:
            raise problems.FORBIDDEN(f"this token is for the worker {self._caller.name}, not {name}")
        digest = digest_about(name, body)
        if repeated := await self._repeated(WORKER, digest):
            return repeated
        if await reads.get(self._parts, POOL, body.pool) is None:
            remedy = problems.nearest(body.pool, await _names_of(self._parts, POOL))
            raise problems.invalid("pool", f"there is no pool {body.pool}", remedy)
        return await self._accept(intent_of(WORKER, "register.requested"), name, body, body.pool, digest)

    async def assessed(self, intent: Intent, instance_id: str, body: AssessmentCompleted) -> Request:
        """What an assessment system did to an instance, which may have ended. Raises 404, and 422 for two instances."""
        if body.instance not in ("", instance_id):
            raise problems.invalid("data.instance", f"{body.instance} is not {instance_id}, which the subject names")
        digest = digest_about(instance_id, body)
        if repeated := await self._repeated(intent.kind, digest):
            return repeated
        instance, shard = await self._target(intent.kind, instance_id)
        return await self._accept(intent, instance.id, body, shard, digest)

    async def apply(self, kind: Kind, name: str, body: PoolApply | TemplateApply) -> Request:
        """A pool or template as it shall be; made if it is not there. Raises 412, 428 and 422."""
        digest = digest_about(name, body)
        if repeated := await self._repeated(kind, digest):
            return repeated
        repeated = await self._unless_repeated(kind, digest, self._check_apply(kind, name, body))
        return repeated or await self._accept(intent_of(kind, "apply.requested"), name, body, NO_SHARD, digest)

    async def patch(self, kind: Kind, name: str, patch: dict[str, Any]) -> Request:
        """A pool or template with a JSON merge patch (RFC 7396) laid over what it shall be; a repeated key is known by the
        patch. Raises 404, 412, 428 and 422."""
        digest = digest_of({"subject": name, "patch": patch})
        if repeated := await self._repeated(kind, digest):
            return repeated
        body = await self._unless_repeated(kind, digest, self._patched(kind, name, patch))
        if isinstance(body, Request):
            return body
        return await self._accept(intent_of(kind, "apply.requested"), name, body, NO_SHARD, digest)

    async def _patched(self, kind: Kind, name: str, patch: dict[str, Any]) -> PoolApply | TemplateApply:
        present = await reads.get(self._parts, kind, name)
        if present is None:
            raise problems.unknown(kind.name, name)
        check_match(self._ask.if_match, present, required=True)
        self._meant_for = present.revision
        model = PoolApply if kind is POOL else TemplateApply
        body = model.model_validate(merged(cast("WorkerPool | WorkerTemplate", present), patch))
        await self._check_spec(body)
        return body

    async def _check_apply(self, kind: Kind, name: str, body: PoolApply | TemplateApply) -> None:
        present = await reads.get(self._parts, kind, name)
        self._meant_for = check_match(self._ask.if_match, present, required=True)
        await self._check_spec(body)

    async def _repeated(self, kind: Kind, digest: str) -> Request | None:
        """What the same key has brought before. Raises `KeyReused` when that was something else."""
        if self._ask.key is None:
            return None
        (earlier,) = await self._parts.lookups.ask((self._earlier(kind),))
        return _same(earlier[0], digest) if earlier else None

    async def _unless_repeated(self, kind: Kind, digest: str, checks: Awaitable[_T]) -> _T | Request:
        """What the checks find; where they refuse, what the same key has brought since it was looked for, if it has."""
        try:
            return await checks
        except (problems.Refused, ValidationError):
            if (repeated := await self._repeated(kind, digest)) is None:
                raise
            return repeated

    def _earlier(self, kind: Kind) -> Get:
        """Where the request stands that the same key has brought before, if it has."""
        request_id, _ = new_ids(kind, self._key)
        return Get(REQUEST.key(request_id, self._caller.tenant))

    async def _accept(self, intent: Intent, resource_id: str, body: Model, shard: str, digest: str) -> Request:
        return await self._accepted(intent.kind, self._request(intent, resource_id, body, shard, digest))

    def _request(self, intent: Intent, resource_id: str, body: Model, shard: str, digest: str) -> Request:
        request = build_request(
            intent,
            resource_id,
            body,
            key=self._key,
            tenant=self._caller.tenant,
            principal=self._caller.name,
            role=str(self._caller.principal.role),
            shard=shard,
            digest=digest,
            at=self._parts.clock.now(),
            trace_parent=current_trace_parent(),
            meant_for=self._meant_for,
        )
        if self._ask.correlation:
            metadata = request.metadata.model_copy(update={"correlation_id": self._ask.correlation})
            request = request.model_copy(update={"metadata": metadata})
        return request

    async def _accepted(self, kind: Kind, request: Request) -> Request:
        try:
            return (await self._parts.acceptance.ask(request)).request
        except Crowded:  # what was let in before has its answer all the same
            if (earlier := await self._repeated(kind, request.spec.digest)) is None:
                raise
            return earlier

    async def _target(self, kind: Kind, resource_id: str, body: Model | None = None) -> tuple[Resource[Any, Any], str]:
        """The resource that is asked about, if it is the caller's to ask, and the shard of its owner."""
        caller, parts = self._caller, self._parts
        if kind is RESERVATION:
            reservation = await pending.reservation(parts, caller.tenant, resource_id)
            if reservation is None or not caller.sees_reservation(reservation):
                raise problems.unknown(kind.name, resource_id)
            if isinstance(body, ReservationChange) and caller.only_sits_in(reservation):
                check_more_time(reservation, body)
            else:
                caller.may_change(reservation)
            return reservation, await self._shard_of(reservation)
        if kind is INSTANCE:
            instance = await pending.instance(parts, caller, resource_id)
            return instance, instance.spec.pool
        if kind is DEFINITION:
            definition = await reads.get(parts, kind, resource_id, caller.tenant)
            if definition is None:
                raise problems.unknown(kind.name, resource_id)
            return definition, NO_SHARD
        if kind is ARTIFACT:
            return await self._content(resource_id), NO_SHARD
        resource = await reads.get(parts, kind, resource_id)
        if resource is None:
            raise problems.unknown(kind.name, resource_id)
        return resource, resource.spec.pool if kind is WORKER else NO_SHARD

    async def _content(self, wanted: str) -> Resource[Any, Any]:
        """The caller's tenant's own: an artifact by its digest, or the instance that has left some, which may have been
        archived since."""
        if wanted.startswith(INSTANCE_PREFIX):
            return (await archive.instance(self._parts, self._caller, wanted))[0]
        artifact = await reads.get(self._parts, ARTIFACT, wanted, self._caller.tenant)
        if artifact is None:
            raise problems.unknown(ARTIFACT.name, wanted)
        return artifact

    async def _shard_of(self, reservation: Reservation) -> str:
        """The pool that owns it; for an undecided one, the inbox that its request waits in, so that the two are decided
        in their order."""
        if reservation.status.pool is not None:
            return reservation.status.pool
        pools = reservation.spec.pools
        request_id = pending.request_id_of(reservation.id)
        waits = [Get(inbox_key(RESERVATION.owner, pool, request_id)) for pool in pools]
        found = (await self._parts.store.txn([], waits)).reads
        return next((pool for pool, kvs in zip(pools, found, strict=True) if kvs), pools[0])

    def _slot_errors(self, start: datetime | None, hold_until: datetime | None = None) -> list[dict[str, str]]:
        now = self._parts.clock.now()
        errors = []
        if start is not None and start < _whole_minute(now):
            errors.append(
                field_error("start", f"{format_time(start)} has passed: it is {format_time(now)}", "start later")
            )
        if hold_until is not None and hold_until <= now:
            errors.append(field_error("hold.expiresAt", f"{format_time(hold_until)} has passed"))
        return errors

    async def _unknown_pools(self, missing: Iterable[tuple[int, str]], *, listed: bool) -> list[dict[str, str]]:
        known = await _names_of(self._parts, POOL)
        return [
            field_error(f"pools[{at}]" if listed else "pool", f"there is no pool {pool}", problems.nearest(pool, known))
            for at, pool in missing
        ]

    async def _check_spec(self, body: PoolApply | TemplateApply) -> None:
        """Raises 422 for what its model does not refuse by itself."""
        errors = (
            await self._pool_errors(body) if isinstance(body, PoolApply) else _lead_errors(body.spec, _TEMPLATE_LEADS)
        )
        if errors:
            raise invalid(errors)

    async def _pool_errors(self, body: PoolApply) -> list[dict[str, str]]:
        errors = _lead_errors(body.spec, _POOL_LEADS)
        if body.spec.min > body.spec.max:
            errors.append(field_error("spec.min", f"{body.spec.min} is above max, which is {body.spec.max}"))
        known = await _names_of(self._parts, TEMPLATE)
        if body.spec.template not in known:
            template = body.spec.template
            errors.append(
                field_error("spec.template", f"there is no template {template}", problems.nearest(template, known))
            )
        return errors


def _lead_errors(spec: PoolSpec | TemplateSpec, fields: Iterable[str]) -> list[dict[str, str]]:
    """What takes longer than the calendar looks around a day."""
    return [
        field_error(
            f"spec.{to_camel(name)}",
            f"{minutes:,} minutes are more than a day",
            f"at most {MOST_LEAD_MINUTES:,}",
        )
        for name in fields
        if (minutes := getattr(spec, name) or 0) > MOST_LEAD_MINUTES
    ]


async def _names_of(parts: Parts, kind: Kind) -> set[str]:
    found = await parts.store.range(kind.prefix, keys_only=True)
    return {kv.key.removeprefix(kind.prefix) for kv in found.items}


def _pools_of(body: ReservationCreate) -> tuple[str, ...]:
    return body.pools or (body.pool or DEFAULT_POOL,)


def merged(present: WorkerPool | WorkerTemplate, patch: dict[str, Any]) -> dict[str, Any]:
    """The body of an apply with a JSON merge patch (RFC 7396) laid over what stands."""
    current = {"spec": present.spec.to_dict(), "labels": dict(present.metadata.labels)}
    return cast("dict[str, Any]", merge(current, patch))


def merge(target: Any, patch: Any) -> Any:
    """The target with the patch laid over it (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def digest_about(subject: str, body: Model) -> str:
    """By which the same ask is known again."""
    return digest_of({"subject": subject, "body": body.to_dict()})


def _same(found: KeyValue, digest: str) -> Request:
    """The request that the same key has brought before. Raises `KeyReused` when that asked for something else."""
    stored = cast("Request", decode(REQUEST, found))
    if stored.spec.digest != digest:
        raise KeyReused(stored)
    return stored


def _unknown_link() -> problems.Refused:
    return problems.NOT_FOUND("the link is not known here: it has been used, was withdrawn, or is another tenant's")


def _already_so(intent: Intent, resource: Resource[Any, Any]) -> bool:
    return intent.type in _FINAL_IS_FINE and resource.phase == ReservationPhase.CANCELLED


def invalid(errors: list[dict[str, str]]) -> problems.Refused:
    return problems.INVALID("; ".join(f"{error['path']}: {error['message']}" for error in errors), errors=errors)


def _whole_minute(now: datetime) -> datetime:
    return now - timedelta(seconds=now.second, microseconds=now.microsecond)
