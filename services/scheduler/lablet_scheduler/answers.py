"""Which decision answers which request about a reservation. Reads where the calendar does not know; writes nothing."""

import asyncio
from collections.abc import Callable, Generator
from typing import cast

from pydantic import ValidationError

from lablet_common.intents import ReservationRequested
from lablet_common.requests import Undecided, stale
from lablet_common.resources.kinds import POOL, REQUEST, RESERVATION
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import Reservation
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.store.changes import decode
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.change import decide_cancel, decide_change, decide_confirm
from lablet_scheduler.claims import decide_claim, decide_open_claims
from lablet_scheduler.commits import target_of
from lablet_scheduler.decide import Context, Decision, decide_requested, key_used, refused
from lablet_scheduler.simulate import decide_simulate

_WISH = ("definition", "seats", "start", "end", "duration_minutes", "asap")


def invalid(error: ValidationError) -> Decision:
    """The refusal of a body that is none."""
    fault = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(str(part) for part in fault["loc"]) or None
    return refused("invalid-request", "Invalid request", fault["msg"], status=422, path=path)


async def _at_rest(deciding: Generator[None, None, Decision]) -> Decision:
    """The decision; the event loop has a turn wherever it may: the lease is kept on it."""
    while True:
        try:
            next(deciding)
        except StopIteration as decided:
            return cast("Decision", decided.value)
        await asyncio.sleep(0)


def _made_before(known: Reservation, request: Request) -> Decision:
    """The reservation's id is made of the caller's idempotency key, which is kept for a day: by then it may ask for something
    else, and what stands under the id is no answer to that."""
    wanted, stands = ReservationRequested.model_validate(request.spec.data).spec(), known.spec
    same = all(getattr(wanted, name) == getattr(stands, name) for name in _WISH) and not known.is_final
    if known.metadata.created_at == request.spec.received_at or same:
        return Decision(reason="AlreadyDecided", about=known)
    return key_used(known)


class Answers:
    """Of one pool, for one term of ownership."""

    def __init__(self, store: Store, caches: Caches, agenda: Agenda, context: Callable[[], Context]) -> None:
        self._store = store
        self._caches = caches
        self._agenda = agenda
        self._context = context

    async def to(self, undecided: Undecided) -> Decision:
        """The decision as it stands now, booked on the calendar where it grants something."""
        try:
            return await self._answer(undecided)
        except ValidationError as error:
            return invalid(error)

    async def _answer(self, undecided: Undecided) -> Decision:
        request, target, context = undecided.request, target_of(undecided), self._context()
        state, pool = self._agenda.state, self._agenda.pool
        verb = request.spec.type.removeprefix("io.lablet.reservation.").removesuffix(".v1")
        if verb == "requested":
            known = state.reservations.get(target) or self._caches[RESERVATION].get(target)
            if known is not None:
                return _made_before(known, request)
            return decide_requested(state, request, context)
        if verb == "simulate.requested":
            return await _at_rest(decide_simulate(state, request, context))
        reservation = state.reservations.get(target) or await self._stored(target)
        if reservation is None:
            shard = await self._undecided_elsewhere(request)
            if shard is not None:
                return Decision(reason="OtherPool", hand_on=shard, result="handed-on")
        if reservation is None or reservation.tenant != request.tenant:
            return refused(
                "unknown-reservation", "Unknown reservation", f"there is no reservation {target}", status=404
            )
        owner = reservation.status.pool
        if owner not in (None, pool) and self._caches[POOL].get(owner) is not None:
            return Decision(reason="OtherPool", hand_on=owner, result="handed-on")
        if (late := stale(request, reservation)) is not None:
            return refused("precondition-failed", "Precondition failed", late, status=412)
        match verb:
            case "cancel.requested":
                return decide_cancel(reservation, request, context)
            case "confirm.requested":
                return decide_confirm(reservation, request, context)
            case "open-claims.requested":
                return decide_open_claims(reservation, request, context)
            case "claim.requested":
                return decide_claim(reservation, request, context)
            case "change.requested":
                return decide_change(state, reservation, request, context)
            case _:
                return refused("unknown-intent", "Unknown intent", f"the scheduler does not know {request.spec.type}")

    async def _stored(self, reservation_id: str) -> Reservation | None:
        found = await self._store.get(RESERVATION.key(reservation_id))
        return None if found is None else cast("Reservation", decode(RESERVATION, found))

    async def _undecided_elsewhere(self, request: Request) -> str | None:
        """The pool in whose inbox the reservation that a request is about still waits to be decided."""
        _, _, code = request.spec.subject.partition("/rsv-")
        found = await self._store.get(REQUEST.key(f"req-{code}", request.tenant))
        if found is None:
            return None
        asked = cast("Request", decode(REQUEST, found))
        waits = asked.status.phase is RequestPhase.ACCEPTED and asked.spec.subject == request.spec.subject
        return asked.spec.shard if waits and asked.spec.shard != self._agenda.pool else None
