"""A host joins a pool: the decision on an agent's registration. Pure.

The worker's name is the agent's, and stays in the pool in which it came first. What a host has may change between two
registrations; labs that run are not touched by it.
"""

from datetime import datetime
from typing import Any
from uuid import uuid4

from lablet_common.intake import Decision, refused
from lablet_common.intents import WorkerRegister
from lablet_common.process_lab import RUNTIME
from lablet_common.requests import Undecided
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import Worker, WorkerPhase, WorkerPool, WorkerSpec, WorkerStatus, WorkerTemplate
from lablet_common.store import Transaction
from lablet_workers.ledger import move_gate_in
from lablet_workers.pools import AGENTS


def decide_registration(
    name: str,
    worker: Worker | None,
    pool: WorkerPool | None,
    template: WorkerTemplate | None,
    members: int,
    undecided: Undecided,
    now: datetime,
) -> Decision:
    """`members`: workers that the pool has."""
    asked = WorkerRegister.model_validate(undecided.request.spec.data)
    if pool is None or template is None:
        return refused("unknown-pool", "Unknown pool", f"there is no pool {asked.pool}", 422, path="pool")
    if template.spec.provider != AGENTS:
        said = f"pool {pool.id} is not for agents: its template's provider is {template.spec.provider}, not {AGENTS}"
        return refused("wrong-pool", "Wrong pool", said, 422, path="pool")
    if worker is not None and (worker.spec.pool != pool.id or worker.spec.runtime != RUNTIME):
        said = f"worker {name} belongs to pool {worker.spec.pool}: join that one, or take another name"
        return refused("name-taken", "Name taken", said, 409)
    measured: dict[str, Any] = {
        "capacity": asked.capacity,
        "port_range": asked.port_range,
        "runtime_version": asked.version,
    }
    cause = undecided.request.spec.event_id
    if worker is None:
        if members >= pool.spec.max:
            said = (
                f"pool {pool.id} has {members} workers, and its max is {pool.spec.max}: raise it, or join another pool"
            )
            return refused("pool-full", "Pool full", said, 409)
        made = _new(name, asked, template, undecided, now, measured)
        return Decision("Registered", made.observed("offline", cause=cause), also=_gate(pool.id, name))
    same = all(getattr(worker.spec, field) == value for field, value in measured.items())
    if same and worker.metadata.labels == asked.labels:
        return Decision("AlreadyRegistered", worker.observed())
    changed = worker.relabelled(asked.labels).respecified(cause=cause, **measured)
    return Decision("Registered", changed, also=_gate(pool.id, name))


def _new(
    name: str,
    asked: WorkerRegister,
    template: WorkerTemplate,
    undecided: Undecided,
    now: datetime,
    measured: dict[str, Any],
) -> Worker:
    shape, request = template.spec, undecided.request
    spec = WorkerSpec(
        pool=asked.pool,
        template=template.id,
        max_nodes=shape.max_nodes,
        license=shape.license,
        runtime=RUNTIME,
        node_definitions=shape.node_definitions,
        boot_minutes=0,
        **measured,
    )
    metadata = Metadata(
        id=name,
        uid=str(uuid4()),
        labels=asked.labels,
        created_at=now,
        correlation_id=request.metadata.correlation_id or request.id,
    )
    return Worker(metadata=metadata, spec=spec, status=WorkerStatus(phase=WorkerPhase.OFFLINE))


def _gate(pool: str, worker: str) -> Transaction:
    """Who may be placed upon has changed."""
    gate = Transaction()
    move_gate_in(gate, pool, worker)
    return gate
