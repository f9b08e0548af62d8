"""Decisions on what is asked of workers and instances. Pure: request and present state in, outcome out.

A drain books a maintenance span and cordons the worker, so that nothing new comes; running labs stay until their end or the
deadline. A cordon that somebody set before stands again when the drain is cancelled. A replacement is a drain after which
the worker gets a new machine. An intent that has been carried out already is granted again without a change.
"""

from datetime import datetime, timedelta
from typing import Any

from lablet_common.drains import DRAIN, REPLACE, InvalidSpan, span_of
from lablet_common.intake import Decision, refused, verb_of
from lablet_common.intents import WorkerCordon, WorkerDrain, WorkerReplace
from lablet_common.requests import Undecided
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.machine import IllegalTransition
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation, SeatState
from lablet_common.resources.worker import Cordon, Replacement, Worker
from lablet_common.store import Transaction
from lablet_common.store.changes import unchanged_in
from lablet_workers.instances.ending import COLLECT_REQUESTED
from lablet_workers.instances.failing import STOP_REQUESTED
from lablet_workers.ledger import move_gate_in

_ENDING = (
    InstancePhase.GRADING,
    InstancePhase.STOPPING,
    InstancePhase.STOPPED,
    InstancePhase.EXPORTED,
    InstancePhase.TERMINATED,
)


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
            released = undrained(worker, now, fact="drain-cancelled", cause=cause)
            return _changed("DrainCancelled", released) if released is not None else Decision("NotDraining")
        case "replace.requested":
            replace = WorkerReplace.model_validate(request.spec.data)
            if worker.spec.replacing is not None:
                return Decision("AlreadyReplacing")
            by = request.spec.principal
            return _changed("ReplacementBooked", replaced(worker, replace, by, now, drain_timeout, cause))
        case _:
            return refused("unknown-intent", "Unknown intent", f"{request.spec.type} is not known here", 422)


def undrained(worker: Worker, now: datetime, *, fact: str = "changed", cause: str | None = None) -> Worker | None:
    """The worker without its drains and replacement, and with the cordon that it had before; None: it has none."""
    spec = worker.spec
    spans = tuple(span for span in spec.maintenance if span.to <= now or span.reason not in (DRAIN, REPLACE))
    drained = spec.unschedulable is not None and spec.unschedulable.drain
    if spans == spec.maintenance and not drained and spec.replacing is None:
        return None
    changes: dict[str, Any] = {"maintenance": spans, "replacing": None}
    if drained and spec.unschedulable is not None:
        changes["unschedulable"] = spec.unschedulable.earlier
    return worker.respecified(fact, cause=cause, **changes)


def replaced(
    worker: Worker, asked: WorkerReplace, by: str, now: datetime, patience: timedelta, cause: str | None = None
) -> Worker:
    """The worker on its way to a new machine: emptied as by a drain, from now on."""
    span = span_of(asked, now, patience, REPLACE)
    coming = [known for known in worker.spec.maintenance if known.to > now]
    return worker.respecified(
        "cordoned",
        cause=cause,
        maintenance=(*coming, span),
        unschedulable=_drain_cordon(worker, asked.message or asked.reason or REPLACE, by, None),
        replacing=Replacement(at=now, by=by),
    )


def _drain_cordon(worker: Worker, reason: str, by: str, until: datetime | None) -> Cordon:
    known = worker.spec.unschedulable
    earlier = known.earlier if known is not None and known.drain else known
    return Cordon(reason=reason, by=by, until=until, drain=True, earlier=earlier)


def _drain(worker: Worker, asked: WorkerDrain, request: Request, now: datetime, drain_timeout: timedelta) -> Decision:
    try:
        span = span_of(asked, now, drain_timeout)
    except InvalidSpan as invalid:
        return refused("invalid-span", "Invalid span", str(invalid), 422)
    coming = [known for known in worker.spec.maintenance if known.to > now and known != span]
    changes: dict[str, Any] = {"maintenance": (*coming, span), "unschedulable": worker.spec.unschedulable}
    if asked.at is None:
        by = request.spec.principal
        changes["unschedulable"] = _drain_cordon(worker, asked.message or DRAIN, by, asked.until)
    if changes == {"maintenance": worker.spec.maintenance, "unschedulable": worker.spec.unschedulable}:
        return Decision("AlreadyDraining")
    return _changed("DrainBooked", worker.respecified("cordoned", cause=request.spec.event_id, **changes))


# -- instances -----------------------------------------------------------------------------------------------------


