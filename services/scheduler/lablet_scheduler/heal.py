"""Healing: seats that cannot stay where they are get another place, and waiting reservations one that has become free.
Pure, but for the calendar.

A seat cannot stay when its worker is lost, when its lab has failed, when its worker is down for maintenance in its slot,
or when somebody else's lab overruns; and it had better not when its worker boots for longer than it should and another
one is up already. It may run elsewhere only when nothing of it can run where it was: its instance does not exist yet (the
transaction compares that), or waits and has begun nothing, or has failed and is released, that is, its lab is proven gone
(the transaction compares its revision). One reservation is healed at a time, and committed before the next is looked at.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import INSTANCE
from lablet_common.resources.model import Condition
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatPlacement, SeatState, Slot
from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_scheduler import engine
from lablet_scheduler.decide import Context, Decision
from lablet_scheduler.state import AT_RISK, GONE, PoolState
from lablet_scheduler.views import OVERRUN_MINUTES, explanation_of, seats_of, slot_of
from lablet_scheduler.wishes import is_job, placement_request, tried, waiting_request

BOOT_OVERDUE = "BootOverdue"
_AT_ONCE = 16
"""Of those who wait, that are tried before the caller may rest: some ten milliseconds."""
_MOST_ATTEMPTS = 5
"""Places that a seat is given in one slot: a lab that comes up nowhere does not wander for ever."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A seat that cannot stay where it is."""

    seat: SeatPlacement
    reason: str
    """WorkerLost, LabFailed, Maintenance, Displaced or BootOverdue."""
    instance: Instance | None = None

    @property
    def urgent(self) -> bool:
        """It has no lab unless it finds another place."""
        return self.reason != BOOT_OVERDUE


def heal(state: PoolState, reservation: Reservation, context: Context, lead: timedelta) -> Decision | None:
    """Moves the seats that cannot stay; None when there is nothing to do or to say. Seats on a failed worker that begin
    later than `lead` from now are left alone: their worker is expected back by then."""
    slot = reservation.slot
    if not reservation.holds_capacity or slot is None or context.now >= slot.end or state.demand(reservation) is None:
        return None
    troubles = list(_troubles(state, reservation, slot, context, lead))
    if not troubles:
        return _reassured(reservation)
    seats = {seat.seat: seat for seat in reservation.status.placement}
    moved: list[_Trouble] = []
    lost: list[_Trouble] = []
    waiting: list[_Trouble] = []
    refusal: engine.Refusal | None = None
    for trouble in troubles:
        answer = _elsewhere(state, reservation, slot, trouble, context)
        number = trouble.seat.seat
        if isinstance(answer, engine.Placement):
            attempt = trouble.seat.attempt + (1 if trouble.instance is not None else 0)
            (seats[number],) = seats_of(answer, reservation.id, {number: attempt})
            moved.append(trouble)
            continue
        refusal = answer or refusal
        if _given_up(trouble, slot, context):
            seats[number] = trouble.seat.model_copy(update={"state": SeatState.LOST})
            lost.append(trouble)
        elif trouble.urgent:
            waiting.append(trouble)
    if not moved and not lost:
        if not waiting:
            return _reassured(reservation)
        return _at_risk(reservation, waiting, refusal, context)
    return _healed(reservation, tuple(seats[number] for number in sorted(seats)), moved, lost, waiting, context)


def _troubles(
    state: PoolState, reservation: Reservation, slot: Slot, context: Context, lead: timedelta
) -> Iterable[_Trouble]:
    displaced = state.displaced_seats(reservation.id)
    near = slot.start - context.now <= lead
    turnaround = timedelta(minutes=state.pool.spec.turnaround_minutes)
    for seat in reservation.status.placement:
        if seat.state is SeatState.LOST:
            continue
        instance = state.instances.get(seat.instance)
        worker = state.workers.get(seat.worker)
        if instance is not None:
            taken_up = instance.status.attempt >= seat.attempt
            if instance.status.phase is InstancePhase.FAILED and instance.status.released and taken_up:
                lost = not _stands(worker) or instance.status.reason == "WorkerLost"
                yield _Trouble(seat, "WorkerLost" if lost else "LabFailed", instance)
            elif _waits(instance) and taken_up and _overdue(worker, context):
                yield _Trouble(seat, BOOT_OVERDUE, instance)
        elif near and not _stands(worker):
            yield _Trouble(seat, "WorkerLost")
        elif worker is not None and _maintained(worker, Slot(start=slot.start, end=slot.end + turnaround)):
            yield _Trouble(seat, "Maintenance")
        elif not _stands(worker):
            continue  # it is expected back
        elif seat.seat in displaced:
            yield _Trouble(seat, "Displaced")
        elif near and _overdue(worker, context):
            yield _Trouble(seat, BOOT_OVERDUE)


