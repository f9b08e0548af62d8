"""One step of a worker's life: what is wanted and what the provider and the runtime say, in; the next state, out.

Each function looks at one phase, calls what the phase needs, and returns the worker one move further, or when to look again.
Doing it twice does nothing the second time: launches carry a token that is the same for every try, and everything else is
idempotent on the other side. Every way out of a phase that has a machine ends in giving back the licence and the machine.
"""

from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_workers.machines.context import Look, Outcome, Surroundings, fail
from lablet_workers.machines.powering_down import draining, failed, stopping, terminating
from lablet_workers.machines.powering_up import licensing, offline, provisioning, starting
from lablet_workers.machines.watching import ready
from lablet_workers.needs import Wanted

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
            return await ready(worker, wanted, busy, around)
        case _P.DRAINING:
            return await draining(worker, wanted, busy, around)
        case _P.STOPPING:
            return await stopping(worker, around)
        case _P.FAILED:
            return failed(worker, around)
        case _P.TERMINATING:
            return await terminating(worker, around)


def _overdue(worker: Worker, busy: bool, around: Surroundings) -> Outcome | Look:
    phase = worker.status.phase
    if phase is _P.TERMINATING:
        # nothing more can be done than to go on trying: a machine is never forgotten
        return Outcome(worker.observed(deadline=around.now() + around.stop, message="the machine does not go away"))
    if phase is _P.DRAINING and busy:
        return Outcome(worker.observed(deadline=None))
    return fail(worker, "DeadlineMissed", f"it was {phase} for longer than it may", around)
