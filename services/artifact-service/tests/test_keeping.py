"""The files of instances: rendered, taken over, referred to and let go, through crashes and a store that is down."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from lablet_artifacts.keeper import CACHED
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.references import References, keep
from lablet_common.objects import MemoryObjectStore, ObjectStoreError, digest_of
from lablet_common.ownership import NotOwner
from lablet_common.references import follow_uses, uses_of
from lablet_common.resources.artifact import ArtifactSpec, Reference, object_key
from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, ownership_key
from lablet_common.store.cache import Caches


async def test_a_pending_instance_gets_its_own_lab_file(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    await shelf.keep()
    await shelf.instance()
    await shelf.has("rendered", "lab.yaml")
    digest = (await shelf.files())["rendered", "lab.yaml"]
    text = shelf.objects.objects[object_key("default", digest)].decode()
    assert 'tags: ["serial:2345", "seat-7", "grace@default-003"]  # kept' in text


async def test_an_instance_of_a_public_definition_is_rendered_too(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small, tenant="public")
    await shelf.keep()
    await shelf.instance()
    await shelf.has("rendered", "lab.yaml")


async def test_a_definition_that_comes_late_is_waited_for(shelf: Any, small: bytes) -> None:
    await shelf.keep()
    await shelf.instance()
    await shelf.settle()
    assert await shelf.files() == {}
    await shelf.publish("small", small)
    await shelf.has("rendered", "lab.yaml")


async def test_what_cannot_be_rendered_is_reported_where_the_worker_controller_sees_it(
    shelf: Any, small: bytes
) -> None:
    await shelf.publish("small", small)
    await shelf.keep()
    await shelf.instance(ports={"r9": 2000})
    await shelf.has("report", "render-error.txt")
    files = await shelf.files()
    assert set(files) == {("report", "render-error.txt")}
    assert b"r1" in shelf.objects.objects[object_key("default", files["report", "render-error.txt"])]


async def test_a_definition_whose_file_is_lost_or_changed_is_reported_and_never_used(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    shelf.objects.objects[object_key("default", digest_of(small))] = small.replace(b"iosv", b"evil")
    await shelf.keep()
    await shelf.instance()
    await shelf.has("report", "render-error.txt")


async def test_the_next_attempt_is_rendered_for_its_own_place(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    await shelf.keep()
    await shelf.instance()
    await shelf.has("rendered", "lab.yaml")
    present = await shelf.all(INSTANCE).require("ins-a-1")
    await shelf.all(INSTANCE).update(present.respecified(worker="default-009").observed(attempt=2))

    async def both() -> bool:
        artifacts = (await shelf.all(ARTIFACT).list()).items
        return {r.attempt for a in artifacts for r in a.status.references if r.role == "rendered"} == {1, 2}

    await shelf.until(both)


async def test_staged_files_are_verified_stored_and_cleared(shelf: Any) -> None:
    await shelf.keep()
    staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"hostname r1", "r2.cfg": b"hostname r2"})
    await shelf.instance(phase="Collecting")
    await shelf.change("ins-a-1", staged=staged)
    await shelf.has("collected", "r2.cfg")
    await shelf.settle()
    files = await shelf.files()
    assert files["collected", "r1.cfg"] == digest_of(b"hostname r1")
    assert shelf.left_in_staging() == []


async def test_a_staged_file_with_a_wrong_digest_is_left_out_and_the_others_are_kept(shelf: Any) -> None:
    await shelf.keep()
    staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"true", "r2.cfg": b"false"}, r2="0" * 64)
    await shelf.instance(phase="Collecting")
    await shelf.change("ins-a-1", staged=staged)
    await shelf.has("collected", "r1.cfg")
    await shelf.settle()
    assert set(await shelf.files()) == {("collected", "r1.cfg")}


async def test_a_later_collection_of_the_same_attempt_takes_the_place_of_the_earlier(shelf: Any) -> None:
    await shelf.keep()
    await shelf.instance(phase="Collecting")
    for text in (b"early", b"late"):
        staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": text})
        await shelf.change("ins-a-1", staged=staged)
        await shelf.settle()
    artifacts = (await shelf.all(ARTIFACT).list()).items
    assert {a.id for a in artifacts if a.status.references} == {digest_of(b"late")}


async def test_what_was_staged_while_nobody_looked_is_not_lost_when_the_instance_has_ended(shelf: Any) -> None:
    await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"work"})
    await shelf.stage("ins-a-1", "exported", {"lab.yaml": b"lab"})
    await shelf.instance(phase="Terminated")
    await shelf.keep()
    await shelf.has("exported", "lab.yaml")
    assert set(await shelf.files()) == {("collected", "r1.cfg"), ("exported", "lab.yaml")}
    await shelf.settle()
    assert shelf.left_in_staging() == []


async def test_nor_is_what_an_earlier_attempt_had_staged(shelf: Any) -> None:
    """A worker was emptied while nobody looked, and the seat's lab went on elsewhere."""
    await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"work"})
    await shelf.instance(phase="Terminated")
    await shelf.change("ins-a-1", attempt=3)
    await shelf.keep()
    await shelf.has("collected", "r1.cfg")
    (use,) = await shelf.uses()
    assert use.reference.attempt == 1


