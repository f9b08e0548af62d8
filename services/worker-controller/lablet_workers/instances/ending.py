"""From Running to Terminated: what a lab leaves is collected, then it is stopped, exported and removed."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from lablet_common.objects import ObjectMissing
from lablet_common.process_lab import RUNTIME as PROCESSES
from lablet_common.resources.definition import FROM_RUNNING, CollectKind
from lablet_common.resources.instance import SLOT_ENDED, ArtifactRef, Instance, InstancePhase
from lablet_common.resources.model import Condition
from lablet_workers.harvest import REPORT, Harvest, harvest
from lablet_workers.instances.coming_up import nodes_of, reachable
from lablet_workers.instances.context import Again, Situation
from lablet_workers.instances.failing import DRAINED, LAB_STOPPED, LAB_VANISHED, WORKER_LOST, none_left
from lablet_workers.runtimes.port import LabMissing, Runtime, RuntimeUnavailable
from lablet_workers.staging import stage, staged_files

_P = InstancePhase

COLLECT_REQUESTED = "CollectRequested"
COLLECTION_INCOMPLETE = "CollectionIncomplete"
"""Condition: some nodes have not given all that they have. The collected report says which, and why."""
_NODES_NAMED = 5


async def running(s: Situation) -> Instance | Again:
    instance = s.instance
    if s.abandoned:
        return _given_up(s)
    if s.now >= instance.spec.end:
        return _end(s, SLOT_ENDED)
    evicted_at = s.evicted_at
    if evicted_at is not None and s.now >= evicted_at:
        return _end(s, DRAINED, evicted=True)
    if s.definition is not None and s.definition.spec.until_completed:
        return await _completed(s, evicted_at)
    return await _watched(s) or Again(min(evicted_at or instance.spec.end, s.now + s.times.watch) - s.now)


async def _completed(s: Situation, evicted_at: datetime | None) -> Instance | Again:
    """The end of a lab that ends by itself, with its exit code. Its runtime tells when there is something new; asked all
    the same, for news may be lost."""
    lab, runtime = s.instance.status.lab, s.runtime
    again = Again(min(s.times.poll * 4, (evicted_at or s.instance.spec.end) - s.now))
    if lab is None or runtime is None:
        return again
    try:
        progress = await runtime.progress(lab.id)
    except RuntimeUnavailable:
        return again
    except LabMissing:
        return s.fail("LabMissing", "its lab was no longer on its worker")
    if progress.completed:
        ended = s.instance.observed(exit_code=progress.exit_code, nodes=nodes_of(progress))
        return _end(replace(s, instance=ended), "Completed")
    if progress.stopped:
        return s.fail("LabStopped", "its lab was stopped on its worker")
    return again


def _given_up(s: Situation) -> Instance:
    """Whoever gives a seat back inside its slot keeps what was done in it; before the slot nobody can have done anything."""
    message = "its reservation has ended"
    if s.now >= s.instance.spec.start:
        return _end(s, "Abandoned", message)
    return s.move(_P.STOPPING, "Abandoned", message, deadline=s.now + s.times.stop)


def _end(s: Situation, reason: str, message: str | None = None, *, evicted: bool = False) -> Instance:
    if s.definition is not None and not FROM_RUNNING.isdisjoint(s.definition.spec.collect):
        return s.move(_P.COLLECTING, reason, message, deadline=s.now + s.times.collect, staged=None, evicted=evicted)
    return s.move(_P.STOPPING, reason, message, deadline=s.now + s.times.stop, evicted=evicted)


async def _watched(s: Situation) -> Instance | None:
    """A lab that has stopped or vanished without being asked to has failed, to be started again; what its nodes are doing
    is noted when it changes. A runtime that does not answer says nothing: its worker is watched by itself."""
    instance, lab, worker = s.instance, s.instance.status.lab, s.worker
    if lab is None or s.runtime is None or worker is None:
        return None
    try:
        progress = await s.runtime.progress(lab.id)
    except RuntimeUnavailable:
        return None
    except LabMissing:
        return s.fail(LAB_VANISHED, f"lab {lab.id} is no longer on worker {worker.id}")
    if progress.stopped and progress.nodes:
        return s.fail(LAB_STOPPED, f"no node of lab {lab.id} runs any more, and nobody here has stopped it")
    if worker.spec.runtime == PROCESSES:
        return None  # an agent restarts its processes by their own policies, as often as they say
    nodes = nodes_of(progress)
    return instance.observed(nodes=nodes) if nodes != instance.status.nodes else None


async def collecting(s: Situation) -> Instance | Again:
    instance, lab, runtime = s.instance, s.instance.status.lab, s.runtime
    staged = instance.status.staged
    if instance.status.deadline is None:
        return instance.observed(deadline=s.now + s.times.collect)
    if lab is None or s.overdue():
        return _after_collecting(s, "CollectionMissed", "not everything was collected in time")
    if staged is None or staged.role != "collected":
        if runtime is None:
            return Again(s.times.poll)
        wanted = s.definition.spec.collect if s.definition is not None else tuple(FROM_RUNNING)
        try:
            given = await harvest(runtime, lab.id, wanted)
        except RuntimeUnavailable:
            return Again(s.times.poll)
        except LabMissing:
            return _after_collecting(s, "LabMissing", "the lab was no longer on its worker")
        if given.may_improve and s.now < instance.status.deadline - s.times.collect / 2:
            return Again(s.times.poll * 4)
        files = given.files()
        if not files:
            return _after_collecting(s, "NothingToCollect", "no node has a configuration to extract")
        staged = await stage(s.objects, instance, "collected", files)
        return instance.observed(staged=staged, conditions=_completeness(s, given))
    again = _may_collect_again(s)
    if await _all_stored(s, "collected", cleared=again):
        return _after_collecting(s, "Collected", None)
    return Again(s.times.poll * (1 if again else 4))  # that something is stored is told, that it is cleared is not


def _may_collect_again(s: Situation) -> bool:
    """Its lab may run on, or be started again, in this attempt."""
    return s.now < s.instance.spec.end and s.instance.status.exit_code is None and not s.abandoned


def _completeness(s: Situation, given: Harvest) -> tuple[Condition, ...]:
    """The condition that names the nodes which have not given everything, as long as there are any."""
    missing = given.incomplete
    if not missing and s.instance.status.condition(COLLECTION_INCOMPLETE) is None:
        return s.instance.status.conditions
    named = ", ".join(missing[:_NODES_NAMED]) + (", …" if len(missing) > _NODES_NAMED else "")
    return s.instance.with_condition(
        COLLECTION_INCOMPLETE,
        bool(missing),
        at=s.now,
        reason="NodesRefused" if missing else "Complete",
        message=f"not everything of {named}: see {REPORT}" if missing else None,
    )


def _after_collecting(s: Situation, reason: str, message: str | None) -> Instance:
    """On to the end; or back to running, when it was only asked for inside the slot."""
    kept = _kept(s)
    asked = s.instance.status.reason == COLLECT_REQUESTED
    if asked and s.now < s.instance.spec.end and not s.abandoned:
        return s.move(_P.RUNNING, reason, message, deadline=None, artifacts=kept, staged=None)
    graded = s.definition is not None and s.definition.spec.grade and not (s.instance.status.evicted or s.abandoned)
    to, time = (_P.GRADING, s.times.grade) if graded and reason == "Collected" else (_P.STOPPING, s.times.stop)
    if asked and not s.abandoned:
        message, reason = message or reason, SLOT_ENDED  # the slot ended over it: no extension may be granted any more
    return s.move(to, reason, message, deadline=s.now + time, artifacts=kept)


async def _all_stored(s: Situation, role: Literal["collected", "exported"], *, cleared: bool = False) -> bool:
    """Whether the artifact-service has what was staged; `cleared`: and leaves the staging alone, where what is staged next
    has the same keys."""
    staged = s.instance.status.staged
    assert staged is not None
    try:
        listed = await staged_files(s.objects, staged)
    except ObjectMissing:
        # it takes the manifest away when it has stored everything: by now that is known here, too
        s.uses = await s.newest_uses()
        return bool(s.files(role))
    names = {name for name, _ in listed}
    have = {(file.name, file.digest) for file in s.files(role) if file.name in names}
    return not cleared and have == listed  # of a name that was collected before, the earlier content goes


def _kept(s: Situation) -> tuple[ArtifactRef, ...]:
    return (*s.files("rendered"), *s.files("collected"), *s.files("exported"))


def grading(s: Situation) -> Instance | Again:
    if s.instance.status.score is not None or s.abandoned:
        return s.move(_P.STOPPING, "Graded", deadline=s.now + s.times.stop)
    if s.overdue():
        return s.move(_P.STOPPING, "GradingMissed", "no score came in time", deadline=s.now + s.times.stop)
    return Again((s.instance.status.deadline or s.now + s.times.grade) - s.now)


async def stopping(s: Situation) -> Instance | Again:
    lab, runtime = s.instance.status.lab, s.runtime
    if s.instance.status.deadline is None:
        return s.instance.observed(deadline=s.now + s.times.stop)
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab did not stop in time")
    if lab is None:
        if not await none_left(s):
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
    return s.move(_P.STOPPED, "LabStopped", deadline=s.now + s.times.collect, nodes=nodes_of(progress))


async def stopped(s: Situation) -> Instance | Again:
    instance, lab = s.instance, s.instance.status.lab
    if instance.status.restart and not s.abandoned and s.now < instance.spec.end:
        return await _restarted(s)
    if instance.status.restart:
        # too late: what is coming up is stopped again before it is exported and removed, within a time of its own
        return instance.observed(restart=False, deadline=s.now + s.times.collect)
    waits = _may_start_again(s)
    if waits > timedelta(0):
        return Again(waits if await _kept_down(s) else s.times.poll)
    if instance.status.deadline is None:
        return instance.observed(deadline=s.now + s.times.collect)
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
            if not await _halted(s.runtime, lab.id):
                return Again(s.times.poll)
            export = await s.runtime.export(lab.id)
        except RuntimeUnavailable:
            return Again(s.times.poll)
        except LabMissing:
            return s.move(_P.EXPORTED, "LabMissing", lab=None, deadline=s.now + s.times.stop)
        return instance.observed(staged=await stage(s.objects, instance, "exported", {"lab.yaml": export}))
    if await _all_stored(s, "exported"):
        return s.move(_P.EXPORTED, "Exported", deadline=s.now + s.times.stop, artifacts=_kept(s))
    return Again(s.times.poll * 4)


async def _kept_down(s: Situation) -> bool:
    """Nothing of it runs while it waits for a start: one that was taken back may have begun. False: not known yet."""
    lab = s.instance.status.lab
    if lab is None or s.runtime is None:
        return True
    try:
        return await _halted(s.runtime, lab.id)
    except RuntimeUnavailable:
        return False
    except LabMissing:
        return True


def _may_start_again(s: Situation) -> timedelta:
    """How long a lab that was stopped on request is still kept for a start. One that came to its own end is not."""
    status, spec = s.instance.status, s.instance.spec
    if status.exit_code is not None:
        return timedelta(0)
    if status.lab is None or not status.ran or status.evicted or s.abandoned or s.worker_lost:
        return timedelta(0)
    return min(spec.end, status.history[-1].at + s.times.restart) - s.now


async def _restarted(s: Situation) -> Instance | Again:
    instance, lab = s.instance, s.instance.status.lab
    if instance.status.deadline is None:
        return instance.observed(deadline=s.now + s.times.instantiation)
    if s.worker_lost:
        return s.fail(WORKER_LOST, f"worker {instance.spec.worker} was lost")
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab did not come up again in time")
    if s.runtime is None or lab is None:
        return Again(s.times.poll)
    try:
        progress = await s.runtime.progress(lab.id)
        if progress.stopped:
            await s.runtime.start(lab.id)
            return Again(s.times.poll)
        if not progress.converged:
            return Again(s.times.poll)
    except RuntimeUnavailable:
        return Again(s.times.poll)
    except LabMissing:
        return s.fail(LAB_VANISHED, f"lab {lab.id} is no longer on worker {instance.spec.worker}")
    return await reachable(s, progress, "Restarted")


async def _halted(runtime: Runtime, lab: str) -> bool:
    """Nothing of it runs. One that does was being started again when its slot ended; it is asked to stop."""
    if (await runtime.progress(lab)).stopped:
        return True
    await runtime.stop(lab)
    return False


async def exported(s: Situation) -> Instance | Again:
    lab = s.instance.status.lab
    if s.instance.status.evicted and not s.abandoned and s.now < s.instance.spec.end:
        return s.fail(DRAINED, f"worker {s.instance.spec.worker} is being emptied")
    done = s.move(_P.TERMINATED, "Released", deadline=None, released=True, attempts=s.ended_attempts(), staged=None)
    worker = s.worker
    if worker is None or s.worker_runs_nothing:
        return done
    if s.overdue():
        return s.fail("DeadlineMissed", "its lab was not removed in time")
    if s.runtime is None:
        return Again(s.times.poll)
    if lab is not None:
        try:
            if not await _halted(s.runtime, lab.id):
                return Again(s.times.poll)
            await s.runtime.remove(lab.id)
        except RuntimeUnavailable:
            return Again(s.times.poll)
        except LabMissing:
            pass  # gone already
    if worker.spec.runtime == PROCESSES:
        return done  # an agent's lab is a folder that bears its title: there is no second one
    return done if await none_left(s) else Again(s.times.poll)
