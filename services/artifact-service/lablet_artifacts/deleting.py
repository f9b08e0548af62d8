"""Stored content that somebody wants deleted: one object with all its uses, or everything that an instance has left.

Refused while something alive needs it: a definition that is not archived, an instance that has not ended. Content is stored
once for all who have it, so an instance's deletion takes only its own references away, and the object goes with the last
of them. It goes in two steps: its artifact moves to Deleting here, and the sweeper deletes the object and then the artifact
at once (event `artifact.deleted`). Nobody waits to refer to it then: a publisher reads the artifact before it puts the
object, is decided by the same loop as a deletion, and waits for content on its way out; whoever stores what a lab has left
puts it once more after its artifact stands.

Not guaranteed: that what an instance still has in staging goes too. It is taken over first.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from lablet_artifacts.references import References
from lablet_common.intake import Decision, refused, target_of
from lablet_common.intents import ArtifactDelete
from lablet_common.requests import Undecided
from lablet_common.resources.artifact import Artifact, ArtifactPhase, Reference
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import INSTANCE_PREFIX, Instance
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, INSTANCE
from lablet_common.store import Store
from lablet_common.store.repository import Repository

ASKED = "DeleteRequested"
"""Reason of an artifact that is Deleting because somebody wants it."""
_LIVE = "artifact-in-use"


class Deleter:
    """Decides what is asked of artifacts. `of_subject` finds the artifacts that a subject refers to."""

    def __init__(
        self, store: Store, references: References, of_subject: Callable[[str], Iterable[Artifact]], by: str
    ) -> None:
        self._references = references
        self._of_subject = of_subject
        self._by = by
        self._artifacts: Repository[Artifact] = Repository(store, ARTIFACT)
        self._definitions: Repository[Definition] = Repository(store, DEFINITION)
        self._instances: Repository[Instance] = Repository(store, INSTANCE)

    async def decide(self, undecided: Undecided, now: datetime) -> Decision:
        """The outcome of one request."""
        asked = ArtifactDelete.model_validate(undecided.request.spec.data)
        target, tenant = target_of(undecided), undecided.request.tenant
        if target.startswith(INSTANCE_PREFIX):
            return await self._of_instance(target, tenant, asked, now)
        return await self._one(target, tenant, asked, now)

    async def _one(self, digest: str, tenant: str, asked: ArtifactDelete, now: datetime) -> Decision:
        artifact = await self._artifacts.get(digest, tenant)
        if artifact is None:
            return refused("unknown-artifact", "Unknown artifact", f"there is no artifact {digest}", 404)
        if artifact.status.phase is ArtifactPhase.DELETING:
            return Decision("AlreadyDeleting")
        chosen = [one for one in artifact.status.references if asked.role in (None, one.role)]
        if asked.role is not None and not chosen:
            said = f"nothing refers to {digest} as {asked.role}"
            return refused("unknown-artifact", "Unknown artifact", said, 404, path="role")
        for reference in chosen:
            if user := await self._alive(reference, tenant):
                return refused(_LIVE, "Artifact in use", f"{user}", 409, subject=reference.subject)
        return Decision(ASKED, self._without(artifact, chosen, asked, now))

    async def _of_instance(self, name: str, tenant: str, asked: ArtifactDelete, now: datetime) -> Decision:
        subject = f"{INSTANCE.name}/{name}"
        instance = await self._instances.get(name)
        if instance is not None and instance.tenant != tenant:
            return refused("unknown-instance", "Unknown instance", f"there is no instance {name}", 404)
        if instance is not None and not instance.is_final:
            return refused(_LIVE, "Artifact in use", _until_its_end(instance), 409, subject=subject)
        gone = 0
        for found in list(self._of_subject(subject)):
            if found.tenant == tenant:
                gone += await self._references.change(
                    found, lambda one: self._without_subject(one, subject, asked, now)
                )
        return Decision(ASKED if gone else "NothingLeft")

    def _without_subject(self, artifact: Artifact, subject: str, asked: ArtifactDelete, now: datetime) -> Artifact:
        chosen = [
            one for one in artifact.status.references if one.subject == subject and asked.role in (None, one.role)
        ]
        return self._without(artifact, chosen, asked, now) if chosen else artifact

    def _without(self, artifact: Artifact, gone: Iterable[Reference], asked: ArtifactDelete, now: datetime) -> Artifact:
        """The artifact without these references; without any it is on its way out."""
        taken = set(gone)
        left = tuple(one for one in artifact.status.references if one not in taken)
        if left:
            return artifact.observed(references=left)
        message = asked.reason or None
        return artifact.observed(references=()).moved(
            ArtifactPhase.DELETING, at=now, by=self._by, reason=ASKED, message=message, fact="changed"
        )

    async def _alive(self, reference: Reference, tenant: str) -> str:
        """Why the reference must stand; empty when nothing alive needs it."""
        kind, _, name = reference.subject.partition("/")
        if kind == DEFINITION.name:
            definition = await self._definitions.get(name, tenant)
            if definition is not None and not definition.is_final:
                return f"the definition {name} needs it: archive that version first"
        if kind == INSTANCE.name:
            instance = await self._instances.get(name)
            if instance is not None and not instance.is_final:
                return _until_its_end(instance)
        return ""


def _until_its_end(instance: Instance) -> str:
    return f"the instance {instance.id} is {instance.phase} and needs it: delete it after its end"
