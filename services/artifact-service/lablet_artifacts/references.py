"""Writing artifacts and who refers to them: content is stored once, and each use is a reference under its own name.

An object is put before its Artifact is written, so a reference never points at nothing; a crash in between leaves an object
that nobody refers to, which is harmless and is put again under the same key.

An artifact carries its latest references; those that newer ones push out get keys of their own in the same transaction
(`lablet_common.references`), so that one more use costs the same whether ten or ten thousand have left that content. What
an earlier release has stored in one piece is carried out in portions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeVar, cast
from uuid import NAMESPACE_URL, uuid5

from lablet_common.objects import ObjectStore, ObjectStoreUnavailable, put_content
from lablet_common.ownership import Fence, NotOwner
from lablet_common.references import CARRIED, read_reference, reference_key
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.definition import Definition
from lablet_common.resources.kinds import ARTIFACT, DEFINITION
from lablet_common.resources.model import Metadata
from lablet_common.store import Conflict, Get, Store, Transaction
from lablet_common.store.changes import create_in, decode, update_in

_TRIES = 20
LAB_FILE = "application/yaml"
"""Its media type."""
PORTION = 100
"""References that one transaction moves, drops or looks up: with what else belongs to it, less than etcd takes."""

T = TypeVar("T")
Emptied = Callable[[Artifact], Artifact]
"""What becomes of an artifact whose last reference is dropped, in the same transaction."""


class BeingDeleted(ObjectStoreUnavailable):
    """The content is on its way out. It can be put anew in a moment."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An artifact, and which of the references that were asked about stand beside it, all at one revision."""

    artifact: Artifact | None
    older: frozenset[Reference] = frozenset()


async def look(store: Store, tenant: str, digest: str, about: Sequence[Reference]) -> Standing:
    """How the artifact stands; `about`: up to `PORTION` references."""
    keys = [ARTIFACT.key(digest, tenant), *(reference_key(tenant, digest, one) for one in about)]
    found, *older = (await store.txn([], [Get(key) for key in keys])).reads
    artifact = cast("Artifact", decode(ARTIFACT, found[0])) if found else None
    return Standing(artifact, frozenset(read_reference(kv) for read in older for kv in read))


def topology_of(definition: Definition) -> tuple[ArtifactSpec, Reference]:
    """The file of a definition, and how it refers to it."""
    file = definition.spec.topology
    reference = Reference(
        subject=f"{DEFINITION.name}/{definition.id}", role="topology", name=f"{definition.spec.name}.yaml"
    )
    return ArtifactSpec(digest=file.digest, bytes=file.bytes, media_type=LAB_FILE), reference


def fact_of(reference: Reference) -> str:
    """What a commit that adds the reference is called."""
    return {"rendered": "rendered", "collected": "collected", "exported": "exported"}.get(reference.role, "stored")


def add_in(
    txn: Transaction, standing: Standing, tenant: str, spec: ArtifactSpec, reference: Reference, now: datetime
) -> bool:
    """Adds the reference, to a new artifact or to the one that stands; False when it is known already. Raises
    `BeingDeleted`."""
    reference = reference.model_copy(update={"at": now})
    known = standing.artifact
    if known is None:
        create_in(txn, _new(tenant, spec, reference, now))
        return True
    if known.status.phase is ArtifactPhase.DELETING:
        raise BeingDeleted(f"the object {spec.digest} of tenant {tenant} is being deleted: it is put again after that")
    if reference in known.status.references or reference in standing.older:
        return False
    carried = known.status.references
    verified_at = known.status.verified_at
    if len(carried) <= CARRIED + PORTION:
        carried, verified_at = tuple(_dated(known, one) for one in carried), now
    # else what stays undated still counts from when the content was last stored
    added = known.observed(fact_of(reference), references=(*carried, reference), verified_at=verified_at)
    update_in(txn, _lightened_in(txn, added))
    return True


def _dated(artifact: Artifact, reference: Reference) -> Reference:
    """The reference with its date: those of an early release count from when the content was last stored."""
    before = artifact.status.verified_at or artifact.metadata.created_at
    return reference if reference.at else reference.model_copy(update={"at": before})


