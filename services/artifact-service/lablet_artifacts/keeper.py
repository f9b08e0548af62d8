"""The one active decider of the artifact-service: what instances need from it, reconciled one instance at a time.

A pending instance gets its rendered lab file; what a lab left in staging is taken over; when an instance has ended, its
rendered file is no longer referred to. Each look starts from the present state, so news may come twice, late or not at all.
"""

import asyncio
import logging
from contextlib import AbstractContextManager
from typing import Literal

from lablet_artifacts.collecting import take_over
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.references import LAB_FILE, References, keep
from lablet_artifacts.rendering import Renderer
from lablet_artifacts.topology import LabFileError
from lablet_common.clock import Clock
from lablet_common.objects import ObjectMismatch, ObjectMissing, ObjectStore, ObjectStoreError, ObjectStoreUnavailable
from lablet_common.ownership import Fence
from lablet_common.reconcile import Again, Reconciler
from lablet_common.references import Use, uses_of
from lablet_common.resources.artifact import ArtifactRole, Reference, manifest_key
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance, InstancePhase, Staged
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, INSTANCE, Kind
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.tasks import together
from lablet_common.telemetry import spans

log = logging.getLogger("lablet.artifacts")

CACHED: tuple[Kind, ...] = (INSTANCE, DEFINITION, ARTIFACT)
_PUBLIC = "public"
_PAUSE_SECONDS = 0.5


