"""Objects that nobody refers to are deleted after a grace, and collected work after its retention.

An object goes in three steps, each of which a crash may be the last of: its artifact moves to Deleting (compared with the
revision at which nobody referred to it, so that a reference added meanwhile wins), the object is deleted, the artifact is
deleted. An object without an artifact (a crash after the put) is given one first, and then goes the same way: the store
of record decides who was earlier. Who wants content that is Deleting waits and puts it again.

Grace is real time, counted from the object's own modification and, for artifacts, from when this process first saw them
without a reference, as they are: not anew with each take-over, or a service that often loses its lease would never get there.
Retention is lab time since each use was made; a tenant's own stands in its quota. What was asked to be deleted goes without a
grace. Not guaranteed: that something goes on the minute.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from lablet_artifacts.deleting import ASKED
from lablet_artifacts.lab_files import LabFiles
from lablet_artifacts.references import References
from lablet_common.clock import Clock
from lablet_common.objects import ObjectInfo, ObjectStore, ObjectStoreError
from lablet_common.ownership import Fence, NotOwner
from lablet_common.quotas import QUOTAS, Quota
from lablet_common.references import CARRIED, all_references, references_prefix
from lablet_common.resources.artifact import (
    STAGING,
    Artifact,
    ArtifactPhase,
    ArtifactSpec,
    ArtifactStatus,
    Reference,
    object_key,
)
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, INSTANCE, REQUEST
from lablet_common.resources.model import Metadata
from lablet_common.resources.request import Request
from lablet_common.store import Compacted, Conflict, Store, StoreUnavailable, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import create_in, delete_in, update_in
from lablet_common.store.repository import Repository

log = logging.getLogger("lablet.artifacts.sweeping")

_KEPT = ("collected", "exported", "report")
"""Roles of references that retention ends."""
_PAGE = 500
_RETRY_SECONDS = 5.0
Alone = dict[tuple[str, str], tuple[int, float]]
"""Artifacts without a reference, by tenant and digest: at which revision, and since when that is known (monotonic)."""


class Sweeper:
    """Sweeps while it holds the fence. `grace` is real time, `retention` lab time; `alone` is the process's own and outlives
    the sweeper; `now` tells the real time in UTC and `monotonic` real seconds."""

    def __init__(
        self,
        store: Store,
        fence: Fence,
        objects: ObjectStore,
        clock: Clock,
        *,
        by: str,
        grace: timedelta,
        retention: timedelta,
        look_seconds: float,
        alone: Alone | None = None,
        caches: Caches | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._fence = fence
        self._objects = objects
        self._clock = clock
        self._by = by
        self._grace = grace
        self._retention = retention
        self._seconds = look_seconds
        self._now = now
        self._monotonic = monotonic
        self._woken = asyncio.Event()
        self._leaving: dict[tuple[str, str], Artifact] = {}
        self._alone: Alone = {} if alone is None else alone
        self._references = References(store, fence)
        self._files = LabFiles(self._references, clock)
        known = {kind: caches[kind].known if caches is not None else None for kind in (ARTIFACT, INSTANCE, DEFINITION)}
        self._artifacts: Repository[Artifact] = Repository(store, ARTIFACT, known[ARTIFACT])
        self._instances: Repository[Instance] = Repository(store, INSTANCE, known[INSTANCE])
        self._definitions: Repository[Definition] = Repository(store, DEFINITION, known[DEFINITION])
        self._requests: Repository[Request] = Repository(store, REQUEST)

    def finish(self, artifact: Artifact) -> None:
        """Content that is on its way out and need not wait for the next look."""
        self._leaving[artifact.tenant, artifact.id] = artifact
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Raises `NotOwner` when the fence no longer stands."""
        due = self._monotonic()
        while True:
            self._woken.clear()
            look = self._monotonic() >= due or not self._files.are_known
            if look:
                due = self._monotonic() + self._seconds
            try:
                if swept := await (self.look() if look else self._finish_all()):
                    log.info("objects swept", extra={"objects": swept})
            except (StoreUnavailable, Compacted, Conflict, ObjectStoreError) as error:
                log.warning("nothing can be swept just now", extra={"cause": str(error)})
                # who waits for content that is Deleting waits for this
                due = min(due, self._monotonic() + _RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self._monotonic())):
                    await self._woken.wait()

    async def _finish_all(self) -> int:
        leaving, self._leaving = self._leaving, {}
        return sum([await self._delete(artifact) for artifact in leaving.values()])

    async def look(self) -> int:
        """One pass; returns how many objects went."""
        # What was put before the records are read and has none has either been left, or is young.
        stored = await self._objects.list("objects/")
        staged = await self._objects.list(f"{STAGING}/")
        artifacts = (await self._artifacts.list()).items
        definitions = [one for one in (await self._definitions.list()).items if not one.is_final]
        self._files.note(definitions, artifacts)
        needed = {object_key(one.tenant, one.spec.topology.digest) for one in definitions}
        instances = {one.id: one for one in (await self._instances.list()).items}
        retention = await self._retention_by_tenant()
        swept = 0
        for artifact in artifacts:
            until = self._clock.now() - retention.get(artifact.tenant, self._retention)
            over = await self._over(artifact, instances, until)
            is_needed = object_key(artifact.tenant, artifact.id) in needed
            swept += await self._look_at(artifact, over, is_needed=is_needed)
        known = {object_key(artifact.tenant, artifact.id) for artifact in artifacts}
        for gone in [key for key in self._alone if object_key(*key) not in known]:
            del self._alone[gone]
        for info in stored:
            if info.key not in known and info.key not in needed and self._is_old(info):
                swept += await self._adopt_and_delete(info)
        await self._files.refer({info.key for info in stored})
        return swept + await self._clear_staging(staged, set(instances))

    # -- artifacts -------------------------------------------------------------------------------------------------

    async def _look_at(self, artifact: Artifact, over: list[Reference], *, is_needed: bool) -> int:
        """`over`: its references that have outlived their retention. What a definition needs stays without any, too."""
        if artifact.status.phase is ArtifactPhase.DELETING:
            return await self._delete(artifact)
        key = (artifact.tenant, artifact.id)
        if artifact.is_referred_to:
            self._alone.pop(key, None)
            await self._references.drop(*key, over, emptied=None if is_needed else self._condemned)
            if len(artifact.status.references) > CARRIED:
                await self._references.lighten(*key)
            left = await self._artifacts.get(artifact.id, artifact.tenant) if over else None
            gone = left is not None and left.status.phase is ArtifactPhase.DELETING
            return await self._delete(left) if left is not None and gone else 0
        if is_needed:
            return 0
        revision, since = self._alone.get(key, (0, 0.0))
        if revision != artifact.revision:  # somebody has used it in between, here or under another owner
            _, since = self._alone[key] = artifact.revision, self._monotonic()
        if self._monotonic() - since < self._grace.total_seconds():
            return 0
        return await self._condemn(artifact, "Unreferenced")

    async def _retention_by_tenant(self) -> dict[str, timedelta]:
        """Where a tenant has one of its own."""
        quotas = await self._store.range(QUOTAS)
        found: dict[str, timedelta] = {}
        for kv in quotas.items:
            days = Quota.model_validate_json(kv.value).retention_days
            if days is not None:
                found[kv.key.removeprefix(QUOTAS)] = timedelta(days=days)
        return found

    async def _over(self, artifact: Artifact, instances: dict[str, Instance], until: datetime) -> list[Reference]:
        """Its references that were made until then and hold the content no more."""
        known = artifact.status.verified_at or artifact.metadata.created_at
        return [
            one
            async for one in all_references(self._store, artifact)
            if one.role in _KEPT and (one.at or known) <= until and not _is_live(one, instances)
        ]

    def _condemned(self, artifact: Artifact, reason: str = "RetentionOver") -> Artifact:
        return artifact.moved(ArtifactPhase.DELETING, at=self._clock.now(), by=self._by, reason=reason, fact="changed")

    async def _condemn(self, artifact: Artifact, reason: str) -> int:
        written = await self._written(self._condemned(artifact, reason))
        return 0 if written is None else await self._delete(written)

    async def _delete(self, artifact: Artifact) -> int:
        """The object, then its artifact. An object that has been put just now stays: somebody waits to refer to it. What
        somebody asked to be deleted goes at once: see `deleting` for why nobody can be waiting for it. So does that of a lab
        file to which its definition does not refer yet."""
        key = object_key(artifact.tenant, artifact.id)
        present = await self._objects.head(key)
        if (
            present is not None
            and not self._files.need(key)
            and (artifact.status.reason == ASKED or self._is_old(present))
        ):
            await self._objects.delete(key)
        txn = Transaction()
        self._fence.guard(txn)
        delete_in(txn, artifact)
        txn.delete_below(references_prefix(artifact.tenant, artifact.id))
        self._alone.pop((artifact.tenant, artifact.id), None)
        return int(await self._committed(txn) is not None)

    async def _adopt_and_delete(self, info: ObjectInfo) -> int:
        tenant, digest = info.key.split("/")[1], info.key.rsplit("/", 1)[-1]
        now = self._clock.now()
        metadata = Metadata(
            id=digest, uid=str(uuid5(NAMESPACE_URL, f"{tenant}/{digest}")), tenant=tenant, created_at=now
        )
        spec = ArtifactSpec(digest=digest, bytes=info.bytes)
        status = ArtifactStatus(phase=ArtifactPhase.STORED)
        adopted = await self._written(Artifact(metadata=metadata, spec=spec, status=status).observed("stored"))
        return 0 if adopted is None else await self._condemn(adopted, "Unreferenced")

    async def _written(self, artifact: Artifact) -> Artifact | None:
        """As it stands now; None when somebody else was first."""
        txn = Transaction()
        self._fence.guard(txn)
        if artifact.revision:
            update_in(txn, artifact)
        else:
            create_in(txn, artifact)
        revision = await self._committed(txn)
        return None if revision is None else artifact.at_revision(revision)

    async def _committed(self, txn: Transaction) -> int | None:
        try:
            return (await txn.commit(self._store)).revision
        except Conflict as conflict:
            if not await self._fence.stands(self._store):
                raise NotOwner("the artifact-service has another decider") from conflict
            return None

    # -- staging ---------------------------------------------------------------------------------------------------

    async def _clear_staging(self, staged: list[ObjectInfo], instances: set[str]) -> int:
        """Uploads whose request has been decided, and files of instances that have left etcd."""
        old = [info for info in staged if self._is_old(info)]
        if not old:
            return 0
        waiting: set[str] = set()
        cursor: str | None = None
        while True:
            page = await self._requests.list(limit=_PAGE, cursor=cursor)
            waiting.update(str(one.spec.data.get("staging", "")) for one in page.items if not one.is_final)
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
        swept = 0
        for info in old:
            if info.key in waiting or not instances.isdisjoint(info.key.split("/")):
                continue
            present = await self._objects.head(info.key)  # an upload may have been put again meanwhile
            if present is not None and self._is_old(present):
                await self._objects.delete(info.key)
                swept += 1
        return swept

    def _is_old(self, info: ObjectInfo) -> bool:
        return info.modified is not None and self._now() - info.modified >= self._grace


def _is_live(reference: Reference, instances: dict[str, Instance]) -> bool:
    """It belongs to an instance that has not ended."""
    instance = instances.get(reference.subject.partition("/")[2])
    return instance is not None and not instance.is_final
