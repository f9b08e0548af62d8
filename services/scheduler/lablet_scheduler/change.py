"""Decisions on reservations that exist: cancel, confirm, change. Pure, but for the calendar.

A cancelled or shortened reservation gives its room back when that is committed; a moved one leaves its old place on the
calendar at once (`vacates`), so that its new one may overlap it. What stays within the room that a reservation has is its
own; whoever wants more (later, longer, more seats) asks anew, and leaves alone what those wait for who stand ahead.
"""

from datetime import datetime, timedelta
from typing import Any

from lablet_common.intents import ReservationChange
from lablet_common.resources.kinds import INSTANCE
from lablet_common.resources.model import format_time
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation, ReservationPhase, Slot
from lablet_scheduler import engine
from lablet_scheduler.claims import still_open
from lablet_scheduler.decide import Context, Decision, refused, too_large
from lablet_scheduler.state import AT_RISK, PoolState
from lablet_scheduler.turn import Turn
from lablet_scheduler.views import explanation_of, seats_of
from lablet_scheduler.wishes import placement_request

_OF_THE_OLD_SLOT = ("StartingSoon", "EndingSoon", AT_RISK)
"""Conditions that a new slot makes void."""


def decide_cancel(reservation: Reservation, request: Request, context: Context) -> Decision:
    """Cancels; cancelling what is cancelled already is no error."""
    words = str(request.spec.data.get("reason") or "asked by its owner")
    return cancelled(reservation, words, request.spec.event_id, context)


def cancelled(reservation: Reservation, words: str, cause: str, context: Context) -> Decision:
    """The reservation cancelled, for the reason in `words`; `cause`: the event that asked for it."""
    if reservation.status.phase is ReservationPhase.CANCELLED:
        return Decision(reason="AlreadyCancelled", about=reservation, result="cancelled")
    if reservation.is_final:
        return refused(
            "illegal-transition",
            "Already ended",
            f"reservation {reservation.id} is {reservation.status.phase} and cannot be cancelled any more",
        )
    resource = reservation.moved(
        ReservationPhase.CANCELLED,
        at=context.now,
        by=context.by,
        reason="CancelRequested",
        message=words,
        cause=cause,
    )
    return Decision(reason="CancelRequested", resource=resource, result="cancelled", frees=True)


def decide_confirm(reservation: Reservation, request: Request, context: Context) -> Decision:
    """A hold becomes a reservation."""
    if reservation.status.phase is ReservationPhase.SCHEDULED:
        return Decision(reason="AlreadyConfirmed", about=reservation, result="changed")
    if reservation.status.phase is not ReservationPhase.HELD:
        return refused(
            "illegal-transition",
            "Not held",
            f"reservation {reservation.id} is {reservation.status.phase}: only a held one can be confirmed",
        )
    hold = reservation.spec.hold
    if hold is not None and context.now >= hold.expires_at:
        return refused(
            "hold-expired", "Hold expired", f"the hold on {reservation.id} ended at {format_time(hold.expires_at)}"
        )
    resource = reservation.moved(
        ReservationPhase.SCHEDULED, at=context.now, by=context.by, reason="Confirmed", cause=request.spec.event_id
    )
    return Decision(reason="Confirmed", resource=resource, result="changed")


def decide_change(state: PoolState, reservation: Reservation, request: Request, context: Context) -> Decision:
    """Raises `ValidationError` for a body that is none."""
    asked = ReservationChange.model_validate(request.spec.data)
    return changed(state, reservation, asked, request, context)


