"""The worker-controller in one to four processes: eight pools with 100 workers and ten labs each, on one real etcd.

Each process owns its share of the pools, as the replicas of a mesh divide them, and has the real controller with its own
caches of everything; cloud, runtimes and object store are twins in memory (a hundred simulated machines would be a
hundred processes on the same cores), and a clerk plays the artifact-service. All workers boot and all labs come up at
once. Measured is the time from the first lab that is Running to the last, and the CPU time of all processes meanwhile.
"""

import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bench_controller import every_port_answers, harness

from lablet_common.clock import ClockOrigin, ScaledClock
from lablet_common.ownership import Fence
from lablet_common.resources.kinds import (
    DEFINITION,
    INSTANCE,
    POOL,
    RESERVATION,
    TEMPLATE,
    Kind,
    Service,
    ownership_key,
)
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import PoolSpec, PoolStatus, SimpleStatus, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_common.secrets import SecretBox
from lablet_common.store import EtcdStore
from lablet_common.store.cache import Cache, Caches
from lablet_common.store.repository import Repository
from lablet_common.testing.etcd import EtcdServer

POOLS = {f"pool-{number}": 13 if number <= 4 else 12 for number in range(1, 9)}
"""Pool → workers; 100 together."""
LABS_EACH = 10
SPEED = 60.0
BOOT_MINUTES = 8
PATIENCE_SECONDS = 180.0
_TICK = os.sysconf("SC_CLK_TCK")


def serve(endpoint: str, pools: Sequence[str], real: datetime, lab: datetime) -> None:
    """One replica, until it is ended."""
    logging.getLogger("lablet").setLevel(logging.ERROR)
    asyncio.run(_serve(endpoint, pools, ScaledClock(ClockOrigin(real=real, lab=lab, speed=SPEED))))


async def _serve(endpoint: str, pools: Sequence[str], clock: ScaledClock) -> None:
    from lablet_workers.controller import CACHED, PoolController, add_indexes
    from lablet_workers.estate import Estate
    from lablet_workers.settings import WorkerControllerSettings

    every_port_answers()
    store = EtcdStore([endpoint])
    fleet = harness().Fleet(store=store, clock=clock)
    caches = Caches(store, list(CACHED))
    add_indexes(caches)
    async with caches:
        await caches.wait_synced()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_clerk(fleet, caches[INSTANCE], pools))  # before anybody makes one
            for pool in pools:
                key = ownership_key(Service.WORKERS, pool)
                estate = Estate(
                    pool,
                    Fence(key, await store.put(key, b"bench")),
                    store=store,
                    caches=caches,
                    clock=clock,
                    settings=WorkerControllerSettings(controller_probe_seconds=30.0, resync_seconds=30.0),
                    providers=lambda _pool, _template: fleet.provider,
                    runtimes=fleet.runtimes,
                    objects=fleet.objects,
                    box=SecretBox({"k1": b"0" * 32}),
                    source="/lablet/worker-controller",
                )
                tasks.create_task(PoolController(estate).run())


async def _clerk(fleet: Any, instances: Cache[Any], pools: Sequence[str]) -> None:
    """Renders what this replica's pools have made."""
    made: asyncio.Queue[Any] = asyncio.Queue()

    def note(old: Any, new: Any, _: int) -> None:
        if old is None and new is not None and new.spec.pool in pools:
            made.put_nowait(new)

    instances.subscribe(note)
    while True:
        instance = await made.get()
        await fleet.file(instance, "rendered", "lab.yaml", f"lab of {instance.id}".encode())


async def _seed(store: EtcdStore, now: datetime) -> int:
    """Pools, definition and one reservation of as many seats as a pool has labs; how many labs that is."""

    async def put(kind: Kind, resource: Any) -> None:
        repository: Repository[Any] = Repository(store, kind)
        await repository.create(resource)

    capacity = {"cpu_cores": 32, "memory_gb": 64, "storage_gb": 500}
    shape = {"instance_type": "sim", "capacity": capacity, "license": "ENTERPRISE"}
    template = TemplateSpec.model_validate({**shape, "max_nodes": 40, "boot_minutes": BOOT_MINUTES})
    about = Metadata(id="sim", uid="t", created_at=now)
    await put(TEMPLATE, WorkerTemplate(metadata=about, spec=template, status=SimpleStatus()))
    needs = {"cpuCores": 1, "memoryGb": 1, "nodeCount": 1}
    lab = {"name": "lab", "version": "1.0.0", "topology": {"digest": "0" * 64, "bytes": 1}, "requirements": needs}
    metadata = {"id": "lab@1.0.0", "uid": "d", "createdAt": now}
    published = {"metadata": metadata, "spec": lab, "status": {"phase": "Published"}}
    await put(DEFINITION, DEFINITION.model.model_validate(published))
    labs = 0
    for pool, workers in POOLS.items():
        spec = PoolSpec(template="sim", max=workers, preparation_minutes=0, turnaround_minutes=0)
        about = Metadata(id=pool, uid=pool, created_at=now)
        await put(POOL, WorkerPool(metadata=about, spec=spec, status=PoolStatus()))
        for number in range(LABS_EACH):
            await put(RESERVATION, _reservation(pool, workers, number, now))
            labs += workers
    return labs


def _reservation(pool: str, workers: int, number: int, now: datetime) -> Reservation:
    """A seat on each worker of the pool."""
    name = f"{pool}-{number}"
    slot = {"start": now.replace(second=0), "end": now.replace(second=0, year=now.year + 1)}
    placement = [
        {"seat": n, "worker": f"{pool}-{n:03d}", "ports": {"r1": 2000 + number}, "instance": f"ins-{name}-{n}"}
        for n in range(1, workers + 1)
    ]
    spec = {"definition": "lab@1.0.0", "seats": workers, **slot, "durationMinutes": 1440}
    status = {"phase": "Scheduled", "pool": pool, "slot": slot, "placement": placement}
    metadata = {"id": f"rsv-{name}", "uid": name, "owner": "ada", "createdAt": now}
    return Reservation.model_validate({"metadata": metadata, "spec": spec, "status": status})


async def measure(replicas: int) -> tuple[float, float]:
    """Labs that came up in a second, and CPU milliseconds of all replicas for each."""
    made = harness()
    with tempfile.TemporaryDirectory() as folder, EtcdServer.start(Path(folder)) as server:
        store = EtcdStore([server.endpoint])
        real = made.datetime.now(made.UTC).replace(microsecond=0)
        labs = await _seed(store, made.MORNING)
        names = list(POOLS)
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=serve, daemon=True, args=(server.endpoint, names[n::replicas], real, made.MORNING))
            for n in range(replicas)
        ]
        for process in processes:
            process.start()
        try:
            await _until(lambda: _running(store, 1))
            used, began = sum(map(_cpu, processes)), time.perf_counter()
            await _until(lambda: _running(store, labs))
            seconds = time.perf_counter() - began
            used = sum(map(_cpu, processes)) - used
        finally:
            for process in processes:
                process.terminate()
                process.join()
            await store.close()
    return labs / seconds, used / labs * 1000


async def _running(store: EtcdStore, wanted: int) -> bool:
    items = (await store.range(INSTANCE.prefix)).items
    return sum(b'"phase":"Running"' in item.value for item in items) >= wanted


async def _until(met: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await met():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.2)


def _cpu(process: Any) -> float:
    stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICK


if __name__ == "__main__":
    print(asyncio.run(measure(int(sys.argv[1]))))
