"""One region that grows: 100 workers, 100 labs on each, one worker-controller on a real etcd.

The controller is the real one, in this process; the cloud, the labs' runtimes and the object store are twins in memory,
and a clerk plays the artifact-service, so that what is measured is the controller, its caches and etcd (the clerk's own
cost for each lab is in the CPU figures). At each size everything is Running, and then told are:

- what a lab cost to bring up, in CPU time of this process, and how many came up in a second;
- one look at everything (the periodic resync): until no key waits any more; and one plan of the power of all workers;
- how long the event loop was held at most while nothing happened, and which share of a core that took;
- a take-over: from a controller that is gone to one that has looked at everything;
- resident memory (of the whole process, its twins among it) and the size of etcd's database.
"""

import asyncio
import logging
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_controller import every_port_answers, harness, wait_for

from lablet_common.clock import ClockOrigin, ScaledClock
from lablet_common.resources.kinds import INSTANCE, POOL, TEMPLATE, WORKER
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import PoolSpec, PoolStatus, SimpleStatus, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.store import EtcdStore
from lablet_common.testing.etcd import EtcdServer

WORKERS = 100
SEATS = 100
"""Of each reservation: one on each worker, and each reservation is shifted, so that no two want a port of a worker."""
NODES = 200
"""Of each worker's licence: twice what the largest size runs on it."""
SPEED = 20.0
"""A busy machine must not make labs miss their slots: 1,500 that come up in a minute have twenty minutes for it."""
BOOTED_SECONDS = 240.0
PATIENCE_SECONDS = 600.0
REST_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured with so many labs running."""

    instances: int
    up_per_second: float
    cpu_ms_each: float
    look_seconds: float
    plan_ms: float
    held_ms: float
    rest_cpu_pct: float
    takeover_seconds: float
    memory_mb: float
    etcd_mb: float


async def grow(sizes: Sequence[int], told: Callable[[Size], None]) -> list[Size]:
    """One row for each size, which grow; each is told as soon as it is there."""
    logging.getLogger("lablet").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, EtcdServer.start(Path(folder)) as server:
        store = EtcdStore([server.endpoint])
        try:
            return await _Region(store, harness()).grow(sizes, told)
        finally:
            await store.close()


class _Region:
    """A pool with its controller, and the words of this benchmark."""

    def __init__(self, store: EtcdStore, made: Any) -> None:
        every_port_answers()
        self.store = store
        self.morning = made.MORNING
        now = made.datetime.now(made.UTC).replace(microsecond=0)
        clock = ScaledClock(ClockOrigin(real=now, lab=made.MORNING, speed=SPEED))
        self.fleet = made.Fleet(store=store, clock=clock)
        # the probe and the resync as a mesh at the speed of life has them
        self.fleet.settings = {"controller_probe_seconds": 30.0, "resync_seconds": 3600.0}
        self.fleet.settle = _nothing
        self.fleet.runtimes = made.MemoryRuntimes(node_quota=NODES)

    async def grow(self, sizes: Sequence[int], told: Callable[[Size], None]) -> list[Size]:
        await self._seed()
        await self.fleet.start()
        await wait_for("the workers are there", lambda: len(self._cache(WORKER)) == WORKERS, BOOTED_SECONDS)
        await self._book(0)  # the first reservation switches every worker on
        await self._running(SEATS)
        rows, stand = [], SEATS
        for size in sizes:
            rows.append(await self._size(stand, size))
            told(rows[-1])
            stand = size
        await self.fleet.close()
        return rows

    async def _seed(self) -> None:
        now = self.fleet.clock.now()
        capacity = {"cpu_cores": 200, "memory_gb": 200, "storage_gb": 9000}
        shape = {"instance_type": "sim", "capacity": capacity, "license": "ENTERPRISE"}
        template = TemplateSpec.model_validate({**shape, "max_nodes": NODES, "boot_minutes": 8})
        pool = {"template": "sim", "max": WORKERS, "preparation_minutes": 5, "turnaround_minutes": 5}
        status = SimpleStatus()
        made = WorkerTemplate(metadata=Metadata(id="sim", uid="t", created_at=now), spec=template, status=status)
        await self.fleet.all(TEMPLATE).create(made)
        spec = PoolSpec.model_validate({**pool, "scale_down_grace_minutes": 30})
        metadata = Metadata(id="default", uid="p", created_at=now)
        await self.fleet.all(POOL).create(WorkerPool(metadata=metadata, spec=spec, status=PoolStatus()))
        await self.fleet.define()

    async def _book(self, number: int) -> None:
        minute = math.ceil((self.fleet.clock.now() - self.morning).total_seconds() / 60)
        names = tuple(f"default-{1 + (seat + number) % WORKERS:03d}" for seat in range(SEATS))
        await self.fleet.book(f"b{number}", minute, minute + 7 * 24 * 60, workers=names)

    async def _size(self, stand: int, size: int) -> Size:
        began, used = time.perf_counter(), time.process_time()
        for number in range(stand // SEATS, size // SEATS):
            await self._book(number)
        await self._running(size)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        look = await self._look()
        plan = self._plan()
        held, share = await self._rest()
        return Size(
            instances=size,
            up_per_second=(size - stand) / seconds,
            cpu_ms_each=used / (size - stand) * 1000,
            look_seconds=look,
            plan_ms=plan * 1000,
            held_ms=held * 1000,
            rest_cpu_pct=share * 100,
            takeover_seconds=await self._take_over(),
            memory_mb=resident_mb(),
            etcd_mb=(await self.store.status()).db_bytes / 1e6,
        )

    def _cache(self, kind: Any) -> list[Any]:
        return list(self.fleet.controller.estate.caches[kind].items())

    async def _running(self, wanted: int) -> None:
        running = 0
        cache = self.fleet.controller.estate.caches[INSTANCE]

        def counted() -> bool:
            nonlocal running
            phases = Counter(str(instance.phase) for instance in cache.items())
            if phases["Failed"]:
                raise RuntimeError(f"labs have failed, so that {wanted} will not run: {dict(phases)}")
            running = phases["Running"]
            return running >= wanted

        await wait_for(f"{wanted} labs run", counted, PATIENCE_SECONDS)

    async def _look(self) -> float:
        """The periodic look at everything, until no key waits."""
        controller = self.fleet.controller
        began = time.perf_counter()
        controller._look_at_everything()
        for queue in (controller._workers, controller._reservations, controller._instances):
            await queue.drained()
        return time.perf_counter() - began

    def _plan(self) -> float:
        fleet = self.fleet.controller.fleet
        pool = fleet._estate.pool_record
        began = time.perf_counter()
        fleet._planned(pool, fleet._workers(pool, fleet._needs(pool)))
        return time.perf_counter() - began

    async def _rest(self) -> tuple[float, float]:
        """The longest that the loop was held, and the share of a core."""
        longest, used, began = 0.0, time.process_time(), time.perf_counter()
        while (at := time.perf_counter()) - began < REST_SECONDS:
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - at - 0.01)
        return longest, (time.process_time() - used) / (time.perf_counter() - began)

    async def _take_over(self) -> float:
        await self.fleet.crash()
        began = time.perf_counter()
        await self.fleet.start()
        controller = self.fleet.controller
        await asyncio.sleep(0)  # its first look is made when its task begins
        for queue in (controller._workers, controller._reservations, controller._instances):
            await queue.drained()
        return time.perf_counter() - began


async def _nothing() -> None:
    """Time runs by itself here."""
    await asyncio.sleep(0)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(rows: Sequence[Size], of: Callable[[Size], float]) -> float:
    """For each further lab, between the first and the last size; what stands at zero is left out."""
    first, last = rows[0], rows[-1]
    return (of(last) - of(first)) / (last.instances - first.instances)
