"""Uses of stored content are found wherever they stand: carried by their artifact, or under a key of their own."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.references import Use, all_references, follow_uses, reference_key, uses_of
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.resources.model import Metadata
from lablet_common.store import MemoryStore, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import Unreadable, update_in
from lablet_common.store.repository import Repository
from lablet_common.transfer import export_lines, import_entries, read_lines

NOW = datetime(2027, 3, 1, tzinfo=UTC)
DIGEST = "a" * 64


def use(number: int) -> Reference:
    return Reference(subject=f"instance/ins-{number}-1", role="collected", name="sw1.cfg", attempt=1, at=NOW)


def artifact(*references: Reference, older: int = 0) -> Artifact:
    status = ArtifactStatus(phase=ArtifactPhase.STORED, references=references, older_references=older)
    metadata = Metadata(id=DIGEST, uid="u", created_at=NOW)
    return Artifact(metadata=metadata, spec=ArtifactSpec(digest=DIGEST, bytes=1), status=status)


@pytest.fixture
async def store() -> MemoryStore:
    """With one use of each sort."""
    made = MemoryStore()
    await made.put(reference_key("default", DIGEST, use(1)), use(1).to_json())
    await Repository(made, ARTIFACT).create(artifact(use(2), older=1))
    return made


def of(caches: Caches, number: int) -> list[Reference]:
    return [found.reference for found in uses_of(caches, use(number).subject)]


async def test_both_sorts_are_found_by_their_subject_with_their_artifact(store: MemoryStore) -> None:
    caches = Caches(store, [ARTIFACT])
    follow_uses(caches)
    async with caches:
        await caches.wait_synced()
        present = await Repository[Artifact](store, ARTIFACT).require(DIGEST)
        assert uses_of(caches, use(1).subject) == [Use(present, use(1))]
        assert uses_of(caches, use(2).subject) == [Use(present, use(2))]
        assert uses_of(caches, use(3).subject) == []


async def test_a_use_that_is_pushed_out_or_let_go_is_found_at_every_moment_as_it_stands(store: MemoryStore) -> None:
    caches = Caches(store, [ARTIFACT])
    follow_uses(caches)
    missing: list[int] = []
    async with caches:
        await caches.wait_synced()
        present: Any = await Repository[Artifact](store, ARTIFACT).require(DIGEST)
        txn = Transaction()
        update_in(txn, present.observed(references=(use(3),), older_references=2))
        txn.put(reference_key("default", DIGEST, use(2)), use(2).to_json())
        pushed = (await txn.commit(store)).revision
        while caches.revision < pushed:
            missing += [n for n in (1, 2) if not of(caches, n)]
            await caches.reached(caches.revision + 1)
        assert (missing, of(caches, 2), of(caches, 3)) == ([], [use(2)], [use(3)])
        await store.delete(reference_key("default", DIGEST, use(1)))
        await caches.reached(store.revision)
        assert of(caches, 1) == []


async def test_content_on_its_way_out_is_referred_to_by_nobody(store: MemoryStore) -> None:
    caches = Caches(store, [ARTIFACT])
    follow_uses(caches)
    async with caches:
        await caches.wait_synced()
        present: Any = await Repository[Artifact](store, ARTIFACT).require(DIGEST)
        leaving = present.observed(references=()).moved(ArtifactPhase.DELETING, at=NOW, by="t", reason="t")
        await caches.reached((await Repository(store, ARTIFACT).update(leaving)).revision)
        assert of(caches, 1) == []


async def test_a_key_that_holds_no_reference_is_named(store: MemoryStore) -> None:
    await store.put(reference_key("default", DIGEST, use(1)), b"{}")
    with pytest.raises(Unreadable, match=f"/references/default/{DIGEST}/"):
        [one async for one in all_references(store, artifact(older=1))]


async def test_an_export_carries_both_sorts(store: MemoryStore) -> None:
    into = MemoryStore()
    lines = [line async for line in export_lines(store)]
    assert sum(json.loads(line).get("kind") == "Setting" for line in lines) == 1
    await import_entries(into, read_lines(lines))
    found = await Repository[Artifact](into, ARTIFACT).require(DIGEST)
    assert [one async for one in all_references(into, found)] == [use(2), use(1)]
