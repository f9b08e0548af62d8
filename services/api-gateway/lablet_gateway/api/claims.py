"""Claim links: whoever booked a class hands them out, whoever opens one has the seat. Each counts once."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from lablet_common.intents import ReservationClaims
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.model import Model
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import MAX_SEATS, Reservation
from lablet_gateway import seats
from lablet_gateway.answers import (
    IdempotencyKey,
    Prefer,
    accepting,
    model_response,
    outcome_response,
    refusal_in,
    refusals,
    resource_response,
    wait_of,
)
from lablet_gateway.asking import Ask
from lablet_gateway.caller import WithCaller
from lablet_gateway.intake import Intake
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=PREFIX, tags=["claims"])
_PATIENCE_SECONDS = 10.0
Code = Annotated[str, Path(max_length=200)]
Seat = Annotated[int, Field(ge=1, le=MAX_SEATS)]


class ClaimsCreate(Model):
    """For which seats; without any, all that nobody sits on."""

    seats: Annotated[tuple[Seat, ...], Field(max_length=MAX_SEATS)] = ()


class ClaimLink(Model):
    """`POST` to `path` takes the seat, once, until the slot ends."""

    seat: int
    code: str
    path: str


class ClaimLinks(Model):
    """The links, shown this once. They count from the moment `request` is decided."""

    reservation: str
    request: str
    decided: bool
    links: tuple[ClaimLink, ...]


@router.post(
    "/reservations/{reservation_id}/claims",
    status_code=201,
    response_model=ClaimLinks,
    responses={202: {"model": ClaimLinks, "description": "Accepted, and not decided yet"}, **refusals(404, 409, 413)},
)
async def open_claims(
    reservation_id: str,
    parts: WithParts,
    caller: WithCaller,
    body: ClaimsCreate | None = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Makes one link for each seat; earlier links of these seats count no more. Waits up to 10 seconds for the decision.
    A repeated Idempotency-Key gets no codes: they were shown."""
    wanted = tuple(dict.fromkeys(body.seats)) if body is not None else ()
    intake = Intake(parts, caller, Ask(f"POST /reservations/{reservation_id}/claims", key))
    request, codes = await intake.open_claims(reservation_id, wanted)
    request = await _decided(parts, request, prefer)
    decided = request.status.phase is RequestPhase.DECIDED
    told = ClaimLinks(
        reservation=reservation_id,
        request=f"{PREFIX}/requests/{request.id}",
        decided=decided,
        links=tuple(ClaimLink(seat=seat, code=code, path=f"{PREFIX}/claims/{code}") for seat, code in codes.items()),
    )
    return model_response(told, 201 if decided else 202)


@router.delete(
    "/reservations/{reservation_id}/claims", status_code=202, response_model=None, responses=accepting(Reservation)
)
async def withdraw_claims(
    reservation_id: str, parts: WithParts, caller: WithCaller, key: IdempotencyKey = None, prefer: Prefer = None
) -> Response:
    """No link that is out counts any more; seats that were taken stay taken."""
    ask = Ask(f"DELETE /reservations/{reservation_id}/claims", key)
    body = ReservationClaims(withdraw=True)
    request = await Intake(parts, caller, ask).act(RESERVATION, "open-claims.requested", reservation_id, body)
    return await outcome_response(parts, request, prefer)


@router.post("/claims/{code}", response_model=Reservation, responses=accepting(Reservation))
async def claim(
    code: Code, parts: WithParts, caller: WithCaller, key: IdempotencyKey = None, prefer: Prefer = None
) -> Response:
    """Takes the seat that the link is for. Who sits there already gets the same answer and spends nothing. Waits up to 10
    seconds for the decision; 202 when it takes longer."""
    found = await Intake(parts, caller, Ask(f"POST /claims/{seats.hash_of(code)}", key)).claim(code)
    if isinstance(found, Reservation):
        return resource_response(caller.shown(found))
    return await outcome_response(
        parts,
        found,
        prefer,
        wait_by_default=min(_PATIENCE_SECONDS, parts.settings.gateway_max_wait_seconds),
        shown=caller.told,
    )


async def _decided(parts: Parts, request: Request, prefer: str | None) -> Request:
    """The request once it is decided, if that comes in time. Raises its refusal."""
    wait = wait_of(prefer, parts.settings.gateway_max_wait_seconds)
    if not request.is_final:
        most = min(_PATIENCE_SECONDS, parts.settings.gateway_max_wait_seconds)
        request = await parts.decisions.wait(request, most if wait is None else wait)
    if request.status.phase is RequestPhase.REFUSED:
        raise refusal_in(request)
    return request