def _stands(worker: Worker | None) -> bool:
    return worker is not None and worker.status.phase not in GONE


def _waits(instance: Instance) -> bool:
    """It has begun nothing on its worker."""
    status = instance.status
    begun_nothing = status.phase is InstancePhase.PENDING and status.lab is None
    return begun_nothing and (not status.attempts or status.attempts[-1].ended_at is not None)


def _overdue(worker: Worker | None, context: Context) -> bool:
    return worker is not None and worker.boot_overdue(context.now)


def _maintained(worker: Worker, slot: Slot) -> bool:
    return any(span.frm < slot.end and slot.start < span.to for span in worker.spec.maintenance)


def _given_up(trouble: _Trouble, slot: Slot, context: Context) -> bool:
    """Before the slot a seat goes on looking for a place; within it, what is lost is lost."""
    if trouble.instance is not None and trouble.seat.attempt >= _MOST_ATTEMPTS:
        return True
    return trouble.reason in ("WorkerLost", "LabFailed") and context.now >= slot.start


def _elsewhere(
    state: PoolState, reservation: Reservation, slot: Slot, trouble: _Trouble, context: Context
) -> engine.Placement | engine.Refusal | None:
    """Books another worker for one seat, for what is left of the slot; a lab that has failed may try the same one again
    where there is no other. A refused seat keeps the booking it has."""
    seat = trouble.seat
    if trouble.instance is not None and seat.attempt >= _MOST_ATTEMPTS:
        return None
    exclude = {seat.worker}
    if not trouble.urgent:
        exclude |= {worker.id for worker in state.workers.values() if worker.status.phase is not WorkerPhase.READY}
    released = state.calendar.release(reservation.id, seat.seat)
    wanted = placement_request(
        state,
        reservation,
        max(slot.start, engine.from_minute(engine.minute_floor(context.now))),
        slot.end,
        context.now,
        seats=1,
        seat_numbers=(seat.seat,),
        exclude=frozenset(exclude),
    )
    answer = engine.place(state.calendar, wanted)
    if isinstance(answer, engine.Refusal) and trouble.instance is not None and trouble.urgent:
        again = engine.place(state.calendar, replace(wanted, exclude=frozenset()))
        answer = again if isinstance(again, engine.Placement) else answer
    if isinstance(answer, engine.Placement):
        state.calendar.book_all(answer.bookings())
    else:
        state.calendar.book_all(released, check=False)
    return answer


def _healed(
    reservation: Reservation,
    placement: tuple[SeatPlacement, ...],
    moved: Sequence[_Trouble],
    lost: Sequence[_Trouble],
    waiting: Sequence[_Trouble],
    context: Context,
) -> Decision:
    touched = [*moved, *lost]
    reason = touched[0].reason
    message = f"{_numbers(moved)} moved to other workers" if moved else "no other worker has room"
    if lost:
        message += f"; {_numbers(lost)} lost"
    now = context.now
    if lost or any(trouble.instance is not None and trouble.urgent for trouble in moved):
        conditions = reservation.with_condition("Degraded", True, at=now, reason=reason, message=message)
        reservation = reservation.observed(conditions=conditions)
    # who still has no place is told so at the next look, by an event of its own
    conditions = reservation.status.conditions if waiting else _without_risk(reservation)
    if reservation.status.phase is ReservationPhase.HELD:
        resource = reservation.observed(
            "moved", reason=reason, message=message, placement=placement, conditions=conditions
        )
    else:
        resource = reservation.moved(
            reservation.status.phase,
            at=now,
            by=context.by,
            fact="moved",
            reason=reason,
            message=message,
            placement=placement,
            conditions=conditions,
        )
    return Decision(
        reason=reason,
        resource=resource,
        result="healed" if moved else "lost",
        unchanged=tuple(trouble.instance for trouble in touched if trouble.instance is not None),
        absent=tuple(INSTANCE.key(trouble.seat.instance) for trouble in touched if trouble.instance is None),
        frees=True,
        vacates=True,
    )


