"""The pulse of a pool's workers: who answered lately, and what their machines use.

Each answered probe renews the worker's lease, and with it the key `/worker-leases/<worker>`: no key is written for it, the
Worker record least of all. The key is gone when no probe has been answered for the lease's length, whoever asked: the lease
belongs to the worker and not to its owner, so whoever takes the pool over finds it and goes on.

That a key is missing says nothing of the worker: its owner may have stood still, or etcd. So it is never acted upon alone.
A worker is Unknown when its present owner asks and gets no answer *and* nobody has had one for the lease's length; and from
then on the deadline of that condition counts, which stands in the record and outlives its owner (see `machines.watching`).
Past the deadline it fails only when its present owner has itself had no answer for the lease's length: what an owner that
died has written says nothing of an answer that is missed once.

Agents keep their lease themselves, by heartbeats (see `agents.leases`), and theirs says that labs may run; here only what
they use is kept.
"""

import asyncio
import json
import logging
from datetime import datetime

from lablet_common.clock import Clock
from lablet_common.loads import Load, WorkerLoad
from lablet_common.ownership import Fence
from lablet_common.process_lab import RUNTIME
from lablet_common.resources.kinds import worker_lease_key, worker_load_key
from lablet_common.resources.worker import Worker
from lablet_common.store import Store, Transaction
from lablet_common.store.api import LeaseLost
from lablet_common.telemetry.metrics import WORKER_CPU, WORKER_DISK, WORKER_MEMORY, WORKER_NODES
from lablet_workers.runtimes.port import Runtime, RuntimeFault

log = logging.getLogger("lablet.workers.machines")

_RENEWALS_PER_LEASE = 3
_LOAD_SECONDS = 3.0
"""What a machine uses is waited for no longer, nor than a third of its lease: that must not run out meanwhile."""
_GAUGES = (WORKER_CPU, WORKER_MEMORY, WORKER_DISK, WORKER_NODES)


class Pulse:
    """Of one pool, for one term of its ownership. `lease_seconds` and `load_seconds` (between looks at what a machine
    uses) are real time."""

    def __init__(
        self, pool: str, fence: Fence, store: Store, clock: Clock, *, lease_seconds: float, load_seconds: float
    ) -> None:
        self._pool = pool
        self._fence = fence
        self._store = store
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._load_seconds = load_seconds
        self._leases: dict[str, int] = {}
        self._renewed: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._shown: set[str] = set()
        self._silent: dict[str, datetime] = {}
        """Worker → the first answer that this owner missed since it had one."""

    async def beat(self, worker: Worker, runtime: Runtime) -> None:
        """The worker has just answered: its lease is renewed, and now and then it is asked what it uses. Raises
        `StoreError`."""
        self._silent.pop(worker.id, None)
        now = _now()
        if now - self._renewed.get(worker.id, -self._lease_seconds) >= self._lease_seconds / _RENEWALS_PER_LEASE:
            await self._renew(worker)
            self._renewed[worker.id] = now
        if now - self._asked.get(worker.id, -self._load_seconds) >= self._load_seconds:
            self._asked[worker.id] = now
            await self._ask(worker, runtime)

    async def missed(self, worker: Worker) -> bool:
        """The worker has just not answered. True: and nobody has had an answer of it within the lease's length; then nothing
        is shown of it either. Raises `StoreError`."""
        self._silent.setdefault(worker.id, self._clock.now())
        if await self.has(worker):
            return False
        self._asked.pop(worker.id, None)  # what it uses is shown again from its next answer on
        self._hide(worker.id)
        return True

    def silent(self, worker: Worker) -> bool:
        """This owner itself has had no answer of it for the lease's length, of those that it has asked for."""
        first = self._silent.get(worker.id)
        return first is not None and self._clock.real_seconds(self._clock.now() - first) >= self._lease_seconds

    async def has(self, worker: Worker) -> bool:
        """Somebody has had an answer of it within the lease's length, as etcd says it now. An agent's lease says nothing
        of whether it answers. Raises `StoreError`."""
        return worker.spec.runtime != RUNTIME and await self._store.get(worker_lease_key(worker.id)) is not None

    async def end(self, worker: str) -> None:
        """It is not asked any more: nothing is known of it. Raises `StoreError`: then its lease runs out."""
        lease = self._leases.pop(worker, 0)
        self._renewed.pop(worker, None)
        self._asked.pop(worker, None)
        self._silent.pop(worker, None)
        self._hide(worker)
        if lease:
            await self._store.lease_revoke(lease)

    def close(self) -> None:
        """The term is over. The leases stay for whoever comes next, what is shown goes."""
        for worker in tuple(self._shown):
            self._hide(worker)

    async def _renew(self, worker: Worker) -> None:
        lease = self._leases.get(worker.id) or await self._known(worker)
        if lease:
            try:
                await self._store.lease_keep_alive(lease)
            except LeaseLost:
                self._leases.pop(worker.id, None)
            else:
                self._leases[worker.id] = lease
                return
        lease = await self._store.lease_grant(self._lease_seconds)
        if worker.spec.runtime != RUNTIME:
            machine = worker.status.machine
            session = {"epoch": machine.id if machine is not None else "", "host": worker.status.host, "revoked": False}
            await self._put(worker_lease_key(worker.id), json.dumps(session).encode(), lease)
        self._leases[worker.id] = lease

    async def _known(self, worker: Worker) -> int:
        """The lease of an earlier owner; 0: there is none."""
        key = worker_load_key(worker.id) if worker.spec.runtime == RUNTIME else worker_lease_key(worker.id)
        found = await self._store.get(key)
        return found.lease if found is not None else 0

    async def _ask(self, worker: Worker, runtime: Runtime) -> None:
        """What it uses now; a worker that does not say shows nothing, and is no worse for it."""
        try:
            async with asyncio.timeout(min(_LOAD_SECONDS, self._lease_seconds / _RENEWALS_PER_LEASE)):
                load = await runtime.load()
        except (RuntimeFault, TimeoutError) as error:
            cause = str(error) or "no answer in time"
            log.info("a worker does not tell what it uses", extra={"worker": worker.id, "cause": cause})
            load = None
        if load is None:
            self._hide(worker.id)
            return
        self._show(worker.id, load)
        told = WorkerLoad(worker=worker.id, at=self._clock.now(), **dict(load))
        try:
            await self._put(worker_load_key(worker.id), told.to_json(), self._leases[worker.id])
        except LeaseLost:
            self._leases.pop(worker.id, None)  # the next answer begins another, whenever the last was renewed
            self._renewed.pop(worker.id, None)

    async def _put(self, key: str, value: bytes, lease: int) -> None:
        txn = Transaction()
        self._fence.guard(txn)
        txn.put(key, value, lease=lease)
        await txn.commit(self._store)

    def _show(self, worker: str, load: Load) -> None:
        self._shown.add(worker)
        shown = (load.cpu_cores.ratio, load.memory_gb.ratio, load.storage_gb.ratio, load.nodes)
        for gauge, value in zip(_GAUGES, shown, strict=True):
            gauge.labels(self._pool, worker).set(value)

    def _hide(self, worker: str) -> None:
        if worker in self._shown:
            self._shown.discard(worker)
            for gauge in _GAUGES:
                gauge.remove(self._pool, worker)


def _now() -> float:
    """Real seconds, by the loop: where that is simulated, so is this."""
    return asyncio.get_running_loop().time()
