"""The machines of a pool: how many records there are, which of them should be on, and one step of one of them at a time."""

import asyncio
import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from lablet_common.process_lab import RUNTIME
from lablet_common.reconcile import Again
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, RESERVATION, TEMPLATE, WORKER
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import PoolSpec, Scaling, Worker, WorkerPhase, WorkerPool
from lablet_common.store import Conflict, Transaction
from lablet_common.store.cache import Cache
from lablet_common.store.changes import update_in
from lablet_common.store.repository import Repository
from lablet_common.telemetry.metrics import SCALING, WORKER_HOURS
from lablet_common.telemetry.spans import Phases
from lablet_workers.agents.leases import Presence
from lablet_workers.bookings import Bookings
from lablet_workers.estate import Estate
from lablet_workers.handlers import replaced
from lablet_workers.licences import Licences
from lablet_workers.machines.context import Look, Outcome, Surroundings, with_hold, with_refusal
from lablet_workers.machines.steps import step as worker_step
from lablet_workers.needs import Need, Wanted, WorkerNeeds, by_calendar, is_live, needs_of, plan_power, seats_of
from lablet_workers.pools import is_surplus, missing_workers, recordoned
from lablet_workers.providers.port import ProviderError
from lablet_workers.rollout import next_turn
from lablet_workers.runtimes.port import RuntimeFault

log = logging.getLogger("lablet.workers")

_ANSWERING = (
    WorkerPhase.STARTING,
    WorkerPhase.LICENSING,
    WorkerPhase.READY,
    WorkerPhase.DRAINING,
    WorkerPhase.FAILED,
    WorkerPhase.TERMINATING,
)
"""Phases in which the runtime may be spoken to."""
_COMING_UP = (WorkerPhase.PROVISIONING, WorkerPhase.STARTING, WorkerPhase.LICENSING)
_SLOW_SECONDS = 0.002
_REST = 4.0
"""After planning that took longer than that, changes are collected for so many times as long: a busy calendar of
thousands of bookings is planned for many of them together, and the loop stays free for the labs."""


_AT_ONCE = 100
"""Reservations that are entered anew before others have their turn: a millisecond."""


class _EndedEarly(Container[str]):
    """The instances that ended before their slot did."""

    def __init__(self, instances: Cache[Instance]) -> None:
        self._instances = instances

    def __contains__(self, name: object) -> bool:
        instance = self._instances.get(str(name))
        return instance is not None and instance.is_final and instance.status.history[-1].at < instance.spec.end


