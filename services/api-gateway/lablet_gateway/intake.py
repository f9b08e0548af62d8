"""The doors for what exists: what is asked of a resource is checked against its present state and becomes a Request for its
owner. Routes and inbound events go through the same doors. How an ask is known again: `asking`.
"""

from collections.abc import Mapping
from typing import Any, cast

from lablet_common.intents import (
    AssessmentCompleted,
    Intent,
    ReservationChange,
    ReservationClaim,
    ReservationClaims,
)
from lablet_common.requests import digest_of
from lablet_common.resources.instance import INSTANCE_PREFIX
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    RESERVATION,
    WORKER,
    Kind,
    inbox_key,
)
from lablet_common.resources.model import Model, Resource
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Claim, Reservation, ReservationPhase
from lablet_common.store import Get
from lablet_gateway import archive, pending, problems, reads
from lablet_gateway.answers import check_match
from lablet_gateway.asking import NO_SHARD, digest_about, intent_of
from lablet_gateway.reserving import Reserving
from lablet_gateway.seats import check_more_time, hash_of, new_code, reservation_of

_FINAL_IS_FINE = frozenset({"io.lablet.reservation.cancel.requested.v1"})
"""Asked of something that has ended in just that way, they are no error; the owner says so."""


class Intake(Reserving):
    """For one caller."""

    async def change(self, reservation_id: str, body: ReservationChange, *, must_match: bool = False) -> Request:
        """Another slot, roster, number of seats or definition for a reservation. Raises what `act` does, and 422."""
        digest = digest_about(reservation_id, body)
        if body.definition is not None:  # a name may mean another version by now
            if repeated := await self.repeated(RESERVATION, digest):
                return repeated
            named = await self.unless_repeated(RESERVATION, digest, self._definition_id(body.definition))
            if isinstance(named, Request):
                return named
            body = body.model_copy(update={"definition": named})
        return await self.act(
            RESERVATION, "change.requested", reservation_id, body, must_match=must_match, digest=digest
        )

    async def open_claims(self, reservation_id: str, seats: tuple[int, ...]) -> tuple[Request, Mapping[int, str]]:
        """New claim links for these seats, or for all that nobody sits on, and their codes by seat. A repeated key is known
        by the seats that were named and gets no codes: they were shown. Raises what `act` does, and 409 where every seat
        has its user."""
        intent = intent_of(RESERVATION, "open-claims.requested")
        digest = digest_of({"subject": reservation_id, "seats": seats})
        if repeated := await self.repeated(RESERVATION, digest):
            return repeated, {}
        found = await self.unless_repeated(RESERVATION, digest, self._claimable(intent, reservation_id, seats))
        if isinstance(found, Request):
            return found, {}
        wanted, shard = found
        codes = {seat: new_code(reservation_id) for seat in wanted}
        body = ReservationClaims(claims=tuple(Claim(seat=seat, sha256=hash_of(code)) for seat, code in codes.items()))
        request = await self.accept(intent, reservation_id, body, shard, digest)
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
        found = await self.unless_repeated(RESERVATION, digest, self._reservation_of(reservation_id, body))
        if isinstance(found, Request) or self._caller.is_on_roster(found):
            return found
        shard = await self._shard_of(found)
        return await self.accept(intent_of(RESERVATION, "claim.requested"), found.id, body, shard, digest)

    async def _reservation_of(self, reservation_id: str, body: ReservationClaim) -> Reservation:
        """The one that the link is for, if it counts or the caller needs none."""
        caller = self._caller
        found = await pending.reservation(self._parts, caller.tenant, reservation_id)
        if found is None or found.tenant != caller.tenant:
            raise _unknown_link()
        if not caller.is_on_roster(found) and not any(one.sha256 == body.sha256 for one in found.spec.claims):
            raise _unknown_link()
        return found

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
        if repeated := await self.repeated(kind, digest):
            return repeated
        found = await self.unless_repeated(
            kind, digest, self._addressed(intent, resource_id, body, must_match=must_match)
        )
        if isinstance(found, Request):
            return found
        resource, shard = found
        return await self.accept(intent, resource.id, body, shard, digest)

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

    async def assessed(self, intent: Intent, instance_id: str, body: AssessmentCompleted) -> Request:
        """What an assessment system did to an instance, which may have ended. Raises 404, and 422 for two instances."""
        if body.instance not in ("", instance_id):
            raise problems.invalid("data.instance", f"{body.instance} is not {instance_id}, which the subject names")
        digest = digest_about(instance_id, body)
        if repeated := await self.repeated(intent.kind, digest):
            return repeated
        instance, shard = await self._target(intent.kind, instance_id)
        return await self.accept(intent, instance.id, body, shard, digest)

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


def _unknown_link() -> problems.Refused:
    return problems.NOT_FOUND("the link is not known here: it has been used, was withdrawn, or is another tenant's")


def _already_so(intent: Intent, resource: Resource[Any, Any]) -> bool:
    return intent.type in _FINAL_IS_FINE and resource.phase == ReservationPhase.CANCELLED
