"""What becomes of one date of a series: placed as a hold, confirmed, released, changed or cancelled. Pure, but for the
calendar.

Each date is a reservation like any other, and is decided by the same rules; here stands only what the series adds.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from lablet_common.intents import ReservationChange
from lablet_common.recurrence import Shift
from lablet_common.requests import new_ids
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.model import Metadata, format_time
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation, ReservationPhase, ReservationStatus, Slot
from lablet_common.resources.series import Occurrence, OccurrenceState, Series
from lablet_common.terms import Scope, SeriesCancel, SeriesChange
from lablet_scheduler import engine
from lablet_scheduler.change import cancelled, changed
from lablet_scheduler.decide import Context, Decision, find_in_turn, granted, too_large
from lablet_scheduler.state import PoolState
from lablet_scheduler.views import explanation_of

_WORDS = 300
"""Characters kept of a reason: 400 of them stand in one series."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one date."""

    occurrence: Occurrence
    decision: Decision | None = None
    """What is written about its reservation; None: nothing."""
    kept: str | None = None
    """Why it stays as it is, where something else was asked."""
    begun: bool = False
    """It stays because it has begun or ended, which spoils nothing for the others."""
    limited: bool = False
    """The tenant's limits forbid it."""


def reservation_id(series: Series, date: str) -> str:
    """The same date of the same series has the same reservation, whoever makes it."""
    _, name = new_ids(RESERVATION, uuid5(UUID(series.metadata.uid), date))
    return name


