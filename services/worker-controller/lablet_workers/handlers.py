"""Decisions on what is asked of workers, instances, pools and templates. Pure: request and present state in, outcome out.

A drain books a maintenance span and cordons the worker, so that nothing new comes; running labs stay until their end or the
deadline. An intent that has been carried out already is granted again without a change.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from lablet_common.intake import Decision, refused, verb_of
from lablet_common.intents import PoolApply, TemplateApply, WorkerCordon, WorkerDrain
from lablet_common.requests import Undecided
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.machine import IllegalTransition
from lablet_common.resources.model import Metadata
from lablet_common.resources.request import Request
from lablet_common.resources.worker import (
    Cordon,
    Maintenance,
    SimpleStatus,
    Worker,
    WorkerPhase,
    WorkerPool,
    WorkerTemplate,
)
from lablet_common.store import Transaction
from lablet_common.store.changes import delete_in
from lablet_workers.instances.ending import COLLECT_REQUESTED
from lablet_workers.ledger import move_gate_in

_DRAIN = "drain"
_STOP = "StopRequested"
_ENDING = (
    InstancePhase.GRADING,
    InstancePhase.STOPPING,
    InstancePhase.STOPPED,
    InstancePhase.EXPORTED,
    InstancePhase.TERMINATED,
)
_MOST_RECORDS = 100
"""Worker records that one transaction can delete beside its other parts."""


def unknown(kind: str, name: str) -> Decision:
    return refused(f"unknown-{kind}", f"Unknown {kind}", f"there is no {kind} {name}", 404)


def _changed(reason: str, worker: Worker) -> Decision:
    """A worker whose eligibility changes: the pool's gate moves in the same transaction."""
    gate = Transaction()
    move_gate_in(gate, worker.spec.pool, worker.id)
    return Decision(reason, worker, also=gate)


# -- workers -------------------------------------------------------------------------------------------------------


def decide_worker(worker: Worker, undecided: Undecided, now: datetime, drain_timeout: timedelta) -> Decision:
    """cordon, uncordon, drain, drain-cancel."""
    request = undecided.request
    _, verb = verb_of(undecided)
    cause = request.spec.event_id
    match verb:
        case "cordon.requested":
            asked = WorkerCordon.model_validate(request.spec.data)
            cordon = Cordon(reason=asked.reason, by=request.spec.principal, until=asked.until)
            if worker.spec.unschedulable == cordon:
                return Decision("AlreadyCordoned")
            return _changed("Cordoned", worker.respecified("cordoned", cause=cause, unschedulable=cordon))
        case "uncordon.requested":
            if worker.spec.unschedulable is None:
                return Decision("NotCordoned")
            return _changed("Uncordoned", worker.respecified("uncordoned", cause=cause, unschedulable=None))
        case "drain.requested":
            return _drain(worker, WorkerDrain.model_validate(request.spec.data), request, now, drain_timeout)
        case "drain-cancel.requested":
            spans = tuple(span for span in worker.spec.maintenance if span.to <= now or span.reason != _DRAIN)
            if spans == worker.spec.maintenance and worker.spec.unschedulable is None:
                return Decision("NotDraining")
            released = worker.respecified("drain-cancelled", cause=cause, unschedulable=None, maintenance=spans)
            return _changed("DrainCancelled", released)
        case _:
            return refused("unknown-intent", "Unknown intent", f"{request.spec.type} is not known here", 422)


def _drain(worker: Worker, asked: WorkerDrain, request: Request, now: datetime, drain_timeout: timedelta) -> Decision:
    begin = _minute(asked.at or now)
    patience = timedelta(minutes=asked.deadline_minutes) if asked.deadline_minutes is not None else drain_timeout
    end = _minute(asked.until) if asked.until is not None else begin + max(patience, timedelta(minutes=1))
    if end <= begin:
        return refused("invalid-span", "Invalid span", f"until {end.isoformat()} is not after {begin.isoformat()}", 422)
    span = Maintenance.model_validate({"from": begin, "to": end, "reason": _DRAIN})
    coming = [known for known in worker.spec.maintenance if known.to > now and known != span]
    changes: dict[str, Any] = {"maintenance": (*coming, span), "unschedulable": worker.spec.unschedulable}
    if asked.at is None:
        changes["unschedulable"] = Cordon(reason=asked.message or _DRAIN, by=request.spec.principal, until=asked.until)
    if changes == {"maintenance": worker.spec.maintenance, "unschedulable": worker.spec.unschedulable}:
        return Decision("AlreadyDraining")
    return _changed("DrainBooked", worker.respecified("cordoned", cause=request.spec.event_id, **changes))


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


# -- instances -----------------------------------------------------------------------------------------------------


