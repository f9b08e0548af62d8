"""Artifacts and who refers to them: content is stored once, and each use is a reference under its own name.

An object is put before its Artifact is written, so a reference never points at nothing; a crash in between leaves an object
that nobody refers to, which is harmless and is put again under the same key.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from lablet_common.objects import ObjectStore, ObjectStoreUnavailable, put_content
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.resources.model import Metadata
from lablet_common.store import Conflict, Store, Transaction
from lablet_common.store.changes import create_in, update_in
from lablet_common.store.repository import Repository

_TRIES = 20


class BeingDeleted(ObjectStoreUnavailable):
    """The content is on its way out. It can be put anew in a moment."""


def fact_of(reference: Reference) -> str:
    """What a commit that adds the reference is called."""
    return {"rendered": "rendered", "collected": "collected", "exported": "exported"}.get(reference.role, "stored")


def with_reference(
    known: Artifact | None, tenant: str, spec: ArtifactSpec, reference: Reference, now: datetime
) -> Artifact | None:
    """The artifact with the reference, new or changed; None when it has it already. Raises `BeingDeleted`."""
    reference = reference.model_copy(update={"at": now})
    if known is None:
        metadata = Metadata(
            id=spec.digest,
            uid=str(uuid5(NAMESPACE_URL, f"{tenant}/{spec.digest}")),
            tenant=tenant,
            created_at=now,
        )
        status = ArtifactStatus(phase=ArtifactPhase.STORED, references=(reference,), verified_at=now)
        return Artifact(metadata=metadata, spec=spec, status=status).observed(fact_of(reference))
    if known.status.phase is ArtifactPhase.DELETING:
        raise BeingDeleted(f"the object {spec.digest} of tenant {tenant} is being deleted: it is put again after that")
    if reference in known.status.references:
        return None
    before = known.status.verified_at or known.metadata.created_at
    dated = (one if one.at else one.model_copy(update={"at": before}) for one in known.status.references)
    return known.observed(fact_of(reference), references=(*dated, reference), verified_at=now)


async def keep(
    objects: ObjectStore,
    references: "References",
    tenant: str,
    data: bytes,
    media_type: str,
    reference: Reference,
    now: datetime,
) -> str:
    """Stores content, makes the reference stand and returns the digest. Raises `BeingDeleted`: try again soon."""
    digest = await put_content(objects, tenant, data, media_type)
    spec = ArtifactSpec(digest=digest, bytes=len(data), media_type=media_type)
    if await references.add(tenant, spec, reference, now):
        # content that was there without an artifact may have been swept until the artifact stood
        await put_content(objects, tenant, data, media_type)
    return digest


class References:
    """Writes artifacts under the fence."""

    def __init__(self, store: Store, fence: Fence) -> None:
        self._store = store
        self._fence = fence
        self._artifacts: Repository[Artifact] = Repository(store, ARTIFACT)

    async def add(self, tenant: str, spec: ArtifactSpec, reference: Reference, now: datetime) -> bool:
        """Makes the reference stand; content and reference that are known already change nothing. True: the artifact is
        new. Raises `BeingDeleted`."""
        for _ in range(_TRIES):
            wanted = with_reference(await self._artifacts.get(spec.digest, tenant), tenant, spec, reference, now)
            if wanted is None or await self._written(wanted):
                return wanted is not None and not wanted.revision
        raise Conflict([ARTIFACT.key(spec.digest, tenant)], 0)

    async def drop(self, artifact: Artifact, gone: Sequence[Reference]) -> None:
        """Takes references off; the object itself is swept when nobody refers to it any more."""

        def without(present: Artifact) -> Artifact:
            left = tuple(reference for reference in present.status.references if reference not in gone)
            return present if left == present.status.references else present.observed(references=left)

        await self.change(artifact, without)

    async def change(self, artifact: Artifact, wanted: Callable[[Artifact], Artifact]) -> bool:
        """Writes the artifact as it is wanted, worked out anew from what stands for as long as others change it too.
        False: it stands like that already, or is gone."""
        present: Artifact | None = artifact
        for _ in range(_TRIES):
            if present is None:
                return False
            changed = wanted(present)
            if changed is present:
                return False
            if await self._written(changed):
                return True
            present = await self._artifacts.get(artifact.id, artifact.tenant)
        raise Conflict([ARTIFACT.key(artifact.id, artifact.tenant)], 0)

    async def _written(self, artifact: Artifact) -> bool:
        txn = Transaction()
        self._fence.guard(txn)
        if artifact.revision:
            update_in(txn, artifact)
        else:
            create_in(txn, artifact)
        try:
            await txn.commit(self._store)
        except Conflict as conflict:
            if not await self._fence.stands(self._store):
                raise NotOwner("the artifact-service has another decider") from conflict
            return False
        return True
