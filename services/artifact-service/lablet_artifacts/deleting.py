"""Stored content that somebody wants deleted: one object with all its uses, or everything that an instance has left.

Refused while something alive needs it: a definition that is not archived, an instance that has not ended. Content is stored
once for all who have it, so an instance's deletion takes only its own references away, and the object goes with the last
of them. It goes in two steps: its artifact moves to Deleting here, and the sweeper deletes the object and then the artifact
at once (event `artifact.deleted`). Nobody waits to refer to it then: a publisher reads the artifact before it puts the
object, is decided by the same loop as a deletion, and waits for content on its way out; whoever stores what a lab has left
puts it once more after its artifact stands.

Not guaranteed: that what an instance still has in staging goes too. It is taken over first.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from lablet_artifacts.references import References, portions
from lablet_common.intake import Decision, refused, target_of
from lablet_common.intents import ArtifactDelete
from lablet_common.references import Use, all_references
from lablet_common.requests import Undecided
from lablet_common.resources.artifact import Artifact, ArtifactPhase, Reference
from lablet_common.resources.instance import INSTANCE_PREFIX, Instance
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, INSTANCE, Kind
from lablet_common.resources.model import Resource
from lablet_common.store import Get, Store
from lablet_common.store.changes import decode
from lablet_common.store.repository import Repository

ASKED = "DeleteRequested"
"""Reason of an artifact that is Deleting because somebody wants it."""
_LIVE = "artifact-in-use"


class Deleter:
    """Decides what is asked of artifacts. `of_subject` finds what a subject refers to."""

    def __init__(
        self, store: Store, references: References, of_subject: Callable[[str], Iterable[Use]], by: str
    ) -> None:
        self._store = store
        self._references = references
        self._of_subject = of_subject
        self._by = by
        self._artifacts: Repository[Artifact] = Repository(store, ARTIFACT)
        self._instances: Repository[Instance] = Repository(store, INSTANCE)

    async def decide(self, undecided: Undecided, now: datetime) -> Decision:
        """The outcome of one request."""
        asked = ArtifactDelete.model_validate(undecided.request.spec.data)
        target, tenant = target_of(undecided), undecided.request.tenant
        if target.startswith(INSTANCE_PREFIX):
            return await self._of_instance(target, tenant, asked, now)
        return await self._one(target, tenant, asked, now)

    async def _one(self, digest: str, tenant: str, asked: ArtifactDelete, now: datetime) -> Decision:
        begun = False
        while True:
            artifact = await self._artifacts.get(digest, tenant)
            if artifact is None:
                return refused("unknown-artifact", "Unknown artifact", f"there is no artifact {digest}", 404)
            if artifact.status.phase is ArtifactPhase.DELETING:
                return Decision("AlreadyDeleting")
            chosen = [one async for one in all_references(self._store, artifact) if asked.role in (None, one.role)]
            if asked.role is not None and not chosen and not begun:
                said = f"nothing refers to {digest} as {asked.role}"
                return refused("unknown-artifact", "Unknown artifact", said, 404, path="role")
            if found := await self._alive(dict.fromkeys(one.subject for one in chosen), tenant):
                subject, user = found
                return refused(_LIVE, "Artifact in use", user, 409, subject=subject)
            carried = artifact.status.references
            if asked.role is None or len(chosen) == len(carried) + artifact.status.older_references:
                # what has a key of its own goes with the artifact
                return Decision(ASKED, self._leaving(asked, now)(artifact.observed(references=())))
            taken = set(chosen)
            left = tuple(one for one in carried if one not in taken)
            older = taken - set(carried)
            # more than one transaction may take: after a crash in between, the rest goes when this is decided again
            if not older or not await self._references.drop(tenant, digest, older):
                return Decision(ASKED, artifact.observed(references=left))
            begun = True

    async def _of_instance(self, name: str, tenant: str, asked: ArtifactDelete, now: datetime) -> Decision:
        subject = f"{INSTANCE.name}/{name}"
        instance = await self._instances.get(name)
        if instance is not None and instance.tenant != tenant:
            return refused("unknown-instance", "Unknown instance", f"there is no instance {name}", 404)
        if instance is not None and not instance.is_final:
            return refused(_LIVE, "Artifact in use", _until_its_end(instance), 409, subject=subject)
        of_artifacts: dict[str, list[Reference]] = {}
        for use in self._of_subject(subject):
            if use.artifact.tenant == tenant and asked.role in (None, use.reference.role):
                of_artifacts.setdefault(use.artifact.id, []).append(use.reference)
        leaving = self._leaving(asked, now)
        gone = [
            await self._references.drop(tenant, digest, taken, emptied=leaving)
            for digest, taken in of_artifacts.items()
        ]
        return Decision(ASKED if any(gone) else "NothingLeft")

    def _leaving(self, asked: ArtifactDelete, now: datetime) -> Callable[[Artifact], Artifact]:
        """What becomes of an artifact that nobody refers to any more, because somebody wants that."""

        def leaves(artifact: Artifact) -> Artifact:
            message = asked.reason or None
            return artifact.moved(
                ArtifactPhase.DELETING, at=now, by=self._by, reason=ASKED, message=message, fact="changed"
            )

        return leaves

    async def _alive(self, subjects: Iterable[str], tenant: str) -> tuple[str, str] | None:
        """The first subject that is alive, and why it needs the content."""
        for part in portions(_resources(subjects)):
            keys = [kind.key(name, tenant) for _, kind, name in part]
            reads = (await self._store.txn([], [Get(key) for key in keys])).reads
            for (subject, kind, _), found in zip(part, reads, strict=True):
                resource = decode(kind, found[0]) if found else None
                if resource is not None and not resource.is_final:
                    return subject, _needed_by(resource)
        return None


def _resources(subjects: Iterable[str]) -> Iterator[tuple[str, Kind, str]]:
    """Each subject with its kind and id."""
    for subject in subjects:
        word, _, name = subject.partition("/")
        for kind in (DEFINITION, INSTANCE):
            if kind.name == word:
                yield subject, kind, name


def _needed_by(resource: Resource[Any, Any]) -> str:
    if isinstance(resource, Instance):
        return _until_its_end(resource)
    return f"the definition {resource.id} needs it: archive that version first"


def _until_its_end(instance: Instance) -> str:
    return f"the instance {instance.id} is {instance.phase} and needs it: delete it after its end"