class Asked(MemoryObjectStore):
    """Notes what is asked for."""

    def __init__(self, inner: MemoryObjectStore) -> None:
        super().__init__()
        self.objects, self.calls = inner.objects, Counter[str]()

    async def get(self, key: str) -> bytes:
        self.calls["get"] += 1
        return await super().get(key)

    async def list(self, prefix: str) -> list[Any]:
        self.calls["list"] += 1
        return await super().list(prefix)


async def test_a_take_over_asks_the_object_store_once_for_all_that_have_ended_and_the_next_one_not_at_all(
    shelf: Any,
) -> None:
    """The soak's find: two reads for each ended instance at each take-over, and take-overs came in rows."""
    for number in range(30):
        await shelf.instance(f"ins-{number}-1", phase="Terminated")
    await shelf.stage("ins-7-1", "collected", {"r1.cfg": b"work"})
    objects, leftovers = Asked(shelf.objects), Leftovers()
    first = await shelf.keep(objects, leftovers=leftovers)
    assert objects.calls == {"list": 1, "get": 3}, (
        "the manifests of both roles, and the file, of the one that left some"
    )
    assert ("collected", "r1.cfg") in await shelf.files("instance/ins-7-1")
    await shelf.change("ins-7-1")
    await shelf.settle()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await shelf.keep(objects, leftovers=leftovers)
    assert objects.calls == {"list": 1, "get": 3}
    await shelf.all(INSTANCE).delete(await shelf.all(INSTANCE).require("ins-8-1"))
    await shelf.keep(objects, leftovers=leftovers)
    assert len(leftovers._clear) == 29, "who has left etcd is forgotten"


async def test_where_staging_cannot_be_listed_each_is_asked_for_by_itself(shelf: Any) -> None:
    class Unlisted(Asked):
        async def list(self, prefix: str) -> Any:
            raise ObjectStoreError("no right to list")

    await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"work"})
    await shelf.instance(phase="Terminated")
    await shelf.keep(Unlisted(shelf.objects))
    await shelf.has("collected", "r1.cfg")


