"""Claim links: seats that wait for whoever shows a code, decided by the reservation's owner. Pure.

A reservation keeps the hash of each code that is out. The claim that fits one takes its seat: roster entry and hash
change in one commit, so a link counts once, whoever is quicker. Links end with the slot.
"""

from collections.abc import Iterable

from lablet_common.intents import ReservationClaim, ReservationClaims
from lablet_common.resources.model import format_time
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Claim, Reservation, RosterEntry
from lablet_scheduler.decide import Context, Decision, refused


def still_open(claims: Iterable[Claim], roster: Iterable[RosterEntry], seats: int) -> tuple[Claim, ...]:
    """The claims of seats that exist and that nobody sits on."""
    taken = {entry.seat for entry in roster}
    return tuple(claim for claim in claims if claim.seat not in taken and claim.seat <= seats)


def decide_open_claims(reservation: Reservation, request: Request, context: Context) -> Decision:
    """Puts the hashes of new links in the place of the old ones. Raises `ValidationError` for a body that is none."""
    asked = ReservationClaims.model_validate(request.spec.data)
    if (over := _over(reservation, context)) is not None:
        return over
    taken = {entry.seat: entry.user for entry in reservation.spec.roster}
    for claim in asked.claims:
        if claim.seat > reservation.spec.seats:
            words = f"reservation {reservation.id} has {reservation.spec.seats} seats"
            return refused("invalid-seat", "No such seat", f"seat {claim.seat}: {words}", status=422, path="seats")
        if claim.seat in taken:
            words = f"seat {claim.seat} is {taken[claim.seat]}'s: take them off the roster first"
            return refused("seat-taken", "Seat taken", words, path="seats")
    fresh = {claim.seat: claim for claim in asked.claims}
    kept = {} if asked.withdraw else {claim.seat: claim for claim in reservation.spec.claims}
    claims = tuple(claim for _, claim in sorted((kept | fresh).items()))
    if claims == reservation.spec.claims:
        return Decision(reason="Unchanged", about=reservation, result="changed")
    resource = reservation.respecified(cause=request.spec.event_id, claims=claims)
    return Decision(reason="ClaimsOpened" if asked.claims else "ClaimsWithdrawn", resource=resource, result="changed")


def decide_claim(reservation: Reservation, request: Request, context: Context) -> Decision:
    """The seat of the code, for its user; who sits already stays there and spends nothing. Raises `ValidationError`."""
    asked = ReservationClaim.model_validate(request.spec.data)
    if (over := _over(reservation, context)) is not None:
        return over
    if any(entry.user == asked.user for entry in reservation.spec.roster):
        return Decision(reason="AlreadySeated", about=reservation, result="changed")
    claim = next((claim for claim in reservation.spec.claims if claim.sha256 == asked.sha256), None)
    if claim is None:
        return refused("unknown-claim", "Unknown claim", "the link has been used, or was withdrawn: ask for another one",
                       status=404)  # fmt: skip
    roster = (*reservation.spec.roster, RosterEntry(seat=claim.seat, user=asked.user))
    resource = reservation.respecified(
        cause=request.spec.event_id,
        roster=tuple(sorted(roster, key=lambda entry: entry.seat)),
        claims=tuple(other for other in reservation.spec.claims if other is not claim),
    )
    return Decision(reason="SeatClaimed", resource=resource, result="changed")


def _over(reservation: Reservation, context: Context) -> Decision | None:
    slot = reservation.slot
    if reservation.is_final:
        words = f"reservation {reservation.id} is {reservation.status.phase}"
    elif slot is not None and context.now >= slot.end:
        words = f"the slot of {reservation.id} ended at {format_time(slot.end)}"
    else:
        return None
    return refused("illegal-transition", "Already ended", f"{words}: nobody can take a seat any more")
