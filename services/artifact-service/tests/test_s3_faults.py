"""A sick object store delays the work, says why, and loses nothing: publishing, collecting and sweeping against a real server
behind a front that is slow, overloaded, broken off, locked or full."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_artifacts.patience import with_patience
from lablet_artifacts.references import References, keep
from lablet_common.objects import (
    ObjectMissing,
    ObjectStoreDenied,
    ObjectStoreFull,
    ObjectStoreUnavailable,
    S3ObjectStore,
    digest_of,
    get_content,
    put_content,
)
from lablet_common.resources.artifact import Reference, object_key
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, REQUEST
from lablet_common.testing.s3 import Sickness, SickS3, s3_server, settings_for

pytestmark = pytest.mark.integration
SILENCE = 0.25
TRIES = 3
FAULTS = {
    "slow": Sickness(silent=0.05),
    "silent": Sickness(silent=2 * SILENCE),
    "overloaded": Sickness(503, "SlowDown"),
    "broken": Sickness(500, "InternalError"),
    "dropped": Sickness(drop=True),
    "dropped after the work": Sickness(drop=True, after_work=True),
    "locked": Sickness(403, "SignatureDoesNotMatch"),
    "full": Sickness(507, "InsufficientStorage"),
    "over its quota": Sickness(403, "QuotaExceeded"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
async def front(server: str) -> AsyncIterator[SickS3]:
    async with SickS3(server) as made:
        yield made


@pytest.fixture
async def objects(front: SickS3) -> AsyncIterator[S3ObjectStore]:
    made = S3ObjectStore(settings_for(front.endpoint), silence_seconds=SILENCE, tries=1)
    await made.ensure_bucket()
    for info in await made.list(""):
        await made.delete(info.key)
    yield made
    await made.close()


ALIKE = ("broken", "dropped", "over its quota")
"""These go the same ways as others: left to the long tier."""


class Spell:
    """Every request suffers until so many have."""

    def __init__(self, sickness: Sickness, count: int) -> None:
        self.sickness, self.left = sickness, count

    def __call__(self, method: str, key: str) -> Sickness | None:
        if self.left <= 0:
            return None
        self.left -= 1
        return self.sickness


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in FAULTS]
)
async def test_a_file_is_published_and_work_taken_over_when_the_fault_has_passed(
    shelf: Any, front: SickS3, objects: S3ObjectStore, small: bytes, name: str
) -> None:
    shelf.objects = objects
    upload = f"staging/uploads/default/{digest_of(small)}"
    await objects.put(upload, small)
    staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"hostname r1", "r2.cfg": b"hostname r2"})
    body = {"name": "small", "staging": upload, "digest": digest_of(small), "bytes": len(small), "overrides": {}}
    request = await shelf.ask("publish", "small", body)
    front.sickness = Spell(FAULTS[name], TRIES)
    decided = await shelf.decided(request)
    assert decided.status.reason == "Published"
    assert await get_content(objects, "default", digest_of(small)) == small
    front.sickness = Spell(FAULTS[name], TRIES)
    await shelf.instance("ins-a-1", "Collecting")
    await shelf.keep()
    await shelf.change("ins-a-1", staged=staged)
    await shelf.has("collected", "r1.cfg", seconds=20)
    await shelf.has("collected", "r2.cfg", seconds=20)
    assert front.suffered >= 2
    for data in (b"hostname r1", b"hostname r2"):
        assert await get_content(objects, "default", digest_of(data)) == data


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("silent", ObjectStoreUnavailable, "Timeout"),
        ("overloaded", ObjectStoreUnavailable, "503 SlowDown"),
        ("dropped", ObjectStoreUnavailable, "put a/b"),
        ("locked", ObjectStoreDenied, "ARTIFACT_STORAGE_SECRET_KEY"),
        ("full", ObjectStoreFull, "make room"),
        ("over its quota", ObjectStoreFull, "quota"),
    ],
)
async def test_what_is_wrong_is_said_with_the_place_and_the_remedy(
    front: SickS3, objects: S3ObjectStore, name: str, kind: type[Exception], said: str
) -> None:
    front.sickness = lambda _method, _key: FAULTS[name]
    with pytest.raises(kind) as caught:
        await objects.put("a/b", b"content")
    assert said in str(caught.value)
    assert front.endpoint in str(caught.value)


async def test_wrong_keys_are_waited_for_and_never_told_in_a_log(server: str, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = S3ObjectStore(settings_for(server)), S3ObjectStore(settings_for(server, "a-wrong-secret-key"))
    await right.ensure_bucket()
    keys = iter([wrong, wrong, right])

    async def work() -> str:
        return await put_content(next(keys), "default", b"content", "text/plain")

    with caplog.at_level(logging.WARNING):
        assert await with_patience(work) == digest_of(b"content")
    told = [str(getattr(record, "cause", "")) for record in caplog.records]
    assert len(told) == 1, "the same reason is told once"
    assert "ARTIFACT_STORAGE_SECRET_KEY" in told[0]
    assert "a-wrong-secret-key" not in told[0]
    await right.close()
    await wrong.close()


async def test_patience_ends_where_the_store_has_answered(objects: S3ObjectStore) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(ObjectMissing):
            await with_patience(lambda: objects.get("not/there"))


async def test_a_short_spell_is_not_even_noticed_by_the_caller(front: SickS3) -> None:
    objects = S3ObjectStore(settings_for(front.endpoint))
    await objects.ensure_bucket()
    front.sickness = Spell(FAULTS["overloaded"], 1)
    await objects.put("a/b", b"content")
    assert front.suffered == 1
    assert await objects.get("a/b") == b"content"
    await objects.close()


async def test_an_answer_that_got_lost_is_no_second_object(front: SickS3, objects: S3ObjectStore) -> None:
    front.sickness = Spell(FAULTS["dropped after the work"], TRIES)
    digest = await with_patience(lambda: put_content(objects, "default", b"once", "text/plain"))
    assert [info.key for info in await objects.list("objects/default/")] == [object_key("default", digest)]


async def test_the_servers_own_times_decide_what_is_old_enough_to_be_swept(shelf: Any, objects: S3ObjectStore) -> None:
    shelf.objects = objects
    alone = await put_content(objects, "default", b"left by a crash", "text/plain")
    reference = Reference(subject="instance/ins-a-1", role="collected", name="r1.cfg", attempt=1)
    references = References(shelf.store, await shelf.fence())
    used = await keep(objects, references, "default", b"hostname r1", "text/plain", reference, shelf.clock.now())
    await objects.put("staging/uploads/default/req-gone", b"an upload that nobody asked for")
    later = timedelta()
    sweeper = await shelf.sweeper(objects=objects, now=lambda: datetime.now(UTC) + later)
    assert await sweeper.look() == 0, "what has just been put stays"
    later = timedelta(minutes=61)
    assert await sweeper.look() == 2
    assert [info.key for info in await objects.list("")] == [object_key("default", used)]
    assert await shelf.all(ARTIFACT).get(alone) is None


async def test_a_sweeper_in_a_sick_store_deletes_nothing_that_is_used(
    shelf: Any, front: SickS3, objects: S3ObjectStore, small: bytes
) -> None:
    shelf.objects = objects
    await shelf.publish("small", small)
    sweeper = await shelf.sweeper(objects=objects, grace=timedelta(0), look_seconds=0.05)
    orphans = [await put_content(objects, "default", f"orphan {n}".encode(), "text/plain") for n in range(5)]
    turn = iter(range(10_000))
    front.sickness = lambda _method, _key: FAULTS["dropped"] if next(turn) % 3 == 0 else None
    running = asyncio.create_task(sweeper.run())
    try:

        async def swept() -> bool:
            left = {info.key for info in await objects.list("objects/")}
            return not any(object_key("default", digest) in left for digest in orphans)

        await shelf.until(lambda: with_patience(swept), seconds=20)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    front.sickness = lambda _method, _key: None
    assert await get_content(objects, "default", digest_of(small)) == small
    assert (await shelf.all(DEFINITION).require("small@1.0.0")).phase == "Published"
    assert all(one.is_final for one in (await shelf.all(REQUEST).list()).items)
