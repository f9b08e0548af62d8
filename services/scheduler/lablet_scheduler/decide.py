"""Decisions on new reservations: what was asked, on the calendar as it is, becomes an outcome. Pure, but for the calendar.

A granted placement is booked on the state's calendar at once, and who has to wait joins its wait list (tentatively: the
next decision of the same pass sees it); when its transaction is refused, the owner rebooks the reservation from what is
committed. Each decision carries its reason, in words and as data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lablet_common.intents import ReservationRequested
from lablet_common.resources.instance import Instance
from lablet_common.resources.model import Metadata, format_time
from lablet_common.resources.request import Problem, Request
from lablet_common.resources.reservation import Reservation, ReservationPhase, ReservationSpec, ReservationStatus
from lablet_common.resources.series import Series
from lablet_common.store.api import MAX_VALUE_BYTES
from lablet_scheduler import engine
from lablet_scheduler.state import PoolState
from lablet_scheduler.turn import Turn
from lablet_scheduler.views import explanation_of, seats_of, slot_of
from lablet_scheduler.waiting import order_of
from lablet_scheduler.wishes import is_job, placement_request

PROBLEMS = "https://lablet.io/problems/"
_MOST_BYTES = MAX_VALUE_BYTES - 96 * 1024
"""Of a reservation with all of its seats placed; the rest of a value is room for its history, explanation and outcomes."""
_SEAT_BYTES = 250
_PORT_BYTES = 10
"""Of a placed seat but its ports, and of each port but its name, at most."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on beside the request and the calendar."""

    now: datetime
    by: str
    suggestion_horizon: timedelta = timedelta(days=14)
    elsewhere: Callable[[str, engine.PlacementRequest], bool] = lambda _pool, _request: False
    """Whether another pool exists and could take such a request if nothing were booked there."""

    @property
    def horizon(self) -> int:
        """How far ahead a place is looked for, in minutes."""
        return int(self.suggestion_horizon / timedelta(minutes=1))


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome to commit. Exactly one of these holds: `problem` is set (refused), `hand_on` is set (another pool is to
    decide), or the request is granted."""

    reason: str
    resource: Reservation | Series | None = None
    """The resource as it is to be written; created if its revision is 0."""
    problem: Problem | None = None
    hand_on: str | None = None
    unchanged: tuple[Instance, ...] = ()
    """Instances whose revision the transaction compares."""
    absent: tuple[str, ...] = ()
    """Keys that the transaction compares as absent."""
    limited: str | None = None
    """The tenant whose limits forbid it: the transaction compares them and the ledger, as one that grants does."""
    result: str = "accepted"
    """For the metrics: placed, waitlisted, rejected, cancelled, changed, refused, handed-on."""
    answer: dict[str, Any] | None = None
    """What the request's outcome tells, where nothing is written."""
    about: Reservation | Series | None = None
    """What is to be named in the request's outcome where nothing is written."""
    frees: bool = False
    """It gives capacity back: the wait list is worth a look."""
    vacates: bool = False
    """It has taken something off the calendar already, so nothing else may be decided before it is committed."""
    saves: bool = False
    """It moves seats to save power: no reason to look for more of that."""

    @property
    def tenant(self) -> str | None:
        """Whose limits and ledger its transaction may compare."""
        return self.limited if self.resource is None else self.resource.tenant


def problem(slug: str, title: str, detail: str, status: int = 409, path: str | None = None, **more: Any) -> Problem:
    """A refusal in the form that callers get."""
    errors = ({"path": path, "message": detail},) if path else ()
    return Problem(type=PROBLEMS + slug, title=title, status=status, detail=detail, errors=errors, extensions=more)


def refused(slug: str, title: str, detail: str, **more: Any) -> Decision:
    return Decision(reason=title.replace(" ", ""), problem=problem(slug, title, detail, **more), result="refused")


def key_used(known: Reservation | Series) -> Decision:
    """The refusal of what came under an idempotency key that made something else, longer ago than keys are kept."""
    words = (
        f"the key made {known.id} at {format_time(known.metadata.created_at)}, which is {known.phase}: take a new key"
    )
    return refused("idempotency-key-reused", "Idempotency key reused", words, status=422, path="Idempotency-Key")


