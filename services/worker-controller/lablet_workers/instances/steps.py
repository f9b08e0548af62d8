"""One step of an instance's life: the situation in, the instance one move further or the next look out.

Every step is idempotent and may be done again after a crash at any point: labs are found again by their title, staged files
have fixed keys, and a phase changes only by a committed move. Every phase has a deadline; a missed one is a reason, not a
hang. The gate on time is here: nobody can start or end a lab around it.
"""

import logging
from datetime import timedelta

from lablet_common.objects import ObjectMismatch, ObjectMissing, get_content
from lablet_common.resources.definition import CollectKind
from lablet_common.resources.instance import ArtifactRef, Attempt, Instance, InstancePhase, LabRef, NodeState
from lablet_common.resources.reservation import SeatState
from lablet_common.resources.worker import WorkerPhase
from lablet_workers.instances.context import Again, Situation
from lablet_workers.instances.room import in_the_way
from lablet_workers.runtimes.port import LabMissing, RuntimeFault, RuntimeUnavailable
from lablet_workers.staging import safe_name, stage, staged_files

log = logging.getLogger("lablet.workers.instances")

WORKER_LOST = "WorkerLost"
COLLECT_REQUESTED = "CollectRequested"
_P = InstancePhase
_UP = (WorkerPhase.READY, WorkerPhase.DRAINING)
_BEFORE_THE_END = (_P.PENDING, _P.INSTANTIATING, _P.RUNNING)
_LONGEST_REASON = 1000


async def step(situation: Situation) -> Instance | Again | None:
    """The instance one step further, when to look again, or None when only news can bring it on."""
    instance = situation.instance
    phase = instance.status.phase
    if phase is _P.TERMINATED:
        return None
    if phase is _P.FAILED:
        return await _failed(situation)
    if phase not in (_P.STOPPED, _P.EXPORTED) and situation.worker_lost:
        return situation.fail(WORKER_LOST, f"worker {instance.spec.worker} was lost")
    if phase in _BEFORE_THE_END:
        slot = situation.reservation.slot if situation.reservation is not None else None
        if slot is not None and (slot.start, slot.end) != (instance.spec.start, instance.spec.end):
            return instance.respecified(start=slot.start, end=slot.end)
    match phase:
        case _P.PENDING:
            return await _pending(situation)
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


async def _pending(s: Situation) -> Instance | Again | None:
    instance = s.instance
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    if s.now >= instance.spec.end:
        return s.fail("NeverReady", "the slot ended before its worker and its lab file were ready")
    for report in s.files("report"):
        why = await get_content(s.objects, instance.tenant, report.digest)
        return s.fail("RenderFailed", why.decode(errors="replace")[:_LONGEST_REASON])
    worker = s.worker
    if worker is None or worker.status.phase is not WorkerPhase.READY or not s.files("rendered"):
        return Again(min(instance.spec.end - s.now, timedelta(hours=1)))
    early = instance.spec.start - s.preparation - s.now
    if early > timedelta(0):
        return Again(early)
    needs = s.definition.spec.requirements if s.definition is not None else None
    lacking = in_the_way(instance, needs, worker.spec, s.neighbours, s.now + s.preparation)
    if lacking:
        log.info("its worker has no room yet", extra={"instance": instance.id, "worker": worker.id, "lacking": lacking})
        return Again(s.times.poll)
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
        rendered = next(iter(s.files("rendered")), None)
        if rendered is None:
            return s.fail("LabFileLost", "its rendered lab file is not there any more")
        try:
            topology = await get_content(s.objects, instance.tenant, rendered.digest)
        except (ObjectMissing, ObjectMismatch) as error:
            return s.fail("LabFileLost", str(error))
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
    instance = s.instance
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
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
    if instance.status.deadline is None:
        return instance.observed(deadline=s.now + s.times.collect)
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
        if not files:
            return _after_collecting(s, "NothingToCollect", "no node has a configuration to extract")
        return instance.observed(staged=await stage(s.objects, instance, "collected", files))
    if await _all_stored(s, "collected"):
        return _after_collecting(s, "Collected", None)
    return Again(s.times.poll * 4)


def _after_collecting(s: Situation, reason: str, message: str | None) -> Instance:
    """On to the end; or back to running, when it was only asked for inside the slot."""
    kept = _kept(s)
    asked = s.instance.status.reason == COLLECT_REQUESTED
    if asked and s.now < s.instance.spec.end and not s.abandoned:
        return s.move(_P.RUNNING, reason, message, deadline=None, artifacts=kept, staged=None)
    if s.definition is not None and s.definition.spec.grade and reason == "Collected":
        return s.move(_P.GRADING, reason, message, deadline=s.now + s.times.grade, artifacts=kept)
    return s.move(_P.STOPPING, reason, message, deadline=s.now + s.times.stop, artifacts=kept)


async def _all_stored(s: Situation, role: str) -> bool:
    staged = s.instance.status.staged
    assert staged is not None
    have = {(file.name, file.digest) for file in s.files("collected" if role == "collected" else "exported")}
    try:
        return await staged_files(s.objects, staged) <= have
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
    return Again((s.instance.status.deadline or s.now + s.times.grade) - s.now)


async def _stopping(s: Situation) -> Instance | Again:
    lab, runtime = s.instance.status.lab, s.runtime
    if s.instance.status.deadline is None:
        return s.instance.observed(deadline=s.now + s.times.stop)
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab did not stop in time")
    if lab is None:
        if not await _no_orphan(s):
            return Again(s.times.poll)
        return s.move(_P.STOPPED, "NothingRan", deadline=s.now + s.times.stop)
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
    done = s.move(_P.TERMINATED, "Released", deadline=None, released=True, attempts=s.ended_attempts(), staged=None)
    if lab is None or s.worker_runs_nothing:
        return done
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab was not removed in time")
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
        ended = s.ended_attempts(instance.status.reason)
        return instance.observed(released=True, lab=None, deadline=None, attempts=ended)
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
        return s.move(_P.TERMINATED, instance.status.reason or "Failed", instance.status.message, staged=None)
    if _worker_back(s):
        return s.move(_P.PENDING, "WorkerBack", released=False, tries=0, staged=None)
    return Again(instance.spec.end - s.now)


def _worker_back(s: Situation) -> bool:
    """It failed with its worker, nobody has moved its seat since, and the worker is ready again."""
    seat, worker, status = s.seat, s.worker, s.instance.status
    if seat is None or worker is None or status.reason != WORKER_LOST:
        return False
    stayed = seat.worker == s.instance.spec.worker and seat.attempt == status.attempt
    return stayed and seat.state is SeatState.PLACED and worker.status.phase is WorkerPhase.READY


async def _cleaned(s: Situation) -> bool:
    """Its lab is gone from its worker, for certain."""
    lab = s.instance.status.lab
    if s.worker_runs_nothing:
        return True
    if lab is None:
        return await _no_orphan(s)
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
    if s.worker_runs_nothing:
        return True
    if s.runtime is None:
        return False
    try:
        orphan = (await s.runtime.labs()).get(s.instance.id)
        if orphan is None:
            return True
        if not (await s.runtime.progress(orphan)).stopped:
            await s.runtime.stop(orphan)
            return False
        await s.runtime.remove(orphan)
    except LabMissing:
        return True
    except RuntimeFault as error:
        log.info("an unrecorded lab cannot be removed yet", extra={"instance": s.instance.id, "cause": str(error)})
        return False
    return True
