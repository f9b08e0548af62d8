"""What the owner of a pool has at hand: its ledgers, caches, adapters and clock, and the few words that all its steps use."""

from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from lablet_common.clock import Clock
from lablet_common.objects import ObjectStore
from lablet_common.ownership import Fence, NotOwner
from lablet_common.reconcile import Again
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import DEFINITION, INSTANCE, POOL, TEMPLATE, WORKER
from lablet_common.resources.worker import Worker, WorkerPool, WorkerTemplate
from lablet_common.secrets import SecretBox
from lablet_common.store import Conflict, Store
from lablet_common.store.cache import Caches
from lablet_workers.ledger import Ledger
from lablet_workers.providers.choice import ChooseProvider, launch_order
from lablet_workers.providers.port import LaunchOrder, Provider, ProviderError
from lablet_workers.pulse import Pulse
from lablet_workers.runtimes.port import Runtime, Runtimes
from lablet_workers.settings import WorkerControllerSettings

_SHORTEST_POLL = 0.1
_LONGEST_POLL = 2.0
_PUBLIC = "public"


class Estate:
    """One term of ownership of one pool."""

    def __init__(
        self,
        pool: str,
        fence: Fence,
        *,
        store: Store,
        caches: Caches,
        clock: Clock,
        settings: WorkerControllerSettings,
        providers: ChooseProvider,
        runtimes: Runtimes,
        objects: ObjectStore,
        box: SecretBox,
        source: str,
    ) -> None:
        self.pool = pool
        self.fence = fence
        self.store = store
        self.caches = caches
        self.clock = clock
        self.settings = settings
        self.providers = providers
        self.runtimes = runtimes
        self.objects = objects
        self.box = box
        self.source = source
        self.workers: Ledger[Worker] = Ledger(store, fence, caches[WORKER], pool)
        self.instances: Ledger[Instance] = Ledger(store, fence, caches[INSTANCE], pool)
        self.pools: Ledger[WorkerPool] = Ledger(store, fence, caches[POOL], pool)
        self.pulse = Pulse(
            pool,
            fence,
            store,
            clock,
            lease_seconds=settings.controller_probe_lease_seconds,
            load_seconds=settings.controller_load_seconds,
        )
        self.connections: dict[str, dict[str, Runtime]] = {}
        """Worker → its open connections, each by the address and sealed password that it was opened with."""

    async def close(self) -> None:
        """Ends the connections to the workers' runtimes; nothing is shown of them any more."""
        self.pulse.close()
        for name in list(self.connections):
            for runtime in self.connections.pop(name).values():
                await runtime.close()

    async def let_go(self, name: str) -> None:
        """Ends the worker's connections to where it is no longer. Whoever still asks by one hears `RuntimeUnavailable`."""
        worker, opened = self.workers.get(name), self.connections.get(name, {})
        here = None if worker is None else _whereabouts(worker)
        for former in [known for known in opened if known != here]:
            await opened.pop(former).close()
        if not self.connections.get(name):
            self.connections.pop(name, None)

    @property
    def pool_record(self) -> WorkerPool | None:
        return cast("WorkerPool | None", self.caches[POOL].get(self.pool))

    def template_of(self, worker: Worker) -> WorkerTemplate:
        """Raises `ProviderError`: without its template nothing is known of where its machine comes from."""
        template = cast("WorkerTemplate | None", self.caches[TEMPLATE].get(worker.spec.template))
        if template is None:
            raise ProviderError(f"there is no template {worker.spec.template}, of which worker {worker.id} is made")
        return template

    def provider_of(self, worker: Worker, pool: WorkerPool) -> Provider:
        """Whoever lends the worker's machine. Raises `ProviderError`."""
        return self.providers(pool.spec, self.template_of(worker).spec)

    def order_of(self, worker: Worker, token: str, tags: Mapping[str, str]) -> LaunchOrder:
        """Raises `ProviderError`."""
        return launch_order(token, worker.id, self.template_of(worker).spec, tags, self.settings)

    def license_token_of(self, worker: Worker) -> str:
        """What licenses it; empty: nobody has set it. Only simulated machines take any word. Raises `ProviderError`."""
        given = self.settings.cml.license_token
        if given is not None:
            return given.get_secret_value()
        return "simulated" if self.template_of(worker).spec.provider == "simulated" else ""

    def workers_here(self) -> list[Worker]:
        """All of the pool, each as it is known last."""
        return [
            self.workers.get(cached.id) or cached
            for cached in self.caches[WORKER].items()
            if cached.spec.pool == self.pool
        ]

    def instances_on(self, worker: str) -> list[Instance]:
        """Those that name the worker and have not ended."""
        found = self.caches[INSTANCE].by("unended-worker", worker)
        return [self.instances.get(cached.id) or cached for cached in found]

    def instances_here(self) -> list[Instance]:
        """Those of the pool that have not ended."""
        found = self.caches[INSTANCE].by("unended-pool", self.pool)
        return [self.instances.get(cached.id) or cached for cached in found]

    def is_named(self, worker: str) -> bool:
        """Some instance, ended or not, names the worker."""
        return bool(self.caches[INSTANCE].by("worker", worker))

    def definition_of(self, instance: Instance) -> Definition | None:
        """The tenant's own, else the public one."""
        cache, name = self.caches[DEFINITION], instance.spec.definition
        return cast("Definition | None", cache.get(name, instance.tenant) or cache.get(name, _PUBLIC))

    def runtime_of(self, worker: Worker) -> Runtime | None:
        """The open connection to a worker's runtime; a new one when its address or password has changed."""
        here, sealed = _whereabouts(worker), worker.status.credentials
        if here is None or sealed is None or worker.status.address is None:
            return None
        opened = self.connections.setdefault(worker.id, {})
        if here not in opened:
            password = self.box.open(sealed, f"worker/{worker.id}")
            opened[here] = self.runtimes.open(worker.status.address, password)
        return opened[here]

    @property
    def poll(self) -> timedelta:
        """The interval for what is under way elsewhere, in lab time, kept within sane bounds of real time."""
        real = self.clock.real_seconds(timedelta(minutes=self.settings.controller_poll_minutes))
        return timedelta(seconds=min(max(real, _SHORTEST_POLL), _LONGEST_POLL) * self.clock.speed)

    def again(self, lab: timedelta) -> Again:
        """To be looked at again after so much lab time."""
        return Again.at(self.clock.now() + lab)

    async def still_owner(self, conflict: Conflict) -> None:
        """After a refused write: somebody else was first, or is the owner now. The caches bring the news."""
        if not await self.fence.stands(self.store):
            raise NotOwner(f"pool {self.pool} has another owner") from conflict
        await self.caches.reached(conflict.revision)


def _whereabouts(worker: Worker) -> str | None:
    """Where, and by which sealed password, the worker can be spoken to; None while it cannot."""
    address, sealed = worker.status.address, worker.status.credentials
    return None if address is None or sealed is None else f"{address} {sealed}"
