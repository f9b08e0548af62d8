"""Wiring of the worker-controller: caches, ownership of pools, inboxes and bridges, and the adapters it works with."""

import asyncio
import logging

from lablet_common.agents import NEWS
from lablet_common.bridge import Bridge
from lablet_common.bus import Received, intents_stream
from lablet_common.bus.line import NatsLine
from lablet_common.events import subjects
from lablet_common.intake import Intake
from lablet_common.objects import S3ObjectStore
from lablet_common.ownership import Fence, Ownership
from lablet_common.process_lab import RUNTIME as PROCESSES
from lablet_common.removal import Removal
from lablet_common.resources.kinds import BRIDGE_SHARD, INSTANCE, POOL, TEMPLATE, WORKER, Service, owned_by
from lablet_common.resources.worker import WorkerPool, WorkerTemplate
from lablet_common.secrets import SecretBox, SecretError
from lablet_common.service import Runtime, run
from lablet_common.store import StoreUnavailable
from lablet_common.store.cache import Caches
from lablet_common.store.repository import AlreadyExists, Repository
from lablet_common.tasks import together
from lablet_common.telemetry.census import keep_census
from lablet_common.telemetry.metrics import INSTANCES, WORKERS
from lablet_workers.agents.leases import Door, Leases, Presence
from lablet_workers.controller import CACHED, PoolController, add_indexes
from lablet_workers.estate import Estate
from lablet_workers.intake import CENTRAL, Desk
from lablet_workers.providers.choice import Providers
from lablet_workers.runtimes.cml import CmlRuntimes
from lablet_workers.runtimes.process import EveryRuntime
from lablet_workers.seeding import read_seeds
from lablet_workers.settings import WorkerControllerSettings

log = logging.getLogger("lablet.workers")

_BRIDGES = {f"{BRIDGE_SHARD}{kind.name}": kind for kind in owned_by(Service.WORKERS)}


