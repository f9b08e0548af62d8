"""Uses of stored content are found wherever they stand: carried by their artifact, or under a key of their own."""

import asyncio
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common import transfer
from lablet_common.references import (
    Older,
    Use,
    all_references,
    follow_living_uses,
    follow_uses,
    older_of,
    reference_key,
    uses_of,
)
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, INSTANCE
from lablet_common.resources.model import Metadata
from lablet_common.store import MemoryStore, Put, StoreUnavailable, Transaction
from lablet_common.store.api import KeyValue
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


def follow(store: MemoryStore, wanted: Any = None) -> Caches:
    caches = Caches(store, [INSTANCE, ARTIFACT])
    follow_uses(caches, wanted)
    return caches


async def test_what_is_kept_says_all_of_each_use_and_under_which_keys(store: MemoryStore) -> None:
    undated = use(7).model_copy(update={"at": None, "name": "x.cfg"})
    odd = Reference(subject=use(7).subject, role="report", name="é", attempt=0, at=NOW.replace(microsecond=123_457))
    keys = [reference_key("acme", DIGEST, undated), reference_key("default", "b" * 64, odd)]
    for key, one in zip(keys, (undated, odd), strict=True):
        await store.put(key, one.to_json())
    await store.put(f"/references/default/{DIGEST}/by-hand", use(8).to_json())
    caches = follow(store)
    async with caches:
        await caches.wait_synced()
        older = older_of(caches)
        found = older.of_subject(use(7).subject)
        assert [(tenant, digest, one.to_dict()) for tenant, digest, one in found] == [
            ("acme", DIGEST, undated.to_dict()),
            ("default", "b" * 64, odd.to_dict()),
        ]
        listed = (await store.range("/references/")).items
        assert sorted(older.keys()) == sorted(kv.key for kv in listed)
        assert all(older.knows(kv) for kv in listed)
        for key in keys:
            await store.delete(key)
        await caches.reached(store.revision)
        assert older.of_subject(use(7).subject) == []
        assert len(list(older.keys())) == 2


async def test_of_a_subject_that_is_not_wanted_nothing_is_kept_nor_brought_again(store: MemoryStore) -> None:
    asked: list[str] = []

    def wanted(subject: str) -> bool:
        asked.append(subject)
        return subject == use(1).subject

    await store.put(reference_key("default", DIGEST, use(5)), use(5).to_json())
    caches = follow(store, wanted)
    caches._mirror._resync_seconds = 0.05
    async with caches:
        await caches.wait_synced()
        assert (of(caches, 1), of(caches, 5)) == ([use(1)], [])
        later = await store.put(reference_key("default", DIGEST, use(6)), use(6).to_json())
        await caches.reached(later)
        assert of(caches, 6) == []
        lists = 0
        taken = store.range

        async def counted(prefix: str, **how: Any) -> Any:
            nonlocal lists
            lists += prefix == "/references/"
            return await taken(prefix, **how)

        store.range = counted  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            while lists < 3:
                await asyncio.sleep(0.01)
        assert asked == [use(n).subject for n in (1, 5, 6)], "each is asked about once"
        older_of(caches).let_go(use(1).subject)
        assert of(caches, 1) == []
        assert list(older_of(caches).keys()) == []


def running(number: int) -> Instance:
    """The instance that `use(number)` is of."""
    spec = {"reservation": f"rsv-{number}", "seat": 1, "definition": "lab@1.0.0", "pool": "default", "worker": "w",
            "start": NOW, "end": NOW}  # fmt: skip
    metadata = {"id": f"ins-{number}-1", "uid": f"u-{number}", "createdAt": NOW}
    return Instance.model_validate({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})


async def test_who_waits_for_the_end_of_an_import_has_all_that_living_labs_refer_to(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        await Repository(store, INSTANCE).create(running(number))
    entries = read_lines([line async for line in export_lines(store)])
    monkeypatch.setattr(transfer, "_BATCH", 1)
    into = MemoryStore()
    caches = Caches(into, [INSTANCE, ARTIFACT])
    follow_living_uses(caches)
    async with caches:
        await caches.wait_synced()
        await import_entries(into, entries)
        await caches.reached(into.revision)
        assert (of(caches, 1), of(caches, 2)) == ([use(1)], [use(2)])


async def test_whoever_is_asked_what_is_wanted_knows_what_a_list_has_brought(store: MemoryStore) -> None:
    """A use is older than the latest change of the instance that it is of."""
    await Repository(store, INSTANCE).create(running(1))
    caches = Caches(store, [INSTANCE, ARTIFACT])
    follow_uses(caches, lambda subject: caches[INSTANCE].get(subject.partition("/")[2]) is not None)
    async with caches:
        await caches.wait_synced()
        assert of(caches, 1) == [use(1)]


def test_an_older_use_weighs_less_than_half_of_a_reference_under_its_key() -> None:
    """90 days of thousands of labs a day are hundreds of thousands of them, in three services."""
    count, older = 5_000, Older()
    tracemalloc.start()
    try:
        for number in range(count):
            one = use(number).model_copy(
                update={"subject": f"instance/ins-{number:026}-1", "at": NOW + timedelta(milliseconds=number)}
            )
            older.put(KeyValue(reference_key("default", DIGEST, one), one.to_json(), number + 1000, number + 1000))
        weight = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert len(list(older.keys())) == count
    assert weight < 450