# -- a new reservation ---------------------------------------------------------------------------------------------


def decide_requested(state: PoolState, request: Request, context: Context) -> Decision:
    """Places, rejects, hands on to the next pool that could take it, or waitlists. Raises `ValidationError` for a body
    that is none."""
    asked = ReservationRequested.model_validate(request.spec.data)
    definition = state.definition(request.tenant, asked.definition)
    draft = draft_of(request, asked)
    if definition is None:
        said = problem(
            "unknown-definition", "Unknown definition", f"there is no definition {asked.definition}", 422, "definition"
        )
        return _reject(draft, context, "UnknownDefinition", said)
    start, end = draft.spec.start, draft.spec.end
    if start is not None and end is not None and (end <= start or end <= context.now):
        why = "has passed" if start < end else "is not after the start"
        said = problem("invalid-slot", "Invalid slot", f"the slot's end {format_time(end)} {why}", 422, "end")
        return _reject(draft.observed(pool=state.pool.id), context, "InvalidSlot", said)
    if (words := too_large(state, draft)) is not None:
        said = problem("too-large", "Too large", words, 413, "seats")
        return _reject(draft.observed(pool=state.pool.id), context, "TooLarge", said)
    ahead = _ahead(state, draft)
    if ahead is not None:
        return _queue(state, draft, ahead, context)
    answer, turn = find_in_turn(state, draft, context)
    if isinstance(answer, engine.Placement):
        return granted(state, draft, answer, context, held=draft.spec.hold is not None)
    following = _next_pool(asked.pools, state, answer, context)
    if following is not None:
        return Decision(reason="PoolFull", hand_on=following, result="handed-on")
    place = _waiting_place(asked.pools, state, answer, context)
    if place is None:
        return _impossible(state, draft, answer, context)
    return _wait(state, draft, answer, place, context, turn)


def draft_of(request: Request, asked: ReservationRequested) -> Reservation:
    """The reservation as it was asked for, Pending."""
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
    return Reservation(metadata=metadata, spec=asked.spec(), status=ReservationStatus(phase=ReservationPhase.PENDING))


def too_large(state: PoolState, reservation: Reservation, than: ReservationSpec | None = None) -> str | None:
    """Why it could not be stored once its seats are placed, if so; `than`: what it was before, which may stay."""
    limit = _MOST_BYTES if than is None else max(_MOST_BYTES, _placed_bytes(state, reservation.tenant, than))
    size = _placed_bytes(state, reservation.tenant, reservation.spec)
    if size <= limit:
        return None
    said = f"{reservation.spec.seats} seats with all their ports and users take {size:,} bytes"
    return f"{said}; a reservation may have {_MOST_BYTES:,}: divide the seats among several"


def _placed_bytes(state: PoolState, tenant: str, spec: ReservationSpec) -> int:
    definition = state.definition(tenant, spec.definition)
    ports = () if definition is None else definition.spec.ports
    return len(spec.to_json()) + spec.seats * (_SEAT_BYTES + sum(len(port.name) + _PORT_BYTES for port in ports))


def find_in_turn(
    state: PoolState, draft: Reservation, context: Context
) -> tuple[engine.Placement | engine.Refusal, Turn]:
    """A place that nobody ahead on the wait list waits for, and the turn in which it was looked for."""
    turn = Turn(state, order_of(draft), context.now, context.suggestion_horizon)
    free = answer = find_place(state, turn.calendar, draft, context)
    while isinstance(answer, engine.Placement):
        if not turn.gives_way(answer.request.start, answer.request.end):
            return answer, turn
        answer = find_place(state, turn.calendar, draft, context)
    if isinstance(free, engine.Placement):
        answer = engine.behind(free, answer.request, len(turn.ahead))
    return answer, turn


