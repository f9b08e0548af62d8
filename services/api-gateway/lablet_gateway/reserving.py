"""The door for reservations, and what a booking names: a definition, pools and a time, which have to be there when it is let
in. What the owner alone can judge (does it fit?) is not judged here.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from lablet_common.intents import ReservationCreate, ReservationRequested
from lablet_common.requests import digest_of, new_ids
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import POOL, RESERVATION, Kind
from lablet_common.resources.model import format_time
from lablet_common.resources.request import Request
from lablet_common.store import Get
from lablet_gateway import catalogue, problems, reads
from lablet_gateway.asking import Asking, intent_of, same_ask
from lablet_gateway.problems import field_error

DEFAULT_POOL = "default"


class Reserving(Asking):
    """For one caller."""

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
        return await self.let_in(RESERVATION, request)

    def plain(self, body: ReservationCreate) -> Request | None:
        """What asks for a new reservation, ready to be accepted; None where the store has to be asked about it first, or
        where something is wrong with it. A repeated key shows when the request is accepted."""
        if self._errors_of(body) or (definition := self._known(body.definition, _pools_of(body))) is None:
            return None
        return self._reservation(body, definition, digest_of(body.to_dict()))

    def _reservation(self, body: ReservationCreate, definition: Definition, digest: str) -> Request:
        pools = _pools_of(body)
        _, reservation_id = new_ids(RESERVATION, self.key)
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
        return self.request(intent_of(RESERVATION, "requested"), reservation_id, data, pools[0], digest)

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
            self.earlier(kind),
            *catalogue.reads_of(self._caller.tenant, wanted),
            *(Get(POOL.key(pool)) for pool in pools),
        )
        earlier, *found = await self._parts.lookups.ask(lookups)
        if earlier:
            return same_ask(earlier[0], digest)
        definition = catalogue.choose(self._parts, wanted, found[: -len(pools)])
        errors = errors + await self._definition_errors(wanted, definition)
        missing = [
            (at, pool) for at, (pool, kvs) in enumerate(zip(pools, found[-len(pools) :], strict=True)) if not kvs
        ]
        if missing:
            errors += await self._unknown_pools(missing, listed=listed)
        if errors or definition is None:
            if (repeated := await self.repeated(kind, digest)) is not None:
                return repeated
            raise problems.several(errors)
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
            raise problems.several(errors)
        return definition.id

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
        known = await reads.names(self._parts, POOL)
        return [
            field_error(f"pools[{at}]" if listed else "pool", f"there is no pool {pool}", problems.nearest(pool, known))
            for at, pool in missing
        ]


def _pools_of(body: ReservationCreate) -> tuple[str, ...]:
    return body.pools or (body.pool or DEFAULT_POOL,)


def _whole_minute(now: datetime) -> datetime:
    return now - timedelta(seconds=now.second, microseconds=now.microsecond)
