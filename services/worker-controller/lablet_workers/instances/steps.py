"""One step of an instance's life: the situation in, the instance one move further or the next look out.

Every step is idempotent and may be done again after a crash at any point: labs are found again by their title, staged files
have fixed keys, and a phase changes only by a committed move. Every phase has a deadline; a missed one is a reason, not a
hang. The gate on time is here: nobody can start or end a lab around it.
"""

import logging
from datetime import timedelta

from lablet_common.objects import ObjectMissing, get_content
from lablet_common.resources.definition import CollectKind
from lablet_common.resources.instance import ArtifactRef, Attempt, Instance, InstancePhase, LabRef, NodeState
from lablet_common.resources.reservation import SeatState
from lablet_common.resources.worker import WorkerPhase
from lablet_workers.instances.context import Again, Situation
from lablet_workers.runtimes.port import LabMissing, RuntimeFault, RuntimeUnavailable
from lablet_workers.staging import safe_name, stage, staged_names

log = logging.getLogger("lablet.workers.instances")

_P = InstancePhase
_UP = (WorkerPhase.READY, WorkerPhase.DRAINING)


async def step(situation: Situation) -> Instance | Again | None:
    """The instance one step further, when to look again, or None when only news can bring it on."""
    instance = situation.instance
    phase = instance.status.phase
    if phase is _P.TERMINATED:
        return None
    if phase is _P.FAILED:
        return await _failed(situation)
    if phase not in (_P.STOPPED, _P.EXPORTED) and situation.worker_lost:
        return situation.fail("WorkerLost", f"worker {instance.spec.worker} was lost")
    match phase:
        case _P.PENDING:
            return _pending(situation)
        case _P.INSTANTIATING:
            return await _instantiating(situation)
        case _P.RUNNING:
            return await _running(situation)
        case _P.COLLECTING:
            return await _collecting(situation)
        case _P.GRADING:
            return _grading(situation)
        case _P.STOPPING:
            return await _stopping(situation)
        case _P.STOPPED:
            return await _stopped(situation)
        case _P.EXPORTED:
            return await _exported(situation)


def _pending(s: Situation) -> Instance | Again | None:
    instance = s.instance
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    if s.now >= instance.spec.end:
        return s.fail("NeverReady", "the slot ended before its worker and its lab file were ready")
    worker = s.worker
    if worker is None or worker.status.phase is not WorkerPhase.READY or not s.files("rendered"):
        return Again(min(instance.spec.end - s.now, timedelta(hours=1)))
    attempt = Attempt(worker=worker.id, began_at=s.now)
    return s.move(
        _P.INSTANTIATING,
        "WorkerReady",
        deadline=min(instance.spec.end, s.now + s.times.instantiation),
        attempts=(*instance.status.attempts, attempt),
        artifacts=tuple(s.files("rendered")),
        tries=0,
    )


async def _instantiating(s: Situation) -> Instance | Again:
    instance, worker = s.instance, s.worker
    assert worker is not None
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    if s.overdue():
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
        (rendered,) = s.files("rendered")[:1]
        topology = await get_content(s.objects, instance.tenant, rendered.digest)
        lab_id = await runtime.import_lab(instance.id, topology)
        assert worker.status.machine is not None
        return instance.observed(lab=LabRef(id=lab_id, worker=worker.id, machine=worker.status.machine.id))
    progress = await runtime.progress(lab.id)
    if progress.stopped and progress.nodes:
        await runtime.start(lab.id)
        return Again(s.times.poll)
    if not progress.converged:
        return Again(s.times.poll)
    host = worker.status.host
    assert host is not None
    closed = await s.closed_ports(host, dict(instance.spec.ports))
    if closed:
        log.info("ports do not answer yet", extra={"instance": instance.id, "ports": closed})
        return Again(s.times.poll)
    return s.move(
        _P.RUNNING,
        "EveryPortAnswers",
        host=host,
        ran=True,
        deadline=None,
        nodes=tuple(NodeState(label=label, state=state) for label, state in sorted(progress.nodes.items())),
    )