def series_uid(tenant: str, series_id: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{tenant}/{series_id}"))


def draft_of(series: Series, occurrence: Occurrence, at: datetime) -> Reservation:
    """The date's reservation as it is asked for, Pending."""
    name = reservation_id(series, occurrence.date)
    metadata = Metadata(
        id=name,
        uid=str(uuid5(NAMESPACE_URL, f"{series.tenant}/{name}")),
        tenant=series.tenant,
        owner=series.metadata.owner,
        labels=series.metadata.labels,
        created_at=at,
        finalizers=("archive",),
        correlation_id=series.metadata.correlation_id,
        trace_parent=series.metadata.trace_parent,
    )
    spec = series.spec.template.model_copy(
        update={
            "start": occurrence.start,
            "end": occurrence.end,
            "series": series.id,
            "occurrence": occurrence.date,
        }
    )
    return Reservation(metadata=metadata, spec=spec, status=ReservationStatus(phase=ReservationPhase.PENDING))


def place(state: PoolState, series: Series, occurrence: Occurrence, context: Context) -> Outcome:
    """A hold in this pool, or why there is none."""
    if occurrence.end <= context.now:
        return _unplaced(occurrence, f"the slot's end {format_time(occurrence.end)} has passed")
    draft = draft_of(series, occurrence, series.metadata.created_at)
    if (words := too_large(state, draft)) is not None:
        return _unplaced(occurrence, words)
    answer, _ = find_in_turn(state, draft, context)
    if isinstance(answer, engine.Refusal):
        return _unplaced(occurrence, explanation_of(answer).summary)
    held = occurrence.model_copy(
        update={"state": OccurrenceState.HELD, "reservation": draft.id, "pool": state.pool.id, "reason": None}
    )
    return Outcome(held, granted(state, draft, answer, context, held=True))


def refused_hold(occurrence: Occurrence, words: str) -> Outcome:
    """A hold that a limit forbids."""
    undone = {"state": OccurrenceState.OPEN, "reservation": None, "pool": None}
    return replace(_unplaced(occurrence.model_copy(update=undone), words), limited=True)


def _unplaced(occurrence: Occurrence, words: str) -> Outcome:
    return Outcome(occurrence.model_copy(update={"reason": words[:_WORDS]}))


def confirm(occurrence: Occurrence, reservation: Reservation | None, context: Context) -> Outcome:
    """The hold becomes a reservation. One that somebody has cancelled meanwhile stays so."""
    if reservation is None or reservation.is_final:
        gone = {"state": OccurrenceState.CANCELLED, "reason": "it was cancelled before the series was confirmed"}
        return Outcome(occurrence.model_copy(update=gone))
    placed = occurrence.model_copy(update={"state": OccurrenceState.PLACED})
    if reservation.status.phase is not ReservationPhase.HELD:
        return Outcome(placed)
    resource = reservation.moved(ReservationPhase.SCHEDULED, at=context.now, by=context.by, reason="SeriesPlaced")
    return Outcome(placed, Decision(reason="SeriesPlaced", resource=resource, result="changed"))


def release(occurrence: Occurrence, reservation: Reservation | None, context: Context) -> Outcome:
    """The hold is given back, since the series comes to nothing."""
    free = occurrence.model_copy(
        update={"state": OccurrenceState.CANCELLED, "reason": "given back: other dates did not fit"}
    )
    if reservation is None or reservation.is_final:
        return Outcome(free)
    resource = reservation.moved(
        ReservationPhase.CANCELLED,
        at=context.now,
        by=context.by,
        reason="SeriesRefused",
        message="other dates of the series did not fit",
    )
    return Outcome(free, Decision(reason="SeriesRefused", resource=resource, result="cancelled", frees=True))


def cancel(
    occurrence: Occurrence, reservation: Reservation | None, asked: SeriesCancel, cause: str, context: Context
) -> Outcome:
    """The date is cancelled, unless it has begun (and is not the one that was named)."""
    if reservation is None or reservation.is_final:
        return _over(occurrence, reservation)
    if asked.scope != "this" and _begun(reservation, context.now):
        return Outcome(occurrence, kept="it has begun", begun=True)
    words = asked.reason or ("the series was cancelled" if asked.scope == "all" else "this date was cancelled")
    decision = cancelled(reservation, words, cause, context)
    return Outcome(occurrence.model_copy(update={"state": OccurrenceState.CANCELLED, "reason": words}), decision)


def change(
    state: PoolState,
    occurrence: Occurrence,
    asked: SeriesChange,
    shift: Shift,
    timezone: str,
    request: Request,
    context: Context,
) -> Outcome:
    """The date as it is asked for, or why it stays. What is left out of the change stays."""
    reservation = state.reservations.get(occurrence.reservation or "")
    if reservation is None or reservation.is_final:
        return _over(occurrence, reservation)
    body = _body(reservation.slot, asked, shift, timezone)
    only_people = body.start is None and body.end is None and asked.seats is None and asked.definition is None
    if not _meant(asked.scope, only_people) and (
        _begun(reservation, context.now) or state.instances_of(reservation.id)
    ):
        return Outcome(occurrence, kept="it has begun", begun=True)
    decision = changed(state, reservation, body, request, context)
    if decision.problem is not None:
        return Outcome(occurrence, kept=decision.problem.detail[:_WORDS])
    new = decision.resource
    slot = new.slot if isinstance(new, Reservation) else None
    if slot is None:
        return Outcome(occurrence)
    return Outcome(occurrence.model_copy(update={"start": slot.start, "end": slot.end}), decision)


def _meant(scope: Scope, only_people: bool) -> bool:
    """The change is for dates that have begun, too."""
    return scope == "this" or only_people


def _body(slot: Slot | None, asked: SeriesChange, shift: Shift, timezone: str) -> ReservationChange:
    start = end = None
    if slot is not None and (shift != Shift() or asked.duration_minutes is not None):
        length = slot.duration if asked.duration_minutes is None else timedelta(minutes=asked.duration_minutes)
        begin = shift.of(slot.start, timezone)
        start = begin if begin != slot.start else None
        end = begin + length
    return ReservationChange.model_construct(
        start=start, end=end, seats=asked.seats, definition=asked.definition, roster=asked.roster
    )


def _over(occurrence: Occurrence, reservation: Reservation | None) -> Outcome:
    phase = "ended" if reservation is None else str(reservation.phase)
    return Outcome(occurrence, kept=f"it is over: {phase}", begun=True)


def _begun(reservation: Reservation, now: datetime) -> bool:
    slot = reservation.slot
    return reservation.status.phase is ReservationPhase.ACTIVE or (slot is not None and now >= slot.start)
