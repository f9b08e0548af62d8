"""Uses of stored content: an artifact carries its latest, and each older one stands under a key of its own.

Work that thousands of labs leave alike is one artifact with thousands of uses. So that neither its record nor the event of
a change grows with them, it carries `CARRIED` references; what newer ones push out lies below
`/references/<tenant>/<digest>/`. Every transaction that puts or deletes a key there writes the artifact as well, which counts
them: whoever compares the artifact's revision has compared all of its uses.

Here is what readers need; only the artifact-service writes (`lablet_artifacts.references`). Artifacts of schema version 1
carry all that they have, however many, until the artifact-service has looked at them.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactRole, Reference
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, INSTANCE
from lablet_common.store.api import KeyValue, Store
from lablet_common.store.cache import Caches
from lablet_common.store.changes import Unreadable

REFERENCES = "/references/"
CARRIED = 16
"""References that an artifact carries: 3 KB or so, in each of its events too."""
_SUBJECT = "subject"
_PAGE = 500
_PART_BYTES = 16
_HEX_PART = re.compile(f"[0-9a-f]{{{2 * _PART_BYTES}}}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REMEMBERED = 4096
"""Roles with names and attempts that the next reference may share; then they are forgotten, all at once."""


_What = tuple[ArtifactRole, str, int]
"""What a subject calls it: role, name and attempt."""


def references_prefix(tenant: str, digest: str) -> str:
    """The keys of an artifact's older references begin with it."""
    return f"{REFERENCES}{tenant}/{digest}/"


def reference_key(tenant: str, digest: str, reference: Reference) -> str:
    """The same for the same reference, whenever it was made."""
    part = _part_of(reference.subject, (reference.role, reference.name, reference.attempt))
    return f"{references_prefix(tenant, digest)}{part.hex()}"


def _part_of(subject: str, what: _What) -> bytes:
    """The last part of a key."""
    role, name, attempt = what
    return hashlib.sha256("\0".join((subject, role, name, str(attempt))).encode()).digest()[:_PART_BYTES]


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


_Kept = tuple[int, str, str, _What, int | None]
"""Revision, `<tenant>/<digest>`, subject, what it is to that, and microseconds of its date since 1970."""