async def _running(s: Situation) -> Instance | Again:
    instance, reservation = s.instance, s.reservation
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    slot = reservation.slot if reservation is not None else None
    if slot is not None and slot.end != instance.spec.end:
        return instance.respecified(end=slot.end)
    if s.now < instance.spec.end:
        return Again(instance.spec.end - s.now)
    return _end(s)


def _end(s: Situation) -> Instance:
    if s.definition is not None and CollectKind.CONFIGURATIONS in s.definition.spec.collect:
        return s.move(_P.COLLECTING, "SlotEnded", deadline=s.now + s.times.collect, staged=None)
    return s.move(_P.STOPPING, "SlotEnded", deadline=s.now + s.times.stop)


async def _collecting(s: Situation) -> Instance | Again:
    instance, lab, runtime = s.instance, s.instance.status.lab, s.runtime
    staged = instance.status.staged
    if lab is None or s.overdue():
        return _after_collecting(s, "CollectionMissed", "not everything was collected in time")
    if staged is None or staged.role != "collected":
        if runtime is None:
            return Again(s.times.poll)
        try:
            configurations = await runtime.configurations(lab.id)
        except RuntimeUnavailable:
            return Again(s.times.poll)
        except LabMissing:
            return _after_collecting(s, "LabMissing", "the lab was no longer on its worker")
        files = {f"{safe_name(label)}.cfg": text for label, text in configurations.items()}
        return instance.observed(staged=await stage(s.objects, instance, "collected", files))
    if await _all_stored(s, "collected"):
        return _after_collecting(s, "Collected", None)
    return Again(s.times.poll * 4)


def _after_collecting(s: Situation, reason: str, message: str | None) -> Instance:
    kept = _kept(s)
    if s.definition is not None and s.definition.spec.grade and reason == "Collected":
        return s.move(_P.GRADING, reason, message, deadline=s.now + s.times.grade, artifacts=kept)
    return s.move(_P.STOPPING, reason, message, deadline=s.now + s.times.stop, artifacts=kept)


async def _all_stored(s: Situation, role: str) -> bool:
    staged = s.instance.status.staged
    assert staged is not None
    have = {file.name for file in s.files("collected" if role == "collected" else "exported")}
    try:
        return await staged_names(s.objects, staged) <= have
    except ObjectMissing:
        # the artifact-service takes the manifest away when it has stored everything
        return bool(have)


def _kept(s: Situation) -> tuple[ArtifactRef, ...]:
    return (*s.files("rendered"), *s.files("collected"), *s.files("exported"))


def _grading(s: Situation) -> Instance | Again:
    if s.instance.status.score is not None or s.abandoned:
        return s.move(_P.STOPPING, "Graded", deadline=s.now + s.times.stop)
    if s.overdue():
        return s.move(_P.STOPPING, "GradingMissed", "no score came in time", deadline=s.now + s.times.stop)
    return Again(s.times.grade)


async def _stopping(s: Situation) -> Instance | Again:
    lab, runtime = s.instance.status.lab, s.runtime
    if lab is None:
        return s.move(_P.STOPPED, "NothingRan", deadline=s.now + s.times.stop)
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab did not stop in time")
    if runtime is None:
        return Again(s.times.poll)
    try:
        progress = await runtime.progress(lab.id)
        if not progress.stopped:
            await runtime.stop(lab.id)
            progress = await runtime.progress(lab.id)
            if not progress.stopped:
                return Again(s.times.poll)
    except RuntimeUnavailable:
        return Again(s.times.poll)
    except LabMissing:
        return s.move(_P.STOPPED, "LabMissing", lab=None, deadline=s.now + s.times.stop)
    nodes = tuple(NodeState(label=label, state=state) for label, state in sorted(progress.nodes.items()))
    return s.move(_P.STOPPED, "LabStopped", deadline=s.now + s.times.collect, nodes=nodes)