class Fleet:
    """Keeps a pool's machines as its calendar wants them. `look_at_worker` is what a queue calls for each worker; `wake`
    puts one into that queue."""

    def __init__(self, estate: Estate, wake: Callable[[str], None], presence: Presence | None = None) -> None:
        self._estate = estate
        self._presence = presence
        self._wake = wake
        self._plan: dict[str, Wanted] = {}
        self._bookings = Bookings()
        self._booked_for: PoolSpec | None = None
        """The pool with whose preparation and turnaround the bookings were entered; None: they have yet to be."""
        self._rebooked: set[str] = set()
        """Workers whose needs have changed since the plan was made."""
        self._outlooks: dict[str, tuple[Wanted, Need | None]] = {}
        """What each worker's own calendar said when the plan was made."""
        self._shaken = True
        """Something else than needs has changed since then."""
        self._latest: dict[str, Wanted] = {}
        self._rest_until = 0.0
        """Until then (monotonic) the latest plan will do."""
        self._replan = asyncio.Event()
        self._phases = Phases()
        self._licenses_seen: dict[str, datetime] = {}
        """Worker → when its licence was looked at last."""
        self._licences = Licences()

    def close(self) -> None:
        """The term is over: what is under way is somebody else's now."""
        self._phases.leave_all()

    def replan(self) -> None:
        """Something changed that the wanted power depends on."""
        self._shaken = True
        self._replan.set()

    async def recount(self) -> None:
        """All bookings are entered anew, whatever was told of them, and with a turn for others now and then."""
        names = {one.id for one in self._estate.caches[RESERVATION].items()} | self._bookings.reservations
        for number, name in enumerate(names, 1):
            self.rebook(name)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def rebook(self, name: str) -> None:
        """A reservation, or an instance of it, is another now: the needs that came of it are entered anew."""
        if self._booked_for is None:
            return
        changed = self._enter(name, self._estate.caches[RESERVATION].get(name), self._booked_for)
        if changed:
            self._rebooked |= changed
            self._replan.set()

    async def keep_planned(self) -> None:
        """Works out every worker's wanted power when something changed, and has those looked at whose answer did."""
        while True:
            await self._replan.wait()
            self._replan.clear()
            pool = self._estate.pool_record
            if pool is None:
                continue
            if not self._shaken and not self._moved(pool):
                continue
            self._shaken = False
            await self._make_workers(pool)
            await self._fit_workers(pool)
            await self._roll_on(pool)
            began = time.monotonic()
            self._rebooked.clear()
            workers = self._workers(pool, self._needs(pool))
            plan = self._planned(pool, workers)
            self._outlooks = {one.worker.id: self._outlook(pool, one) for one in workers}
            self._remember(plan, time.monotonic() - began)
            for name, wanted in plan.items():
                if self._plan.get(name) != wanted:
                    self._wake(name)
            self._plan = plan
            await self._rest()

    def _moved(self, pool: WorkerPool) -> bool:
        """Whether workers whose needs have changed look forward to something else than the plan was made for. Most bookings
        lie weeks ahead, behind others."""
        rebooked, self._rebooked = self._rebooked, set()
        needs, busy = self._needs(pool), self._busy(self._estate.clock.now())
        for name in rebooked:
            worker = self._estate.workers.get(name)
            if worker is None or is_surplus(worker, pool):
                return True
            one = WorkerNeeds(worker, needs.get(name, ()), name in busy)
            if self._outlook(pool, one) != self._outlooks.get(name):
                return True
        return False

    def _outlook(self, pool: WorkerPool, one: WorkerNeeds) -> tuple[Wanted, Need | None]:
        now = self._estate.clock.now()
        return by_calendar(one, now, self._grace(pool), pool.spec), one.next_need(now)

    def _remember(self, plan: dict[str, Wanted], seconds: float) -> None:
        self._latest = plan
        self._rest_until = time.monotonic() + _REST * seconds if seconds > _SLOW_SECONDS else 0.0

    async def _rest(self) -> None:
        left = self._rest_until - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)

    async def _make_workers(self, pool: WorkerPool) -> None:
        template = self._estate.caches[TEMPLATE].get(pool.spec.template)
        if template is None:
            log.error("a pool names a template that does not exist", extra={"pool": pool.id})
            return
        known = {worker.id for worker in self._estate.caches[WORKER].items()}
        for worker in missing_workers(pool, template, known, self._estate.clock.now()):
            try:
                await self._estate.workers.commit(worker, gate=True)
            except Conflict as conflict:
                await self._estate.still_owner(conflict)

    async def _fit_workers(self, pool: WorkerPool) -> None:
        """Cordons the workers beyond the pool's size, takes back cordons whose time is over, and takes away the records of
        those that nothing needs any more."""
        for cached in self._estate.caches[WORKER].items():
            worker = self._estate.workers.get(cached.id)
            if worker is None or worker.spec.pool != self._estate.pool:
                continue
            changed = recordoned(worker, pool, self._estate.source, self._estate.clock.now())
            try:
                if changed is not None:
                    await self._estate.workers.commit(changed, gate=True)
                elif await self._is_left_over(worker, pool):
                    await self._estate.workers.forget(worker)
            except Conflict as conflict:
                await self._estate.still_owner(conflict)
                self.replan()

    async def _roll_on(self, pool: WorkerPool) -> None:
        """Asks the next worker of a rolling replacement, where its budget leaves one, in one transaction with the note that
        it was asked. That note brings the next look."""
        now = self._estate.clock.now()
        busy = {instance.spec.worker for instance in self._estate.instances_here() if is_live(instance, now)}
        turn = next_turn(pool, self._estate.workers_here(), busy, now)
        if turn is None:
            return
        try:
            if turn.worker is None:
                await self._estate.pools.commit(turn.pool)
                return
            patience = timedelta(minutes=self._estate.template_of(turn.worker).spec.drain_timeout_minutes)
            marked = replaced(turn.worker, turn.asked, turn.by, now, patience)
            note = Transaction()
            update_in(note, turn.pool)
            await self._estate.workers.commit(marked, gate=True, also=note)
        except ProviderError as error:
            log.warning("a replacement cannot be booked", extra={"pool": pool.id, "cause": str(error)})
        except Conflict as conflict:
            await self._estate.still_owner(conflict)
            self.replan()

    async def _is_left_over(self, worker: Worker, pool: WorkerPool) -> bool:
        """A surplus worker that is off and booked by nobody; the bookings are read after its cordon has moved the gate."""
        if not is_surplus(worker, pool) or worker.status.phase is not WorkerPhase.OFFLINE:
            return False
        if worker.status.machine is not None or self._estate.is_named(worker.id):
            return False
        if self._needs(pool).get(worker.id):
            return False  # all reservations are read for those alone of which the caches know nothing
        booked = (seat.worker for r in await self._reservations() if r.holds_capacity for seat in r.status.placement)
        return worker.id not in booked

    def _needs(self, pool: WorkerPool) -> Mapping[str, Sequence[Need]]:
        """The calendar by worker, as the caches know it."""
        if self._booked_for is None or _spans(self._booked_for) != _spans(pool.spec):
            self._booked_for, self._bookings = pool.spec, Bookings()
            for reservation in self._estate.caches[RESERVATION].items():
                self._enter(reservation.id, reservation, pool.spec)
        return self._bookings.needs

    def _enter(self, name: str, reservation: Reservation | None, spec: PoolSpec) -> set[str]:
        if reservation is None or reservation.status.pool != self._estate.pool:
            return self._bookings.enter(name)
        return self._bookings.enter(name, seats_of(reservation, spec, _EndedEarly(self._estate.caches[INSTANCE])))

    def _grace(self, pool: WorkerPool) -> timedelta:
        minutes = self._estate.settings.controller_scale_down_grace_period_minutes
        return timedelta(minutes=pool.spec.scale_down_grace_minutes if minutes is None else minutes)

    def _busy(self, now: datetime) -> set[str]:
        """Workers with instances that hold something on them."""
        return {instance.spec.worker for instance in self._estate.instances_here() if is_live(instance, now)}

    def _workers(self, pool: WorkerPool, needs: Mapping[str, Sequence[Need]]) -> list[WorkerNeeds]:
        """Those of the pool, each with its part of the calendar."""
        busy = self._busy(self._estate.clock.now())
        return [
            WorkerNeeds(worker, needs.get(worker.id, ()), worker.id in busy)
            for cached in self._estate.caches[WORKER].items()
            if cached.spec.pool == pool.id and (worker := self._estate.workers.get(cached.id)) is not None
        ]

    def _planned(self, pool: WorkerPool, workers: Sequence[WorkerNeeds]) -> dict[str, Wanted]:
        return plan_power(pool.spec, workers, self._estate.clock.now(), self._grace(pool)) | {
            one.worker.id: self._wanted_of_agent(one) for one in workers if one.worker.spec.runtime == RUNTIME
        }

    def _wanted_of_agent(self, one: WorkerNeeds) -> Wanted:
        """Its host comes and goes by itself: what is there is used. Replaced, it is given up once: its agent begins anew."""
        worker = one.worker
        if worker.spec.replacing is not None and not one.busy:
            return Wanted(False, "replacement")
        here = worker.is_on or (self._presence is not None and self._presence.has(worker.id))
        return Wanted(here, "agent")

    async def look_at_worker(self, name: str) -> Again | None:
        await self._estate.let_go(name)
        worker = self._estate.workers.get(name)
        pool = self._estate.pool_record
        if worker is None or pool is None:
            self._phases.leave(f"worker/{name}")
            return None
        wanted = await self._wanted(worker, pool)
        busy = any(is_live(instance, self._estate.clock.now()) for instance in self._estate.instances_on(name))
        words = {"lablet.worker.id": name, "lablet.pool": pool.id}
        now = self._estate.clock.now()
        refusal: ProviderError | None = None
        try:
            with self._phases.within(f"worker/{name}", str(worker.phase), self._told_to(worker), words):
                outcome = await worker_step(worker, wanted, busy, self._surroundings(worker, pool))
        except (ProviderError, RuntimeFault) as error:
            log.warning("a worker's step failed", extra={"worker": name, "cause": str(error)})
            outcome = Look(self._estate.poll * 4)
            if not isinstance(error, ProviderError) or not error.lasts:
                return self._estate.again(outcome.after)
            refusal = error
        except Conflict as conflict:
            await self._estate.still_owner(conflict)  # a lease that a former owner may not begin
            return self._estate.again(timedelta(0))
        if isinstance(outcome, Look):
            noted = with_refusal(worker, refusal, now)
            if noted is None and self._licences.in_doubt(worker):  # written over, so that it cannot come any more
                noted = worker.observed(scaling=Scaling(direction="held", rule=wanted.rule, at=now))
            if noted is None:
                return self._estate.again(outcome.after)
            outcome = Outcome(noted)
        elif not self._licences.claim(worker, outcome.worker, pool.spec, self._estate.workers_here()):
            held = with_hold(worker, Wanted(False, "licenses"), now)
            if held is None:
                return self._estate.again(self._estate.poll)
            outcome = Outcome(held)
        try:
            committed = await self._estate.workers.commit(outcome.worker, gate=outcome.gate)
        except Conflict as conflict:
            await self._estate.still_owner(conflict)
            return self._estate.again(timedelta(0))
        self._tell_of_worker(worker, committed)
        self._wake(name)
        if committed.status.phase is not WorkerPhase.READY:  # in no other phase is it asked whether it is there
            await self._estate.pulse.end(name)
        return None

    def _told_to(self, worker: Worker) -> Iterator[str | None]:
        """Whose stories a worker's phase belongs to: while it comes up, those of the reservations that it comes up for."""
        yield worker.metadata.trace_parent
        if worker.status.phase not in _COMING_UP:
            return
        booked = [
            (slot.start, reservation.metadata.trace_parent)
            for reservation in self._estate.caches[RESERVATION].by("worker", worker.id)
            if not reservation.is_final and (slot := reservation.slot) is not None
        ]
        first = min((start for start, _ in booked), default=None)
        yield from (origin for start, origin in booked if start == first)

    async def _wanted(self, worker: Worker, pool: WorkerPool) -> Wanted:
        """What the plan says of one worker. Where planning is slow, the latest will do: the next one wakes whoever it
        changes. A power-off that has been marked is judged by the calendar as it is now."""
        if worker.status.phase is WorkerPhase.DRAINING:
            here = [r for r in await self._reservations() if r.status.pool == pool.id]
            needs = needs_of(here, pool.spec, _EndedEarly(self._estate.caches[INSTANCE]))
            plan = self._planned(pool, self._workers(pool, needs))
        elif time.monotonic() < self._rest_until:
            plan = self._latest
        else:
            began = time.monotonic()
            plan = self._planned(pool, self._workers(pool, self._needs(pool)))
            self._remember(plan, time.monotonic() - began)
            if plan != self._plan:
                self.replan()  # the clock has changed what others should do
        return plan.get(worker.id, Wanted(False, "no-need"))

    async def _reservations(self) -> Sequence[Reservation]:
        """All reservations, read linearizably."""
        reservations: Repository[Reservation] = Repository(
            self._estate.store, RESERVATION, self._estate.caches[RESERVATION].known
        )
        return (await reservations.list()).items

    def _surroundings(self, worker: Worker, pool: WorkerPool) -> Surroundings:
        settings = self._estate.settings
        return Surroundings(
            provider=self._estate.provider_of(worker, pool),
            order=partial(self._estate.order_of, worker),
            pool=pool,
            runtime=self._estate.runtime_of(worker) if worker.status.phase in _ANSWERING else None,
            clock=self._estate.clock,
            by=self._estate.source,
            box=self._estate.box,
            default_password=settings.cml.password.get_secret_value() if settings.cml.password else "admin",
            license_token=self._estate.license_token_of(worker),
            poll=self._estate.poll,
            probe=timedelta(seconds=settings.controller_probe_seconds * self._estate.clock.speed),
            unknown=timedelta(minutes=settings.controller_unknown_minutes),
            stop=timedelta(minutes=settings.controller_stop_minutes),
            pulse=self._estate.pulse,
            license_due=self._license_due(worker),
            retired=self._is_retired(worker, pool),
        )

    def _license_due(self, worker: Worker) -> bool:
        """Now and then, for a worker that is Ready."""
        if worker.status.phase is not WorkerPhase.READY:
            self._licenses_seen.pop(worker.id, None)
            return False
        now = self._estate.clock.now()
        interval = timedelta(minutes=self._estate.settings.controller_license_minutes)
        if now - self._licenses_seen.setdefault(worker.id, now) < interval:
            return False
        self._licenses_seen[worker.id] = now
        return True

    def _is_retired(self, worker: Worker, pool: WorkerPool) -> bool:
        if not is_surplus(worker, pool) or worker.status.phase is not WorkerPhase.OFFLINE:
            return False
        now = self._estate.clock.now()
        if any(need.end > now for need in self._needs(pool).get(worker.id, ())):
            return False
        return all(instance.is_final for instance in self._estate.instances_on(worker.id))

    def _tell_of_worker(self, before: Worker, after: Worker) -> None:
        if before.status.phase is not after.status.phase:
            failed = after.status.phase is WorkerPhase.FAILED
            self._phases.leave(f"worker/{after.id}", after.status.reason, failed=failed)
            log.info(
                "worker moved",
                extra={
                    "worker": after.id,
                    "phase": str(after.phase),
                    "reason": after.status.reason,
                    "pool": self._estate.pool,
                },
            )
        scaling = after.status.scaling
        if scaling is not None and scaling != before.status.scaling and scaling.state == "decided":
            SCALING.labels(scaling.direction, scaling.rule).inc()
            log.info(
                "power decided",
                extra={
                    "worker": after.id,
                    "direction": scaling.direction,
                    "reason": scaling.rule,
                    "pool": self._estate.pool,
                },
            )
        machine = before.status.machine
        ended = after.status.phase is WorkerPhase.OFFLINE and before.status.phase is not WorkerPhase.OFFLINE
        if ended and machine is not None:
            hours = (self._estate.clock.now() - machine.launched_at) / timedelta(hours=1)
            WORKER_HOURS.labels(self._estate.pool).inc(max(0.0, hours))


def _spans(spec: PoolSpec) -> tuple[int, int]:
    """What of a pool needs depend on."""
    return spec.preparation_minutes, spec.turnaround_minutes
