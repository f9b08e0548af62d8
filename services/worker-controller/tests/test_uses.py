"""Of what labs have left, a controller keeps in memory what concerns labs that have not ended."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.references import older_of, reference_key, uses_of
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import ARTIFACT, INSTANCE
from lablet_common.resources.model import Metadata
from lablet_common.store import MemoryStore, Transaction
from lablet_common.store.cache import Caches
from lablet_common.store.changes import encode
from lablet_common.store.repository import Repository
from lablet_workers.controller import CACHED, add_indexes

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
DIGEST = "a" * 64


def use(name: str) -> Reference:
    return Reference(subject=f"instance/{name}", role="collected", name="sw1.cfg", attempt=1, at=NOW)


def instance(name: str, phase: str) -> Instance:
    spec = {"reservation": "rsv-a", "seat": 1, "definition": "lab@1.0.0", "pool": "default", "worker": "default-001",
            "start": NOW, "end": NOW}  # fmt: skip
    metadata = {"id": name, "uid": name, "createdAt": NOW}
    return Instance.model_validate({"metadata": metadata, "spec": spec, "status": {"phase": phase}})


def artifact(digest: str, *uses: Reference, older: int = 0) -> Artifact:
    status = ArtifactStatus(phase=ArtifactPhase.STORED, references=uses, older_references=older)
    metadata = Metadata(id=digest, uid=digest, created_at=NOW)
    return Artifact(metadata=metadata, spec=ArtifactSpec(digest=digest, bytes=1), status=status)


class Estate:
    """Four instances (archived, ended, two that run) and what a controller knows of what they have left."""

    names = ("ins-archived-1", "ins-ended-1", "ins-runs-1", "ins-goes-1")

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.instances: Repository[Instance] = Repository(self.store, INSTANCE)
        self.artifacts: Repository[Artifact] = Repository(self.store, ARTIFACT)
        self.caches = Caches(self.store, list(CACHED), resync_seconds=0.05)
        add_indexes(self.caches)

    async def fill(self) -> None:
        await self.instances.create(instance("ins-ended-1", "Terminated"))
        for name in self.names[2:]:
            await self.instances.create(instance(name, "Pending"))

    async def change(self, name: str) -> None:
        """Its record is now newer than whatever it has left."""
        present = await self.instances.require(name)
        await self.instances.update(present.observed(phase=InstancePhase.COLLECTING))

    async def end(self) -> None:
        """One ends, one goes."""
        await self.instances.update(
            (await self.instances.require("ins-runs-1")).observed(phase=InstancePhase.TERMINATED)
        )
        await self.instances.delete(await self.instances.require("ins-goes-1"))
        await self.caches.reached(self.store.revision)

    @property
    def found(self) -> dict[str, list[str]]:
        """Of those that run: instance → digests, where there are any."""
        used = {name: uses_of(self.caches, f"instance/{name}") for name in self.names[2:]}
        return {name: [use.artifact.id[:1] for use in of] for name, of in used.items() if of}

    @property
    def kept(self) -> list[str]:
        return sorted(one.id[:1] for one in self.caches[ARTIFACT].items())


@pytest.fixture
def estate() -> Estate:
    return Estate()


async def test_of_what_was_stored_that_is_kept_which_concerns_labs_that_have_not_ended(estate: Estate) -> None:
    await estate.fill()
    for digest, name in zip("abcd", estate.names, strict=True):
        await estate.artifacts.create(artifact(digest * 64, use(name)))
    for name in estate.names[2:]:
        await estate.change(name)
    async with estate.caches:
        await estate.caches.wait_synced()
        assert estate.found == {"ins-runs-1": ["c"], "ins-goes-1": ["d"]}
        assert estate.kept == ["c", "d"]
        await estate.artifacts.create(artifact("e" * 64, use("ins-runs-1"), use("ins-archived-1")))
        shared = await estate.artifacts.create(artifact("f" * 64, use("ins-ended-1")))
        await estate.artifacts.update(shared.observed(references=(*shared.status.references, use("ins-goes-1"))))
        await estate.caches.reached(estate.store.revision)
        assert estate.found == {"ins-runs-1": ["c", "e"], "ins-goes-1": ["d", "f"]}
        await estate.end()
        assert (estate.found, estate.kept) == ({}, [])


async def test_older_uses_are_kept_for_labs_that_have_not_ended_and_for_no_longer(estate: Estate) -> None:
    await estate.fill()
    for name in estate.names:
        await estate.store.put(reference_key("default", DIGEST, use(name)), use(name).to_json())
    await estate.artifacts.create(artifact(DIGEST, use("ins-archived-2"), older=len(estate.names)))
    for name in estate.names[2:]:
        await estate.change(name)
    async with estate.caches:
        await estate.caches.wait_synced()
        assert estate.found == {"ins-runs-1": ["a"], "ins-goes-1": ["a"]}
        await estate.end()
        assert (estate.found, estate.kept) == ({}, [])
        assert uses_of(estate.caches, "instance/ins-archived-1") == []
        assert list(older_of(estate.caches).keys()) == []


@pytest.mark.parametrize("first", ["the artifact", "the key"])
async def test_a_use_that_is_pushed_out_by_labs_that_have_ended_is_found(estate: Estate, first: str) -> None:
    """Whichever of the transaction's two writes the watch tells of first."""
    await estate.fill()
    before = await estate.artifacts.create(artifact(DIGEST, use("ins-runs-1")))
    async with estate.caches:
        await estate.caches.wait_synced()
        after = before.observed(references=(use("ins-ended-1"),), older_references=1)
        txn = Transaction().require(ARTIFACT.key(DIGEST), mod_revision=before.revision)
        writes = [
            (ARTIFACT.key(DIGEST), encode(after)),
            (reference_key("default", DIGEST, use("ins-runs-1")), use("ins-runs-1").to_json()),
        ]
        for key, value in writes if first == "the artifact" else reversed(writes):
            txn.put(key, value)
        await txn.commit(estate.store)
        await estate.caches.reached(estate.store.revision)
        assert estate.found == {"ins-runs-1": ["a"]}


async def test_what_is_not_kept_is_not_brought_again_with_each_list(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    await estate.fill()
    await estate.artifacts.create(artifact(DIGEST, use("ins-ended-1")))
    async with estate.caches:
        await estate.caches.wait_synced()
        decoded: list[str] = []
        lists = 0
        taken = estate.store.range

        async def counted(prefix: str, **how: Any) -> Any:
            nonlocal lists
            lists += prefix == ARTIFACT.prefix
            return await taken(prefix, **how)

        monkeypatch.setattr(estate.store, "range", counted)
        monkeypatch.setattr(estate.caches[ARTIFACT], "_put", lambda kv: decoded.append(kv.key))
        async with asyncio.timeout(5):
            while lists < 3:
                await asyncio.sleep(0.01)
        assert decoded == []