def decide_instance(instance: Instance, collects: bool, undecided: Undecided, now: datetime, by: str) -> Decision:
    """stop and collect inside the slot. `collects`: its definition wants its configurations kept, so that a stop collects
    first, as the end of the slot would. The phases' deadlines are set by the step machine."""
    request = undecided.request
    _, verb = verb_of(undecided)
    cause = request.spec.event_id
    try:
        match verb:
            case "stop.requested":
                if instance.phase in _ENDING or (
                    instance.phase is InstancePhase.COLLECTING and instance.status.reason != COLLECT_REQUESTED
                ):
                    return Decision("AlreadyStopped")
                if instance.phase is InstancePhase.COLLECTING:
                    # what is being collected is collected to the end, and then it stops
                    return Decision(_STOP, instance.observed(cause=cause, reason=_STOP))
                if instance.phase is InstancePhase.RUNNING and collects:
                    to, changes = InstancePhase.COLLECTING, {"staged": None}
                else:
                    to, changes = InstancePhase.STOPPING, {}
                moved = instance.moved(to, at=now, by=by, reason=_STOP, cause=cause, deadline=None, **changes)
                return Decision(_STOP, moved)
            case "collect.requested":
                if instance.phase is InstancePhase.COLLECTING:
                    return Decision("AlreadyCollecting")
                to = InstancePhase.COLLECTING
                moved = instance.moved(
                    to, at=now, by=by, reason=COLLECT_REQUESTED, cause=cause, staged=None, deadline=None
                )
                return Decision(COLLECT_REQUESTED, moved)
            case _:
                return refused(
                    "not-supported", "Not supported", f"{request.spec.type} cannot be asked of a running mesh yet", 422
                )
    except IllegalTransition as illegal:
        return refused("illegal-transition", "Illegal transition", str(illegal))


# -- pools and templates -------------------------------------------------------------------------------------------


def decide_pool(
    name: str,
    pool: WorkerPool | None,
    template: WorkerTemplate | None,
    workers: Sequence[Worker],
    booked: Sequence[str],
    undecided: Undecided,
    now: datetime,
) -> Decision:
    """apply (make or change) and delete (only when every worker of it is off and nothing is booked; `booked`: reservations
    that have a place in it). Its workers' records go with it."""
    request = undecided.request
    _, verb = verb_of(undecided)
    if verb == "delete.requested":
        if pool is None:
            return Decision("AlreadyDeleted")
        on = [worker.id for worker in workers if worker.phase is not WorkerPhase.OFFLINE]
        if on:
            return refused("in-use", "Pool in use", f"pool {name} has workers that are not Offline: {', '.join(on)}")
        if booked:
            return refused("in-use", "Pool in use", f"pool {name} has reservations: {', '.join(booked[:5])}")
        if len(workers) > _MOST_RECORDS:
            said = f"pool {name} has {len(workers)} workers: set its max to 0 first, which takes them away one by one"
            return refused("in-use", "Pool in use", said)
        records = Transaction()
        for worker in workers:
            delete_in(records, worker)
        move_gate_in(records, name, name)
        return Decision("Deleted", pool, delete=True, also=records)
    asked = PoolApply.model_validate(request.spec.data)
    if template is None:
        return refused(
            "unknown-template", "Unknown template", f"spec.template: there is no template {asked.spec.template}", 422
        )
    if pool is None:
        made = WorkerPool(metadata=_metadata(name, request, now), spec=asked.spec, status=SimpleStatus())
        return Decision("Created", made.observed("created", cause=request.spec.event_id))
    if pool.spec == asked.spec and pool.metadata.labels == asked.labels:
        return Decision("Unchanged")
    changed = pool.relabelled(asked.labels).respecified(cause=request.spec.event_id, **asked.spec.model_dump())
    return Decision("Changed", changed)


def decide_template(
    name: str, template: WorkerTemplate | None, pools: Sequence[WorkerPool], undecided: Undecided, now: datetime
) -> Decision:
    """apply and delete (only when no pool uses it). Workers keep the shape that they were made with."""
    request = undecided.request
    _, verb = verb_of(undecided)
    if verb == "delete.requested":
        if template is None:
            return Decision("AlreadyDeleted")
        users = [pool.id for pool in pools if pool.spec.template == name]
        if users:
            return refused("in-use", "Template in use", f"template {name} is used by pool {', '.join(users)}")
        return Decision("Deleted", template, delete=True)
    asked = TemplateApply.model_validate(request.spec.data)
    if template is None:
        made = WorkerTemplate(metadata=_metadata(name, request, now), spec=asked.spec, status=SimpleStatus())
        return Decision("Created", made.observed("created", cause=request.spec.event_id))
    if template.spec == asked.spec and template.metadata.labels == asked.labels:
        return Decision("Unchanged")
    changed = template.relabelled(asked.labels).respecified(cause=request.spec.event_id, **asked.spec.model_dump())
    return Decision("Changed", changed)


def _metadata(name: str, request: Request, now: datetime) -> Metadata:
    labels = request.spec.data.get("labels") or {}
    correlation = request.metadata.correlation_id or request.id
    return Metadata(id=name, uid=str(uuid4()), labels=labels, created_at=now, correlation_id=correlation)