def decide_instance(
    instance: Instance, reservation: Reservation | None, collects: bool, undecided: Undecided, now: datetime, by: str
) -> Decision:
    """stop, start, collect and retry, inside the slot. `collects`: its definition wants something kept of a running lab, so
    that a stop collects first, as the end of the slot would. The phases' deadlines are set by the step machine."""
    request = undecided.request
    _, verb = verb_of(undecided)
    cause = request.spec.event_id
    try:
        match verb:
            case "stop.requested":
                if instance.phase is InstancePhase.STOPPED and instance.status.restart:
                    # what comes up again is stopped again, and may be started once more
                    return Decision(STOP_REQUESTED, instance.observed(cause=cause, restart=False, deadline=None))
                if instance.phase in _ENDING or (
                    instance.phase is InstancePhase.COLLECTING and instance.status.reason != COLLECT_REQUESTED
                ):
                    return Decision("AlreadyStopped")
                if instance.phase is InstancePhase.COLLECTING:
                    # what is being collected is collected to the end, and then it stops
                    return Decision(STOP_REQUESTED, instance.observed(cause=cause, reason=STOP_REQUESTED))
                if instance.phase is InstancePhase.RUNNING and collects:
                    to, changes = InstancePhase.COLLECTING, {"staged": None}
                else:
                    to, changes = InstancePhase.STOPPING, {}
                moved = instance.moved(to, at=now, by=by, reason=STOP_REQUESTED, cause=cause, deadline=None, **changes)
                return Decision(STOP_REQUESTED, moved)
            case "collect.requested":
                if instance.phase is InstancePhase.COLLECTING:
                    return Decision("AlreadyCollecting")
                to = InstancePhase.COLLECTING
                moved = instance.moved(
                    to, at=now, by=by, reason=COLLECT_REQUESTED, cause=cause, staged=None, deadline=None
                )
                return Decision(COLLECT_REQUESTED, moved)
            case "start.requested":
                return _start(instance, now, cause)
            case "retry.requested":
                return _retry(instance, reservation, now, by, cause)
            case _:
                return refused("unknown-intent", "Unknown intent", f"{request.spec.type} is not known here", 422)
    except IllegalTransition as illegal:
        return refused("illegal-transition", "Illegal transition", str(illegal))


_UP = (InstancePhase.INSTANTIATING, InstancePhase.RUNNING, InstancePhase.COLLECTING)


def _start(instance: Instance, now: datetime, cause: str | None) -> Decision:
    """A lab that was stopped inside its slot runs again: its step starts it and waits for its ports."""
    if instance.phase in _UP or instance.status.restart:
        return Decision("AlreadyStarted")
    if instance.phase is not InstancePhase.STOPPED or instance.status.lab is None or instance.status.evicted:
        said = f"instance {instance.id} is {instance.phase}: only a lab that was stopped inside its slot can be started"
        return refused("illegal-transition", "Illegal transition", said)
    if now >= instance.spec.end:
        return refused("slot-over", "Slot over", f"the slot of instance {instance.id} has ended")
    return Decision("StartRequested", instance.observed(cause=cause, restart=True, deadline=None))


def _retry(instance: Instance, reservation: Reservation | None, now: datetime, by: str, cause: str | None) -> Decision:
    """A failed seat tries its own worker once more, unless the scheduler has given it another place meanwhile."""
    if instance.phase in (InstancePhase.PENDING, *_UP):
        return Decision("AlreadyTrying")
    seat = reservation.seat(instance.spec.seat) if reservation is not None and not reservation.is_final else None
    if instance.phase is not InstancePhase.FAILED or seat is None or seat.state is not SeatState.PLACED:
        said = f"instance {instance.id} is {instance.phase}: only a failed seat that still has its place can be tried again"
        return refused("illegal-transition", "Illegal transition", said)
    if now >= instance.spec.end:
        return refused("slot-over", "Slot over", f"the slot of instance {instance.id} has ended")
    if not instance.status.released:
        said = f"the lab of instance {instance.id} is still being cleaned up: try again in a minute"
        return refused("not-ready", "Not ready", said)
    if seat.attempt > instance.status.attempt:
        return Decision("AlreadyTrying")
    rests = Transaction()
    assert reservation is not None
    unchanged_in(rests, reservation)
    again = instance.moved(
        InstancePhase.PENDING,
        at=now,
        by=by,
        reason="RetryRequested",
        cause=cause,
        released=False,
        evicted=False,
        lab=None,
        tries=0,
        restarts=0,
        staged=None,
        deadline=None,
    )
    return Decision("RetryRequested", again, also=rests)