async def _stopped(s: Situation) -> Instance | Again:
    instance, lab = s.instance, s.instance.status.lab
    wanted = s.definition is not None and CollectKind.EXPORT in s.definition.spec.collect
    if lab is None or not wanted or not instance.status.ran:
        return s.move(_P.EXPORTED, "NothingToExport", deadline=s.now + s.times.stop)
    if s.overdue() or s.worker_lost:
        return s.move(_P.EXPORTED, "ExportMissed", "its lab was not exported in time", deadline=s.now + s.times.stop)
    staged = instance.status.staged
    if staged is None or staged.role != "exported":
        if s.runtime is None:
            return Again(s.times.poll)
        try:
            export = await s.runtime.export(lab.id)
        except RuntimeUnavailable:
            return Again(s.times.poll)
        except LabMissing:
            return s.move(_P.EXPORTED, "LabMissing", lab=None, deadline=s.now + s.times.stop)
        return instance.observed(staged=await stage(s.objects, instance, "exported", {"lab.yaml": export}))
    if await _all_stored(s, "exported"):
        return s.move(_P.EXPORTED, "Exported", deadline=s.now + s.times.stop, artifacts=_kept(s))
    return Again(s.times.poll * 4)


async def _exported(s: Situation) -> Instance | Again:
    lab = s.instance.status.lab
    attempts = s.instance.status.attempts
    if attempts and attempts[-1].ended_at is None:
        attempts = (*attempts[:-1], attempts[-1].model_copy(update={"ended_at": s.now}))
    done = s.move(_P.TERMINATED, "Released", deadline=None, released=True, attempts=attempts, staged=None)
    if lab is None or s.worker_runs_nothing:
        return done
    if s.runtime is None:
        return Again(s.times.poll)
    try:
        await s.runtime.remove(lab.id)
    except RuntimeUnavailable:
        return Again(s.times.poll)
    return done


async def _failed(s: Situation) -> Instance | Again | None:
    """Cleans up; then waits for another place, or ends."""
    instance, seat = s.instance, s.seat
    if not instance.status.released:
        if not await _cleaned(s):
            return Again(s.times.poll * 2)
        return instance.observed(released=True, lab=None)
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
            staged=None,
        )
        return moved.model_copy(
            update={"spec": instance.spec.model_copy(update={"worker": seat.worker, "ports": dict(seat.ports)})}
        )
    if s.abandoned or slot_over or (seat is not None and seat.state is SeatState.LOST):
        return s.move(_P.TERMINATED, instance.status.reason or "Failed", instance.status.message)
    return Again(instance.spec.end - s.now)


async def _cleaned(s: Situation) -> bool:
    """Its lab is gone from its worker, for certain."""
    lab = s.instance.status.lab
    if lab is None:
        return await _no_orphan(s)
    if s.worker_runs_nothing:
        return True
    if s.runtime is None:
        return False
    try:
        progress = await s.runtime.progress(lab.id)
        if not progress.stopped:
            await s.runtime.stop(lab.id)
            return False
        await s.runtime.remove(lab.id)
    except LabMissing:
        return True
    except RuntimeFault as error:
        log.info("its lab cannot be removed yet", extra={"instance": s.instance.id, "cause": str(error)})
        return False
    return True


async def _no_orphan(s: Situation) -> bool:
    """A lab that was imported right before a crash, and never recorded, is not left behind."""
    if not s.instance.status.attempts or s.runtime is None or s.worker_lost:
        return True
    try:
        orphan = (await s.runtime.labs()).get(s.instance.id)
        if orphan is None:
            return True
        await s.runtime.stop(orphan)
        if not (await s.runtime.progress(orphan)).stopped:
            return False
        await s.runtime.remove(orphan)
    except LabMissing:
        return True
    except RuntimeFault as error:
        log.info("an unrecorded lab cannot be removed yet", extra={"instance": s.instance.id, "cause": str(error)})
        return False
    return True
