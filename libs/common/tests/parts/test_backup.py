"""A backup is whole or refused: the store at one revision, the objects that it refers to, the streams' positions."""

import base64
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lablet_common.backup import OBJECTS, STORE, SUMMARY, check_objects, read_backup, write_backup
from lablet_common.cursor import Cursor, Mark
from lablet_common.objects import MemoryObjectStore, ObjectInfo, put_content
from lablet_common.resources.artifact import object_key
from lablet_common.resources.kinds import TEMPLATE, cursor_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.worker import Capacity, SimpleStatus, TemplateSpec, WorkerTemplate
from lablet_common.secrets import SecretBox
from lablet_common.store import MemoryStore, Page
from lablet_common.store.repository import Repository
from lablet_common.transfer import TransferError, import_entries


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await Repository(made, TEMPLATE).create(template("sim"))
    return made


@pytest.fixture
async def objects() -> MemoryObjectStore:
    made = MemoryObjectStore()
    await put_content(made, "default", b"hostname r1", "text/plain")
    await made.put("staging/uploads/default/req-a", b"on its way")
    return made


async def test_a_backup_comes_back_as_it_was_written(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path
) -> None:
    async def positions() -> Mapping[str, Any]:
        return {"EVENTS": {"last": 7}}

    summary = await write_backup(tmp_path / "b", store, objects, positions)
    found = read_backup(tmp_path / "b")
    assert found.revision == summary["revision"] == (await store.status()).revision
    assert set(found.objects) == set(objects.objects)
    assert found.streams == {"EVENTS": {"last": 7}}
    await check_objects(found, objects)
    into = MemoryStore()
    assert await import_entries(into, found.entries) == 1
    assert (await Repository(into, TEMPLATE).require("sim")).spec.max_nodes == 5
    with pytest.raises(FileExistsError, match="not empty"):
        await write_backup(tmp_path / "b", store, objects)
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0, "nobody else reads it"


def template(name: str) -> WorkerTemplate:
    spec = TemplateSpec(
        instance_type="sim", capacity=Capacity(cpu_cores=1, memory_gb=1, storage_gb=1), license="PERSONAL", max_nodes=5
    )
    metadata = Metadata(id=name, uid=name, created_at=datetime(2027, 3, 1, tzinfo=UTC))
    return WorkerTemplate(metadata=metadata, spec=spec, status=SimpleStatus())


async def test_whatever_the_store_refers_to_at_its_revision_lies_in_the_lists_that_are_read_after_it(
    objects: MemoryObjectStore, tmp_path: Path
) -> None:
    """A mesh goes on while the backup is made: before each page and list is read it has stored one more thing, and told of
    it."""
    last = 40

    async def goes_on() -> None:
        nonlocal last
        last += 1
        made = await Repository(store, TEMPLATE).create(template(f"later-{last}"))
        await store.put(cursor_key("template"), Cursor((Mark(made.revision, last),), "e").to_json())
        await objects.put(f"objects/default/{last}", b"later")

    class Going(MemoryStore):
        async def range(self, prefix: str, **how: Any) -> Page:
            await goes_on()
            return await super().range(prefix, **how)

    class GoingObjects(MemoryObjectStore):
        async def list(self, prefix: str) -> list[ObjectInfo]:
            await goes_on()
            return await objects.list(prefix)

    store = Going()

    async def positions() -> Mapping[str, Any]:
        await goes_on()
        return {"EVENTS": {"first": 1, "last": last}}

    await goes_on()
    summary = await write_backup(tmp_path / "b", store, GoingObjects(), positions)
    found = read_backup(tmp_path / "b")
    assert (await store.status()).revision > found.revision == summary["revision"]
    held = {entry.resource.id for entry in found.entries if entry.resource is not None}
    assert held == {"later-41", "later-42"}, "one revision, and nothing behind it"
    (told,) = found.told.values()
    assert told == {"revision": found.revision - 1, "message": 42}, "as the cursor stood then, not as it stands"
    assert found.told.keys() == {"template"}
    assert told["message"] <= found.streams["EVENTS"]["last"], "a message that the store names is in the stream"
    assert "objects/default/42" in found.objects


async def test_nothing_is_written_when_the_positions_cannot_be_read(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path
) -> None:
    async def positions() -> Mapping[str, Any]:
        raise OSError("NATS is away")

    with pytest.raises(OSError, match="NATS is away"):
        await write_backup(tmp_path / "b", store, objects, positions)
    assert not (tmp_path / "b").exists()


async def test_a_backup_of_an_earlier_release_does_not_say_what_was_told(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path
) -> None:
    await write_backup(tmp_path, store, objects)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    del summary["told"]
    (tmp_path / SUMMARY).write_text(json.dumps(summary))
    assert read_backup(tmp_path).told == {}


async def test_a_secret_goes_into_it_sealed_and_its_key_does_not(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = tmp_path / "secrets.key"
    encoded = base64.b64encode(b"k" * 32).decode()
    key_file.write_text(f"k1:{encoded}\n")
    key_file.chmod(0o600)
    monkeypatch.setenv("SECRETS_KEY_FILE", str(key_file))
    box = SecretBox.from_file(key_file)
    templates = Repository[WorkerTemplate](store, TEMPLATE)
    present = await templates.require("sim")
    sealed = box.seal("the-signing-secret", "template/sim")
    noted = present.model_copy(
        update={"metadata": present.metadata.model_copy(update={"annotations": {"sealed": sealed}})}
    )
    await templates.update(noted)
    await write_backup(tmp_path / "b", store, objects)
    written = b"".join(
        gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in (tmp_path / "b").iterdir()
    )
    assert sealed.encode() in written
    assert b"the-signing-secret" not in written
    assert encoded.encode() not in written
    assert b"k" * 32 not in written
    into = MemoryStore()
    await import_entries(into, read_backup(tmp_path / "b").entries)
    kept = (await Repository(into, TEMPLATE).require("sim")).metadata.annotations["sealed"]
    assert box.open(kept, "template/sim") == "the-signing-secret"


@pytest.mark.parametrize("name", [STORE, OBJECTS])
async def test_a_file_that_was_changed_is_refused(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path, name: str
) -> None:
    await write_backup(tmp_path, store, objects)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(TransferError, match=f"{name} is not as it was written"):
        read_backup(tmp_path)


async def test_a_backup_that_broke_off_or_is_of_another_kind_is_refused(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path
) -> None:
    await write_backup(tmp_path, store, objects)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    (tmp_path / SUMMARY).write_text(json.dumps(summary | {"format": "other/1"}))
    with pytest.raises(TransferError, match="other/1"):
        read_backup(tmp_path)
    (tmp_path / SUMMARY).unlink()
    with pytest.raises(TransferError, match="no whole backup"):
        read_backup(tmp_path)


async def test_objects_that_were_lost_since_are_named_and_staged_files_may_go(
    store: MemoryStore, objects: MemoryObjectStore, tmp_path: Path
) -> None:
    await write_backup(tmp_path, store, objects)
    found = read_backup(tmp_path)
    await objects.delete("staging/uploads/default/req-a")
    await check_objects(found, objects)
    (key,) = objects.objects
    await objects.delete(key)
    with pytest.raises(TransferError, match=f"{key}.*missing"):
        await check_objects(found, objects)
    assert key.startswith(object_key("default", "")[:16])
