"""The owner of one pool: one task that takes the inbox, the clock and the news, and commits what follows from them.

Everything about a pool is decided here, one thing after the other, on a calendar that holds what is committed and what
this pass has granted so far. Each decision is one fenced transaction that compares the pool's gate and the revisions it
was made from; decisions of a pass share a transaction where they fit, and are tried one by one when that is refused.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lablet_common.clock import Clock
from lablet_common.ownership import Fence, NotOwner
from lablet_common.requests import Inbox, Undecided, decide_in, hand_on_in, refuse_in
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, POOL, RESERVATION, WORKER, Service, gate_key
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Worker, WorkerPool
from lablet_common.store import Conflict, OutcomeUnknown, Store, StoreUnavailable, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import create_in, decode, unchanged_in, update_in
from lablet_common.telemetry.metrics import DECIDING, DECISION_LATENCY, DECISIONS, INBOX_DEPTH, STORE_CONFLICTS
from lablet_scheduler.decide import (
    Context,
    Decision,
    decide_cancel,
    decide_change,
    decide_confirm,
    decide_requested,
    refused,
)
from lablet_scheduler.heal import displace, heal, retry_waiting
from lablet_scheduler.lifecycle import Rules, next_look, next_step
from lablet_scheduler.settings import SchedulerSettings
from lablet_scheduler.state import FindDefinition, PoolState

log = logging.getLogger("lablet.scheduler")

_TXN_ROOM = 100
"""Operations and comparisons used of the 128 that a transaction takes; the rest is room for the fence and the gate."""
_CATCH_UP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Step:
    """A decision on its way into etcd, with the request that it answers."""

    decision: Decision
    undecided: Undecided | None
    txn: Transaction

    @property
    def reservation_id(self) -> str | None:
        if self.decision.resource is not None:
            return self.decision.resource.id
        return None


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
        self._source = source
        self._rules = Rules(by=source, notice=timedelta(minutes=settings.scheduler_notice_minutes))
        self._news: deque[Callable[[], None]] = deque()
        self._wake = asyncio.Event()
        self._dirty: set[str] = set()
        self._looks: dict[str, datetime] = {}
        self._freed = True
        self._gate = 0
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
        """Decides until it is cancelled. The caches must have reached the fence before the first decision."""
        await self._caches.reached(self._fence.create_revision, timeout=_CATCH_UP_SECONDS * 6)
        self._build()
        unsubscribe = [
            self._caches[kind].subscribe(listener)
            for kind, listener in (
                (RESERVATION, self._on_reservation),
                (INSTANCE, self._on_instance),
                (WORKER, self._on_worker),
                (POOL, self._on_pool),
            )
        ]
        log.info("pool taken over", extra={"pool": self.pool, "fence": self._fence.create_revision})
        try:
            while True:
                self._wake.clear()
                try:
                    more = await self._pass()
                except (StoreUnavailable, TimeoutError) as error:
                    log.warning("etcd does not answer: trying again", extra={"pool": self.pool, "cause": str(error)})
                    await asyncio.sleep(0.2)
                    self._build()
                    continue
                if not more:
                    await self._until_due()
        finally:
            for stop in unsubscribe:
                stop()

    async def _until_due(self) -> None:
        """Waits for news, the next moment of interest, or the periodic look at everything."""
        resync = asyncio.ensure_future(asyncio.sleep(self._settings.resync_seconds))
        waits: set[asyncio.Future[Any]] = {resync, asyncio.ensure_future(self._wake.wait())}
        soonest = min(self._looks.values(), default=None)
        if soonest is not None:
            waits.add(asyncio.ensure_future(self._clock.sleep_until(soonest)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if resync.done():
                self._dirty.update(self.state.reservations)
                self._freed = True
        finally:
            for wait in waits:
                wait.cancel()

    async def _pass(self) -> bool:
        """One look at everything that is due; True when there may be more at once."""
        await self._catch_up()
        self._take_news()
        now = self._clock.now()
        due = [name for name, moment in self._looks.items() if moment <= now]
        for name in due:
            del self._looks[name]
            self._dirty.add(name)
        await self._make_room(now)
        decided = await self._decide_inbox()
        await self._step_lives()
        if self._freed:
            self._freed = False
            await self._commit([self._step(d, None) for d in retry_waiting(self.state, self._context())])
        return decided >= self._settings.scheduler_batch_size or bool(self._dirty) or self._freed

    def _context(self) -> Context:
        return Context(
            now=self._clock.now(),
            by=self._source,
            suggestion_horizon=timedelta(days=self._settings.scheduler_suggestion_days),
        )

    # -- knowing ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """The calendar from scratch, from the caches."""
        pool = self._caches[POOL].get(self.pool)
        if pool is None:
            raise LookupError(f"pool {self.pool} is owned but does not exist")
        state = PoolState(pool, self._find_definition)
        self._news.clear()
        now = self._clock.now()
        for worker in self._caches[WORKER].items():
            if worker.spec.pool == self.pool:
                state.put_worker(worker)
        for instance in self._caches[INSTANCE].items():
            if instance.spec.pool == self.pool:
                state.put_instance(instance, now)
        for reservation in self._caches[RESERVATION].items():
            if reservation.status.pool == self.pool:
                state.put_reservation(reservation, now)
        self._state = state
        self._looks.clear()
        self._dirty = set(state.reservations)
        self._freed = True

    async def _catch_up(self) -> None:
        """Waits until the caches have seen the change that moved the pool's gate."""
        gate = await self._store.get(gate_key(self.pool))
        revision = gate.mod_revision if gate is not None else 0
        if revision != self._gate:
            await self._caches.reached(revision, timeout=_CATCH_UP_SECONDS)
            self._gate = revision
            self._freed = True

    def _take_news(self) -> None:
        while self._news:
            self._news.popleft()()

    def _tell(self, news: Callable[[], None]) -> None:
        self._news.append(news)
        self._wake.set()

    def _on_reservation(self, old: Reservation | None, new: Reservation | None, _: int) -> None:
        if new is None:
            if old is not None and old.status.pool == self.pool:
                self._tell(lambda: self.state.remove_reservation(old.id))
        elif new.status.pool == self.pool:

            def take() -> None:
                self.state.put_reservation(new, self._clock.now())
                self._dirty.add(new.id)

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
                self._freed = self._freed or new.is_final
            self._dirty.add(instance.spec.reservation)

        self._tell(take)

    def _on_worker(self, old: Worker | None, new: Worker | None, _: int) -> None:
        worker = new or old
        if worker is None or worker.spec.pool != self.pool:
            return

        def take() -> None:
            if new is None:
                self.state.remove_worker(worker.id)
            else:
                self.state.put_worker(new)
            if old is None or new is None or old.status.phase != new.status.phase or old.spec != new.spec:
                self._freed = True
                self._dirty.update(
                    r.id
                    for r in self.state.reservations.values()
                    if any(seat.worker == worker.id for seat in r.status.placement)
                )

        self._tell(take)

    def _on_pool(self, _: WorkerPool | None, new: WorkerPool | None, __: int) -> None:
        if new is not None and new.id == self.pool:
            self._tell(lambda: self.state.put_pool(new))

    # -- deciding --------------------------------------------------------------------------------------------------

    async def _decide_inbox(self) -> int:
        pending = await self._inbox.pending(self._settings.scheduler_batch_size)
        INBOX_DEPTH.labels(Service.SCHEDULER, self.pool).set(len(pending))
        steps: list[_Step] = []
        for undecided in pending:
            if self._touches(undecided, steps):
                await self._commit(steps)
                steps = []
            began = time.perf_counter()
            steps.append(self._step(await self._decide(undecided), undecided))
            DECIDING.observe(time.perf_counter() - began)
        await self._commit(steps)
        return len(pending)

    @staticmethod
    def _touches(undecided: Undecided, steps: Sequence[_Step]) -> bool:
        """A request about a reservation that an uncommitted step writes must see that step first."""
        target = undecided.request.spec.subject.partition("/")[2]
        return any(step.reservation_id == target for step in steps)

    async def _decide(self, undecided: Undecided) -> Decision:
        request, context = undecided.request, self._context()
        verb = request.spec.type.removeprefix("io.lablet.reservation.").removesuffix(".v1")
        if verb == "requested":
            return decide_requested(self.state, request, context)
        target = request.spec.subject.partition("/")[2]
        reservation = self.state.reservations.get(target) or await self._stored(target)
        if reservation is None or reservation.tenant != request.tenant:
            return refused(
                "unknown-reservation", "Unknown reservation", f"there is no reservation {target}", status=404
            )
        if reservation.status.pool not in (None, self.pool):
            return Decision(reason="OtherPool", hand_on=reservation.status.pool, result="handed-on")
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
        if found is None:
            return None
        reservation = decode(RESERVATION, found)
        assert isinstance(reservation, Reservation)
        return reservation

    async def _step_lives(self) -> None:
        """Moves every reservation that news or the clock touched one step on, and heals what is lost."""
        lead = timedelta(minutes=self._settings.scheduler_lead_time_minutes)
        steps = []
        looked, self._dirty = self._dirty, set()
        for name in looked:
            reservation = self.state.reservations.get(name)
            if reservation is None:
                self._looks.pop(name, None)
                continue
            context = self._context()
            stepped = next_step(reservation, self.state.instances_of(name), context.now, self._rules)
            if stepped is not None:
                freed = stepped.is_final
                steps.append(
                    self._step(Decision(reason=stepped.status.reason or "", resource=stepped, frees=freed), None)
                )
                continue
            moved = heal(self.state, reservation, context, lead)
            if moved is not None:
                steps.append(self._step(moved, None))
                continue
            look = next_look(reservation, context.now, self._rules)
            if look is not None:
                self._looks[name] = look
            else:
                self._looks.pop(name, None)
        await self._commit(steps)

    async def _make_room(self, now: datetime) -> None:
        """Keeps an overrunning lab's seat booked, and moves whom it displaces."""
        for reservation in self.state.overdue(now):
            await self._commit([self._step(d, None) for d in displace(self.state, reservation, self._context())])
            self._looks.setdefault(reservation.id, now + timedelta(minutes=2))

    # -- committing ------------------------------------------------------------------------------------------------

    def _step(self, decision: Decision, undecided: Undecided | None) -> _Step:
        """The transaction of one decision, without fence and gate."""
        txn = Transaction()
        if decision.hand_on is not None:
            assert undecided is not None
            hand_on_in(txn, undecided, Service.SCHEDULER, decision.hand_on)
            return _Step(decision, undecided, txn)
        resource = decision.resource
        if resource is not None:
            if resource.revision:
                update_in(txn, resource)
            else:
                create_in(txn, resource)
        for instance in decision.unchanged:
            unchanged_in(txn, instance)
        for key in decision.absent:
            txn.require_absent(key)
        if undecided is not None:
            envelope: dict[str, Any] = {"at": self._clock.now(), "by": self._source, "resource": resource}
            if decision.problem is not None:
                refuse_in(txn, undecided, problem=decision.problem, **envelope)
            else:
                decide_in(txn, undecided, reason=decision.reason, **envelope)
        return _Step(decision, undecided, txn)

    async def _commit(self, steps: Sequence[_Step]) -> None:
        """Writes the steps, many in one transaction; one that is refused is undone on the calendar and looked at again."""
        for group in _grouped(steps):
            if await self._write(group):
                continue
            for step in group if len(group) > 1 else ():
                if not await self._write([step]):
                    self._undo(step)
            if len(group) == 1:
                self._undo(group[0])

    async def _write(self, group: Sequence[_Step]) -> bool:
        txn = Transaction()
        self._fence.guard(txn)
        txn.require(gate_key(self.pool), mod_revision=self._gate)
        for step in group:
            txn.merge(step.txn)
        try:
            result = await txn.commit(self._store)
        except Conflict as conflict:
            STORE_CONFLICTS.inc()
            if not await self._fence.stands(self._store):
                raise NotOwner(f"pool {self.pool} has another owner") from conflict
            return False
        except OutcomeUnknown:
            # it may have happened: build anew from what etcd says before anything else is decided
            log.warning("a transaction got no answer: reading everything again", extra={"pool": self.pool})
            raise
        for step in group:
            self._done(step, result.revision)
        return True

    def _done(self, step: _Step, revision: int) -> None:
        decision, now = step.decision, self._clock.now()
        if decision.resource is not None:
            committed = decision.resource.at_revision(revision)
            self.state.put_reservation(committed, now)
            self._dirty.add(committed.id)
        self._freed = self._freed or decision.frees
        DECISIONS.labels(decision.result, decision.reason).inc()
        if step.undecided is not None:
            request = step.undecided.request
            latency = self._clock.real_seconds(now - request.spec.received_at)
            DECISION_LATENCY.observe(max(0.0, latency))
            log.info(
                "decided",
                extra={
                    "request": request.id,
                    "reservation": step.reservation_id or request.spec.subject,
                    "result": decision.result,
                    "reason": decision.reason,
                    "pool": self.pool,
                },
            )
        elif decision.resource is not None:
            log.info(
                "moved",
                extra={
                    "reservation": decision.resource.id,
                    "phase": str(decision.resource.phase),
                    "reason": decision.reason,
                    "pool": self.pool,
                },
            )

    def _undo(self, step: _Step) -> None:
        """Takes a refused decision off the calendar and has its reservation looked at again."""
        if step.decision.resource is None:
            return
        name = step.decision.resource.id
        self.state.calendar.release(name)
        self.state.rebook(name, self._clock.now())
        self._dirty.add(name)
        self._freed = True


def _grouped(steps: Iterable[_Step]) -> Iterable[list[_Step]]:
    """Steps that share a transaction: as many as fit, in order."""
    group: list[_Step] = []
    used = 0
    for step in steps:
        size = max(len(step.txn.operations), len(step.txn.compares))
        if group and used + size > _TXN_ROOM:
            yield group
            group, used = [], 0
        group.append(step)
        used += size
    if group:
        yield group
