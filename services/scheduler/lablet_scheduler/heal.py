"""Healing: seats whose worker is lost, and waiting reservations for which a place has become free. Pure, but for the
calendar.

A seat may run elsewhere only when nothing of it can run where it was: its instance does not exist yet (the transaction
compares that), or has failed and is released, that is, its lab is proven gone (the transaction compares its revision).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import INSTANCE
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatPlacement, SeatState, Slot
from lablet_common.resources.worker import WorkerPhase
from lablet_scheduler import engine
from lablet_scheduler.decide import Context, Decision, placement_request
from lablet_scheduler.state import PoolState
from lablet_scheduler.views import OVERRUN_MINUTES, explanation_of, seats_of, slot_of

_LOST = (WorkerPhase.FAILED, WorkerPhase.TERMINATING)


@dataclass(frozen=True, slots=True)
class _Loss:
    """A seat that cannot run where it is."""

    seat: SeatPlacement
    instance: Instance | None


def heal(state: PoolState, reservation: Reservation, context: Context, near: timedelta) -> Decision | None:
    """Moves the seats that were lost; None when nothing is lost. Seats on a failed worker that begin later than `near`
    from now are left alone: their worker is expected back by then."""
    if not reservation.holds_capacity or reservation.slot is None or context.now >= reservation.slot.end:
        return None
    losses = list(_losses(state, reservation, context, near))
    if not losses:
        return None
    seats = {seat.seat: seat for seat in reservation.status.placement}
    unplaced: list[int] = []
    reasons = []
    for loss in losses:
        answer = _elsewhere(state, reservation, loss, context)
        reasons.append(answer.explanation.summary)
        if isinstance(answer, engine.Placement):
            state.calendar.book_all(answer.bookings())
            attempt = loss.seat.attempt + (1 if loss.instance is not None else 0)
            (seats[loss.seat.seat],) = seats_of(answer, reservation.id, {loss.seat.seat: attempt})
        else:
            unplaced.append(loss.seat.seat)
            if loss.instance is not None or context.now >= reservation.slot.start:
                seats[loss.seat.seat] = loss.seat.model_copy(update={"state": SeatState.LOST})
    placement = tuple(seats[number] for number in sorted(seats))
    if placement == reservation.status.placement:
        return _at_risk(reservation, unplaced, context)
    healed = len(losses) - len(unplaced)
    lost = ", ".join(str(number) for number in unplaced)
    message = f"{healed} of {len(losses)} lost seats moved to other workers" + (
        f"; no place for {lost}" if lost else ""
    )
    began = any(loss.instance is not None for loss in losses)
    conditions = (
        reservation.with_condition("Degraded", True, at=context.now, reason="WorkerLost", message=message)
        if began or unplaced
        else reservation.status.conditions
    )
    if reservation.status.phase is ReservationPhase.HELD:
        resource = reservation.observed(
            "moved", reason="WorkerLost", message=message, placement=placement, conditions=conditions
        )
    else:
        resource = reservation.moved(
            reservation.status.phase,
            at=context.now,
            by=context.by,
            fact="moved",
            reason="WorkerLost",
            message=message,
            placement=placement,
            conditions=conditions,
        )
    return Decision(
        reason="WorkerLost",
        resource=resource,
        result="healed",
        unchanged=tuple(loss.instance for loss in losses if loss.instance is not None),
        absent=tuple(INSTANCE.key(loss.seat.instance) for loss in losses if loss.instance is None),
        explanation={"seats": reasons},
    )


def _losses(state: PoolState, reservation: Reservation, context: Context, near: timedelta) -> Iterable[_Loss]:
    assert reservation.slot is not None
    for seat in reservation.status.placement:
        if seat.state is SeatState.LOST:
            continue
        instance = state.instances.get(seat.instance)
        if instance is not None:
            taken_up = instance.status.attempt >= seat.attempt
            if instance.status.phase is InstancePhase.FAILED and instance.status.released and taken_up:
                yield _Loss(seat, instance)
            continue
        worker = state.workers.get(seat.worker)
        gone = worker is None or worker.status.phase in _LOST
        if gone and reservation.slot.start - context.now <= near:
            yield _Loss(seat, None)


def _elsewhere(
    state: PoolState, reservation: Reservation, loss: _Loss, context: Context
) -> engine.Placement | engine.Refusal:
    """Another worker for one seat, for what is left of the slot."""
    assert reservation.slot is not None
    state.calendar.release(reservation.id, loss.seat.seat)
    start = max(reservation.slot.start, engine.from_minute(engine.minute_floor(context.now)))
    wanted = placement_request(
        state,
        reservation,
        start,
        reservation.slot.end,
        context.now,
        seats=1,
        seat_numbers=(loss.seat.seat,),
        exclude=frozenset({loss.seat.worker}),
    )
    return engine.place(state.calendar, wanted)


def _at_risk(reservation: Reservation, seats: list[int], context: Context) -> Decision | None:
    """Nothing could be moved yet: the owner is told, once."""
    message = f"the worker of seat {', '.join(map(str, seats))} is lost and no other has room"
    return _told(reservation, message, context)


def _told(reservation: Reservation, message: str, context: Context) -> Decision | None:
    known = reservation.status.condition("AtRisk")
    if known is not None and known.message == message:
        return None
    conditions = reservation.with_condition("AtRisk", True, at=context.now, reason="NoRoom", message=message)
    return Decision(reason="AtRisk", resource=reservation.observed(conditions=conditions), result="at-risk")


def retry_waiting(state: PoolState, context: Context) -> Iterable[Decision]:
    """Places those of the wait list for which there is room now, in the engine's order: nobody ahead is delayed."""
    waiting = {reservation.id: reservation for reservation in state.waiting() if state.demand(reservation) is not None}
    requests = [_waiting(state, reservation, context) for reservation in waiting.values()]
    if not requests:
        return
    for retried in engine.retry(state.calendar, requests, engine.minute_floor(context.now)):
        answer = retried.decision
        if isinstance(answer, engine.Refusal):
            continue
        state.calendar.book_all(answer.bookings())
        reservation = waiting[answer.request.reservation]
        resource = reservation.moved(
            ReservationPhase.SCHEDULED,
            at=context.now,
            by=context.by,
            reason="PlaceFreed",
            message=answer.explanation.summary,
            pool=state.pool.id,
            slot=slot_of(answer),
            placement=seats_of(answer, reservation.id),
            explanation=explanation_of(answer),
        )
        yield Decision(reason="PlaceFreed", resource=resource, result="placed")


