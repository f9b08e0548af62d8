"""The desk for series: takes a request about a series as far as this pool can, in transactions of a few dates each.

All dates of a turn are decided one after the other on the calendar, then written in the order in which they were decided,
so that what is committed fits at every moment, wherever it stops. The request's pointer is compared in each transaction
and goes with the last: while it lies here, nobody else writes the series.

Not guaranteed: that dates in several pools change together. Each pool looks at its own before it changes one of them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from lablet_common.clock import Clock
from lablet_common.recurrence import Shift
from lablet_common.requests import Undecided, decide_in, hand_on_in, refuse_in, stale
from lablet_common.resources.kinds import POOL, SERIES, Service
from lablet_common.resources.series import Occurrence, OccurrenceState, Series, SeriesPhase, SeriesStage
from lablet_common.store import Store, Transaction
from lablet_common.store.api import MAX_VALUE_BYTES
from lablet_common.store.cache import Caches
from lablet_common.store.changes import create_in, decode, encode, update_in
from lablet_common.terms import SeriesCancel, SeriesChange, SeriesRequested
from lablet_scheduler import dates, engine, series
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.commits import Step, target_of
from lablet_scheduler.dates import Outcome
from lablet_scheduler.decide import Context, Decision, key_used, pools_after, problem, refused
from lablet_scheduler.wishes import placement_request
from lablet_scheduler.writer import Writer

_AT_ONCE = 16
"""Dates that one transaction writes at most, and after which the event loop gets a turn."""
_PARTS = 90
"""What their reservations take of the 128 parts that a transaction may have."""
_BYTES = 512 * 1024
"""And of its 1.5 MiB; the series itself may have as much."""
_SAID_BYTES = 700
"""What may yet be said of a date: why it does not fit or stays, and where it is."""
_SERIES = f"io.lablet.{SERIES.name}."


def is_about_series(undecided: Undecided) -> bool:
    return undecided.request.spec.type.startswith(_SERIES)


class SeriesDesk:
    """Of one pool, for one term of ownership."""

    def __init__(
        self,
        store: Store,
        caches: Caches,
        agenda: Agenda,
        writer: Writer,
        clock: Clock,
        context: Callable[[], Context],
    ) -> None:
        self._store = store
        self._caches = caches
        self._agenda = agenda
        self._writer = writer
        self._clock = clock
        self._context = context

    async def work_off(self, undecided: Undecided) -> bool:
        """Until the request is decided or another pool's; False when it has to wait, for another request about the series or
        for a look at what has refused a transaction. Raises `ValidationError` for a body that is none."""
        while True:
            known = await self._stored(target_of(undecided))
            try:
                present = self._begun(known, undecided)
            except series.SeriesRefused as refusal:
                reason = refusal.problem.title.replace(" ", "")
                decision = Decision(reason=reason, problem=refusal.problem, result="refused")
                return await self._writer.commit_together([self._writer.step(decision, undecided)])
            if isinstance(present, Decision):
                return await self._writer.commit_together([self._writer.step(present, undecided)])
            if present is None:
                return False
            ended = await self._turn(present, undecided)
            if ended is not None:
                return ended

    async def has_begun(self, undecided: Undecided) -> bool:
        """The series is being worked on for the request."""
        known = await self._stored(target_of(undecided))
        return known is not None and known.status.work is not None and known.status.work.request == undecided.id

    async def end(self, name: str) -> None:
        """Completes the series when its last date is over, and else says when to look again."""
        found = self._caches[SERIES].get(name)
        if found is None or found.status.phase is not SeriesPhase.PLACED:
            return
        context = self._context()
        if series.is_over(found, context.now):
            step = self._writer.step(
                Decision(reason="LastDateOver", resource=series.ended(found, context), result="moved")
            )
            await self._writer.commit([step])
        elif found.status.work is None:
            self._agenda.looks.plan(name, series.last_end(found))

    # -- one turn --------------------------------------------------------------------------------------------------

    def _begun(self, known: Series | None, undecided: Undecided) -> Series | Decision | None:
        """The series with this request being worked off; None while another is."""
        request = undecided.request
        verb = request.spec.type.removeprefix(_SERIES).removesuffix(".v1")
        if verb == "requested":
            asked = SeriesRequested.model_validate(request.spec.data)
            if known is None:
                if self._agenda.state.definition(request.tenant, asked.template.definition) is None:
                    words = f"there is no definition {asked.template.definition}"
                    raise series.SeriesRefused(
                        problem("unknown-definition", "Unknown definition", words, 422, "definition")
                    )
                return _storable(series.begin(request, asked, self._agenda.pool))
            if known.status.work is not None and known.status.work.request == request.id:
                return known
            same = (asked.rule, asked.timezone, asked.first) == (known.spec.rule, known.spec.timezone, known.spec.first)
            if known.metadata.created_at == request.spec.received_at or (same and not known.is_final):
                return Decision(reason="AlreadyDecided", about=known)
            return key_used(known)
        if known is None or known.tenant != request.tenant:
            return refused("unknown-series", "Unknown series", f"there is no series {target_of(undecided)}", status=404)
        if known.status.work is not None:
            return known if known.status.work.request == request.id else None
        if (late := stale(request, known)) is not None:
            return refused("precondition-failed", "Precondition failed", late, status=412)
        if verb == "cancel.requested":
            if known.status.phase is SeriesPhase.CANCELLED:
                return Decision(reason="AlreadyCancelled", about=known, result="cancelled")
            return series.begin_cancel(known, request, SeriesCancel.model_validate(request.spec.data))
        change = SeriesChange.model_validate(request.spec.data)
        return _storable(series.begin_change(known, request, change, self._clock.now()), len(change.to_json()))

    async def _turn(self, present: Series, undecided: Undecided) -> bool | None:
        """This pool's dates, in several transactions; None: there is more to do here."""
        names = series.mine(present, self._agenda.pool)
        outcomes = [await self._outcome(present, date, undecided, at) for at, date in enumerate(names)]
        spoilt = self._spoilt(present, outcomes)
        if spoilt:
            self._take_back(outcomes)
            limited = any(one.limited for one in outcomes)
            return await self._write(series.refuse_change(present, spoilt), [], undecided, limited=limited)
        at = 0
        while True:
            batch = self._batch(outcomes[at:])
            at += len(batch)
            after = series.with_outcomes(present, batch) if batch else present
            turn = series.Turn(after) if at < len(outcomes) else self._next(after, undecided)
            if not await self._write(turn, batch, undecided, limited=any(one.limited for one in batch)):
                self._take_back(outcomes[at:])
                return False
            if at == len(outcomes):
                return True if turn.ends else None
            again = await self._stored(present.id)
            assert again is not None, "it has just been written"
            present = again

    async def _outcome(self, present: Series, date: str, undecided: Undecided, number: int) -> Outcome:
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        work, state, context = present.status.work, self._agenda.state, self._context()
        occurrence = present.occurrence(date)
        assert work is not None
        assert occurrence is not None
        request = undecided.request
        reservation = state.reservations.get(occurrence.reservation or "")
        match work.stage:
            case SeriesStage.PLACING:
                outcome = dates.place(state, present, occurrence, context)
            case SeriesStage.CONFIRMING:
                return dates.confirm(occurrence, reservation, context)
            case SeriesStage.RELEASING:
                return dates.release(occurrence, reservation, context)
            case SeriesStage.CANCELLING:
                asked = SeriesCancel.model_validate(request.spec.data)
                return dates.cancel(occurrence, reservation, asked, request.spec.event_id, context)
            case _:
                change = SeriesChange.model_validate(request.spec.data)
                shift = Shift(work.shift_days, work.shift_minutes)
                outcome = dates.change(state, occurrence, change, shift, present.spec.timezone, request, context)
        return self._limited(occurrence, outcome, work.stage)

    def _limited(self, occurrence: Occurrence, outcome: Outcome, stage: SeriesStage) -> Outcome:
        """The outcome, unless it breaks a limit."""
        if outcome.decision is None or outcome.decision.resource is None:
            return outcome
        allowed = self._writer.within_quota(outcome.decision)
        if allowed.problem is None:
            return outcome
        words = allowed.problem.detail
        if stage is SeriesStage.PLACING:
            return dates.refused_hold(outcome.occurrence, words)
        return Outcome(occurrence, kept=words, limited=True)

    @staticmethod
    def _spoilt(present: Series, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """Dates that cannot be changed, where all have to be and none is changed yet."""
        work = present.status.work
        if work is None or work.stage is not SeriesStage.CHANGING or present.spec.mode != "all" or work.done:
            return {}
        return {one.occurrence.date: one.kept for one in outcomes if one.kept is not None and not one.begun}

    def _take_back(self, outcomes: Sequence[Outcome]) -> None:
        """What has been decided on the calendar and will not be written."""
        steps = [self._writer.step(one.decision) for one in outcomes if one.decision is not None]
        self._writer.forget(steps)

    def _batch(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The first of them, as many as one transaction takes beside the series."""
        parts = size = 0
        for at, one in enumerate(outcomes):
            more, bytes_ = (0, 0) if one.decision is None else self._writer.step(one.decision).size
            parts, size = parts + more, size + bytes_
            if at and (at == _AT_ONCE or parts > _PARTS or size > _BYTES):
                return outcomes[:at]
        return outcomes

    def _next(self, present: Series, undecided: Undecided) -> series.Turn:
        pools = {pool.id for pool in self._caches[POOL].items()}
        return series.next_turn(present, undecided.request, self._context(), self._following(present), pools)

    def _following(self, present: Series) -> str | None:
        """The next pool of the list that could take the dates that are still open."""
        work, template = present.status.work, present.spec.template
        is_open = next((one for one in present.status.occurrences if one.state is OccurrenceState.OPEN), None)
        if work is None or is_open is None:
            return None
        context = self._context()
        draft = dates.draft_of(present, is_open, context.now)
        if self._agenda.state.demand(draft) is None:
            return None
        wanted: engine.PlacementRequest = placement_request(
            self._agenda.state, draft, is_open.start, is_open.end, context.now
        )
        rest = pools_after(template.pools, work.pool)
        return next((name for name in rest if context.elsewhere(name, wanted)), None)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write(
        self, turn: series.Turn, outcomes: Sequence[Outcome], undecided: Undecided, *, limited: bool
    ) -> bool:
        """`limited`: a limit has forbidden some of it."""
        steps = [self._writer.step(one.decision) for one in outcomes if one.decision is not None]
        written = [step for step in steps if step.decision.resource is not None]
        return await self._writer.commit_together([self._step(turn, undecided, limited=limited), *written])

    def _step(self, turn: series.Turn, undecided: Undecided, *, limited: bool) -> Step:
        txn = Transaction()
        at, by, resource = self._clock.now(), self._context().by, turn.series
        if resource.revision:
            update_in(txn, resource)
        else:
            create_in(txn, resource)
        if turn.hand_on is not None:
            hand_on_in(txn, undecided, Service.SCHEDULER, turn.hand_on)
        elif turn.problem is not None:
            refuse_in(txn, undecided, at=at, by=by, problem=turn.problem, resource=resource)
        elif turn.decided is not None:
            decide_in(txn, undecided, at=at, by=by, reason=turn.decided, resource=resource, answer=turn.answer)
        else:
            txn.require(undecided.pointer.key, mod_revision=undecided.pointer.mod_revision)
        result = "refused" if turn.problem is not None else "handed-on" if turn.hand_on else "series"
        reason = turn.decided or (turn.problem.title.replace(" ", "") if turn.problem else "Working")
        decision = Decision(
            reason=reason, resource=resource, limited=resource.tenant if limited else None, result=result
        )
        return Step(decision, undecided if turn.decided or turn.problem else None, txn)

    async def _stored(self, series_id: str) -> Series | None:
        found = await self._store.get(SERIES.key(series_id))
        return None if found is None else cast("Series", decode(SERIES, found))


def _storable(begun: Series, more: int = 0) -> Series:
    """The series, if there is room under its key for all that may be said of its dates, and for so many bytes more. Raises
    `SeriesRefused`."""
    assert begun.status.work is not None
    size = len(encode(begun)) + _SAID_BYTES * len(begun.status.work.left) + more
    if size > MAX_VALUE_BYTES:
        words = f"the series may take {size:,} bytes; the most is {MAX_VALUE_BYTES:,}: shorten its roster or its rule"
        raise series.SeriesRefused(problem("too-large", "Too large", words, 413, "roster"))
    return begun