async def test_a_rendered_file_is_let_go_when_its_instance_has_ended(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    await shelf.keep()
    await shelf.instance()
    await shelf.has("rendered", "lab.yaml")
    await shelf.change("ins-a-1", phase=InstancePhase.TERMINATED)

    async def gone() -> bool:
        return not await shelf.files()

    await shelf.until(gone)


async def test_what_hundreds_share_is_not_walked_through_for_each_of_them(shelf: Any, small: bytes) -> None:
    """The soak's find: every look at every instance that had ended went through the references of all of them."""
    await shelf.publish("small", small)
    caches = Caches(shelf.store, list(CACHED))
    follow_uses(caches)
    references = References(shelf.store, await shelf.fence())
    for name in ("ins-a-1", "ins-b-1"):
        for role, content in (("rendered", name.encode()), ("collected", b"alike")):
            reference = Reference(subject=f"instance/{name}", role=role, name="r1.cfg", attempt=1)
            await keep(shelf.objects, references, "default", content, "text/plain", reference, shelf.clock.now())
    async with caches:
        await caches.wait_synced()
        assert sorted(use.reference.role for use in uses_of(caches, "instance/ins-a-1")) == ["collected", "rendered"]


async def test_a_store_that_is_down_delays_and_loses_nothing(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    staged = await shelf.stage("ins-b-1", "collected", {"r1.cfg": b"work"})
    await shelf.keep()
    shelf.objects.unavailable = True
    await shelf.instance()
    await shelf.instance("ins-b-1", phase="Collecting")
    await shelf.change("ins-b-1", staged=staged)
    await shelf.settle()
    assert await shelf.files() == {}
    shelf.objects.unavailable = False
    await shelf.has("rendered", "lab.yaml")

    async def taken() -> bool:
        return ("collected", "r1.cfg") in await shelf.files("instance/ins-b-1")

    await shelf.until(taken)


class Dying(MemoryObjectStore):
    """The n-th call has its effect, and its caller never hears of it."""

    def __init__(self, inner: MemoryObjectStore, at: int) -> None:
        super().__init__()
        self.objects, self.left = inner.objects, at
        self.died = asyncio.Event()

    async def _call(self, effect: Any) -> Any:
        if self.died.is_set():
            await asyncio.Event().wait()
        self.left -= 1
        answer = await effect()
        if self.left == 0:
            self.died.set()
            await asyncio.Event().wait()
        return answer

    async def put(self, key: str, data: bytes, media_type: str = "") -> None:
        await self._call(lambda: MemoryObjectStore.put(self, key, data, media_type))

    async def get(self, key: str) -> bytes:
        answer: bytes = await self._call(lambda: MemoryObjectStore.get(self, key))
        return answer

    async def delete(self, key: str) -> None:
        await self._call(lambda: MemoryObjectStore.delete(self, key))


@pytest.mark.parametrize("call", range(1, 11))
async def test_a_crash_at_any_call_to_the_object_store_loses_nothing(shelf: Any, small: bytes, call: int) -> None:
    await shelf.publish("small", small)
    dying = Dying(shelf.objects, call)
    task = await shelf.keep(dying)
    await shelf.instance("ins-b-1")
    staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"one", "r2.cfg": b"two"})
    await shelf.instance(phase="Collecting")
    await shelf.change("ins-a-1", staged=staged)
    await shelf.until(lambda: _set(dying.died))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await shelf.keep()
    await shelf.has("collected", "r1.cfg")
    await shelf.has("collected", "r2.cfg")

    async def rendered() -> bool:
        return ("rendered", "lab.yaml") in await shelf.files("instance/ins-b-1")

    await shelf.until(rendered)
    await shelf.settle()
    assert shelf.left_in_staging() == []


async def _set(event: asyncio.Event) -> bool:
    return event.is_set()


async def test_references_added_and_dropped_at_the_same_time_all_count(shelf: Any) -> None:
    references = References(shelf.store, await shelf.fence())
    spec = ArtifactSpec(digest="a" * 64, bytes=1)

    def use(number: int) -> Reference:
        return Reference(subject=f"instance/{number}", role="rendered", name="lab.yaml")

    await asyncio.gather(*(references.add("default", spec, use(n), shelf.clock.now()) for n in range(10)))
    await asyncio.gather(
        *(references.drop("default", "a" * 64, [use(n)]) for n in range(5)),
        *(references.add("default", spec, use(n), shelf.clock.now()) for n in range(10, 15)),
    )
    left = (await shelf.all(ARTIFACT).require("a" * 64)).status.references
    assert {reference.subject for reference in left} == {f"instance/{n}" for n in range(5, 15)}


async def test_two_deciders_never_both_write(shelf: Any) -> None:
    """The ownership has passed on: what the old decider still has in hand is refused."""
    old = References(shelf.store, await shelf.fence())
    await shelf.store.delete(ownership_key("artifact-service", "-"))
    new = References(shelf.store, await shelf.fence())
    spec = ArtifactSpec(digest="a" * 64, bytes=1)
    reference = Reference(subject="instance/x", role="collected", name="r1.cfg")
    with pytest.raises(NotOwner):
        await old.add("default", spec, reference, shelf.clock.now())
    assert await shelf.all(ARTIFACT).get("a" * 64) is None
    await new.add("default", spec, reference, shelf.clock.now())
    assert await shelf.all(ARTIFACT).get("a" * 64) is not None
