"""What lies in staging is what its manifest says, whoever else was about to put something there."""

import json
from datetime import UTC, datetime

import pytest

from lablet_common.objects import MemoryObjectStore, ObjectStoreUnavailable, digest_of
from lablet_common.resources.instance import Instance
from lablet_workers.staging import stage

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
SPEC = {"reservation": "rsv-a", "seat": 1, "definition": "lab@1.0.0", "pool": "default", "worker": "default-001",
        "start": NOW, "end": NOW}  # fmt: skip
SEAT = Instance.model_validate(
    {"metadata": {"id": "ins-a-1", "uid": "u", "createdAt": NOW}, "spec": SPEC, "status": {"phase": "Collecting"}}
)


class EndsAtItsManifest(MemoryObjectStore):
    async def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        if key.endswith("manifest.json"):
            raise ObjectStoreUnavailable("the process has ended here")
        await super().put(key, data, media_type)


async def test_a_late_put_of_a_former_owner_changes_no_file_that_a_manifest_lists() -> None:
    """The artifact-service leaves out what is not as its manifest says: the seat's work would be lost."""
    objects, late = MemoryObjectStore(), EndsAtItsManifest()
    late.objects = objects.objects
    staged = await stage(objects, SEAT, "collected", {"r1.cfg": b"hostname now\n"})
    with pytest.raises(ObjectStoreUnavailable):
        await stage(late, SEAT, "collected", {"r1.cfg": b"hostname before\n"})
    for entry in json.loads(await objects.get(staged.manifest)):
        assert digest_of(await objects.get(entry["key"])) == entry["digest"]


async def test_the_same_staged_again_writes_the_same_objects() -> None:
    objects = MemoryObjectStore()
    first = await stage(objects, SEAT, "collected", {"r1.cfg": b"hostname r1\n", "r2.cfg": b"hostname r2\n"})
    keys = set(objects.objects)
    assert await stage(objects, SEAT, "collected", {"r1.cfg": b"hostname r1\n", "r2.cfg": b"hostname r2\n"}) == first
    assert set(objects.objects) == keys