class WorkerController:
    """What this replica owns, and the caches and adapters that all of it shares."""

    def __init__(self, runtime: Runtime, settings: WorkerControllerSettings) -> None:
        if settings.secrets_key_file is None:
            raise SecretError("SECRETS_KEY_FILE is not set: the workers' passwords are only stored encrypted")
        self._runtime = runtime
        self._settings = settings
        self._caches = Caches(runtime.store, list(CACHED))
        add_indexes(self._caches)
        self._objects = S3ObjectStore(settings.storage)
        self._box = SecretBox.from_file(settings.secrets_key_file)
        connection = runtime.bus.connection
        leases = Leases(runtime.store, settings.agent_lease_seconds, self._is_agent)
        self._door = Door(connection, leases)
        self._line = NatsLine(connection, Service.WORKERS, runtime.replica)
        self._presence = Presence(runtime.store)
        self._providers = Providers(settings, leases)
        self._runtimes = EveryRuntime(
            CmlRuntimes(settings.cml.username, settings.cml.ca_cert, settings.cml.tls_name), self._line
        )
        self._controllers: set[PoolController] = set()
        self._ownership = Ownership(
            runtime.store,
            Service.WORKERS,
            runtime.replica,
            ttl_seconds=settings.ownership_lease_ttl_seconds,
            shards=self._shards,
        )

    async def run(self) -> None:
        """Until the process is asked to stop."""
        await self._seed()
        try:
            async with self._caches:
                await self._caches.wait_synced()
                self._caches[POOL].subscribe(lambda *_: self._ownership.refresh())
                self._runtime.spawn("presence", self._presence.run())
                await self._door.open()
                await self._line.open()
                await self._runtime.bus.connection.listen(NEWS, self._hear_news)
                self._runtime.health.add("caches", self._caches_synced)
                self._runtime.health.started = True
                if not self._settings.controller_enabled:
                    await asyncio.Event().wait()
                counting = keep_census(
                    lambda: self._ownership.owned,
                    (WORKERS, self._caches[WORKER].items),
                    (INSTANCES, self._caches[INSTANCE].items),
                )
                self._runtime.spawn("census", counting)
                await self._ownership.run(self._serve)
        finally:
            await self._providers.close()
            await self._objects.close()

    async def _caches_synced(self) -> None:
        if not self._caches.synced:
            raise LookupError("the caches have not been filled yet")

    def _is_agent(self, worker: str) -> bool:
        """It has registered. A machine that is asked for its pulse is no agent's, whatever somebody calls their own."""
        known = self._caches[WORKER].get(worker)
        return known is not None and known.spec.runtime == PROCESSES

    async def _hear_news(self, _: str, payload: bytes) -> None:
        """An agent's lab has changed: its instance is looked at at once."""
        for controller in tuple(self._controllers):
            controller.look_at_instance(payload.decode(errors="replace"))

    async def _seed(self) -> None:
        """Makes the templates and pools of the file that do not exist yet."""
        templates, pools = read_seeds(self._settings.worker_templates_config_path, self._runtime.clock.now())
        made_templates: Repository[WorkerTemplate] = Repository(self._runtime.store, TEMPLATE)
        made_pools: Repository[WorkerPool] = Repository(self._runtime.store, POOL)
        while True:
            try:
                for template in templates:
                    await make_once(made_templates, template)
                for pool in pools:
                    await make_once(made_pools, pool)
            except StoreUnavailable as error:
                log.warning("etcd does not answer: seeding again", extra={"cause": str(error)})
                await asyncio.sleep(0.5)
            else:
                return

    def _shards(self) -> list[str]:
        pools = [pool.id for pool in self._caches[POOL].items()]
        return [CENTRAL, *pools, *_BRIDGES]

    async def _serve(self, shard: str, fence: Fence) -> None:
        if (kind := _BRIDGES.get(shard)) is not None:
            store, source = self._runtime.store, self._runtime.source
            bridge = Bridge(store, kind, fence, self._runtime.bus, source=source)
            await together(bridge.run(), Removal(store, kind, fence, bridge).run())
            return
        desk = Desk(self._runtime.store, self._runtime.clock, self._runtime.source)
        intake = Intake(
            Service.WORKERS,
            shard,
            fence,
            desk.decide,
            store=self._runtime.store,
            clock=self._runtime.clock,
            source=self._runtime.source,
            resync_seconds=self._settings.resync_seconds,
        )

        async def wake(_: Received) -> None:
            intake.wake()

        intents = self._runtime.bus.consumer(
            intents_stream(Service.WORKERS),
            f"{Service.WORKERS}-{shard}" if shard != CENTRAL else f"{Service.WORKERS}-central",
            [subjects.intent_filter(Service.WORKERS, shard)],
            wake,
        )
        if shard == CENTRAL:
            await together(intents.run(), intake.run())
        else:
            controller = self._controller(shard, fence)
            self._controllers.add(controller)
            try:
                await together(intents.run(), intake.run(), controller.run())
            finally:
                self._controllers.discard(controller)

    def _controller(self, pool: str, fence: Fence) -> PoolController:
        estate = Estate(
            pool,
            fence,
            store=self._runtime.store,
            caches=self._caches,
            clock=self._runtime.clock,
            settings=self._settings,
            providers=self._providers,
            runtimes=self._runtimes,
            objects=self._objects,
            box=self._box,
            source=self._runtime.source,
        )
        return PoolController(estate, self._presence)


async def make_once(
    repository: Repository[WorkerTemplate] | Repository[WorkerPool], resource: WorkerTemplate | WorkerPool
) -> None:
    """Seeds it, unless there is one of its name already: that one may have been edited."""
    try:
        await repository.create(resource)  # type: ignore[arg-type]  # each list goes with its repository
    except AlreadyExists:
        return
    log.info("seeded", extra={"kind": resource.kind, "id": resource.id})


def main() -> None:
    """Runs the worker-controller until SIGTERM."""
    settings = WorkerControllerSettings()

    async def live(runtime: Runtime) -> None:
        await WorkerController(runtime, settings).run()

    run(Service.WORKERS, settings, live)
