"""The way of a series through the pools of its list, one turn after the other. Pure.

A series is worked off by whoever has its request in the inbox. The pool whose turn it is deals with the dates that are
its own to decide, then the request's pointer moves on to the next pool, in the same transaction in which the series says
so; the last one decides the request. What is left to do always stands in `status.work`, written together with what has
been done, so that whoever comes next goes on there: there is nothing to clean up, and nothing is done twice.

    placing → confirming → Placed            changing → changed
            ↘ releasing  → Refused           cancelling → changed, or Cancelled when no date is left
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lablet_common.recurrence import InvalidRecurrence, Shift, dates_of
from lablet_common.resources.model import Metadata
from lablet_common.resources.request import Problem, Request
from lablet_common.resources.series import (
    Occurrence,
    OccurrenceState,
    Series,
    SeriesPhase,
    SeriesStage,
    SeriesStatus,
    SeriesWork,
)
from lablet_common.terms import Scope, SeriesCancel, SeriesChange, SeriesRequested
from lablet_scheduler.dates import Outcome, series_uid
from lablet_scheduler.decide import Context, problem

_NAMED = 20
"""Dates that a refusal names with their reasons."""
_STANDING = (OccurrenceState.HELD, OccurrenceState.PLACED)


class SeriesRefused(Exception):
    """What is asked of the series cannot be, whatever the calendar says."""

    def __init__(self, said: Problem) -> None:
        super().__init__(said.detail)
        self.problem = said


@dataclass(frozen=True, slots=True)
class Turn:
    """The series as it is to be written, and what becomes of the request. Neither decided nor handed on: its pointer stays,
    and this pool goes on."""

    series: Series
    hand_on: str | None = None
    decided: str | None = None
    """Reason of the outcome."""
    answer: dict[str, Any] | None = None
    problem: Problem | None = None

    @property
    def ends(self) -> bool:
        """This pool has nothing more to do about the request now."""
        return self.hand_on is not None or self.decided is not None or self.problem is not None


# -- beginning -----------------------------------------------------------------------------------------------------


def begin(request: Request, asked: SeriesRequested, pool: str) -> Series:
    """The series as it was asked for, its dates still open. Raises `SeriesRefused` for a rule that gives none."""
    try:
        days = dates_of(asked.rule, asked.timezone, asked.first, asked.except_dates)
    except InvalidRecurrence as error:
        said = problem("invalid-recurrence", "Invalid recurrence", str(error), 422, error.field)
        raise SeriesRefused(said) from error
    length = timedelta(minutes=asked.template.duration_minutes)
    dates = tuple(Occurrence(date=day, start=start, end=start + length) for day, start in days)
    metadata = Metadata(
        id=asked.id,
        uid=series_uid(request.tenant, asked.id),
        tenant=request.tenant,
        owner=asked.owner,
        labels=asked.labels,
        created_at=request.spec.received_at,
        finalizers=("archive",),
        correlation_id=request.metadata.correlation_id or request.id,
        trace_parent=request.spec.trace_parent,
    )
    work = SeriesWork(request=request.id, stage=SeriesStage.PLACING, pool=pool, left=tuple(one.date for one in dates))
    status = SeriesStatus(phase=SeriesPhase.PENDING, pool=pool, occurrences=dates, work=work)
    return Series(metadata=metadata, spec=asked.spec(), status=status).observed(cause=request.spec.event_id)


def begin_change(series: Series, request: Request, asked: SeriesChange, now: datetime) -> Series:
    """The series with the change to be worked off. Raises `SeriesRefused`."""
    dates = _chosen(series, asked.scope, asked.date)
    about = series.occurrence(asked.date) if asked.date else next((d for d in dates if d.end > now), dates[0])
    assert about is not None, "a date that was chosen is one of the series"
    shift = Shift() if asked.start is None else Shift.between(about.start, asked.start, series.spec.timezone)
    # what makes room for its neighbour goes first, so that what is committed fits at every moment
    later = shift.days > 0 or (shift.days == 0 and shift.minutes > 0) or (asked.duration_minutes is not None)
    ordered = reversed(dates) if later else dates
    return _begun(series, request, SeriesStage.CHANGING, ordered, shift)


def begin_cancel(series: Series, request: Request, asked: SeriesCancel) -> Series:
    """The series with the cancelling to be worked off. Raises `SeriesRefused`."""
    return _begun(series, request, SeriesStage.CANCELLING, _chosen(series, asked.scope, asked.date), Shift())


def _begun(series: Series, request: Request, stage: SeriesStage, dates: Iterable[Occurrence], shift: Shift) -> Series:
    work = SeriesWork(
        request=request.id,
        stage=stage,
        pool=series.status.pool or "",
        left=tuple(one.date for one in dates),
        shift_days=shift.days,
        shift_minutes=shift.minutes,
    )
    return series.observed(cause=request.spec.event_id, work=work)


def _chosen(series: Series, scope: Scope, date: str | None) -> list[Occurrence]:
    if series.is_final:
        said = problem("illegal-transition", "Already ended", f"series {series.id} is {series.phase}")
        raise SeriesRefused(said)
    if date is not None and series.occurrence(date) is None:
        raise SeriesRefused(problem("unknown-date", "Unknown date", f"{date} is no date of {series.id}", 422, "date"))
    placed = [one for one in series.status.occurrences if one.state is OccurrenceState.PLACED]
    chosen = {
        "this": [one for one in placed if one.date == date],
        "following": [one for one in placed if date is not None and one.date >= date],
        "all": placed,
    }[scope]
    if not chosen:
        words = f"{date} of {series.id} is not placed" if scope == "this" else f"no date of {series.id} is placed there"
        raise SeriesRefused(problem("illegal-transition", "Not placed", words))
    return chosen


# -- going on ------------------------------------------------------------------------------------------------------


def mine(series: Series, pool: str) -> tuple[str, ...]:
    """Dates that this pool has to deal with in its turn."""
    work = series.status.work
    assert work is not None, "somebody works on it"
    if work.stage is SeriesStage.PLACING:
        return work.left
    known = {one.date: one for one in series.status.occurrences}
    return tuple(date for date in work.left if known[date].pool in (pool, None))


def with_outcomes(series: Series, outcomes: Sequence[Outcome]) -> Series:
    """The series once these dates have been dealt with."""
    work = series.status.work
    assert work is not None
    new = {outcome.occurrence.date: outcome.occurrence for outcome in outcomes}
    kept = work.kept | {outcome.occurrence.date: outcome.kept for outcome in outcomes if outcome.kept is not None}
    done = work.done + sum(outcome.decision is not None and outcome.kept is None for outcome in outcomes)
    left = tuple(date for date in work.left if date not in new)
    return series.observed(
        cause=None if series.status.last_fact is None else series.status.last_fact.cause,
        occurrences=tuple(new.get(one.date, one) for one in series.status.occurrences),
        work=work.model_copy(update={"left": left, "kept": kept, "done": done}),
    )


def next_turn(
    series: Series, request: Request, context: Context, following: str | None, pools: Collection[str]
) -> Turn:
    """What comes when this pool has dealt with its dates. `following`: the next pool that could take what is still open;
    `pools`: those that exist."""
    work = series.status.work
    assert work is not None
    if work.stage is SeriesStage.PLACING:
        return _placed(series, context, following, pools)
    known = {one.date: one for one in series.status.occurrences}
    for date in work.left:
        pool = known[date].pool
        if pool is not None and pool != work.pool and pool in pools:
            return Turn(_worked(series, pool=pool), hand_on=pool)
    if work.left:  # their pools are gone, and with them the calendars
        gone = [_gone(known[date]) for date in work.left]
        return next_turn(with_outcomes(series, gone), request, context, following, pools)
    match work.stage:
        case SeriesStage.CONFIRMING:
            return _confirmed(series, context)
        case SeriesStage.RELEASING:
            return _refused(series, context)
        case SeriesStage.CANCELLING:
            return _cancelled(series, context, work)
        case _:
            return _changed(series, SeriesChange.model_validate(request.spec.data), work)


def _gone(occurrence: Occurrence) -> Outcome:
    lost = occurrence.model_copy(
        update={"state": OccurrenceState.CANCELLED, "reason": f"there is no pool {occurrence.pool} any more"}
    )
    return Outcome(lost, kept=lost.reason)


def _worked(series: Series, **changes: Any) -> Series:
    assert series.status.work is not None
    return series.observed(work=series.status.work.model_copy(update=changes))


def _placed(series: Series, context: Context, following: str | None, pools: Collection[str]) -> Turn:
    """The turn of one pool is over: the next one tries what is open, or it is settled what becomes of the series."""
    dates = series.status.occurrences
    is_open = tuple(one.date for one in dates if one.state is OccurrenceState.OPEN)
    if is_open and following is not None:
        return Turn(_worked(series, pool=following, left=is_open), hand_on=following)
    settled = series.observed(
        occurrences=tuple(
            one.model_copy(update={"state": OccurrenceState.UNFIT}) if one.date in is_open else one for one in dates
        )
    )
    held = tuple(one.date for one in dates if one.state is OccurrenceState.HELD)
    granted = held and (not is_open or series.spec.mode == "fits")
    if not held:
        return _refused(settled, context)
    stage = SeriesStage.CONFIRMING if granted else SeriesStage.RELEASING
    settled = _worked(settled, stage=stage, left=held)
    assert settled.status.work is not None
    here = settled.status.work.pool
    if mine(settled, here):
        return Turn(settled)
    first = next((one.pool for one in dates if one.date in held and one.pool in pools), None)
    return Turn(settled) if first is None else Turn(_worked(settled, pool=first), hand_on=first)


def _confirmed(series: Series, context: Context) -> Turn:
    placed = [one for one in series.status.occurrences if one.state is OccurrenceState.PLACED]
    missing = {
        one.date: one.reason or "" for one in series.status.occurrences if one.state is not OccurrenceState.PLACED
    }
    words = f"{len(placed)} of {len(series.status.occurrences)} dates are placed"
    if not placed:
        return _refused(series, context)
    resource = series.moved(
        SeriesPhase.PLACED, at=context.now, by=context.by, reason="Placed", message=words, work=None
    )
    return Turn(resource, decided="Placed", answer={"placed": len(placed), "unfit": missing})


def _refused(series: Series, context: Context) -> Turn:
    dates = series.status.occurrences
    unfit = [one for one in dates if one.state is OccurrenceState.UNFIT]
    first = "; ".join(f"{one.date}: {one.reason}" for one in unfit[:3])
    words = f"{len(unfit)} of {len(dates)} dates do not fit: {first}" + ("; …" if len(unfit) > 3 else "")
    named = [{"date": one.date, "reason": one.reason} for one in unfit[:_NAMED]]
    said = problem("series-does-not-fit", "Series does not fit", words, dates=named, unfit=len(unfit))
    resource = series.moved(
        SeriesPhase.REFUSED, at=context.now, by=context.by, reason="DoesNotFit", message=words, work=None
    )
    return Turn(resource, problem=said)


def _cancelled(series: Series, context: Context, work: SeriesWork) -> Turn:
    answer = {"cancelled": work.done, "kept": work.kept}
    cleared = series.observed(work=None)
    if any(one.state in _STANDING for one in series.status.occurrences):
        if not work.done:
            return Turn(cleared, problem=_nothing(series, work, "cancelled"))
        return Turn(cleared, decided="CancelRequested", answer=answer)
    resource = cleared.moved(
        SeriesPhase.CANCELLED, at=context.now, by=context.by, reason="CancelRequested", message="no date is left"
    )
    return Turn(resource, decided="CancelRequested", answer=answer)


def _changed(series: Series, asked: SeriesChange, work: SeriesWork) -> Turn:
    cleared = series.observed(work=None)
    if not work.done and work.kept:
        return Turn(cleared, problem=_nothing(series, work, "changed"))
    if asked.scope == "all":
        cleared = _respecified(cleared, asked, Shift(work.shift_days, work.shift_minutes))
    return Turn(cleared, decided="Changed", answer={"changed": work.done, "kept": work.kept})


def _respecified(series: Series, asked: SeriesChange, shift: Shift) -> Series:
    """What is asked of the series as a whole has changed, too."""
    wanted = {
        "seats": asked.seats,
        "definition": asked.definition,
        "roster": asked.roster,
        "duration_minutes": asked.duration_minutes,
    }
    template = series.spec.template.model_copy(update={name: new for name, new in wanted.items() if new is not None})
    first = shift.of(series.spec.first, series.spec.timezone)
    return series.respecified(template=template.model_dump(), first=first)


def refuse_change(series: Series, kept: dict[str, str]) -> Turn:
    """In a series of `all` or none, no date is changed where one does not fit."""
    work = series.status.work
    assert work is not None
    whole = work.model_copy(update={"kept": kept})
    return Turn(series.observed(work=None), problem=_nothing(series, whole, "changed"))


def _nothing(series: Series, work: SeriesWork, verb: str) -> Problem:
    first = "; ".join(f"{date}: {why}" for date, why in sorted(work.kept.items())[:3])
    words = f"no date of {series.id} was {verb}: {first}" + ("; …" if len(work.kept) > 3 else "")
    named = [{"date": date, "reason": why} for date, why in sorted(work.kept.items())[:_NAMED]]
    return problem(f"series-not-{verb}", f"Series not {verb}", words, dates=named)


def is_over(series: Series, now: datetime) -> bool:
    """Its last date that takes place is over, and nobody works on it."""
    return series.status.phase is SeriesPhase.PLACED and series.status.work is None and last_end(series) <= now


def last_end(series: Series) -> datetime:
    """Of the last date that takes place: what was cancelled or did not fit keeps nobody waiting."""
    dates = series.status.occurrences
    return max(one.end for one in [one for one in dates if one.state in _STANDING] or dates)


def ended(series: Series, context: Context) -> Series:
    return series.moved(SeriesPhase.COMPLETED, at=context.now, by=context.by, reason="LastDateOver")