class Older:
    """Older references in memory, found by their subject: a mirror's sink. There may be hundreds of thousands, so each is a
    tuple of what does not follow from the rest: half as large as a `Reference` under its key.

    `wanted`: whether the uses of a subject are kept. It is asked when one comes; what is not wanted then never is. A mirror
    need not bring that again: whatever was put up to the latest revision has been here."""

    def __init__(self, wanted: Callable[[str], bool] | None = None) -> None:
        self._wanted = wanted
        self._seen = 0
        """The latest revision of what came."""
        self._kept: dict[str, dict[bytes | str, _Kept]] = {}
        """By `<tenant>/<digest>` and the key's last part."""
        self._names: dict[str, str] = {}
        """The keys of `_kept`: the references share them."""
        self._by_subject: dict[str, tuple[_Kept, ...]] = {}
        self._whats: dict[_What, _What] = {}
        self._listeners: list[Callable[[Reference], None]] = []

    def subscribe(self, listener: Callable[[Reference], None]) -> Callable[[], None]:
        """Tells of each that is new here: where many uses have come at once, in a list, their artifact no longer carries the
        first of them. Returns a function that ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def of_subject(self, subject: str) -> list[tuple[str, str, Reference]]:
        """Tenant, digest and reference of each."""
        found = []
        for _, where, name, (role, called, attempt), since in self._by_subject.get(subject, ()):
            tenant, _, digest = where.partition("/")
            at = None if since is None else _EPOCH + since * _MICROSECOND
            found.append((tenant, digest, Reference(subject=name, role=role, name=called, attempt=attempt, at=at)))
        return found

    def put(self, kv: KeyValue) -> None:
        self._seen = max(self._seen, kv.mod_revision)
        is_new = not self._forget(kv.key)
        reference = read_reference(kv)
        if self._wanted is not None and not self._wanted(reference.subject):
            return
        where, part = _place(kv.key)
        where = self._names.setdefault(where, where)
        others = self._by_subject.get(reference.subject, ())
        subject = others[0][2] if others else reference.subject
        since = None if reference.at is None else (reference.at - _EPOCH) // _MICROSECOND
        kept = kv.mod_revision, where, subject, self._shared(reference), since
        self._kept.setdefault(where, {})[part] = kept
        self._by_subject[subject] = (*others, kept)
        for listener in tuple(self._listeners) if is_new else ():
            listener(reference)

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - a sink is told the revision
        self._forget(key)

    def knows(self, kv: KeyValue) -> bool:
        if self._wanted is not None and kv.mod_revision <= self._seen:
            return True
        where, part = _place(kv.key)
        kept = self._kept.get(where, {}).get(part)
        return kept is not None and kept[0] == kv.mod_revision

    def keys(self) -> Iterator[str]:
        for where, beside in self._kept.items():
            for part in beside:
                yield f"{REFERENCES}{where}/{part.hex() if isinstance(part, bytes) else part}"

    def let_go(self, subject: str) -> None:
        """Keeps nothing of the subject any more."""
        for _, where, _, what, _ in self._by_subject.get(subject, ()):
            self._forget(f"{REFERENCES}{where}/{_part_of(subject, what).hex()}")

    def has_any(self, artifact: Artifact) -> bool:
        """Some use of it is kept here."""
        return f"{artifact.tenant}/{artifact.id}" in self._kept

    def _shared(self, reference: Reference) -> _What:
        if len(self._whats) >= _REMEMBERED:
            self._whats.clear()
        what = reference.role, reference.name, reference.attempt
        return self._whats.setdefault(what, what)

    def _forget(self, key: str) -> bool:
        """Whether it was there."""
        where, part = _place(key)
        beside = self._kept.get(where, {})
        kept = beside.pop(part, None)
        if kept is None:
            return False
        if not beside:
            del self._kept[where], self._names[where]
        left = tuple(one for one in self._by_subject.pop(kept[2]) if one is not kept)
        if left:
            self._by_subject[kept[2]] = left
        return True


def _place(key: str) -> tuple[str, bytes | str]:
    """`<tenant>/<digest>` and the last part of the key, as bytes where it is one that `reference_key` makes."""
    where, _, part = key.removeprefix(REFERENCES).rpartition("/")
    return where, bytes.fromhex(part) if _HEX_PART.fullmatch(part) else part


def follow_uses(caches: Caches, wanted: Callable[[str], bool] | None = None) -> None:
    """Makes the uses of artifacts, which must be among the caches, findable by `uses_of`; before they are entered. `wanted`:
    of which subjects older uses are kept (see `Older`); it may ask the caches."""
    caches[ARTIFACT].add_index(_SUBJECT, lambda a: [reference.subject for reference in a.status.references])
    caches.follow(REFERENCES, Older(wanted))


def follow_living_uses(caches: Caches) -> None:
    """As `follow_uses`, of instances (which must be among the caches, too) that have not ended: of the others there are as
    many as labs in a whole retention. The cache of artifacts has only what those refer to."""
    instances, artifacts = caches[INSTANCE], caches[ARTIFACT]

    def lives(subject: str) -> bool:
        kind, _, name = subject.partition("/")
        instance = instances.get(name) if kind == INSTANCE.name else None
        return instance is not None and not instance.is_final

    follow_uses(caches, lives)
    older = older_of(caches)

    def concerns(artifact: Artifact) -> bool:
        return any(lives(reference.subject) for reference in artifact.status.references) or older.has_any(artifact)

    def on_instance(old: Instance | None, new: Instance | None, _: int) -> None:
        known = new or old
        if known is None or (new is not None and not new.is_final):
            return
        subject = f"{INSTANCE.name}/{known.id}"
        left = [use.artifact for use in uses_of(caches, subject)]
        older.let_go(subject)
        for artifact in left:
            if not concerns(artifact):
                artifacts.let_go(artifact)

    caches.keep_only(ARTIFACT, concerns)
    instances.subscribe(on_instance)


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
