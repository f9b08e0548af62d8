"""One step of an instance's life: the situation in, the instance one move further or the next look out.

Every step is idempotent and may be done again after a crash at any point: labs are found again by their title, staged files
have fixed keys, and a phase changes only by a committed move. Every phase has a deadline; a missed one is a reason, not a
hang. The gate on time is here: nobody can start or end a lab around it.
"""

from lablet_common.resources.instance import Instance, InstancePhase
from lablet_workers.instances.coming_up import instantiating, pending
from lablet_workers.instances.context import Again, Situation
from lablet_workers.instances.ending import collecting, exported, grading, running, stopped, stopping
from lablet_workers.instances.failing import STOP_REQUESTED, WORKER_LOST, failed

_P = InstancePhase


async def step(situation: Situation) -> Instance | Again | None:
    """The instance one step further, when to look again, or None when only news can bring it on."""
    instance = situation.instance
    phase = instance.status.phase
    if phase is _P.TERMINATED:
        return None
    slot = situation.reservation.slot if situation.reservation is not None else None
    if (
        slot is not None
        and not instance.slot_ended
        and (slot.start, slot.end) != (instance.spec.start, instance.spec.end)
    ):
        # whatever the phase: nothing may end, and no failed seat be given up, by an end that is no longer the slot's
        return instance.respecified(start=slot.start, end=slot.end)
    if phase is _P.FAILED:
        return await failed(situation)
    if phase not in (_P.STOPPED, _P.EXPORTED) and situation.worker_lost:
        lost = f"worker {instance.spec.worker} was lost"
        if phase is _P.COLLECTING and instance.status.reason == STOP_REQUESTED:
            # its end was asked for, be it while it was collected: failing from there on, it is not run again
            return situation.move(_P.STOPPING, WORKER_LOST, lost, deadline=situation.now + situation.times.stop)
        return situation.fail(WORKER_LOST, lost)
    match phase:
        case _P.PENDING:
            return await pending(situation)
        case _P.INSTANTIATING:
            return await instantiating(situation)
        case _P.RUNNING:
            return await running(situation)
        case _P.COLLECTING:
            return await collecting(situation)
        case _P.GRADING:
            return grading(situation)
        case _P.STOPPING:
            return await stopping(situation)
        case _P.STOPPED:
            return await stopped(situation)
        case _P.EXPORTED:
            return await exported(situation)
