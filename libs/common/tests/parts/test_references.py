"""Uses of stored content are found wherever they stand: carried by their artifact, or under a key of their own."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common import transfer
from lablet_common.references import Use, all_references, follow_uses, older_of, reference_key, uses_of
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.resources.model import Metadata
from lablet_common.store import MemoryStore, Put, StoreUnavailable, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import Unreadable, update_in
from lablet_common.store.repository import Repository
from lablet_common.transfer import TransferError, export_lines, import_entries, read_lines

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

    looks = 0

    async def look_at_every_turn() -> None:
        nonlocal looks
        while True:
            missing.extend(n for n in (1, 2) if not of(caches, n))
            looks += 1
            await asyncio.sleep(0)

    async with caches:
        await caches.wait_synced()
        looking = asyncio.create_task(look_at_every_turn())
        present: Any = await Repository[Artifact](store, ARTIFACT).require(DIGEST)
        txn = Transaction()
        update_in(txn, present.observed(references=(use(3),), older_references=2))
        txn.put(reference_key("default", DIGEST, use(2)), use(2).to_json())
        await caches.reached((await txn.commit(store)).revision)
        await asyncio.sleep(0)
        looking.cancel()
        assert looks > 2
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


def head(*lines: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() for line in ({"format": "lablet-export/1"}, *lines)]


def setting(key: str, reference: Reference) -> dict[str, Any]:
    return {"kind": "Setting", "key": key, "value": reference.to_dict()}


@pytest.mark.parametrize("key", ["/references/default/x", f"/references/default/{DIGEST}/other", "/references/"])
def test_a_file_with_a_reference_under_another_key_is_refused(key: str) -> None:
    """Nobody would ever find it to drop it."""
    with pytest.raises(TransferError, match="is not the key of the reference"):
        read_lines(head(artifact(use(2), older=1).to_dict(), setting(key, use(1))))


@pytest.mark.parametrize("older", [0, 2])
def test_a_file_whose_artifact_counts_other_references_than_it_has_is_refused(older: int) -> None:
    with pytest.raises(TransferError, match=f"counts {older} older references, and the file has 1"):
        read_lines(
            head(artifact(use(2), older=older).to_dict(), setting(reference_key("default", DIGEST, use(1)), use(1)))
        )


def test_a_file_with_references_to_an_artifact_that_it_has_not_is_refused() -> None:
    with pytest.raises(TransferError, match="counts no older references, and the file has 1"):
        read_lines(head(setting(reference_key("default", DIGEST, use(1)), use(1))))


async def test_where_the_artifact_is_there_already_its_references_of_the_file_are_skipped_with_it() -> None:
    """They would stand uncounted: content that is referred to would be taken for what it is not."""
    into = MemoryStore()
    await Repository(into, ARTIFACT).create(artifact(use(3)))
    entries = read_lines(
        head(artifact(use(2), older=1).to_dict(), setting(reference_key("default", DIGEST, use(1)), use(1)))
    )
    with pytest.raises(TransferError, match="exists already"):
        await import_entries(into, entries)
    assert await import_entries(into, entries, skip_existing=True) == 0
    assert (await into.range("/references/")).items == ()


async def test_an_import_that_broke_off_is_gone_on_with(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are written before what counts them."""
    entries = read_lines([line async for line in export_lines(store)])
    monkeypatch.setattr(transfer, "_BATCH", 1)
    into = MemoryStore()
    taken = into.txn

    async def breaks_off(compares: Any, success: Any, failure: Any = ()) -> Any:
        if any(isinstance(one, Put) and one.key.startswith("/artifacts/") for one in success):
            raise StoreUnavailable("etcd is away")
        return await taken(compares, success, failure)

    monkeypatch.setattr(into, "txn", breaks_off)
    with pytest.raises(StoreUnavailable):
        await import_entries(into, entries)
    monkeypatch.setattr(into, "txn", taken)
    await import_entries(into, entries, skip_existing=True)
    found = await Repository[Artifact](into, ARTIFACT).require(DIGEST)
    assert [one async for one in all_references(into, found)] == [use(2), use(1)]


async def test_who_listens_hears_of_each_older_use_once(store: MemoryStore) -> None:
    """Many uses that come at once, in a list, are told here: their artifact no longer carries the first of them."""
    caches = Caches(store, [ARTIFACT])
    follow_uses(caches)
    heard: list[Reference] = []
    stop = older_of(caches).subscribe(heard.append)
    async with caches:
        await caches.wait_synced()
        assert heard == [use(1)]
        again = await store.put(reference_key("default", DIGEST, use(1)), use(1).to_json())
        await caches.reached(again)
        stop()
        await caches.reached(await store.put(reference_key("default", DIGEST, use(5)), use(5).to_json()))
    assert heard == [use(1)]
