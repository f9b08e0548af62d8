"""The owner of one pool's machines and labs: three reconcilers that look at workers, reservations and instances.

Each key is looked at by one step at a time, keys side by side; news from the caches, the clock and the periodic resync all
say only "look again". What a step writes is fenced and compared. The next step of a key follows at once; polls are only for
what happens elsewhere without telling.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from uuid import uuid4

from lablet_common.clock import Clock
from lablet_common.objects import ObjectStore, ObjectStoreUnavailable
from lablet_common.ownership import Fence, NotOwner
from lablet_common.reconcile import Again, Reconciler
from lablet_common.resources.artifact import Artifact
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance, InstancePhase, InstanceSpec, InstanceStatus
from lablet_common.resources.kinds import (
    ARTIFACT,
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    TEMPLATE,
    WORKER,
    Kind,
)
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatPlacement, SeatState, Slot
from lablet_common.resources.worker import Worker, WorkerPhase, WorkerPool
from lablet_common.secrets import SecretBox
from lablet_common.store import Conflict, Store, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import create_in, unchanged_in
from lablet_common.store.repository import Repository
from lablet_common.telemetry.metrics import INSTANTIATION, PUNCTUALITY, SCALING, WORKER_HOURS
from lablet_workers.instances.context import Again as LookAgain
from lablet_workers.instances.context import Situation, Times
from lablet_workers.instances.room import Neighbour
from lablet_workers.instances.steps import step as instance_step
from lablet_workers.ledger import Ledger
from lablet_workers.machines.context import Look, Surroundings
from lablet_workers.machines.steps import step as worker_step
from lablet_workers.needs import Wanted, WorkerNeeds, is_live, needs_of, plan_power
from lablet_workers.pools import missing_workers, recordoned, worker_names
from lablet_workers.probe import closed_ports
from lablet_workers.providers.port import Provider, ProviderError
from lablet_workers.runtimes.port import Runtime, RuntimeFault, Runtimes
from lablet_workers.settings import WorkerControllerSettings

log = logging.getLogger("lablet.workers")

_SHORTEST_POLL = 0.1
_LONGEST_POLL = 2.0
_PLACED = (ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE)
_REACHABLE = (WorkerPhase.STARTING, WorkerPhase.LICENSING, WorkerPhase.READY, WorkerPhase.DRAINING)
_BY_RESERVATION = (InstancePhase.PENDING, InstancePhase.INSTANTIATING, InstancePhase.RUNNING, InstancePhase.FAILED)
_UP = (WorkerPhase.READY, WorkerPhase.DRAINING, WorkerPhase.FAILED, WorkerPhase.TERMINATING)


class PoolController:
    """Keeps one pool as its calendar wants it, while it holds the fence."""

    def __init__(
        self,
        pool: str,
        fence: Fence,
        *,
        store: Store,
        caches: Caches,
        clock: Clock,
        settings: WorkerControllerSettings,
        provider: Provider,
        runtimes: Runtimes,
        objects: ObjectStore,
        box: SecretBox,
        source: str,
    ) -> None:
        self.pool = pool
        self._fence = fence
        self._store = store
        self._caches = caches
        self._clock = clock
        self._settings = settings
        self._provider = provider
        self._runtimes = runtimes
        self._objects = objects
        self._box = box
        self._source = source
        self.workers: Ledger[Worker] = Ledger(store, fence, caches[WORKER], pool)
        self.instances: Ledger[Instance] = Ledger(store, fence, caches[INSTANCE], pool)
        self._open: dict[str, tuple[str, Runtime]] = {}
        self._pauses: dict[str, datetime] = {}
        """Instance → not to be stepped before: something has just failed."""
        self._plan: dict[str, Wanted] = {}
        self._replan = asyncio.Event()
        self._worker_queue = Reconciler("workers", self._look_at_worker, clock=clock, concurrency=16)
        self._reservation_queue = Reconciler("reservations", self._look_at_reservation, clock=clock, concurrency=8)
        self._instance_queue = Reconciler("instances", self._look_at_instance, clock=clock, concurrency=32)

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, or until the fence no longer stands."""
        await self._caches.reached(self._fence.create_revision, timeout=60)
        unsubscribe = [
            self._caches[RESERVATION].subscribe(self._on_reservation),
            self._caches[INSTANCE].subscribe(self._on_instance),
            self._caches[WORKER].subscribe(self._on_worker),
            self._caches[ARTIFACT].subscribe(self._on_artifact),
            self._caches[POOL].subscribe(lambda *_: self._replan.set()),
        ]
        log.info("pool taken over", extra={"pool": self.pool, "fence": self._fence.create_revision})
        self._look_at_everything()
        try:
            async with asyncio.TaskGroup() as tasks:
                for queue in (self._worker_queue, self._reservation_queue, self._instance_queue):
                    tasks.create_task(queue.run())
                tasks.create_task(self._keep_planned())
                tasks.create_task(self._resync())
        except* NotOwner as lost:
            raise lost.exceptions[0] from lost
        finally:
            for stop in unsubscribe:
                stop()
            for _, runtime in self._open.values():
                await runtime.close()
            self._open.clear()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        self._replan.set()
        for worker in self._caches[WORKER].items():
            if worker.spec.pool == self.pool:
                self._worker_queue.add(worker.id)
        for instance in self._caches[INSTANCE].items():
            if instance.spec.pool == self.pool and not instance.is_final:
                self._instance_queue.add(instance.id)
        for reservation in self._caches[RESERVATION].items():
            if reservation.status.pool == self.pool and not reservation.is_final:
                self._reservation_queue.add(reservation.id)

    # -- news ------------------------------------------------------------------------------------------------------

    def _on_reservation(self, old: Reservation | None, new: Reservation | None, _: int) -> None:
        reservation = new or old
        if reservation is None or reservation.status.pool != self.pool:
            return
        self._replan.set()
        self._reservation_queue.add(reservation.id)
        for seat in reservation.status.placement:
            if self.instances.get(seat.instance) is not None:
                self._instance_queue.add(seat.instance)

    def _on_instance(self, old: Instance | None, new: Instance | None, _: int) -> None:
        instance = new or old
        if instance is None or instance.spec.pool != self.pool:
            return
        self._instance_queue.add(instance.id)
        now = self._clock.now()
        if old is None or new is None or is_live(old, now) != is_live(new, now) or new.is_final:
            self._replan.set()
            self._worker_queue.add(instance.spec.worker)

    def _on_worker(self, old: Worker | None, new: Worker | None, _: int) -> None:
        worker = new or old
        if worker is None or worker.spec.pool != self.pool:
            return
        self._worker_queue.add(worker.id)
        if old is None or new is None or old.status.phase != new.status.phase or old.spec != new.spec:
            self._replan.set()
            for instance in self._instances_on(worker.id):
                self._instance_queue.add(instance.id)

    def _on_artifact(self, old: Artifact | None, new: Artifact | None, _: int) -> None:  # noqa: ARG002 - a listener
        for reference in new.status.references if new is not None else ():
            kind, _slash, name = reference.subject.partition("/")
            if kind == INSTANCE.name and self._caches[INSTANCE].get(name) is not None:
                self._instance_queue.add(name)

    # -- power -----------------------------------------------------------------------------------------------------

    async def _keep_planned(self) -> None:
        """Works out every worker's wanted power when something changed, and has those looked at whose answer did."""
        while True:
            await self._replan.wait()
            self._replan.clear()
            pool = self._pool()
            if pool is None:
                continue
            await self._make_workers(pool)
            await self._fit_workers(pool)
            plan = self._planned(pool, self._caches[RESERVATION].items())
            for name, wanted in plan.items():
                if self._plan.get(name) != wanted:
                    self._worker_queue.add(name)
            self._plan = plan

    async def _make_workers(self, pool: WorkerPool) -> None:
        template = self._caches[TEMPLATE].get(pool.spec.template)
        if template is None:
            log.error("a pool names a template that does not exist", extra={"pool": pool.id})
            return
        known = {worker.id for worker in self._caches[WORKER].items()}
        for worker in missing_workers(pool, template, known, self._clock.now()):
            try:
                await self.workers.commit(worker, gate=True)
            except Conflict as conflict:
                await self._still_owner(conflict)

    async def _fit_workers(self, pool: WorkerPool) -> None:
        """Cordons the workers beyond the pool's size, and takes away the records of those that nothing needs any more."""
        for cached in self._caches[WORKER].items():
            worker = self.workers.get(cached.id)
            if worker is None or worker.spec.pool != self.pool:
                continue
            changed = recordoned(worker, pool, self._source)
            try:
                if changed is not None:
                    await self.workers.commit(changed, gate=True)
                elif await self._is_left_over(worker, pool):
                    await self.workers.forget(worker)
            except Conflict as conflict:
                await self._still_owner(conflict)
                self._replan.set()

    async def _is_left_over(self, worker: Worker, pool: WorkerPool) -> bool:
        """A surplus worker that is off and booked by nobody; the bookings are read after its cordon has moved the gate."""
        if worker.id in worker_names(pool) or worker.status.phase is not WorkerPhase.OFFLINE:
            return False
        if worker.status.machine is not None or self._instances_on(worker.id):
            return False
        reservations: Repository[Reservation] = Repository(self._store, RESERVATION)
        booked = (
            seat.worker for r in (await reservations.list()).items if r.holds_capacity for seat in r.status.placement
        )
        return worker.id not in booked

    def _planned(self, pool: WorkerPool, reservations: list[Reservation]) -> dict[str, Wanted]:
        now = self._clock.now()
        instances = [i for i in self._caches[INSTANCE].items() if i.spec.pool == self.pool]
        ended = {i.id for i in instances if i.is_final and i.status.history[-1].at < i.spec.end}
        needs = needs_of((r for r in reservations if r.status.pool == self.pool), pool.spec, ended)
        busy = {i.spec.worker for i in instances if is_live(self.instances.get(i.id) or i, now)}
        minutes = self._settings.controller_scale_down_grace_period_minutes
        grace = timedelta(minutes=pool.spec.scale_down_grace_minutes if minutes is None else minutes)
        workers = [
            WorkerNeeds(worker, needs.get(worker.id, ()), worker.id in busy)
            for cached in self._caches[WORKER].items()
            if cached.spec.pool == self.pool and (worker := self.workers.get(cached.id)) is not None
        ]
        return plan_power(pool.spec, workers, now, grace)

    async def _look_at_worker(self, name: str) -> Again | None:
        worker = self.workers.get(name)
        pool = self._pool()
        if worker is None or pool is None:
            return None
        wanted = self._planned(pool, await self._reservations(worker)).get(name, Wanted(False, "no-need"))
        busy = any(is_live(instance, self._clock.now()) for instance in self._instances_on(name))
        try:
            outcome = await worker_step(worker, wanted, busy, self._surroundings(worker))
        except (ProviderError, RuntimeFault) as error:
            log.warning("a worker's step failed", extra={"worker": name, "cause": str(error)})
            return self._again(self._poll * 4)
        if isinstance(outcome, Look):
            return self._again(outcome.after)
        try:
            committed = await self.workers.commit(outcome.worker, gate=outcome.gate)
        except Conflict as conflict:
            await self._still_owner(conflict)
            return self._again(timedelta(0))
        self._tell_of_worker(worker, committed)
        self._worker_queue.add(name)
        return None

    async def _reservations(self, worker: Worker) -> list[Reservation]:
        """All reservations; read linearizably when a power-off has been marked and is to be carried out or undone."""
        if worker.status.phase is not WorkerPhase.DRAINING:
            return self._caches[RESERVATION].items()
        repository: Repository[Reservation] = Repository(self._store, RESERVATION)
        return list((await repository.list()).items)

    def _surroundings(self, worker: Worker) -> Surroundings:
        settings = self._settings
        return Surroundings(
            provider=self._provider,
            runtime=self._runtime(worker) if worker.status.phase in (*_REACHABLE, *_UP) else None,
            clock=self._clock,
            by=self._source,
            box=self._box,
            default_password=settings.cml.password.get_secret_value() if settings.cml.password else "admin",
            license_token=settings.cml.license_token.get_secret_value() if settings.cml.license_token else "simulated",
            poll=self._poll,
            probe=timedelta(seconds=settings.controller_probe_seconds * self._clock.speed),
            unknown=timedelta(minutes=settings.controller_unknown_minutes),
            stop=timedelta(minutes=settings.controller_stop_minutes),
        )

    def _runtime(self, worker: Worker) -> Runtime | None:
        """The open connection to a worker's runtime; a new one when its address or password has changed."""
        address, sealed = worker.status.address, worker.status.credentials
        if address is None or sealed is None:
            return None
        identity = f"{address} {sealed}"
        known = self._open.get(worker.id)
        if known is None or known[0] != identity:
            password = self._box.open(sealed, f"worker/{worker.id}")
            self._open[worker.id] = known = (identity, self._runtimes.open(address, password))
        return known[1]

    def _tell_of_worker(self, before: Worker, after: Worker) -> None:
        if before.status.phase is not after.status.phase:
            log.info(
                "worker moved",
                extra={"worker": after.id, "phase": str(after.phase), "reason": after.status.reason, "pool": self.pool},
            )
        scaling = after.status.scaling
        if scaling is not None and scaling != before.status.scaling and scaling.state == "decided":
            SCALING.labels(scaling.direction, scaling.rule).inc()
        machine = before.status.machine
        ended = after.status.phase is WorkerPhase.OFFLINE and before.status.phase is not WorkerPhase.OFFLINE
        if ended and machine is not None:
            hours = (self._clock.now() - machine.launched_at) / timedelta(hours=1)
            WORKER_HOURS.labels(self.pool).inc(max(0.0, hours))

    # -- reservations become instances -----------------------------------------------------------------------------

    async def _look_at_reservation(self, name: str) -> Again | None:
        reservation = self._caches[RESERVATION].get(name)
        if reservation is None or reservation.status.pool != self.pool or reservation.status.phase not in _PLACED:
            return None
        slot, now = reservation.slot, self._clock.now()
        if slot is None or now >= slot.end:
            return None
        due = slot.start - timedelta(minutes=self._settings.scheduler_lead_time_minutes)
        if now < due:
            return self._again(due - now)
        seats = [
            seat
            for seat in reservation.status.placement
            if seat.state is SeatState.PLACED and self.instances.get(seat.instance) is None
        ]
        for at in range(0, len(seats), 50):
            await self._make_instances(reservation, slot, seats[at : at + 50])
        return None

    async def _make_instances(self, reservation: Reservation, slot: Slot, seats: list[SeatPlacement]) -> None:
        """In one transaction that compares the reservation as it was read and the absence of each instance."""
        txn = Transaction()
        self._fence.guard(txn)
        unchanged_in(txn, reservation)
        for seat in seats:
            create_in(txn, self._new_instance(reservation, slot, seat))
        try:
            await txn.commit(self._store)
        except Conflict as conflict:
            await self._still_owner(conflict)
            self._reservation_queue.add(reservation.id)

    def _new_instance(self, reservation: Reservation, slot: Slot, seat: SeatPlacement) -> Instance:
        meta = reservation.metadata
        user = next((entry.user for entry in reservation.spec.roster if entry.seat == seat.seat), meta.owner)
        return Instance(
            metadata=Metadata(
                id=seat.instance,
                uid=str(uuid4()),
                tenant=meta.tenant,
                owner=user,
                labels=meta.labels,
                created_at=self._clock.now(),
                finalizers=("archive",),
                correlation_id=meta.correlation_id,
                trace_parent=meta.trace_parent,
            ),
            spec=InstanceSpec(
                reservation=reservation.id,
                seat=seat.seat,
                definition=reservation.spec.definition,
                pool=self.pool,
                worker=seat.worker,
                ports=seat.ports,
                start=slot.start,
                end=slot.end,
            ),
            status=InstanceStatus(phase=InstancePhase.PENDING, attempt=seat.attempt),
        ).observed("pending")

    # -- instances -------------------------------------------------------------------------------------------------

    async def _look_at_instance(self, name: str) -> Again | None:
        instance = self.instances.get(name)
        if instance is None or instance.spec.pool != self.pool:
            return None
        pause = self._pauses.get(name)
        if pause is not None and self._clock.now() < pause:
            return Again.at(pause)
        self._pauses.pop(name, None)
        situation = self._situation(instance)
        try:
            outcome = await instance_step(situation)
        except (RuntimeFault, ObjectStoreUnavailable) as error:
            # the phase's deadline leads on if this does not end
            log.warning("an instance's step failed", extra={"instance": name, "cause": str(error)})
            self._pauses[name] = self._clock.now() + self._poll * 4
            return Again.at(self._pauses[name])
        if outcome is None:
            return None
        if isinstance(outcome, LookAgain):
            return self._again(outcome.after)
        if outcome.status.tries > instance.status.tries:
            self._pauses[name] = self._clock.now() + self._poll * 4
        try:
            committed = await self.instances.commit(outcome, also=_resting_on(situation, outcome))
        except Conflict as conflict:
            await self._still_owner(conflict)
            return self._again(timedelta(0))
        self._tell_of_instance(instance, committed)
        self._instance_queue.add(name)
        return None

    def _situation(self, instance: Instance) -> Situation:
        settings, poll, pool = self._settings, self._poll, self._pool()
        worker = self.workers.get(instance.spec.worker)
        reachable = worker is not None and worker.status.phase in _UP
        return Situation(
            instance=instance,
            reservation=self._caches[RESERVATION].get(instance.spec.reservation),
            worker=worker,
            definition=self._definition(instance),
            artifacts=self._caches[ARTIFACT].by("subject", f"{INSTANCE.name}/{instance.id}"),
            runtime=self._runtime(worker) if worker is not None and reachable else None,
            objects=self._objects,
            clock=self._clock,
            by=self._source,
            times=Times(
                poll=poll,
                instantiation=timedelta(minutes=settings.controller_instantiation_minutes),
                collect=timedelta(minutes=settings.controller_collect_minutes),
                grade=timedelta(minutes=settings.controller_grade_minutes),
                stop=timedelta(minutes=settings.controller_stop_minutes),
            ),
            tries=settings.controller_tries,
            closed_ports=self._closed_ports,
            neighbours=[self._neighbour(other) for other in self._instances_on(instance.spec.worker)],
            preparation=timedelta(minutes=pool.spec.preparation_minutes if pool is not None else 0),
        )

    def _neighbour(self, other: Instance) -> Neighbour:
        definition = self._definition(other)
        return Neighbour(other, definition.spec.requirements if definition is not None else None)

    async def _closed_ports(self, host: str, ports: dict[str, int]) -> dict[str, str]:
        return await closed_ports(host, ports, self._settings.controller_port_seconds)

    def _definition(self, instance: Instance) -> Definition | None:
        cache = self._caches[DEFINITION]
        found: Definition | None = cache.get(instance.spec.definition, instance.tenant) or cache.get(
            instance.spec.definition, "public"
        )
        return found

    def _tell_of_instance(self, before: Instance, after: Instance) -> None:
        if before.status.phase is after.status.phase:
            return
        log.info(
            "instance moved",
            extra={
                "instance": after.id,
                "phase": str(after.phase),
                "reason": after.status.reason,
                "worker": after.spec.worker,
                "pool": self.pool,
            },
        )
        if after.status.phase is InstancePhase.RUNNING and not before.status.ran:
            now = self._clock.now()
            PUNCTUALITY.observe((now - after.spec.start).total_seconds())
            INSTANTIATION.observe((now - after.metadata.created_at).total_seconds())

    # -- shared ----------------------------------------------------------------------------------------------------

    def _pool(self) -> WorkerPool | None:
        return self._caches[POOL].get(self.pool)

    def _instances_on(self, worker: str) -> list[Instance]:
        found = self._caches[INSTANCE].by("worker", worker)
        return [self.instances.get(cached.id) or cached for cached in found]

    @property
    def _poll(self) -> timedelta:
        """The interval for what is under way elsewhere, in lab time, kept within sane bounds of real time."""
        real = self._clock.real_seconds(timedelta(minutes=self._settings.controller_poll_minutes))
        return timedelta(seconds=min(max(real, _SHORTEST_POLL), _LONGEST_POLL) * self._clock.speed)

    def _again(self, lab: timedelta) -> Again:
        return Again.at(self._clock.now() + lab)

    async def _still_owner(self, conflict: Conflict) -> None:
        """After a refused write: somebody else was first, or is the owner now. The caches bring the news."""
        if not await self._fence.stands(self._store):
            raise NotOwner(f"pool {self.pool} has another owner") from conflict
        await self._caches.reached(conflict.revision)


def _resting_on(situation: Situation, outcome: Instance) -> Transaction:
    """What the step was decided from and another service owns: a lab is started, ended or moved only for its reservation
    as it was read."""
    txn = Transaction()
    before = situation.instance
    decided = before.status.phase in _BY_RESERVATION and before.status.phase is not outcome.status.phase
    if situation.reservation is not None and (decided or before.spec != outcome.spec):
        unchanged_in(txn, situation.reservation)
    return txn


def add_indexes(caches: Caches) -> None:
    """What the controllers find by something else than the id."""
    caches[ARTIFACT].add_index("subject", lambda a: [reference.subject for reference in a.status.references])
    caches[INSTANCE].add_index("worker", lambda i: [i.spec.worker])


CACHED: tuple[Kind, ...] = (RESERVATION, INSTANCE, WORKER, POOL, TEMPLATE, DEFINITION, ARTIFACT)
"""The kinds that a controller needs at hand."""
