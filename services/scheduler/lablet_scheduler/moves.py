"""Seats moved to save power, as a decision: the same whether somebody has asked for it or the owner does it by itself."""

from collections.abc import Iterable, Sequence
from typing import Any

from lablet_common.resources.kinds import INSTANCE
from lablet_common.resources.reservation import Explanation, Reservation, ReservationPhase
from lablet_scheduler import engine
from lablet_scheduler.decide import Context, Decision

_NAMED = 8
"""Moves that are told in words: a history of fifty moves of a hundred seats would outgrow what is stored under one key."""


def by_reservation(moves: Iterable[engine.Move]) -> list[tuple[str, list[engine.Move]]]:
    """The moves of each reservation, which are one write."""
    found: dict[str, list[engine.Move]] = {}
    for move in moves:
        found.setdefault(move.before.reservation, []).append(move)
    return list(found.items())


def moved(
    reservation: Reservation,
    moves: Sequence[engine.Move],
    context: Context,
    *,
    reason: str,
    gain: str = "",
    frees: bool = True,
) -> Decision:
    """The reservation with some seats elsewhere; the transaction compares that no lab has been made for one of them.
    `gain`: what it is good for, where that is known of these moves alone. `frees`: somebody may find room by it."""
    places = {move.after.seat: move.after for move in moves}
    placement = tuple(
        seat.model_copy(update={"worker": place.worker, "ports": dict(place.ports)})
        if (place := places.get(seat.seat)) is not None
        else seat
        for seat in reservation.status.placement
    )
    words = "; ".join(f"seat {move.after.seat} {move.explanation.summary}" for move in moves[:_NAMED])
    words += (f"; and {len(moves) - _NAMED} more seats" if len(moves) > _NAMED else "") + gain
    workers: dict[str, list[int]] = {}
    for seat in placement:
        workers.setdefault(seat.worker, []).append(seat.seat)
    said = Explanation(
        summary=words,
        considered=moves[0].explanation.considered,
        chosen={worker: {"seats": seats} for worker, seats in sorted(workers.items())},
    )
    changes: dict[str, Any] = {"reason": reason, "message": words, "placement": placement, "explanation": said}
    if reservation.status.phase is ReservationPhase.HELD:
        resource = reservation.observed("moved", **changes)
    else:
        resource = reservation.moved(reservation.status.phase, at=context.now, by=context.by, fact="moved", **changes)
    absent = tuple(INSTANCE.key(seat.instance) for seat in reservation.status.placement if seat.seat in places)
    return Decision(reason=reason, resource=resource, absent=absent, result="moved", frees=frees, saves=True)