def find_place(
    state: PoolState, calendar: engine.Calendar, draft: Reservation, context: Context
) -> engine.Placement | engine.Refusal:
    """A place on the calendar in its slot, or the earliest there is."""
    start, end = draft.spec.start, draft.spec.end
    if start is not None and end is not None:
        return engine.place(calendar, placement_request(state, draft, start, end, context.now))
    return _place_soonest(state, calendar, draft, context)


def _place_soonest(
    state: PoolState, calendar: engine.Calendar, reservation: Reservation, context: Context
) -> engine.Placement | engine.Refusal:
    """The earliest place within the horizon, from the next whole minute on. A job is placed now or queues: what runs ends
    before the time it may take, so a slot behind it would leave its host idle."""
    after = engine.minute_ceil(context.now)
    begin = engine.from_minute(after)
    length = timedelta(minutes=reservation.spec.duration_minutes)
    wanted = placement_request(state, reservation, begin, begin + length, context.now, punctual=True)
    return engine.place_earliest(calendar, wanted, after, 0 if is_job(state, reservation) else context.horizon)


def granted(
    state: PoolState, draft: Reservation, answer: engine.Placement, context: Context, *, held: bool
) -> Decision:
    """The place is taken on the calendar; held, or for good."""
    state.calendar.book_all(answer.bookings())
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
    state: PoolState,
    draft: Reservation,
    answer: engine.Refusal,
    place: str,
    context: Context,
    turn: Turn,
) -> Decision:
    # a job's turn comes when those before it have ended, which nobody can tell
    soonest = None if is_job(state, draft) else turn.soonest(answer.request)
    explanation = explanation_of(answer, soonest)
    resource = draft.moved(
        ReservationPhase.WAITLISTED,
        at=context.now,
        by=context.by,
        reason="PoolFull",
        message=explanation.summary,
        pool=place,
        slot=draft.slot,
        explanation=explanation,
        waiting_since=draft.metadata.created_at,
    )
    return _waitlisted(state, resource)


def _ahead(state: PoolState, draft: Reservation) -> Reservation | None:
    """The last job of the same kind that waits here, where nowhere else is asked for: there is no place for one more before
    there is one for that."""
    if draft.spec.pools != (state.pool.id,) or not is_job(state, draft):
        return None
    return state.waitlist.last_like(draft)


def _queue(state: PoolState, draft: Reservation, ahead: Reservation, context: Context) -> Decision:
    """Behind the one ahead, for the same reason."""
    resource = draft.moved(
        ReservationPhase.WAITLISTED,
        at=context.now,
        by=context.by,
        reason="PoolFull",
        message=ahead.status.message,
        pool=ahead.status.pool,
        slot=draft.slot,
        explanation=ahead.status.explanation,
        waiting_since=draft.metadata.created_at,
    )
    return _waitlisted(state, resource)


def _waitlisted(state: PoolState, resource: Reservation) -> Decision:
    """Who is decided next in this pass stands behind it already."""
    if resource.status.pool == state.pool.id:
        state.waitlist.put(resource)
    return Decision(reason="PoolFull", resource=resource, result="waitlisted")


def never_here(state: PoolState, answer: engine.Refusal) -> bool:
    """Not even the empty pool could take it; a pool whose workers are not all there yet only says so of the length."""
    return answer.permanent and (state.complete or answer.explanation.binding == engine.Filter.DURATION)


def _next_pool(pools: tuple[str, ...], state: PoolState, answer: engine.Refusal, context: Context) -> str | None:
    """The next pool of the list that could take it."""
    return next((name for name in pools_after(pools, state.pool.id) if context.elsewhere(name, answer.request)), None)


def pools_after(pools: Sequence[str], pool: str) -> list[str]:
    """Those of the list that have not been asked yet when this one has been: one that is named twice is asked once."""
    once = list(dict.fromkeys(pools))
    return once[once.index(pool) + 1 :] if pool in once else []


def _waiting_place(pools: tuple[str, ...], state: PoolState, answer: engine.Refusal, context: Context) -> str | None:
    """Refused by all, it waits in the first that could ever take it; None: there is none."""
    for name in pools:
        if name == state.pool.id:
            if not never_here(state, answer):
                return name
        elif context.elsewhere(name, answer.request):
            return name
    return None
