"""The services as processes that can be killed, frozen and started anew: each with a line of its own to everything, its own
caches, and the real ownership by leases between the replicas of a service.

What their `app` modules wire is wired here without a broker: who would be woken by a message is woken by `Mail`, which
loses, repeats and delays.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lablet_artifacts.keeper import CACHED as ARTIFACT_KINDS
from lablet_artifacts.keeper import Keeper
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.rendering import Renderer
from lablet_common.bridge import Bridge
from lablet_common.bus.memory import PlainLog
from lablet_common.events import Outgoing
from lablet_common.intake import Intake
from lablet_common.objects import ObjectStoreUnavailable
from lablet_common.ownership import Fence, Ownership
from lablet_common.references import follow_uses
from lablet_common.resources.kinds import (
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    WORKER,
    Kind,
    Service,
)
from lablet_common.secrets import SecretBox
from lablet_common.store.cache import Caches
from lablet_common.tasks import together
from lablet_common.testing.simulation import Line, Note, Port, StorePort
from lablet_local.simulation.world import World
from lablet_scheduler.following import Following
from lablet_scheduler.owner import PoolOwner
from lablet_scheduler.settings import SchedulerSettings
from lablet_workers.controller import CACHED as WORKER_KINDS
from lablet_workers.controller import PoolController, add_indexes
from lablet_workers.estate import Estate
from lablet_workers.intake import Desk
from lablet_workers.providers.port import ProviderUnavailable
from lablet_workers.runtimes.port import RuntimeUnavailable
from lablet_workers.settings import WorkerControllerSettings

POOL_NAME = "default"
BRIDGED = (RESERVATION, INSTANCE, WORKER)
_BRIDGE = "bridge-"
_RESYNC_SECONDS = 10.0
_KEEPER_RESYNC_SECONDS = 60.0
"""It looks at every instance there ever was; here nothing is archived and deleted."""
_RELIST_SECONDS = 60.0
_LEASE_SECONDS = 4.0
SCHEDULER = SchedulerSettings(resync_seconds=_RESYNC_SECONDS)
WORKERS = WorkerControllerSettings(resync_seconds=_RESYNC_SECONDS, controller_probe_seconds=5.0)
BOX = SecretBox({"k1": b"0" * 32})


class Mail:
    """Wakes whoever listens: late, twice, or not at all."""

    def __init__(self, rng: random.Random, *, lost: float, repeated: float, longest_seconds: float) -> None:
        self._rng = rng
        self._lost = lost
        self._repeated = repeated
        self._longest = longest_seconds
        self._listeners: dict[Service, list[Callable[[], None]]] = {}

    def listen(self, service: Service, wake: Callable[[], None]) -> Callable[[], None]:
        listeners = self._listeners.setdefault(service, [])
        listeners.append(wake)
        return lambda: listeners.remove(wake)

    def send(self, service: Service) -> None:
        """There is something new for the service."""
        copies = 0 if self._rng.random() < self._lost else 2 if self._rng.random() < self._repeated else 1
        for _ in range(copies):
            delay = self._rng.random() * self._longest
            asyncio.get_running_loop().call_later(delay, self._deliver, service)

    def _deliver(self, service: Service) -> None:
        for wake in tuple(self._listeners.get(service, ())):
            wake()


class Process:
    """One replica of a service. `publish` takes what its bridges send; None: it has no bridges. `note` is told what it
    commits."""

    def __init__(
        self,
        service: Service,
        name: str,
        world: World,
        line: Line,
        mail: Mail,
        publish: Callable[[Outgoing], Awaitable[None]] | None = None,
        note: Note = lambda *_: None,
    ) -> None:
        self.service = service
        self.name = name
        self.line = line
        self._world = world
        self._mail = mail
        self._publish = publish
        self._store = StorePort(world.store, line, note)
        self._objects: Any = Port(world.objects, line, ObjectStoreUnavailable)
        self.task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._live(), name=name)
        line.on_death = self._die

    @property
    def crash(self) -> BaseException | None:
        """What ended it, where that was not its death."""
        if not self.task.done() or self.task.cancelled() or self.line.dead:
            return None
        return self.task.exception() or RuntimeError(f"{self.name} ended by itself")

    def _die(self) -> None:
        self.task.cancel()

    async def _live(self) -> None:
        caches, serve = self._anatomy()
        async with caches:
            await caches.wait_synced()
            ownership = Ownership(
                self._store, self.service, self.name, ttl_seconds=_LEASE_SECONDS, shards=lambda: self._shards(caches)
            )
            await ownership.run(lambda shard, fence: self._serve(shard, fence, caches, serve))

    def _anatomy(self) -> tuple[Caches, Callable[[Fence, Any], Awaitable[None]]]:
        """The caches, and what serves a shard from them."""
        match self.service:
            case Service.SCHEDULER:
                return Following(self._store, resync_seconds=_RELIST_SECONDS), self._schedule
            case Service.WORKERS:
                return self._caches(WORKER_KINDS, add_indexes), self._control
            case _:
                return self._caches(ARTIFACT_KINDS, follow_uses), self._keep

    def _caches(self, kinds: Sequence[Kind], prepare: Callable[[Caches], None]) -> Caches:
        caches = Caches(self._store, kinds, resync_seconds=_RELIST_SECONDS)
        prepare(caches)
        return caches

    def _shards(self, caches: Caches) -> list[str]:
        bridged = [kind for kind in BRIDGED if kind.owner is self.service] if self._publish is not None else []
        shard = POOL_NAME if POOL not in caches or caches[POOL].get(POOL_NAME) is not None else None
        return [*([shard] if shard else []), *(f"{_BRIDGE}{kind.name}" for kind in bridged)]

    async def _serve(
        self, shard: str, fence: Fence, caches: Caches, serve: Callable[[Fence, Caches], Awaitable[None]]
    ) -> None:
        if not shard.startswith(_BRIDGE):
            await serve(fence, caches)
            return
        assert self._publish is not None
        (kind,) = (kind for kind in BRIDGED if kind.name == shard.removeprefix(_BRIDGE))
        await Bridge(self._store, kind, fence, PlainLog(self._send), source=f"/lablet/{self.service}").run()

    async def _send(self, out: Outgoing) -> None:
        """To the broker, over this process's line."""
        assert self._publish is not None
        await self.line.enter()
        entered = self.line.calls
        if self.line.chance(self.line.weather.refused):
            raise ConnectionError("the broker did not answer")
        await self._publish(out)
        if self.line.chance(self.line.weather.answer_lost):
            raise ConnectionError("the broker's answer was lost")
        await self.line.leave(entered)

    async def _schedule(self, fence: Fence, caches: Following) -> None:
        owner = PoolOwner(
            POOL_NAME,
            fence,
            store=self._store,
            caches=caches,
            find_definition=lambda tenant, name: caches[DEFINITION].get(name, tenant),
            clock=self._world.clock,
            settings=SCHEDULER,
            source=f"/lablet/{self.service}",
        )
        stop = self._mail.listen(self.service, owner.wake)
        try:
            await owner.run()
        finally:
            stop()

    async def _control(self, fence: Fence, caches: Caches) -> None:
        source = f"/lablet/{self.service}"
        provider: Any = Port(self._world.cloud, self.line, ProviderUnavailable)
        desk = Desk(self._store, self._world.clock, source)
        intake = Intake(
            self.service, POOL_NAME, fence, desk.decide,
            store=self._store, clock=self._world.clock, source=source, resync_seconds=_RESYNC_SECONDS,
        )  # fmt: skip
        controller = PoolController(
            Estate(
                POOL_NAME,
                fence,
                store=self._store,
                caches=caches,
                clock=self._world.clock,
                settings=WORKERS,
                providers=lambda _pool, _template: provider,
                runtimes=_Runtimes(self._world, self.line),
                objects=self._objects,
                box=BOX,
                source=source,
            )
        )
        stop = self._mail.listen(self.service, intake.wake)
        try:
            await together(intake.run(), controller.run())
        finally:
            stop()

    async def _keep(self, fence: Fence, caches: Caches) -> None:
        await Keeper(
            fence,
            store=self._store,
            caches=caches,
            objects=self._objects,
            leftovers=Leftovers(),
            renderer=Renderer(self._objects),
            clock=self._world.clock,
            resync_seconds=_KEEPER_RESYNC_SECONDS,
        ).run()


class _Runtimes:
    """The workers' runtimes as one process reaches them."""

    def __init__(self, world: World, line: Line) -> None:
        self._world = world
        self._line = line

    def open(self, url: str, password: str) -> Any:
        return Port(self._world.cloud.open(url, password), self._line, RuntimeUnavailable)
