"""The owner of one pool: one task that takes the clock, the news and the inbox, and commits what follows from them.

Everything about a pool is decided here, one thing after the other, on a calendar that holds what is committed and what
this pass has granted so far. Each decision is one fenced transaction that compares the pool's gate and the revisions it
was made from; decisions of a pass share a transaction where they fit, and are tried one by one when that is refused. A
refused one is taken off the calendar and made again once the caches show why. A request at which deciding itself fails is
refused: it would fail at every try, and end the terms of all pools with that of its own.

A transaction without an answer may still happen. It ends the owner's term: the next one has another fence, so that
whatever has not happened by then never will, and reads all that has.
"""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import datetime, timedelta

from pydantic import ValidationError

from lablet_common.clock import Clock
from lablet_common.intake import deciding
from lablet_common.ownership import Fence
from lablet_common.requests import Undecided
from lablet_common.resources.kinds import INSTANCE, Service
from lablet_common.resources.reservation import Reservation
from lablet_common.store import InvalidRequest, OutcomeUnknown, Store, StoreError, StoreUnavailable
from lablet_common.telemetry.metrics import AT_RISK, DECIDING, INBOX_DEPTH
from lablet_scheduler.agenda import Agenda
from lablet_scheduler.answers import Answers, invalid
from lablet_scheduler.commits import Step, target_of
from lablet_scheduler.decide import Context, Decision, refused
from lablet_scheduler.desk import SeriesDesk, is_about_series
from lablet_scheduler.following import Following
from lablet_scheduler.heal import heal, make_room, retry_waiting
from lablet_scheduler.lifecycle import Rules, next_look, next_step
from lablet_scheduler.neighbours import Neighbours
from lablet_scheduler.review import Review, tell
from lablet_scheduler.saving import Saving, is_about_saving
from lablet_scheduler.settings import SchedulerSettings
from lablet_scheduler.settling import Settling
from lablet_scheduler.state import FindDefinition, PoolState
from lablet_scheduler.stirs import Stirs
from lablet_scheduler.writer import Writer

log = logging.getLogger("lablet.scheduler")

_CATCH_UP_SECONDS = 10.0
_FIRST_CATCH_UP_SECONDS = 60.0
_TOLD_SECONDS = 1.0
_RETRY_SECONDS = 0.2
_LONGEST_REST = 0.01
"""Real seconds."""
QUIET_SECONDS = 0.05
"""Real seconds without news after which the owner has time to save power."""
_TOGETHER = 32
"""New reservations that one transaction takes: so many are decided before the event loop has its turn, which keeps the
lease."""
_PATIENCE = 3
"""Passes in a row with a refused transaction before the owner slows down."""
_OVERRUN_LOOK = timedelta(minutes=2)
"""Lab time after which the booking of an overrunning lab is renewed."""


