"""From Pending to Running: a ready worker, a rendered file, a lab that is imported, started and reachable."""

import logging
from datetime import timedelta

from lablet_common.objects import ObjectMismatch, ObjectMissing, get_content
from lablet_common.resources.instance import Attempt, Instance, InstancePhase, LabRef, NodeState
from lablet_common.resources.worker import WorkerPhase
from lablet_workers.instances.context import Again, Situation
from lablet_workers.instances.failing import DRAINED
from lablet_workers.instances.room import in_the_way
from lablet_workers.runtimes.port import LabMissing, LabProgress, RuntimeFault, RuntimeUnavailable
from lablet_workers.warm import import_or_adopt

_P = InstancePhase

log = logging.getLogger("lablet.workers.instances")

_UP = (WorkerPhase.READY, WorkerPhase.DRAINING)

_LONGEST_REASON = 1000


async def pending(s: Situation) -> Instance | Again | None:
    instance = s.instance
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    seat = s.seat
    if seat is not None and seat.attempt > instance.status.attempt:
        # its worker's boot takes too long: its seat has moved to one that is up before anything of it began
        moved = instance.respecified(worker=seat.worker, ports=dict(seat.ports))
        return moved.observed(attempt=seat.attempt, lab=None, host=None, tries=0)
    if s.now >= instance.spec.end:
        return s.fail("NeverReady", "the slot ended before its worker and its lab file were ready")
    kept_out = s.kept_out
    if kept_out:
        return s.fail(DRAINED, kept_out)
    for report in s.files("report"):
        why = await get_content(s.objects, instance.tenant, report.digest)
        return s.fail("RenderFailed", why.decode(errors="replace")[:_LONGEST_REASON])
    if s.definition is not None and not s.definition.may_run:
        return s.fail("NotApproved", f"{s.definition.id} is not approved to run on agents' hosts")
    worker = s.worker
    if worker is None or worker.status.phase is not WorkerPhase.READY or not s.files("rendered"):
        return Again(min(instance.spec.end - s.now, timedelta(hours=1)))
    early = instance.spec.start - s.preparation - s.now
    if early > timedelta(0):
        return Again(early)
    needs = s.definition.spec.requirements if s.definition is not None else None
    lacking = in_the_way(instance, needs, worker, s.neighbours(), s.now + s.preparation)
    if lacking:
        log.info("its worker has no room yet", extra={"instance": instance.id, "worker": worker.id, "lacking": lacking})
        return Again(s.times.poll)
    attempt = Attempt(worker=worker.id, began_at=s.now)
    return s.move(
        _P.INSTANTIATING,
        "WorkerReady",
        deadline=s.now + s.times.instantiation,
        attempts=(*instance.status.attempts, attempt),
        artifacts=tuple(s.files("rendered")),
        tries=0,
    )


async def instantiating(s: Situation) -> Instance | Again:
    instance, worker = s.instance, s.worker
    assert worker is not None
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    if s.overdue() or s.now >= instance.spec.end:
        return s.fail("DeadlineMissed", instance.status.message or "its lab did not come up in time")
    if s.runtime is None or worker.status.phase not in _UP:
        return Again(s.times.poll)
    try:
        return await _bring_up(s)
    except RuntimeUnavailable as error:
        log.info("the runtime does not answer", extra={"instance": instance.id, "cause": str(error)})
        return Again(s.times.poll)
    except LabMissing:
        return instance.observed(lab=None)
    except RuntimeFault as error:
        tries = instance.status.tries + 1
        if tries >= s.tries:
            return s.fail("RuntimeRefused", str(error))
        return instance.observed(tries=tries, message=str(error))


async def _bring_up(s: Situation) -> Instance | Again:
    instance, worker, runtime = s.instance, s.worker, s.runtime
    assert worker is not None
    assert runtime is not None
    lab = instance.status.lab
    if lab is None:
        rendered = next(iter(s.files("rendered")), None)
        if rendered is None:
            return s.fail("LabFileLost", "its rendered lab file is not there any more")
        try:
            topology = await get_content(s.objects, instance.tenant, rendered.digest)
        except (ObjectMissing, ObjectMismatch) as error:
            return s.fail("LabFileLost", str(error))
        lab_id = await import_or_adopt(runtime, instance.id, topology, s.definition)
        assert worker.status.machine is not None
        return instance.observed(lab=LabRef(id=lab_id, worker=worker.id, machine=worker.status.machine.id))
    progress = await runtime.progress(lab.id)
    if progress.completed:
        return _up(s, progress, "Completed")
    if progress.failed:
        return s.fail("NodeFailed", progress.failed)
    if progress.stopped and progress.nodes:
        await runtime.start(lab.id)
        return Again(s.times.poll)
    if not progress.converged:
        return Again(s.times.poll)
    return await reachable(s, progress, "EveryPortAnswers")


async def reachable(s: Situation, progress: LabProgress, reason: str) -> Instance | Again:
    """Running, once every named port of a lab that has converged accepts a connection."""
    instance = s.instance
    host = s.worker.status.host if s.worker is not None else None
    assert host is not None
    closed = await s.closed_ports(host, dict(instance.spec.ports))
    if closed:
        log.info("ports do not answer yet", extra={"instance": instance.id, "ports": closed})
        return Again(s.times.poll)
    return _up(s, progress, reason)


def _up(s: Situation, progress: LabProgress, reason: str) -> Instance:
    """Running; also a lab that has come to its own end already: its slot goes the same way out."""
    return s.move(
        _P.RUNNING,
        reason,
        host=s.worker.status.host if s.worker is not None else None,
        ran=True,
        restart=False,
        staged=None,
        deadline=None,
        nodes=nodes_of(progress),
    )


def nodes_of(progress: LabProgress) -> tuple[NodeState, ...]:
    """The state of each node, by label."""
    return tuple(NodeState(label=label, state=state) for label, state in sorted(progress.nodes.items()))
