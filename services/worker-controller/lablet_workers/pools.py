"""A pool's logical workers: cheap records up to its `max`, made once and kept. Pure.

A worker takes its shape from the template when it is made. Shrinking a pool first makes its surplus workers unschedulable,
so that nothing new comes and what is booked on them still runs; their records go once they are off and nothing is booked.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import uuid4

from lablet_common.process_lab import RUNTIME
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import (
    Cordon,
    Worker,
    WorkerPhase,
    WorkerPool,
    WorkerSpec,
    WorkerStatus,
    WorkerTemplate,
)

AGENTS = "agent"
"""Provider of templates whose workers join by themselves."""


def worker_names(pool: WorkerPool) -> list[str]:
    """`<pool>-001` to `<pool>-<max>`."""
    return [f"{pool.id}-{number:03d}" for number in range(1, pool.spec.max + 1)]


def is_surplus(worker: Worker, pool: WorkerPool) -> bool:
    """Beyond the pool's size. Hosts that joined by themselves were counted when they did."""
    if worker.spec.runtime == RUNTIME:
        return False
    prefix, _, number = worker.id.rpartition("-")
    within = prefix == pool.id and number.isdecimal() and 1 <= int(number) <= pool.spec.max
    return not (within and worker.id == f"{pool.id}-{int(number):03d}")


SHRUNK = "pool-shrunk"
"""Reason of the cordon of a worker beyond its pool's `max`."""


def recordoned(worker: Worker, pool: WorkerPool, by: str, now: datetime) -> Worker | None:
    """The worker with the cordon of a surplus one, or without it where the pool has grown again, and without one whose time
    is over: of a drain that ended so, what stood before it stands again. None: as it should be."""
    surplus = is_surplus(worker, pool)
    cordon = _standing(worker.spec.unschedulable, now)
    if surplus and cordon is None:
        cordon = Cordon(reason=SHRUNK, by=by)
    elif not surplus and cordon is not None and cordon.reason == SHRUNK:
        cordon = None
    if cordon == worker.spec.unschedulable:
        return None
    return worker.respecified("cordoned" if cordon is not None else "uncordoned", unschedulable=cordon)


def _standing(cordon: Cordon | None, now: datetime) -> Cordon | None:
    while cordon is not None and cordon.until is not None and now >= cordon.until:
        cordon = cordon.earlier
    return cordon


def missing_workers(
    pool: WorkerPool, template: WorkerTemplate, existing: Collection[str], now: datetime
) -> list[Worker]:
    """Records that the pool should have and has not."""
    shape = template.spec
    names = [name for name in worker_names(pool) if name not in existing]
    if not names or shape.provider == AGENTS:  # agents come by themselves
        return []
    spec = WorkerSpec(
        pool=pool.id,
        template=template.id,
        capacity=shape.capacity,
        max_nodes=shape.max_nodes,
        license=shape.license,
        port_range=shape.port_range,
        runtime_version=shape.runtime_version,
        node_definitions=shape.node_definitions,
        boot_minutes=shape.boot_minutes,
    )
    return [
        Worker(
            metadata=Metadata(id=name, uid=str(uuid4()), labels=pool.metadata.labels, created_at=now),
            spec=spec,
            status=WorkerStatus(phase=WorkerPhase.OFFLINE),
        ).observed("offline")
        for name in names
    ]