class PoolOwner:
    """Decides for one pool while it holds the fence. Make a new one for each term of ownership."""

    def __init__(
        self,
        pool: str,
        fence: Fence,
        *,
        store: Store,
        caches: Following,
        find_definition: FindDefinition,
        clock: Clock,
        settings: SchedulerSettings,
        source: str,
    ) -> None:
        self.pool = pool
        self._fence = fence
        self._caches = caches
        self._clock = clock
        self._settings = settings
        self._source = source
        self._rules = Rules(
            by=source,
            notice=timedelta(minutes=settings.scheduler_notice_minutes),
            lead=timedelta(minutes=settings.scheduler_lead_time_minutes),
        )
        self._wake = asyncio.Event()
        self._told = 0
        """Revision of the latest intent that was told."""
        self._neighbours = Neighbours(caches)
        self._agenda = Agenda(pool, caches, find_definition, clock, self.wake, settings.resync_seconds)
        self._writer = Writer(store, fence, self._agenda, caches, clock, source)
        self._answers = Answers(store, caches, self._agenda, self._context)
        self._series = SeriesDesk(store, caches, self._agenda, self._writer, clock, self._context)
        self._saving = Saving(self._agenda, self._writer, self._context, self.wake)
        self._review = Review(caches, self._agenda, self._writer.accounts, clock)
        self._reviewed = 0.0
        """The round of the agenda (by the end of its time) that the last review followed."""
        self._settling = Settling(self._agenda, self._writer, self._context, self._rules.lead)
        self._waiting = 0
        """Requests that stay in the inbox for now."""
        self._unsettled = False
        """The calendar may hold what was decided in this pass and not committed."""

    def wake(self, revision: int = 0) -> None:
        """Look again, once the caches have reached the revision: something about this pool may have changed."""
        self._told = max(self._told, revision)
        self._wake.set()

    @property
    def state(self) -> PoolState:
        return self._agenda.state

    @property
    def stirs(self) -> Stirs:
        """Where power may yet be saved."""
        return self._agenda.stirs

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Decides until it is cancelled. Raises `NotOwner` when the fence has fallen, `OutcomeUnknown` when a
        transaction got no answer, `StoreUnavailable` when the caches do not come up: each ends the term."""
        try:
            await self._caches.reached(self._writer.needed, timeout=_FIRST_CATCH_UP_SECONDS)
        except TimeoutError as error:
            raise StoreUnavailable(f"pool {self.pool} cannot be read: {error}") from error
        tell(self.pool, ())
        unsubscribe = [*self._agenda.listen(), self._caches.inboxes.subscribe(self.pool, self.wake)]
        try:
            await self._agenda.build()
            log.info("pool taken over", extra={"pool": self.pool, "fence": self._fence.create_revision})
            while True:
                self._wake.clear()
                began = time.monotonic()
                try:
                    more = await self._pass() or await self._settle()
                except OutcomeUnknown:
                    log.warning("a transaction got no answer: the term ends", extra={"pool": self.pool})
                    raise
                except (StoreUnavailable, TimeoutError) as error:
                    log.warning("etcd does not answer: trying again", extra={"pool": self.pool, "cause": str(error)})
                    await asyncio.sleep(_RETRY_SECONDS)
                    if self._unsettled:
                        await self._rebuild()
                    continue
                if more:
                    # a pass that only looks waits for nothing, and the lease is kept on the same loop
                    await asyncio.sleep(0)
                else:
                    ended = time.monotonic()
                    await self._look_over()
                    await self._until_due()
                    # a pass costs the same for many as for one: what comes right behind one shares the next
                    await asyncio.sleep(max(0.0, ended + min(ended - began, _LONGEST_REST) - time.monotonic()))
        finally:
            INBOX_DEPTH.remove(Service.SCHEDULER, self.pool)  # whoever owns it next tells
            AT_RISK.remove(self.pool)
            self._saving.close()
            for stop in unsubscribe:
                stop()

    async def _look_over(self) -> None:
        """Behind each round of looking at everything: whether the calendar is what is stored, as long as nobody wants
        something."""
        agenda, review = self._agenda, self._review
        if self._reviewed != agenda.resync_at:
            self._reviewed = agenda.resync_at
            review.begin()
        while review.open and not self._wake.is_set() and not agenda.heard and not self._is_due():
            found = review.go_on()
            tell(self.pool, found)
            if any(one.heals for one in found):
                await self._rebuild()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_REST):
                    await self._wake.wait()  # who asks does not wait for the rest to be over

    def _is_due(self) -> bool:
        soonest = self._agenda.looks.soonest
        by_clock = soonest is not None and soonest <= self._clock.now()
        return by_clock or time.monotonic() >= self._agenda.resync_at

    async def _until_due(self) -> None:
        """Waits for news, the next moment of interest, or the periodic look at everything."""
        await self._stirred_within(max(0.0, self._agenda.resync_at - time.monotonic()))
        if time.monotonic() >= self._agenda.resync_at:
            self._agenda.look_at_everything()

    async def _stirred_within(self, seconds: float) -> bool:
        """Waits so long at most; True as soon as there is news, or the next moment of interest has come."""
        soonest = self._agenda.looks.soonest
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._wake.wait())]
        if soonest is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep_until(soonest)))
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    async def _pass(self) -> bool:
        """One look at everything that is due; True when there may be more at once."""
        agenda, writer = self._agenda, self._writer
        refusals = writer.refusals
        await self._caches.reached(writer.needed, timeout=_CATCH_UP_SECONDS)
        await self._reach_what_was_told()
        await writer.begin()
        self._unsettled = True
        agenda.take_news()
        await self._step_lives()
        if agenda.freed:  # those who wait come before those who ask now
            agenda.freed = False
            await self._retry_waiting()
        for name in sorted(agenda.series):
            agenda.series.discard(name)
            await self._series.end(name)
        more = await self._decide_inbox()
        AT_RISK.labels(self.pool).set(len(self.state.at_risk))
        self._unsettled = False
        if writer.refusals == refusals:
            writer.refusals = 0
        elif writer.refusals > _PATIENCE:
            await asyncio.sleep(min(_RETRY_SECONDS * (writer.refusals - _PATIENCE), 2.0))
        return more or agenda.stirred or writer.refusals > 0

    async def _settle(self) -> bool:
        """Saves some power if nothing else is to be done; True when it had time to look."""
        if not self._agenda.stirs or self._waiting or await self._stirred_within(QUIET_SECONDS):
            return False
        self._unsettled = True
        await self._settling.turn()
        self._unsettled = False
        return True

    async def _reach_what_was_told(self) -> None:
        """An intent names the revision at which it will be found. One that the store never had (etcd was restored) holds up
        nobody for long."""
        told, self._told = self._told, 0
        try:
            await self._caches.reached(told, timeout=_TOLD_SECONDS)
        except TimeoutError:
            log.warning("an intent tells of a revision that is not there", extra={"pool": self.pool, "revision": told})

    def _context(self) -> Context:
        return Context(
            now=self._clock.now(),
            by=self._source,
            suggestion_horizon=timedelta(days=self._settings.scheduler_suggestion_days),
            elsewhere=self._neighbours.could_take,
        )

    async def _rebuild(self) -> None:
        """Begins anew from the caches, once they hold all that this owner has written."""
        while True:
            try:
                await self._caches.reached(self._writer.needed, timeout=_CATCH_UP_SECONDS)
            except TimeoutError as error:
                log.warning("the caches are behind", extra={"pool": self.pool, "cause": str(error)})
                continue
            await self._agenda.build()
            return

    # -- deciding --------------------------------------------------------------------------------------------------

    async def _decide_inbox(self) -> bool:
        """Decides what waits, in order; True when there was more than one look takes. Those that stay for now are looked
        at beside a batch of others, so that they keep nobody behind them waiting."""
        limit = self._settings.scheduler_batch_size + self._waiting
        pending = await self._caches.inboxes.pending(self.pool, limit)
        depth = self._caches.inboxes.depth(self.pool)
        INBOX_DEPTH.labels(Service.SCHEDULER, self.pool).set(depth)
        steps: list[Step] = []
        about: set[str | None] = set()
        writer, refusals, self._waiting = self._writer, self._writer.refusals, 0
        for undecided in pending:
            # a request about a reservation that an uncommitted step is about must see what became of that
            several = is_about_series(undecided) or is_about_saving(undecided)
            if several or target_of(undecided) in about:
                await writer.commit(steps)
                steps, about = [], set()
            if writer.refusals > refusals:
                return True  # the order is kept: what was refused is decided before what came after it
            began = time.perf_counter()
            try:
                if several:
                    self._waiting += not await self._work_off(undecided)
                    continue
                with deciding(undecided):
                    step = writer.step(writer.within_quota(await self._answers.to(undecided)), undecided)
            except Exception as error:
                if not await self._may_be_refused(undecided, error):
                    raise
                await writer.commit(steps)
                await self._refuse(undecided, error)
                return True
            DECIDING.observe(time.perf_counter() - began)
            steps.append(step)
            about.add(step.target)
            if step.decision.vacates or len(steps) >= _TOGETHER:
                await writer.commit(steps)
                steps, about = [], set()
        await writer.commit(steps)
        return depth > max(limit, len(pending))  # a pointer that leads nowhere stays, and is not among them

    async def _may_be_refused(self, undecided: Undecided, error: Exception) -> bool:
        """It is the request that cannot be decided, and not the store that fails; and no series has been begun for it, with
        which it would be left alone."""
        if isinstance(error, StoreError | TimeoutError) and not isinstance(error, InvalidRequest):
            return False
        return not is_about_series(undecided) or not await self._series.has_begun(undecided)

    async def _refuse(self, undecided: Undecided, error: Exception) -> None:
        """Of a request that would end every term at every try, and keep all pools of this replica from being served."""
        known = {"request": undecided.id, "pool": self.pool, "subject": undecided.request.spec.subject}
        log.error("a request cannot be decided: it is refused", exc_info=error, extra=known)
        await self._rebuild()  # half of the decision may be on the calendar
        words = f"the scheduler fails at it ({type(error).__name__}): tell its operator, whose log names {undecided.id}"
        decision = refused("undecidable", "Undecidable", words, status=500)
        await self._writer.commit([self._writer.step(decision, undecided)])

    async def _work_off(self, undecided: Undecided) -> bool:
        """What takes several transactions. False when the request stays where it is for now."""
        try:
            if is_about_saving(undecided):
                return await self._saving.work_off(undecided)
            return await self._series.work_off(undecided)
        except ValidationError as error:
            return await self._writer.commit_together([self._writer.step(invalid(error), undecided)])

    async def _retry_waiting(self) -> None:
        """Places who waits and has room. Thousands may wait, and the lease is kept on the same loop."""
        steps: list[Step] = []
        for decision in retry_waiting(self.state, self._context()):
            if decision is None:
                await asyncio.sleep(0)
            else:
                steps.append(self._writer.step(decision))
        await self._writer.commit(steps)

    async def _step_lives(self) -> None:
        """Moves every reservation that is due one step on, and heals what cannot stay; the soonest slots first."""
        agenda, writer = self._agenda, self._writer
        steps: list[Step] = []
        for reservation in agenda.due():
            context = self._context()
            if self.state.overruns(reservation, context.now) or reservation.id in self.state.displaced:
                agenda.dirty |= make_room(self.state, reservation, context)
            decision = self._lived(reservation, context) or heal(self.state, reservation, context, self._rules.lead)
            self._plan_look(reservation, context.now)
            if decision is not None and decision.vacates:
                await writer.commit([writer.step(decision)])
            elif decision is not None:
                steps.append(writer.step(decision))
        await writer.commit(steps)

    def _lived(self, reservation: Reservation, context: Context) -> Decision | None:
        """The next step of its life; a final one compares that no instance has come up meanwhile."""
        instances = self.state.instances_of(reservation.id)
        stepped = next_step(reservation, instances, context.now, self._rules)
        if stepped is None:
            return None
        absent: tuple[str, ...] = ()
        if stepped.is_final:
            known = {instance.id for instance in instances}
            seats = [seat.instance for seat in reservation.status.placement if seat.instance not in known]
            absent = tuple(INSTANCE.key(name) for name in seats)
        return Decision(
            reason=stepped.status.reason or "", resource=stepped, absent=absent, result="moved", frees=stepped.is_final
        )

    def _plan_look(self, reservation: Reservation, now: datetime) -> None:
        look = next_look(reservation, now, self._rules)
        if self.state.overruns(reservation, now):
            look = now + _OVERRUN_LOOK
        boot = self.state.boots_due(reservation, now)
        if boot is not None:
            look = boot if look is None else min(look, boot)
        if look is not None:
            self._agenda.looks.plan(reservation.id, look)
        else:
            self._agenda.looks.drop(reservation.id)
