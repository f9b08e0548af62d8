"""Wiring of the scheduler: the caches, the ownership of pools and bridges, and what wakes an owner.

An owner is woken by its caches (its inbox, reservations, instances, workers, its pool) and by the intents on its own durable
consumer; both only say "look again". What neither brings, the periodic look does.
"""

import asyncio

from lablet_common.bridge import Bridge
from lablet_common.bus import Received, intents_stream
from lablet_common.events import subjects
from lablet_common.ownership import Fence, Ownership
from lablet_common.removal import Removal
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import BRIDGE_SHARD, DEFINITION, POOL, RESERVATION, Service, owned_by
from lablet_common.service import Runtime, run
from lablet_common.tasks import together
from lablet_common.telemetry.census import keep_census
from lablet_common.telemetry.metrics import RESERVATIONS
from lablet_scheduler.following import Following
from lablet_scheduler.owner import PoolOwner
from lablet_scheduler.settings import SchedulerSettings

_BRIDGES = {f"{BRIDGE_SHARD}{kind.name}": kind for kind in owned_by(Service.SCHEDULER)}
_PUBLIC = "public"


class Scheduler:
    """The pools and bridges that this replica owns, and the caches they share."""

    def __init__(self, runtime: Runtime, settings: SchedulerSettings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._caches = Following(runtime.store)
        self._ownership = Ownership(
            runtime.store,
            Service.SCHEDULER,
            runtime.replica,
            ttl_seconds=settings.ownership_lease_ttl_seconds,
            shards=self._shards,
        )

    async def run(self) -> None:
        """Until the process is asked to stop."""
        async with self._caches:
            await self._caches.wait_synced()
            self._caches[POOL].subscribe(lambda *_: self._ownership.refresh())
            self._runtime.health.add("caches", self._caches_synced)
            self._runtime.health.started = True
            if not self._settings.scheduler_enabled:
                await asyncio.Event().wait()
            counting = keep_census(lambda: self._ownership.owned, (RESERVATIONS, self._caches[RESERVATION].items))
            await together(self._ownership.run(self._serve), counting)

    async def _caches_synced(self) -> None:
        if not self._caches.synced:
            raise LookupError("the caches have not been filled yet")

    def _shards(self) -> list[str]:
        pools = [pool.id for pool in self._caches[POOL].items()]
        return [*pools, *_BRIDGES]

    async def _serve(self, shard: str, fence: Fence) -> None:
        if (kind := _BRIDGES.get(shard)) is not None:
            store, source = self._runtime.store, self._runtime.source
            bridge = Bridge(store, kind, fence, self._runtime.bus, source=source)
            await together(bridge.run(), Removal(store, kind, fence, bridge).run())
        else:
            await self._serve_pool(shard, fence)

    async def _serve_pool(self, pool: str, fence: Fence) -> None:
        owner = PoolOwner(
            pool,
            fence,
            store=self._runtime.store,
            caches=self._caches,
            find_definition=self._definition,
            clock=self._runtime.clock,
            settings=self._settings,
            source=self._runtime.source,
        )

        async def wake(received: Received) -> None:
            owner.wake(received.sequence)

        intents = self._runtime.bus.consumer(
            intents_stream(Service.SCHEDULER),
            f"scheduler-{pool}",
            [subjects.intent_filter(Service.SCHEDULER, pool)],
            wake,
            raw=True,
        )
        await together(intents.run(), owner.run())

    def _definition(self, tenant: str, name: str) -> Definition | None:
        """The tenant's own, else the public one."""
        cache = self._caches[DEFINITION]
        found = cache.get(name, tenant) or cache.get(name, _PUBLIC)
        assert found is None or isinstance(found, Definition)
        return found


def main() -> None:
    """Runs the scheduler until SIGTERM."""
    settings = SchedulerSettings()

    async def live(runtime: Runtime) -> None:
        await Scheduler(runtime, settings).run()

    run(Service.SCHEDULER, settings, live)
