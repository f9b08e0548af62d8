"""A worker that is Ready: its machine, its runtime and its licence are watched until nothing needs it any more.

A runtime that does not answer while nobody has had an answer of it lately (see `pulse`) is Unknown first, and has failed by a
deadline that stands in its record: it counts on across a change of owner, but whoever fails it has itself found it silent
for as long as a lease lasts. A licence that has lapsed is a condition, and is
registered again where the registration is gone: labs that run go on, since the product only refuses to start further ones.
So such a worker fails only when no lab runs on it, and only after the same deadline.
"""

from lablet_common.resources.worker import License, Scaling, Worker, WorkerPhase
from lablet_workers.machines.context import (
    PRODUCTS,
    Look,
    Outcome,
    Surroundings,
    fail,
    gone_of,
    log,
    seen,
    until,
    with_hold,
)
from lablet_workers.needs import Wanted
from lablet_workers.runtimes.port import RuntimeFault, RuntimeUnavailable

_P = WorkerPhase
UNLICENSED = "Unlicensed"
"""Condition: the runtime answers and says that its licence is not in compliance."""


async def ready(worker: Worker, wanted: Wanted, busy: bool, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await gone_of(worker, around)
    if gone is not None:
        return gone
    now = around.now()
    unknown = worker.status.condition("Unknown")
    silent = await _silence(worker, around)
    if silent is not None:
        nobody_heard = await around.pulse.missed(worker)
        if unknown is None:
            if not nobody_heard:
                return Look(around.probe)
            conditions = worker.with_condition("Unknown", True, at=now, reason="NoAnswer", message=silent)
            return Outcome(worker.observed("unknown", conditions=conditions))
        if now - unknown.since >= around.unknown and around.pulse.silent(worker):
            return fail(worker, "NoAnswer", f"its runtime has not answered since {unknown.since.isoformat()}", around)
        return Look(around.probe)
    if unknown is not None:
        return Outcome(worker.observed(conditions=worker.with_condition("Unknown", False, at=now)))
    if around.license_due and worker.spec.license in PRODUCTS:
        licensed = await _licensed(worker, busy, around)
        if licensed is not None:
            return licensed
    if wanted.on:
        held = with_hold(worker, wanted, now)
        if held is not None:
            return Outcome(held)
        return Look(min(around.probe, until(wanted.look, around)))
    # marked first, which moves the gate: a placement decided on the old state is decided again
    scaling = Scaling(direction="down", rule=wanted.rule, at=now)
    return Outcome(
        worker.moved(
            _P.DRAINING, at=now, by=around.by, reason="PowerOff", message=f"rule {wanted.rule}", scaling=scaling
        ),
        gate=True,
    )


async def _silence(worker: Worker, around: Surroundings) -> str | None:
    """Why it counts as silent now; None: it has answered, and its lease is renewed."""
    assert around.runtime is not None
    try:
        if not (await around.runtime.info()).ready:
            return "its runtime says that it is not ready"
    except RuntimeFault as error:
        return str(error)
    await around.pulse.beat(worker, around.runtime)
    return None


async def _licensed(worker: Worker, busy: bool, around: Surroundings) -> Outcome | None:
    """What its licence asks for now; None: nothing."""
    assert around.runtime is not None
    now, known = around.now(), worker.status.condition(UNLICENSED)
    try:
        state = await around.runtime.license()
    except RuntimeUnavailable:
        return None
    before = worker.status.license
    if state.in_compliance:
        told = License(status=state.authorization, node_quota=state.node_quota)
        if known is None and told == before:
            return None
        conditions = worker.with_condition(UNLICENSED, False, at=now)
        licensed = worker.observed(conditions=conditions, license=told, last_license=seen(told, now))
        return Outcome(licensed, gate=licensed.nodes != worker.nodes)
    message = f"registration {state.registration}, authorization {state.authorization}"
    if known is None:
        conditions = worker.with_condition(UNLICENSED, True, at=now, reason="OutOfCompliance", message=message)
        latest = before or worker.status.last_license
        told = License(status=state.authorization, node_quota=latest.node_quota if latest else None)
        return Outcome(worker.observed(conditions=conditions, license=told, last_license=seen(told, now)))
    if not busy and now - known.since >= around.unknown:
        return fail(worker, "LicenseLost", f"out of compliance since {known.since.isoformat()}: {message}", around)
    if not state.registered and around.license_token:
        try:
            await around.runtime.register(PRODUCTS[worker.spec.license], around.license_token)
        except RuntimeFault as error:
            log.warning("the licence was refused", extra={"worker": worker.id, "cause": str(error)})
    return None
