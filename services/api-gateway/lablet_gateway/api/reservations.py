"""Reservations: book seats for a slot, see why it came out so, change, confirm, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from lablet_common.intents import Nothing, ReservationChange, ReservationCreate, Simulation, SimulationCreate
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.model import Model, Move
from lablet_common.resources.reservation import Explanation, Reservation
from lablet_common.store.repository import ResourcePage
from lablet_gateway import archive, reads, simulation, traces
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    Prefer,
    accepting,
    model_response,
    outcome_response,
    refusals,
    resource_response,
)
from lablet_gateway.asking import Ask
from lablet_gateway.caller import WithCaller
from lablet_gateway.intake import Intake
from lablet_gateway.parts import WithParts
from lablet_gateway.reads import ListOf, WithConsistency, WithListQuery
from lablet_gateway.reserving import Reserving
from lablet_gateway.rights import PREFIX
from lablet_gateway.traces import ReservationTrace

router = APIRouter(prefix=f"{PREFIX}/reservations", tags=["reservations"])
_CREATE = "POST /reservations"


class ReservationExplanation(Model):
    """Why a reservation is as it is."""

    reservation: str
    phase: str
    reason: str | None = None
    message: str | None = None
    explanation: Explanation | None = None
    history: tuple[Move, ...] = ()


@router.post("", status_code=202, response_model=None, responses=accepting(Reservation, done=201))
async def reserve(
    body: ReservationCreate,
    parts: WithParts,
    caller: WithCaller,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only tell what would come of it")] = False,
) -> Response:
    """Asks for seats. 202 with the address of the outcome, or with `Prefer: wait=N` 201 with the reservation (Scheduled,
    Held or Waitlisted), or the refusal with its explanation."""
    if dry_run:
        asked = await simulation.ask(
            parts, caller, Ask(f"{_CREATE}?dryRun", key), SimulationCreate(reservations=(body,))
        )
        return await simulation.answer_response(parts, asked, prefer)
    request = await Reserving(parts, caller, Ask(_CREATE, key)).reserve(body)
    return await outcome_response(parts, request, prefer, done=201)


@router.post(":simulate", response_model=Simulation, responses=accepting(Simulation))
async def simulate(
    body: SimulationCreate,
    parts: WithParts,
    caller: WithCaller,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """What would become of one reservation, or of a list of them in its order; with more or fewer `workers`, or another
    `template` for all. Nothing is booked. Waits up to 10 seconds for the answer; 202 when it takes longer."""
    asked = await simulation.ask(parts, caller, Ask("POST /reservations:simulate", key), body)
    return await simulation.answer_response(parts, asked, prefer)


@router.get("", response_model=ListOf[Reservation], responses=refusals(410))
async def list_reservations(
    parts: WithParts, caller: WithCaller, query: WithListQuery, span: archive.WithSpan
) -> Response:
    """Decided reservations, by id; with `archived=true` those of the archive."""
    if span is not None:
        old = await archive.page(parts, RESERVATION, caller, span, query, caller.sees_reservation)
        return reads.list_response(old, archived=True)
    found: ResourcePage[Reservation] = await reads.page(
        parts, RESERVATION, query, caller.sees_reservation, shown=caller.shown
    )
    return reads.list_response(found)


@router.get("/{reservation_id}", response_model=Reservation, responses=refusals(404))
async def get_reservation(
    reservation_id: str, parts: WithParts, caller: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """The reservation; Pending, from its request, while nobody has decided on it."""
    found, archived = await archive.reservation(parts, caller, reservation_id, consistency)
    return resource_response(found, headers=archive.ARCHIVED if archived else None)


@router.patch("/{reservation_id}", status_code=202, response_model=None, responses=accepting(Reservation, 412, 428))
async def change(
    reservation_id: str,
    body: ReservationChange,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """A new end, start or roster, and before it is set up other seats or another definition; what is left out stays. What
    does not fit is refused with the longest that would."""
    ask = Ask(f"PATCH /reservations/{reservation_id}", key, if_match)
    request = await Intake(parts, caller, ask).change(reservation_id, body, must_match=True)
    return await outcome_response(parts, request, prefer, shown=caller.told)


@router.delete("/{reservation_id}", status_code=202, response_model=None, responses=accepting(Reservation, 412))
async def cancel(
    reservation_id: str,
    parts: WithParts,
    caller: WithCaller,
    reason: Annotated[str, Query(max_length=256, description="Kept in the history and the audit")] = "",
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Cancels, also while it is undecided; running labs are stopped. Cancelling twice is no error."""
    ask = Ask(f"DELETE /reservations/{reservation_id}", key, if_match)
    request = await Intake(parts, caller, ask).act(
        RESERVATION, "cancel.requested", reservation_id, Nothing(reason=reason)
    )
    return await outcome_response(parts, request, prefer)


@router.post("/{reservation_id}:confirm", status_code=202, response_model=None, responses=accepting(Reservation, 412))
async def confirm(
    reservation_id: str,
    parts: WithParts,
    caller: WithCaller,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Makes a hold a reservation, before it expires."""
    ask = Ask(f"POST /reservations/{reservation_id}:confirm", key, if_match)
    request = await Intake(parts, caller, ask).act(RESERVATION, "confirm.requested", reservation_id, Nothing())
    return await outcome_response(parts, request, prefer)


@router.get("/{reservation_id}/trace", response_model=ReservationTrace, responses=refusals(404))
async def trace(reservation_id: str, parts: WithParts, caller: WithCaller) -> Response:
    """What every service did for it, as spans: from its request to the end of its labs, as far back as spans are kept."""
    found, _ = await archive.reservation(parts, caller, reservation_id, "linearizable")
    return model_response(await traces.of_reservation(parts, found))


@router.get("/{reservation_id}/explanation", response_model=ReservationExplanation, responses=refusals(404))
async def explain(
    reservation_id: str, parts: WithParts, caller: WithCaller, consistency: WithConsistency = "linearizable"
) -> Response:
    """Why: the workers considered, what removed how many, the binding dimension, the nearest miss, the earliest slot."""
    found, _ = await archive.reservation(parts, caller, reservation_id, consistency)
    return model_response(
        ReservationExplanation(
            reservation=found.id,
            phase=str(found.phase),
            reason=found.status.reason,
            message=found.status.message,
            explanation=found.status.explanation,
            history=found.status.history,
        )
    )