def changed(
    state: PoolState, reservation: Reservation, asked: ReservationChange, request: Request, context: Context
) -> Decision:
    """A new end, start or roster, other seats or another definition. What does not fit, or would take what somebody ahead
    waits for, is refused, with the longest end or the next start that would be granted. `request`: what asked for it, and
    when."""
    cause = request.spec.event_id
    if reservation.is_final:
        return refused(
            "illegal-transition", "Already ended", f"reservation {reservation.id} is {reservation.status.phase}"
        )
    seats = asked.seats or reservation.spec.seats
    roster = reservation.spec.roster if asked.roster is None else asked.roster
    if any(entry.seat > seats for entry in roster):
        return refused(
            "invalid-roster", "Invalid roster", f"the roster names a seat above {seats}", status=422, path="roster"
        )
    wanted: dict[str, Any] = {
        "seats": seats,
        "roster": roster,
        "definition": asked.definition or reservation.spec.definition,
        "claims": still_open(reservation.spec.claims, roster, seats),
        "extendable_minutes": _or_present(asked.extendable_minutes, reservation.spec.extendable_minutes),
    }
    other = {name: value for name, value in wanted.items() if value != getattr(reservation.spec, name)}
    anew = bool(other.keys() & {"seats", "definition"})
    target = reservation.respecified(cause=cause, **other) if other else reservation
    if other and (words := too_large(state, target, reservation.spec)) is not None:
        return refused("too-large", "Too large", words, status=413, path="seats" if anew else next(iter(other)))
    slot = reservation.slot
    new = slot
    if asked.start is not None or asked.end is not None or anew:
        if slot is None or not reservation.holds_capacity:
            return refused(
                "illegal-transition",
                "Not placed",
                f"reservation {reservation.id} is {reservation.status.phase}: cancel it and reserve the other slot",
            )
        problem = _slot_problem(state, reservation, slot, asked, context)
        if problem is not None:
            return problem
        start = asked.start or slot.start
        new = Slot(start=start, end=asked.end or start + slot.duration)
    if slot is None or new is None or (new == slot and not anew):
        if target is reservation:
            return Decision(reason="Unchanged", about=reservation, result="changed")
        return Decision(reason="Changed", resource=target, result="changed")
    moves = anew or new.start != slot.start
    order = (-target.spec.priority, request.spec.received_at, target.id)
    turn = Turn(state, order, context.now, context.suggestion_horizon, beside=target.id)
    outcome = (
        _new_place(state, target, new, turn, context, cause)
        if moves
        else _new_end(state, target, slot, new.end, turn, context, cause)
    )
    if isinstance(outcome, Decision):
        return outcome
    labs = state.instances_of(reservation.id)
    known = {lab.id for lab in labs}
    return Decision(
        reason="Changed",
        resource=outcome,
        result="changed",
        unchanged=tuple(labs),
        # a lab that is made meanwhile may have been torn down as well, at the end that the slot had
        absent=tuple(
            INSTANCE.key(seat.instance) for seat in reservation.status.placement if seat.instance not in known
        ),
        frees=moves or new.end < slot.end,
        vacates=moves,
    )


def _or_present(asked: int | None, present: int) -> int:
    return present if asked is None else asked


def _slot_problem(
    state: PoolState, reservation: Reservation, slot: Slot, asked: ReservationChange, context: Context
) -> Decision | None:
    """What is wrong with the new slot whatever the calendar says."""
    start = asked.start or slot.start
    end = asked.end or start + slot.duration
    if end <= start or end <= context.now:
        return refused(
            "invalid-slot", "Invalid slot", f"the new end {format_time(end)} is not after the start and the present",
            status=422, path="end",
        )  # fmt: skip
    if context.now >= slot.end:
        return refused(
            "illegal-transition", "Slot over", f"the slot of {reservation.id} ended at {format_time(slot.end)}"
        )
    definition = state.definition(reservation.tenant, reservation.spec.definition)
    minutes = int((end - start) / timedelta(minutes=1))
    if definition is not None and minutes > definition.spec.max_duration_minutes and end - start > slot.duration:
        return refused(
            "too-long", "Longer than the definition allows",
            f"{minutes} minutes asked, {definition.spec.max_duration_minutes} allowed", status=422, path="end",
        )  # fmt: skip
    return None


