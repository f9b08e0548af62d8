"""What nobody refers to goes after a grace, collected work after its retention; what is referred to never does."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_artifacts.references import BeingDeleted, References, keep
from lablet_artifacts.sweeping import Sweeper
from lablet_common.objects import MemoryObjectStore, ObjectStoreUnavailable, digest_of, put_content
from lablet_common.resources.artifact import ArtifactPhase, Reference, object_key, staging_key
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.store import Conflict

GRACE = timedelta(minutes=60)
WORK = Reference(subject="instance/ins-a-1", role="collected", name="r1.cfg", attempt=1)


async def sweeper(shelf: Any, **more: Any) -> Sweeper:
    shelf.later = getattr(shelf, "later", timedelta())
    sweeping: Sweeper = await shelf.sweeper(
        grace=GRACE,
        now=lambda: datetime.now(UTC) + shelf.later,
        monotonic=lambda: shelf.later.total_seconds(),
        **more,
    )
    return sweeping


async def kept(shelf: Any, data: bytes = b"hostname r1", reference: Reference = WORK) -> str:
    references = References(shelf.store, await shelf.fence())
    return await keep(shelf.objects, references, "default", data, "text/plain", reference, shelf.clock.now())


async def dropped(shelf: Any, digest: str) -> None:
    await References(shelf.store, await shelf.fence()).drop("default", digest, [WORK])


async def swept(shelf: Any, sweeping: Sweeper | None = None) -> None:
    """Two looks with the grace between them."""
    sweeping = sweeping or await sweeper(shelf)
    await sweeping.look()
    shelf.later += GRACE
    await sweeping.look()


async def test_an_object_put_before_a_crash_goes_after_the_grace_and_not_before(shelf: Any) -> None:
    digest = await put_content(shelf.objects, "default", b"left behind", "text/plain")
    sweeping = await sweeper(shelf)
    assert await sweeping.look() == 0
    assert object_key("default", digest) in shelf.objects.objects
    shelf.later += GRACE
    assert await sweeping.look() == 1
    assert shelf.objects.objects == {}
    assert (await shelf.all(ARTIFACT).list()).items == ()


async def test_what_is_referred_to_stays_however_old_it_is(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    digest = await kept(shelf)
    await swept(shelf)
    assert object_key("default", digest) in shelf.objects.objects
    assert object_key("default", digest_of(small)) in shelf.objects.objects


async def test_an_artifact_that_nobody_refers_to_any_more_goes_after_the_grace(shelf: Any) -> None:
    digest = await kept(shelf)
    await dropped(shelf, digest)
    await swept(shelf)
    assert shelf.objects.objects == {}
    assert await shelf.all(ARTIFACT).get(digest) is None


async def test_a_reference_that_comes_within_the_grace_begins_it_anew(shelf: Any) -> None:
    digest = await kept(shelf)
    await dropped(shelf, digest)
    sweeping = await sweeper(shelf)
    await sweeping.look()
    await kept(shelf)
    shelf.later += GRACE
    await sweeping.look()
    assert object_key("default", digest) in shelf.objects.objects


async def test_the_grace_goes_on_over_a_take_over_and_begins_anew_where_somebody_used_the_content(shelf: Any) -> None:
    """Whoever lost its lease more often than a grace has minutes never got there."""
    digest, used = await kept(shelf), await kept(shelf, b"hostname r2")
    await dropped(shelf, digest)
    await dropped(shelf, used)
    alone: Any = {}
    await (await sweeper(shelf, alone=alone)).look()
    await kept(shelf, b"hostname r2")
    await dropped(shelf, used)
    shelf.later += GRACE
    await (await sweeper(shelf, alone=alone)).look()
    assert await shelf.all(ARTIFACT).get(digest) is None
    assert await shelf.all(ARTIFACT).get(used) is not None
    assert list(alone) == [("default", used)]


async def test_collected_work_goes_after_its_retention_and_topologies_stay(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    digest = await kept(shelf)
    shelf.later = GRACE
    sweeping = await sweeper(shelf)
    await shelf.clock.advance(timedelta(days=89))
    assert await sweeping.look() == 1, "the upload in staging"
    await shelf.clock.advance(timedelta(days=1))
    assert await sweeping.look() == 1
    assert await shelf.all(ARTIFACT).get(digest) is None
    assert list(shelf.objects.objects) == [object_key("default", digest_of(small))]


OTHERS = Reference(subject="instance/ins-b-1", role="collected", name="r1.cfg", attempt=1)


async def users(shelf: Any, digest: str) -> set[str]:
    artifact = await shelf.all(ARTIFACT).get(digest)
    return {one.subject for one in artifact.status.references} if artifact is not None else set()


async def test_of_content_that_many_have_each_use_ends_after_its_own_retention(shelf: Any) -> None:
    """The soak's find: whoever left the same configuration again kept everybody's for as long as their own."""
    digest = await kept(shelf)
    sweeping = await sweeper(shelf)
    await shelf.clock.advance(timedelta(days=60))
    assert await kept(shelf, reference=OTHERS) == digest
    assert await kept(shelf) == digest, "the same use again makes it no younger"
    await shelf.clock.advance(timedelta(days=29))
    await sweeping.look()
    assert await users(shelf, digest) == {WORK.subject, OTHERS.subject}
    await shelf.clock.advance(timedelta(days=2))
    await sweeping.look()
    assert await users(shelf, digest) == {OTHERS.subject}
    await shelf.clock.advance(timedelta(days=60))
    await sweeping.look()
    assert await users(shelf, digest) == set()


async def test_uses_of_earlier_releases_count_from_when_the_content_was_last_stored(shelf: Any) -> None:
    digest = await kept(shelf)
    present = await shelf.all(ARTIFACT).require(digest)
    undated = tuple(one.model_copy(update={"at": None}) for one in present.status.references)
    await shelf.all(ARTIFACT).update(present.observed(references=undated))
    sweeping = await sweeper(shelf)
    await shelf.clock.advance(timedelta(days=60))
    await kept(shelf, reference=OTHERS)
    await shelf.clock.advance(timedelta(days=31))
    await sweeping.look()
    assert await users(shelf, digest) == {OTHERS.subject}


async def test_work_of_an_instance_that_has_not_ended_outlives_the_retention(shelf: Any) -> None:
    await shelf.instance("ins-a-1", "Running")
    digest = await kept(shelf)
    shelf.later = GRACE
    await shelf.clock.advance(timedelta(days=400))
    await swept(shelf)
    assert await shelf.all(ARTIFACT).get(digest) is not None


async def test_content_that_is_being_deleted_is_put_anew_after_it(shelf: Any) -> None:
    digest = await kept(shelf)
    present = await shelf.all(ARTIFACT).require(digest)
    gone = present.observed(references=()).moved(
        ArtifactPhase.DELETING, at=shelf.clock.now(), by="t", reason="Unreferenced", fact="changed"
    )
    await shelf.all(ARTIFACT).update(gone)
    with pytest.raises(BeingDeleted):
        await kept(shelf)
    await (await sweeper(shelf)).look()
    assert await kept(shelf) == digest
    assert object_key("default", digest) in shelf.objects.objects


@pytest.mark.parametrize("step", range(6))
async def test_a_crash_between_any_two_steps_is_finished_by_the_next_sweeper(shelf: Any, step: int) -> None:
    class Dying(MemoryObjectStore):
        left = step

        def _check(self) -> None:
            if self.left == 0:
                raise ObjectStoreUnavailable("the process has ended here")
            self.left -= 1

    used = await kept(shelf, b"still needed")
    await put_content(shelf.objects, "default", b"left behind", "text/plain")
    shelf.later = GRACE
    dying = Dying()
    dying.objects, dying.modified = shelf.objects.objects, shelf.objects.modified
    with contextlib.suppress(ObjectStoreUnavailable):
        await (await sweeper(shelf, objects=dying)).look()
    await swept(shelf)
    assert list(shelf.objects.objects) == [object_key("default", used)]
    assert [one.id for one in (await shelf.all(ARTIFACT).list()).items] == [used]


async def test_staged_files_stay_while_a_request_or_an_instance_needs_them(shelf: Any) -> None:
    upload = staging_key("uploads", "default", "req-1")
    await shelf.objects.put(upload, b"lab:")
    await shelf.objects.put(staging_key("uploads", "default", "req-2"), b"lab:")
    body = {"name": "a", "staging": upload, "digest": digest_of(b"lab:"), "bytes": 4, "overrides": {}}
    await shelf.ask("publish", "a", body)
    await shelf.instance("ins-a-1", "Collecting")
    staged = await shelf.stage("ins-a-1", "collected", {"r1.cfg": b"x"})
    await shelf.stage("ins-gone-1", "collected", {"r1.cfg": b"x"})
    await swept(shelf)
    assert sorted(shelf.objects.objects) == sorted(
        [upload, staged.manifest, staging_key("default", "ins-a-1", "1", "collected", "r1.cfg")]
    )


async def test_a_sweeper_whose_artifact_changes_all_the_time_looks_again_later(
    shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds may leave the same at the end of a slot: that takes nobody's shard away."""
    sweeper = await shelf.sweeper()
    looks = 0

    async def conflict() -> int:
        nonlocal looks
        looks += 1
        raise Conflict(["/artifacts/default/a"], 7)

    monkeypatch.setattr(sweeper, "look", conflict)
    monkeypatch.setattr("lablet_artifacts.sweeping._RETRY_SECONDS", 0.01)

    async def again() -> bool:
        return looks > 1

    async with shelf.running(sweeper.run()):
        await shelf.until(again)
