"""From Running to Terminated: what a lab leaves is collected, then it is stopped, exported and removed."""

from dataclasses import replace

from lablet_common.objects import ObjectMissing
from lablet_common.resources.definition import FROM_RUNNING, CollectKind
from lablet_common.resources.instance import ArtifactRef, Instance, InstancePhase, NodeState
from lablet_common.resources.model import Condition
from lablet_workers.harvest import REPORT, Harvest, harvest
from lablet_workers.instances.context import Again, Situation
from lablet_workers.instances.failing import no_orphan
from lablet_workers.runtimes.port import LabMissing, RuntimeUnavailable
from lablet_workers.staging import stage, staged_files

_P = InstancePhase

COLLECT_REQUESTED = "CollectRequested"
COLLECTION_INCOMPLETE = "CollectionIncomplete"
"""Condition: some nodes have not given all that they have. The collected report says which, and why."""
_NODES_NAMED = 5


async def running(s: Situation) -> Instance | Again:
    instance = s.instance
    if s.abandoned:
        return s.move(_P.STOPPING, "Abandoned", "its reservation has ended", deadline=s.now + s.times.stop)
    if s.now < instance.spec.end:
        if s.definition is not None and s.definition.spec.until_completed:
            return await _completed(s)
        return Again(instance.spec.end - s.now)
    return _end(s)


async def _completed(s: Situation) -> Instance | Again:
    """The end of a lab that ends by itself, with its exit code. Its runtime tells when there is something new; asked all
    the same, for news may be lost."""
    lab, runtime = s.instance.status.lab, s.runtime
    again = Again(min(s.times.poll * 4, s.instance.spec.end - s.now))
    if lab is None or runtime is None:
        return again
    try:
        progress = await runtime.progress(lab.id)
    except RuntimeUnavailable:
        return again
    except LabMissing:
        return s.fail("LabMissing", "its lab was no longer on its worker")
    if progress.completed:
        nodes = tuple(NodeState(label=label, state=state) for label, state in sorted(progress.nodes.items()))
        ended = s.instance.observed(exit_code=progress.exit_code, nodes=nodes)
        return _end(replace(s, instance=ended), "Completed")
    if progress.stopped:
        return s.fail("LabStopped", "its lab was stopped on its worker")
    return again


def _end(s: Situation, reason: str = "SlotEnded") -> Instance:
    if s.definition is not None and not FROM_RUNNING.isdisjoint(s.definition.spec.collect):
        return s.move(_P.COLLECTING, reason, deadline=s.now + s.times.collect, staged=None)
    return s.move(_P.STOPPING, reason, deadline=s.now + s.times.stop)


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
    if await _all_stored(s, "collected"):
        return _after_collecting(s, "Collected", None)
    return Again(s.times.poll * 4)


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
        if not await no_orphan(s):
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


async def stopped(s: Situation) -> Instance | Again:
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


async def exported(s: Situation) -> Instance | Again:
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
