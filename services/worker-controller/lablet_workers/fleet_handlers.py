"""Decisions on what is asked of pools and templates. Pure: request and present state in, outcome out.

A pool or template goes only when nothing uses it, and what a worker's machine depends on (where it comes from) changes only
while there is no machine. A rolling replacement is noted in the pool; the fleet asks its workers one after the other.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

from lablet_common.intake import Decision, refused, verb_of
from lablet_common.intents import PoolApply, PoolReplace, TemplateApply
from lablet_common.requests import Undecided
from lablet_common.resources.model import Metadata
from lablet_common.resources.request import Request
from lablet_common.resources.worker import (
    PoolStatus,
    Rollout,
    SimpleStatus,
    Worker,
    WorkerPhase,
    WorkerPool,
    WorkerTemplate,
)
from lablet_common.store import Transaction
from lablet_common.store.changes import delete_in
from lablet_workers.ledger import move_gate_in

_MOST_RECORDS = 100
"""Worker records that one transaction can delete beside its other parts."""


def unknown(kind: str, name: str) -> Decision:
    return refused(f"unknown-{kind}", f"Unknown {kind}", f"there is no {kind} {name}", 404)


def decide_pool(
    name: str,
    pool: WorkerPool | None,
    template: WorkerTemplate | None,
    workers: Sequence[Worker],
    booked: Sequence[str],
    undecided: Undecided,
    now: datetime,
) -> Decision:
    """apply (make or change) and delete (only when every worker of it is off and nothing is booked or waits; `booked`: its
    reservations that have not ended, and what is undecided). Its workers' records go with it."""
    request = undecided.request
    _, verb = verb_of(undecided)
    if verb == "delete.requested":
        if pool is None:
            return Decision("AlreadyDeleted")
        on = [worker.id for worker in workers if worker.phase is not WorkerPhase.OFFLINE]
        if on:
            return refused("in-use", "Pool in use", f"pool {name} has workers that are not Offline: {', '.join(on)}")
        if booked:
            return refused(
                "in-use",
                "Pool in use",
                f"pool {name} has reservations that have not ended: {', '.join(booked[:5])}: cancel them first",
            )
        if machines := _with_machines(workers):
            said = f"pool {name} has machines that are off: {machines}; set its max to 0 first, which takes them away"
            return refused("in-use", "Pool in use", said)
        if len(workers) > _MOST_RECORDS:
            said = f"pool {name} has {len(workers)} workers: set its max to 0 first, which takes them away one by one"
            return refused("in-use", "Pool in use", said)
        records = Transaction()
        for worker in workers:
            delete_in(records, worker)
        move_gate_in(records, name, name)
        return Decision("Deleted", pool, delete=True, also=records)
    if verb in ("replace.requested", "replace-cancel.requested"):
        if pool is None:
            return unknown("pool", name)
        if verb == "replace.requested":
            return _replace(pool, workers, request, now)
        rollout = pool.status.rollout
        if rollout is None or rollout.finished_at is not None:
            return Decision("NotReplacing")
        over = rollout.model_copy(update={"waiting": (), "finished_at": now})
        return Decision("ReplacementCancelled", pool.observed(cause=request.spec.event_id, rollout=over))
    asked = PoolApply.model_validate(request.spec.data)
    if template is None:
        return refused(
            "unknown-template", "Unknown template", f"spec.template: there is no template {asked.spec.template}", 422
        )
    if template.spec.regions and asked.spec.region and asked.spec.region not in template.spec.regions:
        allowed = ", ".join(template.spec.regions)
        said = f"spec.region: {asked.spec.region} is none of template {template.id}'s: {allowed}"
        return refused("unknown-region", "Unknown region", said, 422)
    if pool is not None and asked.spec.region != pool.spec.region and (machines := _with_machines(workers)):
        said = f"spec.region: pool {name} has machines in {pool.spec.region or 'the default region'}: {machines}"
        return refused("in-use", "Pool in use", f"{said}; set its max to 0 first, which takes them away")
    if pool is None:
        made = WorkerPool(metadata=_metadata(name, request, now), spec=asked.spec, status=PoolStatus())
        return Decision("Created", made.observed("created", cause=request.spec.event_id))
    if pool.spec == asked.spec and pool.metadata.labels == asked.labels:
        return Decision("Unchanged")
    changed = pool.relabelled(asked.labels).respecified(cause=request.spec.event_id, **asked.spec.model_dump())
    return Decision("Changed", changed)


def _with_machines(workers: Sequence[Worker]) -> str:
    return ", ".join(worker.id for worker in workers if worker.status.machine is not None)


def _replace(pool: WorkerPool, workers: Sequence[Worker], request: Request, now: datetime) -> Decision:
    """Notes which workers shall get a new machine: those that have one."""
    asked = PoolReplace.model_validate(request.spec.data)
    if pool.status.rollout is not None and pool.status.rollout.finished_at is None:
        return Decision("AlreadyReplacing")
    waiting = tuple(sorted(worker.id for worker in workers if worker.status.machine is not None))
    rollout = Rollout(
        at=now,
        by=request.spec.principal,
        max_unavailable=asked.max_unavailable,
        deadline_minutes=asked.deadline_minutes,
        message=asked.message,
        waiting=waiting,
        finished_at=None if waiting else now,
    )
    changed = pool.observed(cause=request.spec.event_id, rollout=rollout)
    return Decision("ReplacementBooked" if waiting else "NothingToReplace", changed)


def decide_template(
    name: str,
    template: WorkerTemplate | None,
    pools: Sequence[WorkerPool],
    workers: Sequence[Worker],
    undecided: Undecided,
    now: datetime,
) -> Decision:
    """apply and delete (only when no pool and none of `workers`, which were made from it, use it). Workers keep the shape
    that they were made with."""
    request = undecided.request
    _, verb = verb_of(undecided)
    if verb == "delete.requested":
        if template is None:
            return Decision("AlreadyDeleted")
        users = [pool.id for pool in pools if pool.spec.template == name]
        if users:
            return refused("in-use", "Template in use", f"template {name} is used by pool {', '.join(users)}")
        makes = [worker.id for worker in workers[:5]]
        if makes:
            return refused("in-use", "Template in use", f"workers were made from template {name}: {', '.join(makes)}")
        return Decision("Deleted", template, delete=True)
    asked = TemplateApply.model_validate(request.spec.data)
    if template is None:
        made = WorkerTemplate(metadata=_metadata(name, request, now), spec=asked.spec, status=SimpleStatus())
        return Decision("Created", made.observed("created", cause=request.spec.event_id))
    if template.spec.provider != asked.spec.provider and (machines := _with_machines(workers)):
        said = f"spec.provider: workers of template {name} have machines of {template.spec.provider}: {machines}"
        return refused("in-use", "Template in use", said)
    if template.spec == asked.spec and template.metadata.labels == asked.labels:
        return Decision("Unchanged")
    changed = template.relabelled(asked.labels).respecified(cause=request.spec.event_id, **asked.spec.model_dump())
    return Decision("Changed", changed)


def _metadata(name: str, request: Request, now: datetime) -> Metadata:
    labels = request.spec.data.get("labels") or {}
    correlation = request.metadata.correlation_id or request.id
    return Metadata(id=name, uid=str(uuid4()), labels=labels, created_at=now, correlation_id=correlation)