def _at_risk(
    reservation: Reservation, waiting: Sequence[_Trouble], refusal: engine.Refusal | None, context: Context
) -> Decision | None:
    """Nothing could be moved yet: the owner is told, once for the same seats and reason."""
    conditions = _risk(reservation, waiting, context)
    known, told = reservation.status.condition(AT_RISK), conditions[-1]
    if known is not None and (known.reason, known.message) == (told.reason, told.message):
        return None
    explanation = reservation.status.explanation if refusal is None else explanation_of(refusal)
    resource = reservation.observed("at-risk", conditions=conditions, explanation=explanation)
    return Decision(reason=waiting[0].reason, resource=resource, result="at-risk")


def _risk(reservation: Reservation, waiting: Sequence[_Trouble], context: Context) -> tuple[Condition, ...]:
    """The conditions with the risk as the last one."""
    message = f"no other worker has room for {_numbers(waiting)}"
    return reservation.with_condition(AT_RISK, True, at=context.now, reason=waiting[0].reason, message=message)


def _without_risk(reservation: Reservation) -> tuple[Condition, ...]:
    return tuple(condition for condition in reservation.status.conditions if condition.type != AT_RISK)


def _reassured(reservation: Reservation) -> Decision | None:
    """The risk is over: its worker is back, or whoever was in the way has gone."""
    if reservation.status.condition(AT_RISK) is None:
        return None
    resource = reservation.observed(conditions=_without_risk(reservation))
    return Decision(reason="RiskOver", resource=resource, result="reassured")


def _numbers(troubles: Sequence[_Trouble]) -> str:
    numbers = ", ".join(str(trouble.seat.seat) for trouble in troubles)
    return f"seat {numbers}" if len(troubles) == 1 else f"seats {numbers}"


def make_room(state: PoolState, overdue: Reservation, context: Context) -> set[str]:
    """A lab that is still there after its slot keeps its seat booked a little longer, over and over. Returns the
    reservations that lose seats by that, or lost some and do no longer: healing looks at them next."""
    until = engine.minute_ceil(context.now) + OVERRUN_MINUTES
    before = state.displaced.pop(overdue.id, frozenset())
    displaced: set[tuple[str, int]] = set()
    if state.overruns(overdue, context.now):
        for booking in state.calendar.of(overdue.id):
            if booking.end < until:
                answer = engine.overrun(state.calendar, overdue.id, booking.seat, until)
                displaced |= {rival.key for rival in answer.displaced}
                state.calendar.replace(answer.booking, check=False)
        if displaced:
            state.displaced[overdue.id] = frozenset(displaced)
    state.rebook(overdue.id, context.now)
    return {name for name, _ in displaced | before}


def retry_waiting(state: PoolState, context: Context) -> Iterator[Decision | None]:
    """Places those of the wait list for which there is room now, in the engine's order: nobody ahead is delayed. None where
    the caller may rest, as long as nothing else is decided meanwhile."""
    front, cut = state.waitlist.heads(lambda reservation: tried(state, reservation))
    waiting = {reservation.id: reservation for reservation in front}
    requests = [
        waiting_request(state, reservation, context.now, context.suggestion_horizon) for reservation in waiting.values()
    ]
    if not requests:
        return
    now = engine.minute_floor(context.now)
    found = yield from _tried(state.calendar, requests[:cut], now)
    if len(requests) > cut and any(isinstance(one.decision, engine.Refusal) for one in found):
        found = yield from _tried(state.calendar, requests, now)  # those left out would find nothing either
    for retried in found:
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
        # jobs behind the front are tried in the next look
        yield Decision(reason="PlaceFreed", resource=resource, result="placed", frees=is_job(state, reservation))


def _tried(
    calendar: engine.Calendar, requests: Sequence[engine.Waiting], now: engine.Minute
) -> Generator[None, None, list[engine.Retried]]:
    found: list[engine.Retried] = []
    for number, retried in enumerate(engine.retry_each(calendar, requests, now), 1):
        found.append(retried)
        if number % _AT_ONCE == 0 or retried.waiting.searches:
            yield
    return found
