"""After a failure: the lab is proven gone, and then its seat runs elsewhere, or again, or has ended."""

import logging
from dataclasses import replace

from lablet_common.process_lab import RUNTIME as PROCESSES
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.reservation import SeatState
from lablet_common.resources.worker import WorkerPhase
from lablet_workers.instances.context import Again, Situation
from lablet_workers.runtimes.port import LabMissing, RuntimeFault, titled

_P = InstancePhase

log = logging.getLogger("lablet.workers.instances")

WORKER_LOST = "WorkerLost"
DRAINED = "Drained"
STOP_REQUESTED = "StopRequested"
LAB_STOPPED, LAB_VANISHED = "LabStopped", "LabVanished"
_DONE_WITH = (InstancePhase.GRADING, InstancePhase.STOPPING, InstancePhase.EXPORTED)
"""Phases after which a lab is not run again: it has come to its end, and what it left is collected."""
_RESTARTED = (LAB_STOPPED, LAB_VANISHED)
"""Reasons for which a lab is started again where it was, before its seat is given another place."""


async def failed(s: Situation) -> Instance | Again | None:
    """Cleans up; then waits for another place, or ends."""
    instance, seat = s.instance, s.seat
    if not instance.status.released:
        if _may_restart(s):
            kept = instance.status.lab if instance.status.reason == LAB_STOPPED else None
            return s.move(
                _P.PENDING,
                "Restarting",
                instance.status.message,
                lab=kept,
                deadline=None,
                tries=0,
                restarts=instance.status.restarts + 1,
                attempts=s.ended_attempts(instance.status.reason),
            )
        if not await _cleaned(s):
            return Again(s.times.poll * 2)
        ended = s.ended_attempts(instance.status.reason)
        gone = instance.observed(released=True, lab=None, deadline=None, attempts=ended)
        if _done_with(instance):
            # in one step: whoever sees it failed and released gives its seat another place, and it would run once more
            return replace(s, instance=gone).move(_P.TERMINATED, *_why(instance), staged=None)
        return gone
    slot_over = s.now >= instance.spec.end
    if seat is not None and seat.attempt > instance.status.attempt and not s.abandoned and not slot_over:
        moved = s.move(
            _P.PENDING,
            "Replaced",
            f"attempt {seat.attempt} on worker {seat.worker}",
            attempt=seat.attempt,
            released=False,
            lab=None,
            host=None,
            tries=0,
            restarts=0,
            evicted=False,
            staged=None,
        )
        return moved.model_copy(
            update={"spec": instance.spec.model_copy(update={"worker": seat.worker, "ports": dict(seat.ports)})}
        )
    if s.abandoned or slot_over or (seat is not None and seat.state is SeatState.LOST):
        return s.move(_P.TERMINATED, *_why(instance), staged=None)
    if _worker_back(s):
        return s.move(_P.PENDING, "WorkerBack", released=False, evicted=False, tries=0, staged=None)
    return Again(instance.spec.end - s.now)


def _why(instance: Instance) -> tuple[str, str | None]:
    return instance.status.reason or "Failed", instance.status.message


def _done_with(instance: Instance) -> bool:
    """It failed when its end, asked for or its own, had come so far that its seat wants no lab any more. One that is ended
    because its worker is being emptied wants one elsewhere, and so does one that came to its own end and whose results were
    not collected yet."""
    return instance.status.history[-1].frm in _DONE_WITH and not instance.status.evicted


def _may_restart(s: Situation) -> bool:
    """Its lab stopped or vanished by itself, on a worker that is well and where it may go on, and not too often."""
    status, worker = s.instance.status, s.worker
    if status.reason not in _RESTARTED or status.restarts >= s.tries or s.abandoned or s.now >= s.instance.spec.end:
        return False
    if worker is None or worker.spec.runtime == PROCESSES:
        return False  # a job is not run twice, and an agent restarts services by their own policies
    return worker.status.phase is WorkerPhase.READY and not s.being_drained and not s.kept_out and not s.worker_lost


def _worker_back(s: Situation) -> bool:
    """It failed with its worker or was kept out by a drain, nobody has moved its seat since, and the worker is there for it
    again."""
    seat, worker, status = s.seat, s.worker, s.instance.status
    if seat is None or worker is None or status.reason not in (WORKER_LOST, DRAINED) or s.kept_out:
        return False
    if status.reason == DRAINED and s.being_drained:
        return False
    stayed = seat.worker == s.instance.spec.worker and seat.attempt == status.attempt
    return stayed and seat.state is SeatState.PLACED and worker.status.phase is WorkerPhase.READY


async def _cleaned(s: Situation) -> bool:
    """Its lab is gone from its worker, for certain."""
    lab = s.instance.status.lab
    if s.worker_runs_nothing:
        return True
    if lab is None:
        return await none_left(s)
    if s.runtime is None:
        return False
    try:
        progress = await s.runtime.progress(lab.id)
        if not progress.stopped:
            await s.runtime.stop(lab.id)
            return False
        await s.runtime.remove(lab.id)
    except LabMissing:
        log.debug("its lab is gone", extra={"instance": s.instance.id, "lab": lab.id})
    except RuntimeFault as error:
        log.info("its lab cannot be removed yet", extra={"instance": s.instance.id, "cause": str(error)})
        return False
    return await none_left(s)


async def none_left(s: Situation) -> bool:
    """No lab that bears its title is on its worker any more: none that was imported right before a crash and never recorded,
    and no second one. Two owners that follow each other may both import it, the one before by a request that it sent when
    it stood still over the end of its lease; the runtime knows nothing of fences, and only one of the labs is recorded."""
    if s.worker_runs_nothing:
        return True
    if s.runtime is None:
        return False
    try:
        for lab in titled(await s.runtime.labs(besides=_neighbours_labs(s)), s.instance.id):
            if not (await s.runtime.progress(lab)).stopped:
                await s.runtime.stop(lab)
                return False
            await s.runtime.remove(lab)
    except LabMissing:
        return False  # gone in between: looked at once more
    except RuntimeFault as error:
        log.info("an unrecorded lab cannot be removed yet", extra={"instance": s.instance.id, "cause": str(error)})
        return False
    return True


def _neighbours_labs(s: Situation) -> set[str]:
    """What the other instances of its worker have recorded there: nobody needs to ask for those labs' titles."""
    machine = s.worker.status.machine if s.worker is not None else None
    labs = [(one.instance.id, one.instance.status.lab) for one in s.neighbours()]
    return {
        lab.id
        for name, lab in labs
        if lab is not None and machine is not None and lab.machine == machine.id and name != s.instance.id
    }