class Keeper:
    """Looks after the files of every instance while it holds the fence."""

    def __init__(
        self,
        fence: Fence,
        *,
        store: Store,
        caches: Caches,
        objects: ObjectStore,
        renderer: Renderer,
        leftovers: Leftovers,
        clock: Clock,
        resync_seconds: float,
    ) -> None:
        self._fence = fence
        self._caches = caches
        self._objects = objects
        self._renderer = renderer
        self._clock = clock
        self._resync = resync_seconds
        self._references = References(store, fence)
        self._leftovers = leftovers

    def has_settled(self, instance: Instance) -> bool:
        """Of an instance that has ended: nothing of it can lie in staging any more, and its rendered file was let go."""
        return not self._leftovers.may_be_left(instance) and not self._in_role(instance, "rendered")

    async def run(self) -> None:
        """Until cancelled. Raises `NotOwner` when the fence no longer stands."""
        await self._caches.reached(self._fence.create_revision, timeout=60)
        queue: Reconciler[str] = Reconciler("artifacts", self._look_at, clock=self._clock, concurrency=8)

        def on_instance(_: Instance | None, new: Instance | None, __: int) -> None:
            if new is not None:
                queue.add(new.id)

        unsubscribe = self._caches[INSTANCE].subscribe(on_instance)
        try:
            await together(queue.run(), self._look_at_all(queue))
        finally:
            unsubscribe()

    async def _look_at_all(self, queue: Reconciler[str]) -> None:
        while True:
            instances = self._caches[INSTANCE].items()
            self._leftovers.keep_only({instance.id for instance in instances})
            ended = [instance for instance in instances if _has_ended(instance)]
            for instance in instances:
                if not _has_ended(instance):
                    queue.add(instance.id)
            try:
                await self._leftovers.look(self._objects, ended)
            except ObjectStoreError as error:
                log.warning("each ended instance is asked for by itself", extra={"cause": str(error)})
            for instance in ended:
                queue.add(instance.id)
            await asyncio.sleep(self._resync)

    async def _look_at(self, name: str) -> Again | None:
        instance: Instance | None = self._caches[INSTANCE].get(name)
        if instance is None:
            return None
        try:
            if instance.status.phase is InstancePhase.PENDING:
                if self._is_rendered(instance):
                    return None
                with _telling("render lab", instance):
                    return await self._render(instance)
            if instance.status.staged is not None:
                with _telling("take over files", instance):
                    await self._take_over(instance, instance.status.staged)
            if _has_ended(instance):
                await self._sweep(instance)
                await self._forget_rendered(instance)
        except ObjectStoreUnavailable as error:
            log.warning("the object store does not answer", extra={"instance": name, "cause": str(error)})
            return Again(after_seconds=_PAUSE_SECONDS)
        return None

    async def _take_over(self, instance: Instance, staged: Staged) -> None:
        known = uses_of(self._caches, _subject(instance))
        if await take_over(self._objects, self._references, instance, staged, known, self._clock.now()):
            words = {"instance": instance.id, "role": staged.role, "trace_parent": instance.metadata.trace_parent}
            log.info("files taken over", extra=words)

    async def _sweep(self, instance: Instance) -> None:
        """What was staged and could not be taken over before its instance's deadlines led on is not lost. Once a process
        and instance: a manifest that is not there costs a read."""
        if not self._leftovers.may_be_left(instance):
            return
        role: Literal["collected", "exported"]
        for attempt in range(1, instance.status.attempt + 1):
            for role in ("collected", "exported"):
                key = manifest_key(instance.tenant, instance.id, attempt, role)
                await self._take_over(instance, Staged(manifest=key, attempt=attempt, role=role))
        self._leftovers.looked_through(instance)

    async def _render(self, instance: Instance) -> Again | None:
        definition = self._definition(instance)
        if definition is None:
            log.warning("an instance names a definition that is not there (yet)", extra={"instance": instance.id})
            return Again(after_seconds=_PAUSE_SECONDS)
        try:
            data = await self._renderer.render(definition, instance)
        except (LabFileError, ObjectMissing, ObjectMismatch) as error:
            # it will never fit: the worker-controller reads the reason and ends the instance
            log.error("a lab file cannot be rendered", extra={"instance": instance.id, "cause": str(error)})  # noqa: TRY400
            await self._store(instance, "report", "render-error.txt", str(error).encode(), "text/plain")
            return None
        digest = await self._store(instance, "rendered", "lab.yaml", data, LAB_FILE)
        log.info("rendered", extra={"instance": instance.id, "digest": digest})
        return None

    def _is_rendered(self, instance: Instance) -> bool:
        return self._has(instance, "rendered") or self._has(instance, "report")

    async def _store(self, instance: Instance, role: ArtifactRole, name: str, data: bytes, media_type: str) -> str:
        attempt = instance.status.attempt
        reference = Reference(subject=_subject(instance), role=role, name=name, attempt=attempt)
        now = self._clock.now()
        return await keep(self._objects, self._references, instance.tenant, data, media_type, reference, now)

    def _has(self, instance: Instance, role: ArtifactRole) -> bool:
        attempt = instance.status.attempt
        return any(use.reference.attempt == attempt for use in self._in_role(instance, role))

    def _in_role(self, instance: Instance, role: ArtifactRole) -> list[Use]:
        return [use for use in uses_of(self._caches, _subject(instance)) if use.reference.role == role]

    async def _forget_rendered(self, instance: Instance) -> None:
        for use in self._in_role(instance, "rendered"):
            await self._references.drop(use.artifact.tenant, use.artifact.id, [use.reference])

    def _definition(self, instance: Instance) -> Definition | None:
        cache = self._caches[DEFINITION]
        name = instance.spec.definition
        found: Definition | None = cache.get(name, instance.tenant) or cache.get(name, _PUBLIC)
        return found


def _has_ended(instance: Instance) -> bool:
    return instance.status.phase is InstancePhase.TERMINATED


def _subject(instance: Instance) -> str:
    return f"{INSTANCE.name}/{instance.id}"


def _telling(what: str, instance: Instance) -> AbstractContextManager[None]:
    """A span around work on an instance's files, with a link to its reservation's story."""
    words = {"lablet.instance.id": instance.id, "lablet.reservation.id": instance.spec.reservation}
    return spans.together(what, [instance.metadata.trace_parent], words)
