"""One step of a worker's life: what is wanted and what the provider and the runtime say, in; the next state, out.

Each function looks at one phase, calls what the phase needs, and returns the worker one move further, or when to look again.
Doing it twice does nothing the second time: launches carry a token that is the same for every try, and everything else is
idempotent on the other side. Every way out of a phase that has a machine ends in giving back the licence and the machine.
"""

from lablet_common.resources.worker import Scaling, Worker, WorkerPhase
from lablet_workers.machines.context import Look, Outcome, Surroundings, fail, gone_of, until
from lablet_workers.machines.powering_down import draining, failed, stopping, terminating
from lablet_workers.machines.powering_up import licensing, offline, provisioning, starting
from lablet_workers.needs import Wanted
from lablet_workers.runtimes.port import RuntimeFault

_P = WorkerPhase


async def step(worker: Worker, wanted: Wanted, busy: bool, around: Surroundings) -> Outcome | Look:
    """The next step of a worker. `busy`: an instance on it has not ended."""
    deadline = worker.status.deadline
    if deadline is not None and around.now() >= deadline:
        return _overdue(worker, busy, around)
    match worker.status.phase:
        case _P.OFFLINE:
            return await offline(worker, wanted, around)
        case _P.PROVISIONING:
            return await provisioning(worker, around)
        case _P.STARTING:
            return await starting(worker, around)
        case _P.LICENSING:
            return await licensing(worker, around)
        case _P.READY:
            return await _ready(worker, wanted, around)
        case _P.DRAINING:
            return await draining(worker, wanted, busy, around)
        case _P.STOPPING:
            return await stopping(worker, around)
        case _P.FAILED:
            return failed(worker, around)
        case _P.TERMINATING:
            return await terminating(worker, around)


async def _ready(worker: Worker, wanted: Wanted, around: Surroundings) -> Outcome | Look:
    assert around.runtime is not None
    gone = await gone_of(worker, around)
    if gone is not None:
        return gone
    now = around.now()
    unknown = worker.status.condition("Unknown")
    try:
        silent = None if (await around.runtime.info()).ready else "its runtime says that it is not ready"
    except RuntimeFault as error:
        silent = str(error)
    if silent is not None:
        if unknown is None:
            conditions = worker.with_condition("Unknown", True, at=now, reason="NoAnswer", message=silent)
            return Outcome(worker.observed("unknown", conditions=conditions))
        if now - unknown.since >= around.unknown:
            return fail(worker, "NoAnswer", f"its runtime has not answered since {unknown.since.isoformat()}", around)
        return Look(around.probe)
    if unknown is not None:
        return Outcome(worker.observed(conditions=worker.with_condition("Unknown", False, at=now)))
    if wanted.on:
        return Look(min(around.probe, until(wanted.look, around)))
    # marked first, which moves the gate: a placement decided on the old state is decided again
    scaling = Scaling(direction="down", rule=wanted.rule, at=now)
    return Outcome(
        worker.moved(
            _P.DRAINING, at=now, by=around.by, reason="PowerOff", message=f"rule {wanted.rule}", scaling=scaling
        ),
        gate=True,
    )


def _overdue(worker: Worker, busy: bool, around: Surroundings) -> Outcome | Look:
    phase = worker.status.phase
    if phase is _P.TERMINATING:
        # nothing more can be done than to go on trying: a machine is never forgotten
        return Outcome(worker.observed(deadline=around.now() + around.stop, message="the machine does not go away"))
    if phase is _P.DRAINING and busy:
        return Outcome(worker.observed(deadline=None))
    return fail(worker, "DeadlineMissed", f"it was {phase} for longer than it may", around)
