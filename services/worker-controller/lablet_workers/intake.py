"""What the worker-controller is asked for, looked up and decided: the present state for the pure decisions of `handlers`.

Shard `<pool>` holds what concerns a pool's workers and instances, shard `-` what concerns pools and templates.
"""

from datetime import timedelta

from lablet_common.clock import Clock
from lablet_common.intake import Decision, refused, target_of, verb_of
from lablet_common.requests import Inbox, Undecided
from lablet_common.resources.definition import FROM_RUNNING, Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import DEFINITION, INSTANCE, POOL, RESERVATION, TEMPLATE, WORKER, Service
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate
from lablet_common.store import Store
from lablet_common.store.repository import Repository
from lablet_workers.agents.registration import decide_registration
from lablet_workers.assessment import decide_assessment
from lablet_workers.fleet_handlers import decide_pool, decide_template, unknown
from lablet_workers.handlers import decide_instance, decide_worker

CENTRAL = "-"
_DRAIN_MINUTES = 240


class Desk:
    """Decides from linearizable reads."""

    def __init__(self, store: Store, clock: Clock, source: str) -> None:
        self._store = store
        self._clock = clock
        self._source = source
        self._workers: Repository[Worker] = Repository(store, WORKER)
        self._instances: Repository[Instance] = Repository(store, INSTANCE)
        self._pools: Repository[WorkerPool] = Repository(store, POOL)
        self._definitions: Repository[Definition] = Repository(store, DEFINITION)
        self._reservations: Repository[Reservation] = Repository(store, RESERVATION)
        self._templates: Repository[WorkerTemplate] = Repository(store, TEMPLATE)

    async def decide(self, undecided: Undecided) -> Decision:
        """The outcome of one request, from what is true now."""
        kind, _ = verb_of(undecided)
        match kind:
            case WORKER.name:
                return await self._worker(undecided)
            case INSTANCE.name:
                return await self._instance(undecided)
            case "assessment":
                return await self._assessment(undecided)
            case POOL.name:
                return await self._pool(undecided)
            case TEMPLATE.name:
                return await self._template(undecided)
            case _:
                said = f"{undecided.request.spec.type} is not known here"
                return refused("unknown-intent", "Unknown intent", said, 422)

    async def _worker(self, undecided: Undecided) -> Decision:
        name = target_of(undecided)
        worker = await self._workers.get(name)
        if verb_of(undecided)[1] == "register.requested":
            return await self._register(name, worker, undecided)
        if worker is None:
            return unknown("worker", name)
        template = await self._templates.get(worker.spec.template)
        patience = timedelta(minutes=template.spec.drain_timeout_minutes if template is not None else _DRAIN_MINUTES)
        return decide_worker(worker, undecided, self._clock.now(), patience)

    async def _register(self, name: str, worker: Worker | None, undecided: Undecided) -> Decision:
        pool = await self._pools.get(str(undecided.request.spec.data.get("pool", "")))
        template = await self._templates.get(pool.spec.template) if pool is not None else None
        workers = [one for one in (await self._workers.list()).items if pool is not None and one.spec.pool == pool.id]
        return decide_registration(name, worker, pool, template, len(workers), undecided, self._clock.now())

    async def _instance(self, undecided: Undecided) -> Decision:
        name = target_of(undecided)
        instance = await self._instances.get(name)
        if instance is None or instance.tenant != undecided.request.tenant:
            return unknown("instance", name)
        definition = await self._definitions.get(instance.spec.definition, instance.tenant)
        if definition is None:
            definition = await self._definitions.get(instance.spec.definition, "public")
        collects = definition is not None and not FROM_RUNNING.isdisjoint(definition.spec.collect)
        reservation = await self._reservations.get(instance.spec.reservation, instance.tenant)
        return decide_instance(instance, reservation, collects, undecided, self._clock.now(), self._source)

    async def _assessment(self, undecided: Undecided) -> Decision:
        name = target_of(undecided)
        instance = await self._instances.get(name)
        if instance is None or instance.tenant != undecided.request.tenant:
            return unknown("instance", name)
        return decide_assessment(instance, undecided, self._clock.now())

    async def _pool(self, undecided: Undecided) -> Decision:
        name = target_of(undecided)
        wanted = str((undecided.request.spec.data.get("spec") or {}).get("template", ""))
        template = await self._templates.get(wanted) if wanted else None
        workers = [worker for worker in (await self._workers.list()).items if worker.spec.pool == name]
        reservations = (await self._reservations.list()).items
        booked = [one.id for one in reservations if one.status.pool == name and not one.is_final]
        # without the pool nobody would answer what waits in its inboxes
        depths = {who: await Inbox(self._store, who, name).depth() for who in (Service.SCHEDULER, Service.WORKERS)}
        booked += [f"{waiting} undecided requests for the {who}" for who, waiting in depths.items() if waiting]
        pool = await self._pools.get(name)
        return decide_pool(name, pool, template, workers, booked, undecided, self._clock.now())

    async def _template(self, undecided: Undecided) -> Decision:
        name = target_of(undecided)
        pools = list((await self._pools.list()).items)
        workers = [worker for worker in (await self._workers.list()).items if worker.spec.template == name]
        present = await self._templates.get(name)
        return decide_template(name, present, pools, workers, undecided, self._clock.now())
