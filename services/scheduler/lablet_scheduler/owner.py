"""The owner of one pool: one task that takes the clock, the news and the inbox, and commits what follows from them.

Everything about a pool is decided here, one thing after the other, on a calendar that holds what is committed and what
this pass has granted so far. Each decision is one fenced transaction that compares the pool's gate and the revisions it
was made from; decisions of a pass share a transaction where they fit, and are tried one by one when that is refused. A
refused one is taken off the calendar and made again once the caches show why.

A transaction without an answer may still happen. It ends the owner's term: the next one has another fence, so that
whatever has not happened by then never will, and reads all that has.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import cast

from pydantic import ValidationError

from lablet_common.clock import Clock
from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Inbox, Undecided
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, POOL, REQUEST, RESERVATION, WORKER, Kind, Service, gate_key
from lablet_common.resources.request import Request, RequestPhase
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Worker, WorkerPool
from lablet_common.store import Get, OutcomeUnknown, Store, StoreUnavailable
from lablet_common.store.cache import Caches
from lablet_common.store.changes import decode
from lablet_common.telemetry.metrics import DECIDING, DECISION_LATENCY, DECISIONS, INBOX_DEPTH
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.change import decide_cancel, decide_change, decide_confirm
from lablet_scheduler.commits import Refused, Step, grouped, step_of, target_of, write
from lablet_scheduler.decide import Context, Decision, decide_requested, refused
from lablet_scheduler.heal import heal, make_room, retry_waiting
from lablet_scheduler.lifecycle import Rules, next_look, next_step
from lablet_scheduler.neighbours import Neighbours
from lablet_scheduler.settings import SchedulerSettings
from lablet_scheduler.simulate import decide_simulate
from lablet_scheduler.state import FindDefinition, PoolState
from lablet_scheduler.views import occupies

log = logging.getLogger("lablet.scheduler")

_CATCH_UP_SECONDS = 10.0
_FIRST_CATCH_UP_SECONDS = 60.0
_RETRY_SECONDS = 0.2
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
        caches: Caches,
        find_definition: FindDefinition,
        clock: Clock,
        settings: SchedulerSettings,
        source: str,
    ) -> None:
        self.pool = pool
        self._fence = fence
        self._store = store
        self._caches = caches
        self._find_definition = find_definition
        self._clock = clock
        self._settings = settings
        self._inbox = Inbox(store, Service.SCHEDULER, pool)
        self._neighbours = Neighbours(caches)
        self._accounts = Accounts(store)
        self._source = source
        self._rules = Rules(
            by=source,
            notice=timedelta(minutes=settings.scheduler_notice_minutes),
            lead=timedelta(minutes=settings.scheduler_lead_time_minutes),
        )
        self._news: deque[Callable[[], None]] = deque()
        self._wake = asyncio.Event()
        self._dirty: set[str] = set()
        """Reservations to look at."""
        self._looks: dict[str, datetime] = {}
        """When the clock alone gives a reason to look."""
        self._freed = True
        """Room may have come free since the wait list was tried."""
        self._gate = 0
        self._needed = fence.create_revision
        """The caches must have reached it before anything is decided or built."""
        self._refusals = 0
        self._resync_at = 0.0
        self._unsettled = False
        """The calendar may hold what was decided in this pass and not committed."""
        self._state: PoolState | None = None

    def wake(self) -> None:
        """Look again: something about this pool may have changed."""
        self._wake.set()

    @property
    def state(self) -> PoolState:
        assert self._state is not None, "the calendar has not been built yet"
        return self._state

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Decides until it is cancelled. Raises `NotOwner` when the fence has fallen, `OutcomeUnknown` when a
        transaction got no answer, `StoreUnavailable` when the caches do not come up: each ends the term."""
        try:
            await self._caches.reached(self._needed, timeout=_FIRST_CATCH_UP_SECONDS)
        except TimeoutError as error:
            raise StoreUnavailable(f"pool {self.pool} cannot be read: {error}") from error
        self._build()
        listeners: tuple[tuple[Kind, Callable[..., None]], ...] = (
            (RESERVATION, self._on_reservation),
            (INSTANCE, self._on_instance),
            (WORKER, self._on_worker),
            (POOL, self._on_pool),
        )
        unsubscribe = [self._caches[kind].subscribe(listener) for kind, listener in listeners]
        log.info("pool taken over", extra={"pool": self.pool, "fence": self._fence.create_revision})
        try:
            while True:
                self._wake.clear()
                try:
                    more = await self._pass()
                except OutcomeUnknown:
                    log.warning("a transaction got no answer: the term ends", extra={"pool": self.pool})
                    raise
                except (StoreUnavailable, TimeoutError) as error:
                    log.warning("etcd does not answer: trying again", extra={"pool": self.pool, "cause": str(error)})
                    await asyncio.sleep(_RETRY_SECONDS)
                    if self._unsettled:
                        await self._rebuild()
                    continue
                if not more:
                    await self._until_due()
        finally:
            for stop in unsubscribe:
                stop()

    async def _until_due(self) -> None:
        """Waits for news, the next moment of interest, or the periodic look at everything."""
        soonest = min(self._looks.values(), default=None)
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._wake.wait())]
        if soonest is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep_until(soonest)))
        try:
            left = max(0.0, self._resync_at - time.monotonic())
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if time.monotonic() >= self._resync_at:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        self._resync_at = time.monotonic() + self._settings.resync_seconds
        self._dirty.update(self.state.reservations)
        self._freed = True

    async def _pass(self) -> bool:
        """One look at everything that is due; True when there may be more at once."""
        refusals = self._refusals
        await self._catch_up()
        self._unsettled = True
        self._take_news()
        now = self._clock.now()
        for name in [name for name, moment in self._looks.items() if moment <= now]:
            del self._looks[name]
            self._dirty.add(name)
        if self._freed:
            self._dirty |= self.state.at_risk
        await self._step_lives()
        if self._freed:  # those who wait come before those who ask now
            self._freed = False
            await self._commit([self._step(decision) for decision in retry_waiting(self.state, self._context())])
        decided = await self._decide_inbox()
        self._unsettled = False
        if self._refusals == refusals:
            self._refusals = 0
        elif self._refusals > _PATIENCE:
            await asyncio.sleep(min(_RETRY_SECONDS * (self._refusals - _PATIENCE), 2.0))
        return decided >= self._settings.scheduler_batch_size or bool(self._dirty) or self._freed or self._refusals > 0

    def _context(self) -> Context:
        return Context(
            now=self._clock.now(),
            by=self._source,
            suggestion_horizon=timedelta(days=self._settings.scheduler_suggestion_days),
            elsewhere=self._neighbours.could_take,
        )

    # -- knowing ---------------------------------------------------------------------------------------------------

    async def _rebuild(self) -> None:
        """Begins anew from the caches, once they hold all that this owner has written."""
        while True:
            try:
                await self._caches.reached(self._needed, timeout=_CATCH_UP_SECONDS)
            except TimeoutError as error:
                log.warning("the caches are behind", extra={"pool": self.pool, "cause": str(error)})
                continue
            self._build()
            return

    def _build(self) -> None:
        """The calendar from scratch, from the caches."""
        pool = self._caches[POOL].get(self.pool)
        if pool is None:
            raise NotOwner(f"there is no pool {self.pool} any more")
        state = PoolState(pool, self._find_definition)
        self._news.clear()
        now = self._clock.now()
        for worker in self._caches[WORKER].items():
            if worker.spec.pool == self.pool:
                state.put_worker(worker, now)
        for instance in self._caches[INSTANCE].items():
            if instance.spec.pool == self.pool:
                state.put_instance(instance, now)
        for reservation in self._caches[RESERVATION].items():
            if reservation.status.pool == self.pool:
                state.put_reservation(reservation, now)
        self._state = state
        self._looks.clear()
        self._dirty.clear()
        self._look_at_everything()

    async def _catch_up(self) -> None:
        """Waits until the caches have seen the change that moved the pool's gate, and those that refused a decision."""
        gate, quotas, ledgers = (await self._store.txn([], [Get(gate_key(self.pool)), *Accounts.reads()])).reads
        await self._accounts.take(quotas, ledgers)
        revision = gate[0].mod_revision if gate else 0
        await self._caches.reached(max(revision, self._needed), timeout=_CATCH_UP_SECONDS)
        if revision != self._gate:
            self._gate = revision
            self._freed = True

    def _take_news(self) -> None:
        while self._news:
            self._news.popleft()()

    def _tell(self, news: Callable[[], None]) -> None:
        self._news.append(news)
        self._wake.set()

    def _on_reservation(self, old: Reservation | None, new: Reservation | None, _: int) -> None:
        if self.pool not in {known.status.pool for known in (old, new) if known is not None}:
            return

        def take() -> None:
            if new is not None:
                if self.state.put_reservation(new, self._clock.now()):
                    self._dirty.add(new.id)
                    self._freed = True  # another owner has put it onto the wait list here
            elif old is not None:
                self.state.remove_reservation(old.id)

        self._tell(take)

    def _on_instance(self, old: Instance | None, new: Instance | None, _: int) -> None:
        instance = new or old
        if instance is None or instance.spec.pool != self.pool:
            return

        def take() -> None:
            if new is None:
                self.state.remove_instance(instance, self._clock.now())
            else:
                self.state.put_instance(new, self._clock.now())
            self._freed = self._freed or new is None or not occupies(new)
            self._dirty.add(instance.spec.reservation)

        self._tell(take)

    def _on_worker(self, old: Worker | None, new: Worker | None, _: int) -> None:
        worker = new or old
        if worker is None or worker.spec.pool != self.pool:
            return

        def take() -> None:
            touched = old is None or new is None or old.status.phase != new.status.phase or old.spec != new.spec
            if touched:
                self._freed = True
                self._dirty.update(reservation.id for reservation in self.state.placed_on(worker.id))
            if new is None:
                self.state.remove_worker(worker.id, self._clock.now())
            else:
                self.state.put_worker(new, self._clock.now())

        self._tell(take)

    def _on_pool(self, _: WorkerPool | None, new: WorkerPool | None, __: int) -> None:
        if new is not None and new.id == self.pool:

            def take() -> None:
                self.state.put_pool(new)
                self._freed = True

            self._tell(take)

    # -- deciding --------------------------------------------------------------------------------------------------

    async def _decide_inbox(self) -> int:
        """Decides what waits, in order, and returns how many requests that were."""
        pending = await self._inbox.pending(self._settings.scheduler_batch_size)
        INBOX_DEPTH.labels(Service.SCHEDULER, self.pool).set(len(pending))
        steps: list[Step] = []
        refusals = self._refusals
        for undecided in pending:
            # a request about a reservation that an uncommitted step is about must see what became of that
            if any(step.target == target_of(undecided) for step in steps):
                await self._commit(steps)
                steps = []
            if self._refusals > refusals:
                return len(pending)  # the order is kept: what was refused is decided before what came after it
            began = time.perf_counter()
            step = self._step(await self._decide(undecided), undecided)
            DECIDING.observe(time.perf_counter() - began)
            steps.append(step)
            if step.decision.vacates:
                await self._commit(steps)
                steps = []
        await self._commit(steps)
        return len(pending)

    async def _decide(self, undecided: Undecided) -> Decision:
        try:
            return self._within_quota(await self._answer(undecided.request))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            path = ".".join(str(part) for part in fault["loc"]) or None
            return refused("invalid-request", "Invalid request", fault["msg"], status=422, path=path)

    def _within_quota(self, decision: Decision) -> Decision:
        """The decision, unless it breaks a limit: then its refusal, and the calendar as it was."""
        new = decision.resource
        if new is None:
            return decision
        old = self.state.reservations.get(new.id)
        said = self._accounts.exceeded(old, new, self._clock.now())
        if said is None:
            self._accounts.enter(old, new)
            return decision
        self.state.rebook(new.id, self._clock.now())
        return Decision(reason="QuotaExceeded", problem=said, result="refused")

    async def _answer(self, request: Request) -> Decision:
        context = self._context()
        target = request.spec.subject.partition("/")[2]
        verb = request.spec.type.removeprefix("io.lablet.reservation.").removesuffix(".v1")
        if verb == "requested":
            known = self.state.reservations.get(target) or self._caches[RESERVATION].get(target)
            if known is not None:
                return Decision(reason="AlreadyDecided", about=known)
            return decide_requested(self.state, request, context)
        if verb == "simulate.requested":
            return decide_simulate(self.state, request, context)
        reservation = self.state.reservations.get(target) or await self._stored(target)
        if reservation is None:
            shard = await self._undecided_elsewhere(request)
            if shard is not None:
                return Decision(reason="OtherPool", hand_on=shard, result="handed-on")
        if reservation is None or reservation.tenant != request.tenant:
            return refused(
                "unknown-reservation", "Unknown reservation", f"there is no reservation {target}", status=404
            )
        pool = reservation.status.pool
        if pool not in (None, self.pool) and self._caches[POOL].get(pool) is not None:
            return Decision(reason="OtherPool", hand_on=pool, result="handed-on")
        match verb:
            case "cancel.requested":
                return decide_cancel(reservation, request, context)
            case "confirm.requested":
                return decide_confirm(reservation, request, context)
            case "change.requested":
                return decide_change(self.state, reservation, request, context)
            case _:
                return refused("unknown-intent", "Unknown intent", f"the scheduler does not know {request.spec.type}")

    async def _stored(self, reservation_id: str) -> Reservation | None:
        found = await self._store.get(RESERVATION.key(reservation_id))
        return None if found is None else cast("Reservation", decode(RESERVATION, found))

    async def _undecided_elsewhere(self, request: Request) -> str | None:
        """The pool in whose inbox the reservation that a request is about still waits to be decided."""
        _, _, code = request.spec.subject.partition("/rsv-")
        found = await self._store.get(REQUEST.key(f"req-{code}", request.tenant))
        if found is None:
            return None
        asked = cast("Request", decode(REQUEST, found))
        waits = asked.status.phase is RequestPhase.ACCEPTED and asked.spec.subject == request.spec.subject
        return asked.spec.shard if waits and asked.spec.shard != self.pool else None

    async def _step_lives(self) -> None:
        """Moves every reservation that news or the clock touched one step on, and heals what cannot stay; the soonest
        slots first."""
        looked, self._dirty = self._dirty, set()
        steps: list[Step] = []
        for reservation in sorted((r for r in map(self.state.reservations.get, looked) if r), key=_urgency):
            context = self._context()
            if self.state.overruns(reservation, context.now) or reservation.id in self.state.displaced:
                self._dirty |= make_room(self.state, reservation, context)
            decision = self._lived(reservation, context) or heal(self.state, reservation, context, self._rules.lead)
            self._plan_look(reservation, context.now)
            if decision is not None and decision.vacates:
                await self._commit([self._step(decision)])
            elif decision is not None:
                steps.append(self._step(decision))
        for name in looked - self.state.reservations.keys():
            self._looks.pop(name, None)
        await self._commit(steps)

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
        if look is not None:
            self._looks[reservation.id] = look
        else:
            self._looks.pop(reservation.id, None)

    # -- committing ------------------------------------------------------------------------------------------------

    def _step(self, decision: Decision, undecided: Undecided | None = None) -> Step:
        return step_of(decision, undecided, at=self._clock.now(), by=self._source)

    async def _commit(self, steps: Sequence[Step]) -> None:
        """Writes the steps, many in one transaction. When one is refused they are tried one by one, and what is refused
        then is undone on the calendar; when the gate has moved, all that is left is."""
        for step in steps:
            if step.decision.resource is not None:
                self._accounts.enter(self.state.reservations.get(step.decision.resource.id), step.decision.resource)
        groups = deque(grouped(steps))
        while groups:
            group = groups.popleft()
            result = await write(self._store, self._fence, gate_key(self.pool), self._gate, group, self._accounts)
            if not isinstance(result, Refused):
                self._needed = max(self._needed, result)
                for step in group:
                    self._done(step, result)
                continue
            self._needed = max(self._needed, result.revision)
            if result.gate != self._gate:
                self._undo([*group, *(step for rest in groups for step in rest)])
                return
            if len(group) > 1:
                groups.extendleft([step] for step in reversed(group))
            else:
                self._undo(group)

    def _done(self, step: Step, revision: int) -> None:
        decision, now = step.decision, self._clock.now()
        if decision.resource is not None:
            committed = decision.resource.at_revision(revision)
            self._accounts.drop(committed.id)
            self.state.put_reservation(committed, now)
            self._dirty.add(committed.id)
        self._freed = self._freed or decision.frees
        DECISIONS.labels(decision.result, decision.reason).inc()
        known = {"result": decision.result, "reason": decision.reason, "pool": self.pool, "reservation": step.target}
        if step.undecided is not None:
            request = step.undecided.request
            DECISION_LATENCY.observe(max(0.0, self._clock.real_seconds(now - request.spec.received_at)))
            log.info("decided", extra=known | {"request": request.id})
        elif decision.resource is not None:
            log.info("moved", extra=known | {"phase": str(decision.resource.phase)})

    def _undo(self, steps: Sequence[Step]) -> None:
        """Takes refused decisions off the calendar and has them made again."""
        self._refusals += 1
        for step in steps:
            if step.decision.resource is not None:
                self._accounts.drop(step.decision.resource.id)
                self.state.rebook(step.decision.resource.id, self._clock.now())
                self._dirty.add(step.decision.resource.id)
        self._freed = True


def _urgency(reservation: Reservation) -> tuple[float, int, str]:
    start = reservation.slot.start.timestamp() if reservation.slot is not None else 0.0
    return start, -reservation.spec.priority, reservation.id