def _new(tenant: str, spec: ArtifactSpec, reference: Reference, now: datetime) -> Artifact:
    uid = str(uuid5(NAMESPACE_URL, f"{tenant}/{spec.digest}"))
    metadata = Metadata(id=spec.digest, uid=uid, tenant=tenant, created_at=now)
    status = ArtifactStatus(phase=ArtifactPhase.STORED, references=(reference,), verified_at=now)
    return Artifact(metadata=metadata, spec=spec, status=status).observed(fact_of(reference))


def _lightened_in(txn: Transaction, artifact: Artifact) -> Artifact:
    """The artifact without the oldest references beyond what it carries, a portion at most; they get keys of their own."""
    status = artifact.status
    surplus = min(max(len(status.references) - CARRIED, 0), PORTION)
    for one in status.references[:surplus]:
        txn.put(reference_key(artifact.tenant, artifact.id, one), _dated(artifact, one).to_json())
    older = status.older_references + surplus
    carried = status.model_copy(update={"references": status.references[surplus:], "older_references": older})
    return artifact.model_copy(update={"status": carried})


def _drop_in(txn: Transaction, standing: Standing, gone: Sequence[Reference], emptied: Emptied | None) -> bool:
    """Takes references off; False when none of them is there."""
    artifact = standing.artifact
    if artifact is None or artifact.status.phase is ArtifactPhase.DELETING:
        return False
    left = tuple(one for one in artifact.status.references if one not in gone)
    older = [one for one in gone if one in standing.older]
    if left == artifact.status.references and not older:
        return False
    for one in older:
        txn.delete(reference_key(artifact.tenant, artifact.id, one))
    wanted = artifact.observed(references=left, older_references=artifact.status.older_references - len(older))
    if emptied is not None and not wanted.is_referred_to:
        wanted = emptied(wanted)
    update_in(txn, wanted)
    return True


def portions(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """As many at a time as fit into a transaction."""
    left = iter(items)
    while part := tuple(islice(left, PORTION)):
        yield part


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

    async def add(self, tenant: str, spec: ArtifactSpec, reference: Reference, now: datetime) -> bool:
        """Makes the reference stand; content and reference that are known already change nothing. True: the artifact is
        new. Raises `BeingDeleted`."""
        standing, _ = await self._change(
            tenant, spec.digest, (reference,), lambda txn, found: add_in(txn, found, tenant, spec, reference, now)
        )
        return standing.artifact is None

    async def drop(
        self, tenant: str, digest: str, gone: Iterable[Reference], *, emptied: Emptied | None = None
    ) -> bool:
        """Takes references off, however many; what is not there, or belongs to content on its way out, is passed over. The
        object itself is swept when nobody refers to it any more. True: something was taken off."""
        dropped = False
        for part in portions(dict.fromkeys(gone)):
            change = partial(_drop_in, gone=part, emptied=emptied)
            dropped = (await self._change(tenant, digest, part, change))[1] or dropped
        return dropped

    async def lighten(self, tenant: str, digest: str) -> None:
        """Carries out what an artifact of an earlier release has too much of."""

        def lighter(txn: Transaction, found: Standing) -> bool:
            if found.artifact is None or len(found.artifact.status.references) <= CARRIED:
                return False
            update_in(txn, _lightened_in(txn, found.artifact.observed()))
            return True

        while (await self._change(tenant, digest, (), lighter))[1]:
            continue

    async def _change(
        self, tenant: str, digest: str, about: Sequence[Reference], change: Callable[[Transaction, Standing], bool]
    ) -> tuple[Standing, bool]:
        """Commits what `change` makes of the artifact as it stands, worked out anew for as long as others change it too.
        Returns how it stood, and whether there was something to change."""
        for _ in range(_TRIES):
            standing = await look(self._store, tenant, digest, about)
            txn = Transaction()
            self._fence.guard(txn)
            if not change(txn, standing):
                return standing, False
            try:
                await txn.commit(self._store)
            except Conflict as conflict:
                if not await self._fence.stands(self._store):
                    raise NotOwner("the artifact-service has another decider") from conflict
                continue
            return standing, True
        raise Conflict([ARTIFACT.key(digest, tenant)], 0)
