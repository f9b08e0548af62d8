"""Uses of stored content: an artifact carries its latest, and each older one stands under a key of its own.

Work that thousands of labs leave alike is one artifact with thousands of uses. So that neither its record nor the event of
a change grows with them, it carries `CARRIED` references; what newer ones push out lies below
`/references/<tenant>/<digest>/`. Every transaction that puts or deletes a key there writes the artifact as well, which counts
them: whoever compares the artifact's revision has compared all of its uses.

Here is what readers need; only the artifact-service writes (`lablet_artifacts.references`). Artifacts of schema version 1
carry all that they have, however many, until the artifact-service has looked at them.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, KeysView
from dataclasses import dataclass
from typing import cast

from lablet_common.resources.artifact import Artifact, ArtifactPhase, Reference
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.resources.weight import lighten
from lablet_common.store.api import KeyValue, Store
from lablet_common.store.cache import Caches
from lablet_common.store.changes import Unreadable

REFERENCES = "/references/"
CARRIED = 16
"""References that an artifact carries: 3 KB or so, in each of its events too."""
_SUBJECT = "subject"
_PAGE = 500


def references_prefix(tenant: str, digest: str) -> str:
    """The keys of an artifact's older references begin with it."""
    return f"{REFERENCES}{tenant}/{digest}/"


def reference_key(tenant: str, digest: str, reference: Reference) -> str:
    """The same for the same reference, whenever it was made."""
    what = "\0".join((reference.subject, reference.role, reference.name, str(reference.attempt)))
    return f"{references_prefix(tenant, digest)}{hashlib.sha256(what.encode()).hexdigest()[:32]}"


def read_reference(kv: KeyValue) -> Reference:
    """What stands under one of the keys. Raises `Unreadable`."""
    try:
        return Reference.model_validate_json(kv.value)
    except ValueError as error:
        raise Unreadable(kv.key, str(error)) from error


async def older_references(store: Store, artifact: Artifact, *, revision: int = 0) -> AsyncIterator[list[Reference]]:
    """Those that the artifact does not carry, a page at a time, now or as they were at `revision` (raises `Compacted`)."""
    if not artifact.status.older_references:
        return
    prefix, after = references_prefix(artifact.tenant, artifact.id), ""
    while True:
        page = await store.range(prefix, limit=_PAGE, start_after=after, revision=revision)
        yield [read_reference(kv) for kv in page.items]
        if not page.more:
            return
        after = page.items[-1].key


async def all_references(store: Store, artifact: Artifact) -> AsyncIterator[Reference]:
    """Every reference to it, those that it carries first."""
    for reference in artifact.status.references:
        yield reference
    async for page in older_references(store, artifact):
        for reference in page:
            yield reference


@dataclass(frozen=True, slots=True)
class Use:
    """One use of stored content."""

    artifact: Artifact
    reference: Reference


class Older:
    """Older references in memory, found by their subject: a mirror's sink."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, Reference]] = {}
        """By key, with the key's revision."""
        self._by_subject: dict[str, set[str]] = {}
        self._listeners: list[Callable[[Reference], None]] = []

    def subscribe(self, listener: Callable[[Reference], None]) -> Callable[[], None]:
        """Tells of each that is new here: where many uses have come at once, in a list, their artifact no longer carries the
        first of them. Returns a function that ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def of_subject(self, subject: str) -> list[tuple[str, str, Reference]]:
        """Tenant, digest and reference of each."""
        found = []
        for key in sorted(self._by_subject.get(subject, ())):
            tenant, digest, _ = key.removeprefix(REFERENCES).split("/")
            found.append((tenant, digest, self._kept[key][1]))
        return found

    def put(self, kv: KeyValue) -> None:
        is_new = kv.key not in self._kept
        self._forget(kv.key)
        reference = read_reference(kv)
        lighten(reference)
        self._kept[kv.key] = kv.mod_revision, reference
        self._by_subject.setdefault(reference.subject, set()).add(kv.key)
        for listener in tuple(self._listeners) if is_new else ():
            listener(reference)

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - a sink is told the revision
        self._forget(key)

    def revision_of(self, key: str) -> int:
        return self._kept[key][0] if key in self._kept else 0

    def keys(self) -> KeysView[str]:
        return self._kept.keys()

    def _forget(self, key: str) -> None:
        if key not in self._kept:
            return
        subject = self._kept.pop(key)[1].subject
        keys = self._by_subject[subject]
        keys.discard(key)
        if not keys:
            del self._by_subject[subject]


def follow_uses(caches: Caches) -> None:
    """Makes the uses of artifacts, which must be among the caches, findable by `uses_of`; before they are entered."""
    caches[ARTIFACT].add_index(_SUBJECT, lambda a: [reference.subject for reference in a.status.references])
    caches.follow(REFERENCES, Older())


def older_of(caches: Caches) -> Older:
    """What `follow_uses` has made."""
    return cast("Older", caches.beside(REFERENCES))


def uses_of(caches: Caches, subject: str) -> list[Use]:
    """All that the subject refers to, as the caches know it."""
    carried = [
        Use(artifact, reference)
        for artifact in caches[ARTIFACT].by(_SUBJECT, subject)
        for reference in artifact.status.references
        if reference.subject == subject
    ]
    older = []
    for tenant, digest, reference in older_of(caches).of_subject(subject):
        artifact: Artifact | None = caches[ARTIFACT].get(digest, tenant)
        # nobody refers to what is on its way out; the keys go with it
        if artifact is not None and artifact.status.phase is not ArtifactPhase.DELETING:
            older.append(Use(artifact, reference))
    return carried + older
