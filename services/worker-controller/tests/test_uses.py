"""Of what labs have left, a controller keeps in memory what concerns labs that have not ended."""

from datetime import UTC, datetime

from lablet_common.references import older_of, reference_key, uses_of
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.kinds import ARTIFACT, INSTANCE
from lablet_common.resources.model import Metadata
from lablet_common.store import MemoryStore
from lablet_common.store.cache import Caches
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


async def test_older_uses_are_kept_for_labs_that_have_not_ended_and_for_no_longer() -> None:
    store = MemoryStore()
    names = ("ins-archived-1", "ins-ended-1", "ins-runs-1", "ins-goes-1")
    for name in names:
        await store.put(reference_key("default", DIGEST, use(name)), use(name).to_json())
    status = ArtifactStatus(phase=ArtifactPhase.STORED, older_references=len(names))
    metadata = Metadata(id=DIGEST, uid="u", created_at=NOW)
    await Repository(store, ARTIFACT).create(
        Artifact(metadata=metadata, spec=ArtifactSpec(digest=DIGEST, bytes=1), status=status)
    )
    instances: Repository[Instance] = Repository(store, INSTANCE)
    await instances.create(instance("ins-ended-1", "Terminated"))
    runs, goes = [await instances.create(instance(name, "Collecting")) for name in names[2:]]
    caches = Caches(store, list(CACHED))
    add_indexes(caches)

    def kept() -> list[str]:
        return [name for name in names if uses_of(caches, f"instance/{name}")]

    async with caches:
        await caches.wait_synced()
        assert kept() == ["ins-runs-1", "ins-goes-1"]
        await instances.update(runs.observed(phase=InstancePhase.TERMINATED))
        await instances.delete(goes)
        await caches.reached(store.revision)
        assert kept() == []
        assert list(older_of(caches).keys()) == []
