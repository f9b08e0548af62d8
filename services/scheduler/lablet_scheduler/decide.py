"""Decisions on requests: what was asked, on the calendar as it is, becomes an outcome. Pure, but for the calendar.

A granted placement is booked on the state's calendar at once (tentatively: the next decision of the same pass sees it);
when its transaction is refused, the owner rebooks the reservation from what is committed. Each decision carries its
reason, in words and as data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lablet_common.intents import ReservationChange, ReservationRequested
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE
from lablet_common.resources.model import Metadata, format_time
from lablet_common.resources.request import Problem, Request
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    Slot,
)
from lablet_scheduler import engine
from lablet_scheduler.state import PoolState
from lablet_scheduler.views import explanation_of, seats_of, slot_of

PROBLEMS = "https://lablet.io/problems/"


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on beside the request and the calendar."""

    now: datetime
    by: str
    suggestion_horizon: timedelta = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome to commit. Exactly one of these holds: `problem` is set (refused), `hand_on` is set (another pool is to
    decide), or the request is granted."""

    reason: str
    resource: Reservation | None = None
    """The reservation as it is to be written; created if its revision is 0."""
    problem: Problem | None = None
    hand_on: str | None = None
    unchanged: tuple[Instance, ...] = ()
    """Instances whose revision the transaction compares."""
    absent: tuple[str, ...] = ()
    """Keys that the transaction compares as absent."""
    result: str = "accepted"
    """For the metrics: placed, waitlisted, rejected, cancelled, changed, refused, handed-on."""
    frees: bool = False
    """It gives capacity back: the wait list is worth a look."""
    explanation: Mapping[str, Any] = field(default_factory=dict)


def problem(slug: str, title: str, detail: str, status: int = 409, path: str | None = None, **more: Any) -> Problem:
    """A refusal in the form that callers get."""
    errors = ({"path": path, "message": detail},) if path else ()
    return Problem(type=PROBLEMS + slug, title=title, status=status, detail=detail, errors=errors, extensions=more)


def refused(slug: str, title: str, detail: str, **more: Any) -> Decision:
    return Decision(reason=title.replace(" ", ""), problem=problem(slug, title, detail, **more), result="refused")


# -- a new reservation ---------------------------------------------------------------------------------------------


def decide_requested(state: PoolState, request: Request, context: Context) -> Decision:
    """Places, waitlists or rejects; hands on to the next pool of the list where this one is full."""
    asked = ReservationRequested.model_validate(request.spec.data)
    definition = state.definition(request.tenant, asked.definition)
    draft = _draft(request, asked)
    if definition is None:
        said = problem(
            "unknown-definition", "Unknown definition", f"there is no definition {asked.definition}", 422, "definition"
        )
        return _reject(draft, context, "UnknownDefinition", said)
    answer = _place(state, draft, asked, context)
    if isinstance(answer, engine.Placement):
        return _granted(state, draft, answer, asked, context)
    if answer.permanent:
        return _impossible(state, draft, answer, context)
    following = _next_pool(asked.pools, state.pool.id)
    if following is not None:
        return Decision(reason="PoolFull", hand_on=following, result="handed-on")
    return _wait(state, draft, answer, asked, context)


def _draft(request: Request, asked: ReservationRequested) -> Reservation:
    metadata = Metadata(
        id=asked.id,
        uid=str(uuid5(NAMESPACE_URL, f"{request.tenant}/{asked.id}")),
        tenant=request.tenant,
        owner=asked.owner,
        labels=asked.labels,
        created_at=request.spec.received_at,
        finalizers=("archive",),
        correlation_id=request.metadata.correlation_id or request.id,
        trace_parent=request.spec.trace_parent,
    )
    spec = ReservationSpec(
        definition=asked.definition,
        pools=asked.pools,
        seats=asked.seats,
        start=asked.start,
        end=asked.end or (asked.start + timedelta(minutes=asked.duration_minutes) if asked.start else None),
        duration_minutes=asked.duration_minutes,
        asap=asked.asap,
        priority=asked.priority,
        worker_selector=asked.worker_selector,
        roster=asked.roster,
        hold=asked.hold,
    )
    return Reservation(metadata=metadata, spec=spec, status=ReservationStatus(phase=ReservationPhase.PENDING))


def placement_request(
    state: PoolState, reservation: Reservation, start: datetime, end: datetime, now: datetime, **more: Any
) -> engine.PlacementRequest:
    """What the engine is asked for a reservation."""
    definition = state.definition(reservation.tenant, reservation.spec.definition)
    demand = state.demand(reservation)
    assert definition is not None
    assert demand is not None
    return engine.PlacementRequest(
        reservation=reservation.id,
        pool=state.pool.id,
        demand=demand,
        start=engine.to_minute(start),
        end=engine.to_minute(end),
        seats=more.pop("seats", reservation.spec.seats),
        now=engine.minute_floor(now),
        priority=reservation.spec.priority,
        max_minutes=definition.spec.max_duration_minutes,
        **more,
    )


def _place(
    state: PoolState, draft: Reservation, asked: ReservationRequested, context: Context
) -> engine.Placement | engine.Refusal:
    if asked.start is not None:
        end = draft.spec.end
        assert end is not None
        return engine.place(state.calendar, placement_request(state, draft, asked.start, end, context.now))
    return place_soonest(state, draft, context)


def place_soonest(state: PoolState, reservation: Reservation, context: Context) -> engine.Placement | engine.Refusal:
    """The earliest place within the horizon, from the next whole minute on."""
    after = engine.minute_ceil(context.now)
    begin = engine.from_minute(after)
    length = timedelta(minutes=reservation.spec.duration_minutes)
    wanted = placement_request(state, reservation, begin, begin + length, context.now, punctual=True)
    horizon = engine.minute_floor(context.now + context.suggestion_horizon)
    return engine.place_earliest(state.calendar, wanted, after, horizon)


def _granted(
    state: PoolState, draft: Reservation, answer: engine.Placement, asked: ReservationRequested, context: Context
) -> Decision:
    state.calendar.book_all(answer.bookings())
    held = asked.hold is not None and asked.hold.expires_at > context.now
    resource = draft.moved(
        ReservationPhase.HELD if held else ReservationPhase.SCHEDULED,
        at=context.now,
        by=context.by,
        reason="Placed",
        message=answer.explanation.summary,
        pool=state.pool.id,
        slot=slot_of(answer),
        placement=seats_of(answer, draft.id),
        explanation=explanation_of(answer),
    )
    return Decision(reason="Placed", resource=resource, result="placed")


def _impossible(state: PoolState, draft: Reservation, answer: engine.Refusal, context: Context) -> Decision:
    explanation = explanation_of(answer)
    said = problem(
        "impossible",
        "Impossible demand",
        explanation.summary,
        explanation=explanation.to_dict(),
    )
    rejected = draft.observed(pool=state.pool.id, explanation=explanation, slot=draft.slot)
    return _reject(rejected, context, "Impossible", said)


def _reject(draft: Reservation, context: Context, reason: str, said: Problem) -> Decision:
    resource = draft.moved(ReservationPhase.REJECTED, at=context.now, by=context.by, reason=reason, message=said.detail)
    return Decision(reason=reason, resource=resource, problem=said, result="rejected")


def _wait(
    state: PoolState, draft: Reservation, answer: engine.Refusal, asked: ReservationRequested, context: Context
) -> Decision:
    explanation = explanation_of(answer, suggestion(state, answer, context))
    resource = draft.moved(
        ReservationPhase.WAITLISTED,
        at=context.now,
        by=context.by,
        reason="PoolFull",
        message=explanation.summary,
        pool=asked.pools[0],  # refused by all, it waits in the first
        slot=draft.slot,
        explanation=explanation,
        waiting_since=draft.metadata.created_at,
    )
    return Decision(reason="PoolFull", resource=resource, result="waitlisted")


def suggestion(state: PoolState, answer: engine.Refusal, context: Context) -> engine.Minute | None:
    """The first later start at which the refused request would fit, within the horizon."""
    wanted = answer.request
    after = max(wanted.start, engine.minute_ceil(context.now))
    return engine.earliest(
        state.calendar, wanted, after, after + int(context.suggestion_horizon / timedelta(minutes=1))
    )


def _next_pool(pools: tuple[str, ...], present: str) -> str | None:
    try:
        place = pools.index(present)
    except ValueError:
        return None
    return pools[place + 1] if place + 1 < len(pools) else None


# -- changes of an existing one ------------------------------------------------------------------------------------


def decide_cancel(reservation: Reservation, request: Request, context: Context) -> Decision:
    """Cancels; cancelling what is cancelled already is no error."""
    if reservation.status.phase is ReservationPhase.CANCELLED:
        return Decision(reason="AlreadyCancelled", result="cancelled")
    if reservation.is_final:
        return refused(
            "illegal-transition",
            "Already ended",
            f"reservation {reservation.id} is {reservation.status.phase} and cannot be cancelled any more",
        )
    words = str(request.spec.data.get("reason") or "asked by its owner")
    resource = reservation.moved(
        ReservationPhase.CANCELLED,
        at=context.now,
        by=context.by,
        reason="CancelRequested",
        message=words,
        cause=request.spec.event_id,
    )
    return Decision(reason="CancelRequested", resource=resource, result="cancelled", frees=True)


def decide_confirm(reservation: Reservation, request: Request, context: Context) -> Decision:
    """A hold becomes a reservation."""
    if reservation.status.phase is ReservationPhase.SCHEDULED:
        return Decision(reason="AlreadyConfirmed", result="changed")
    if reservation.status.phase is not ReservationPhase.HELD:
        return refused(
            "illegal-transition",
            "Not held",
            f"reservation {reservation.id} is {reservation.status.phase}: only a held one can be confirmed",
        )
    resource = reservation.moved(
        ReservationPhase.SCHEDULED, at=context.now, by=context.by, reason="Confirmed", cause=request.spec.event_id
    )
    return Decision(reason="Confirmed", resource=resource, result="changed")


def decide_change(state: PoolState, reservation: Reservation, request: Request, context: Context) -> Decision:
    """A new end, a new start, a new roster. What does not fit is refused with the longest that would."""
    asked = ReservationChange.model_validate(request.spec.data)
    if reservation.is_final:
        return refused(
            "illegal-transition", "Already ended", f"reservation {reservation.id} is {reservation.status.phase}"
        )
    changed = reservation
    instances = tuple(state.instances_of(reservation.id))
    absent: tuple[str, ...] = ()
    frees = False
    if asked.roster is not None:
        changed = changed.respecified(cause=request.spec.event_id, roster=asked.roster)
    if asked.start is not None or asked.end is not None:
        slot = reservation.slot
        if slot is None or not reservation.holds_capacity:
            return refused(
                "illegal-transition",
                "Not placed",
                f"reservation {reservation.id} is {reservation.status.phase}: cancel it and reserve the other slot",
            )
        start = asked.start or slot.start
        end = asked.end or start + slot.duration
        if end <= start or end <= context.now:
            return refused(
                "invalid-slot", "Invalid slot", f"the new end {format_time(end)} is not after the start and the present",
                status=422, path="end",
            )  # fmt: skip
        outcome = (
            _new_end(state, changed, slot, end, context, request)
            if start == slot.start
            else _new_start(state, changed, Slot(start=start, end=end), context, request)
        )
        if isinstance(outcome, Decision):
            return outcome
        changed = outcome
        frees = end < slot.end or start != slot.start
        if start != slot.start:
            absent = tuple(INSTANCE.key(seat.instance) for seat in reservation.status.placement)
            instances = ()
    return Decision(
        reason="Changed", resource=changed, result="changed", unchanged=instances, absent=absent, frees=frees
    )


def _new_end(
    state: PoolState, reservation: Reservation, slot: Slot, end: datetime, context: Context, request: Request
) -> Reservation | Decision:
    minute = engine.to_minute(end)
    if end > slot.end:
        definition = state.definition(reservation.tenant, reservation.spec.definition)
        longest = definition.spec.max_duration_minutes if definition else None
        minutes = minute - engine.to_minute(slot.start)
        if longest is not None and minutes > longest:
            return refused(
                "too-long",
                "Longer than the definition allows",
                f"{minutes} minutes asked, {longest} allowed",
                path="end",
            )
        answer = engine.extend(state.calendar, reservation.id, minute)
        if not answer.granted:
            best = engine.from_minute(answer.longest)
            return refused(
                "does-not-fit",
                "Extension does not fit",
                f"{answer.summary} The longest end that fits where the lab is: {format_time(best)}.",
                longestEnd=format_time(best),
            )
        for booking in answer.bookings:
            state.calendar.replace(booking)
    return _rescheduled(
        reservation, Slot(start=slot.start, end=end), context, request, "Extended" if end > slot.end else "Shortened"
    )


def _new_start(
    state: PoolState, reservation: Reservation, slot: Slot, context: Context, request: Request
) -> Reservation | Decision:
    if state.instances_of(reservation.id) or reservation.status.phase is ReservationPhase.ACTIVE:
        return refused(
            "illegal-transition", "Already begun", f"reservation {reservation.id} is being set up: its start is fixed"
        )
    if slot.start < context.now:
        return refused(
            "invalid-slot", "Slot in the past", f"{format_time(slot.start)} has passed", status=422, path="start"
        )
    state.calendar.release(reservation.id)
    wanted = placement_request(state, reservation, slot.start, slot.end, context.now)
    answer = engine.place(state.calendar, wanted)
    if isinstance(answer, engine.Refusal):
        state.rebook(reservation.id, context.now)
        explanation = explanation_of(answer, suggestion(state, answer, context))
        return refused("does-not-fit", "Move does not fit", explanation.summary, explanation=explanation.to_dict())
    state.calendar.book_all(answer.bookings())
    moved = _rescheduled(reservation, slot, context, request, "Moved")
    return moved.observed(
        "moved",
        cause=request.spec.event_id,
        placement=seats_of(answer, reservation.id),
        explanation=explanation_of(answer),
    )


def _rescheduled(reservation: Reservation, slot: Slot, context: Context, request: Request, reason: str) -> Reservation:
    phase = reservation.status.phase
    respec = reservation.respecified(
        cause=request.spec.event_id,
        start=slot.start,
        end=slot.end,
        duration_minutes=int(slot.duration / timedelta(minutes=1)),
    )
    conditions = tuple(c for c in respec.status.conditions if c.type not in ("StartingSoon", "EndingSoon"))
    if phase is ReservationPhase.HELD:
        return respec.observed(cause=request.spec.event_id, slot=slot, conditions=conditions)
    return respec.moved(
        phase,
        at=context.now,
        by=context.by,
        reason=reason,
        fact="moved" if reason == "Moved" else "changed",
        cause=request.spec.event_id,
        slot=slot,
        conditions=conditions,
    )