def _new_end(
    state: PoolState, reservation: Reservation, slot: Slot, end: datetime, turn: Turn, context: Context, cause: str
) -> Reservation | Decision:
    if end > slot.end:
        over = [str(instance.spec.seat) for instance in state.instances_of(reservation.id) if instance.slot_ended]
        if over:
            words = f"the slot has ended: the lab of seat {', '.join(over)} is being torn down"
            return refused("illegal-transition", "Slot over", words)
        if not state.calendar.of(reservation.id):
            return refused("does-not-fit", "Extension does not fit", f"no seat of {reservation.id} has a place")
        answer = _extended(state, reservation, engine.to_minute(slot.end), engine.to_minute(end), turn)
        if not answer.granted:
            best = engine.from_minute(answer.longest)
            return refused(
                "does-not-fit",
                "Extension does not fit",
                f"{answer.summary} The longest end that would be granted where the lab is: {format_time(best)}.",
                longestEnd=format_time(best),
                binding=answer.miss.dimension if answer.miss is not None else None,
            )
        for booking in answer.bookings:
            state.calendar.replace(booking)
    return _rescheduled(
        reservation, Slot(start=slot.start, end=end), context, cause, "Extended" if end > slot.end else "Shortened"
    )


def _extended(
    state: PoolState, reservation: Reservation, old: engine.Minute, new: engine.Minute, turn: Turn
) -> engine.Extension:
    """Beside what is booked, and beside what is kept for those ahead who wait for the minutes that it would gain. A queue of
    jobs is delayed by it, and no job refused."""
    free = engine.extend(state.calendar, reservation.id, new)
    if free.longest == old or not turn.gives_way(old, free.longest, to_jobs=False):
        return free
    answer = engine.extend(turn.booked, reservation.id, new)
    return free if answer.longest == free.longest else engine.leaving_room(answer, len(turn.ahead))


def _new_place(
    state: PoolState, reservation: Reservation, slot: Slot, turn: Turn, context: Context, cause: str
) -> Reservation | Decision:
    if state.instances_of(reservation.id) or reservation.status.phase is ReservationPhase.ACTIVE:
        return refused(
            "illegal-transition",
            "Already begun",
            f"reservation {reservation.id} is being set up: its start and its place are fixed",
        )
    if slot.start < context.now:
        return refused(
            "invalid-slot", "Slot in the past", f"{format_time(slot.start)} has passed", status=422, path="start"
        )
    if state.demand(reservation) is None:
        return refused(
            "unknown-definition", "Unknown definition", f"there is no definition {reservation.spec.definition} any more"
        )
    wanted = placement_request(state, reservation, slot.start, slot.end, context.now)
    free = answer = engine.place(turn.calendar, wanted)
    if isinstance(free, engine.Placement) and turn.gives_way(wanted.start, wanted.end):
        answer = engine.place(turn.calendar, wanted)
        if isinstance(answer, engine.Refusal):
            answer = engine.behind(free, wanted, len(turn.ahead))
    if isinstance(answer, engine.Refusal):
        explanation = explanation_of(answer, turn.soonest(wanted))
        return refused("does-not-fit", "Move does not fit", explanation.summary, explanation=explanation.to_dict())
    state.calendar.release(reservation.id)
    state.calendar.book_all(answer.bookings())
    moved = _rescheduled(reservation, slot, context, cause, "Moved")
    return moved.observed(
        "moved",
        cause=cause,
        placement=seats_of(answer, reservation.id),
        explanation=explanation_of(answer),
    )


def _rescheduled(reservation: Reservation, slot: Slot, context: Context, cause: str, reason: str) -> Reservation:
    phase = reservation.status.phase
    respec = reservation.respecified(
        cause=cause,
        start=slot.start,
        end=slot.end,
        duration_minutes=int(slot.duration / timedelta(minutes=1)),
    )
    was = timedelta(0) if reservation.slot is None else reservation.slot.duration
    longer = max(timedelta(0), slot.duration - was) // timedelta(minutes=1)
    extended = reservation.status.extended_minutes + longer
    conditions = tuple(c for c in respec.status.conditions if c.type not in _OF_THE_OLD_SLOT)
    if phase is ReservationPhase.HELD:
        return respec.observed(cause=cause, slot=slot, conditions=conditions, extended_minutes=extended)
    return respec.moved(
        phase,
        at=context.now,
        by=context.by,
        reason=reason,
        fact="moved" if reason == "Moved" else "changed",
        cause=cause,
        slot=slot,
        conditions=conditions,
        extended_minutes=extended,
    )
