"""The file of a definition from before definitions referred to their files: nothing that is deleted takes it along."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_artifacts.references import References, keep
from lablet_artifacts.sweeping import Sweeper
from lablet_common.objects import MemoryObjectStore, ObjectInfo, ObjectStoreUnavailable, digest_of
from lablet_common.resources.artifact import ArtifactPhase, Reference, object_key
from lablet_common.resources.kinds import ARTIFACT

WORK = Reference(subject="instance/ins-a-1", role="collected", name="lab.yaml", attempt=1)
GRACE = timedelta(hours=1)


class Failing(MemoryObjectStore):
    """Its first listing fails."""

    def __init__(self, like: MemoryObjectStore) -> None:
        super().__init__()
        self.objects, self.modified = like.objects, like.modified
        self.failed = False

    async def list(self, prefix: str) -> list[ObjectInfo]:
        if not self.failed:
            self.failed = True
            raise ObjectStoreUnavailable("it does not answer yet")
        return await super().list(prefix)


@pytest.fixture
async def old(shelf: Any, small: bytes) -> str:
    """The digest of a definition's file as the first meshes published it: no artifact."""
    await shelf.publish("small", small)
    digest = digest_of(small)
    await shelf.store.delete(ARTIFACT.key(digest))
    return digest


async def sweeper(shelf: Any, **more: Any) -> Sweeper:
    """Everything is old enough to be swept."""
    sweeping: Sweeper = await shelf.sweeper(now=lambda: datetime.now(UTC) + GRACE, **more)
    return sweeping


async def left_by_a_lab(shelf: Any, data: bytes) -> None:
    references = References(shelf.store, await shelf.fence())
    await keep(shelf.objects, references, "default", data, "text/plain", WORK, shelf.clock.now())


async def on_its_way_out(shelf: Any, digest: str) -> Any:
    """As somebody had wanted before this release."""
    artifact = await shelf.all(ARTIFACT).require(digest)
    gone = artifact.observed(references=()).moved(
        ArtifactPhase.DELETING, at=shelf.clock.now(), by="t", reason="DeleteRequested", fact="changed"
    )
    return await shelf.all(ARTIFACT).update(gone)


async def users(shelf: Any, digest: str) -> list[str]:
    return [one.subject for one in (await shelf.all(ARTIFACT).require(digest)).status.references]


async def test_a_look_makes_it_refer_and_then_nobody_can_delete_its_file(shelf: Any, small: bytes, old: str) -> None:
    await left_by_a_lab(shelf, small)
    await (await sweeper(shelf)).look()
    assert await users(shelf, old) == [WORK.subject, "definition/small@1.0.0"]
    asked = await shelf.decided(await shelf.ask("delete", old, {}, kind="artifact"))
    assert asked.status.problem.type.endswith("/artifact-in-use")
    await shelf.decided(await shelf.ask("delete", "ins-a-1", {}, kind="artifact"))
    await (await sweeper(shelf)).look()
    assert await users(shelf, old) == ["definition/small@1.0.0"]
    assert object_key("default", old) in shelf.objects.objects


async def test_one_without_any_artifact_gets_one_once(shelf: Any, old: str) -> None:
    sweeping = await sweeper(shelf)
    await sweeping.look()
    artifact = await shelf.all(ARTIFACT).require(old)
    assert (artifact.status.phase, await users(shelf, old)) == (ArtifactPhase.STORED, ["definition/small@1.0.0"])
    await sweeping.look()
    assert (await shelf.all(ARTIFACT).require(old)).revision == artifact.revision


async def test_what_was_on_its_way_out_stays_and_is_referred_to(shelf: Any, small: bytes, old: str) -> None:
    await left_by_a_lab(shelf, small)
    await on_its_way_out(shelf, old)
    await (await sweeper(shelf)).look()
    assert object_key("default", old) in shelf.objects.objects
    assert await users(shelf, old) == ["definition/small@1.0.0"]


async def test_nothing_is_deleted_before_it_is_known_what_is_needed(shelf: Any, small: bytes, old: str) -> None:
    await left_by_a_lab(shelf, small)
    sweeping = await sweeper(shelf, objects=(failing := Failing(shelf.objects)))
    running = asyncio.create_task(sweeping.run())
    async with asyncio.timeout(5):
        while not failing.failed:
            await asyncio.sleep(0)
        sweeping.finish(await on_its_way_out(shelf, old))
        while not await _is_referred_to(shelf, old):
            await asyncio.sleep(0.001)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert object_key("default", old) in shelf.objects.objects


async def _is_referred_to(shelf: Any, digest: str) -> bool:
    artifact = await shelf.all(ARTIFACT).get(digest)
    return artifact is not None and artifact.is_referred_to


async def test_a_file_that_is_lost_is_not_said_to_be_stored(shelf: Any, old: str) -> None:
    await shelf.objects.delete(object_key("default", old))
    await (await sweeper(shelf)).look()
    assert await shelf.all(ARTIFACT).get(old) is None


async def test_the_file_of_an_archived_version_is_swept(shelf: Any, old: str) -> None:
    await shelf.decided(await shelf.ask("archive", "small@1.0.0", {}))
    await (await sweeper(shelf)).look()
    assert object_key("default", old) not in shelf.objects.objects