def _waiting(state: PoolState, reservation: Reservation, context: Context) -> engine.Waiting:
    slot = reservation.slot
    latest = None
    if slot is None:
        begin = engine.from_minute(engine.minute_ceil(context.now))
        slot = Slot(start=begin, end=begin + timedelta(minutes=reservation.spec.duration_minutes))
        latest = engine.minute_floor(context.now + context.suggestion_horizon)
    since = reservation.status.waiting_since or reservation.metadata.created_at
    return engine.Waiting(
        placement_request(state, reservation, slot.start, slot.end, context.now),
        engine.minute_floor(since),
        latest_start=latest,
    )


def displace(state: PoolState, overdue: Reservation, context: Context) -> Iterable[Decision]:
    """A lab that is still there after its slot keeps its seat booked a little longer; seats that lose their room by that
    move, and their owners are told where none is free."""
    until = engine.minute_ceil(context.now) + OVERRUN_MINUTES
    displaced: dict[tuple[str, int], engine.Booking] = {}
    for booking in state.calendar.of(overdue.id):
        if booking.until < engine.minute_ceil(context.now):
            answer = engine.overrun(state.calendar, overdue.id, booking.seat, until)
            displaced |= {rival.key: rival for rival in answer.displaced}
    state.rebook(overdue.id, context.now)
    if not displaced:
        return
    plan = engine.relocate(state.calendar, displaced.values(), engine.minute_floor(context.now))
    plan.apply(state.calendar)
    for reservation_id in sorted({step.before.reservation for step in plan.moves}):
        moves = {step.before.seat: step.after for step in plan.moves if step.before.reservation == reservation_id}
        yield _displaced(state.reservations[reservation_id], overdue, moves, context)
    for reservation_id in sorted({stuck.booking.reservation for stuck in plan.stuck}):
        reservation = state.reservations[reservation_id]
        seats = sorted(stuck.booking.seat for stuck in plan.stuck if stuck.booking.reservation == reservation_id)
        message = (
            f"reservation {overdue.id} overruns and no other worker has room for seat {', '.join(map(str, seats))}"
        )
        decision = _told(reservation, message, context)
        if decision is not None:
            yield decision


def _displaced(
    reservation: Reservation, overdue: Reservation, moves: Mapping[int, engine.Booking], context: Context
) -> Decision:
    placement = tuple(
        seat.model_copy(update={"worker": moves[seat.seat].worker, "ports": dict(moves[seat.seat].ports)})
        if seat.seat in moves
        else seat
        for seat in reservation.status.placement
    )
    message = f"reservation {overdue.id} overruns: {len(moves)} seats moved to other workers"
    resource = (
        reservation.observed("moved", placement=placement, message=message)
        if reservation.status.phase is ReservationPhase.HELD
        else reservation.moved(
            reservation.status.phase,
            at=context.now,
            by=context.by,
            reason="Displaced",
            message=message,
            fact="moved",
            placement=placement,
        )
    )
    absent = tuple(INSTANCE.key(seat.instance) for seat in placement if seat.seat in moves)
    return Decision(reason="Displaced", resource=resource, result="moved", absent=absent)
