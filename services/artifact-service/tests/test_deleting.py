"""What somebody wants deleted goes at once and for good; what something alive needs stays, and the answer says why."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_artifacts.references import References, keep
from lablet_common.objects import ObjectStoreUnavailable, digest_of
from lablet_common.quotas import Quota
from lablet_common.resources.artifact import ArtifactPhase, Reference, object_key
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, RESERVATION, quota_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
)


async def kept(shelf: Any, data: bytes, instance: str = "ins-a-1", role: str = "collected") -> str:
    reference = Reference(subject=f"instance/{instance}", role=role, name="r1.cfg", attempt=1)
    references = References(shelf.store, await shelf.fence())
    return await keep(shelf.objects, references, "default", data, "text/plain", reference, shelf.clock.now())


async def delete(shelf: Any, target: str, **body: Any) -> Any:
    return await shelf.decided(await shelf.ask("delete", target, body, kind="artifact"))


def refusal(request: Any) -> tuple[str, str]:
    problem = request.status.problem
    return problem.type.rpartition("/")[2], problem.detail


async def test_what_nothing_alive_needs_goes_at_once_with_its_object(shelf: Any) -> None:
    await shelf.instance("ins-a-1", "Terminated")
    digest = await kept(shelf, b"hostname r1")
    assert (await delete(shelf, digest, reason="the learner asked")).status.reason == "DeleteRequested"
    leaving = await shelf.all(ARTIFACT).require(digest)
    assert (leaving.status.phase, leaving.status.message) == (ArtifactPhase.DELETING, "the learner asked")
    assert await (await shelf.sweeper()).look() == 1
    assert await shelf.all(ARTIFACT).get(digest) is None
    assert shelf.objects.objects == {}


async def test_what_an_instance_that_runs_has_left_stays_and_the_answer_names_it(shelf: Any) -> None:
    await shelf.instance("ins-a-1", "Running")
    digest = await kept(shelf, b"hostname r1")
    for target in (digest, "ins-a-1"):
        slug, detail = refusal(await delete(shelf, target))
        assert slug == "artifact-in-use"
        assert "ins-a-1 is Running" in detail
    assert (await shelf.all(ARTIFACT).require(digest)).status.phase is ArtifactPhase.STORED


async def test_the_file_of_a_definition_stays_until_that_version_is_archived(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    digest = digest_of(small)
    slug, detail = refusal(await delete(shelf, digest))
    assert slug == "artifact-in-use"
    assert "small@1.0.0" in detail
    await shelf.decided(await shelf.ask("archive", "small@1.0.0", {}))
    assert (await delete(shelf, digest)).status.reason == "DeleteRequested"
    await (await shelf.sweeper()).look()
    assert object_key("default", digest) not in shelf.objects.objects


async def test_a_version_that_is_booked_is_not_archived(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    metadata = Metadata(id="rsv-a", uid="rsv-a", created_at=shelf.clock.now())
    spec = ReservationSpec(definition="small@1.0.0", duration_minutes=60)
    booked = Reservation(metadata=metadata, spec=spec, status=ReservationStatus(phase=ReservationPhase.SCHEDULED))
    booked = await shelf.all(RESERVATION).create(booked)
    slug, detail = refusal(await shelf.decided(await shelf.ask("archive", "small@1.0.0", {})))
    assert slug == "definition-in-use"
    assert "rsv-a" in detail
    ended = booked.moved("Cancelled", at=shelf.clock.now(), by="test", reason="Test")
    await shelf.all(RESERVATION).update(ended)
    decided = await shelf.decided(await shelf.ask("archive", "small@1.0.0", {}))
    assert decided.status.reason == "Archived"
    assert (await shelf.all(DEFINITION).require("small@1.0.0")).phase == "Archived"
    assert (await shelf.decided(await shelf.ask("archive", "small@1.0.0", {}))).status.reason == "AlreadyArchived"
    assert refusal(await shelf.decided(await shelf.ask("archive", "no@1.0.0", {})))[0] == "unknown-definition"


async def test_content_that_two_have_left_goes_with_the_second(shelf: Any) -> None:
    digest = await kept(shelf, b"same for both", "ins-a-1")
    await kept(shelf, b"same for both", "ins-b-1")
    other = await kept(shelf, b"mine alone", "ins-a-1")
    await delete(shelf, "ins-a-1")
    left = await shelf.all(ARTIFACT).require(digest)
    assert [reference.subject for reference in left.status.references] == ["instance/ins-b-1"]
    await (await shelf.sweeper()).look()
    assert await shelf.all(ARTIFACT).get(other) is None
    assert object_key("default", digest) in shelf.objects.objects
    await delete(shelf, "ins-b-1")
    await (await shelf.sweeper()).look()
    assert shelf.objects.objects == {}


async def test_only_the_role_that_was_named_is_deleted(shelf: Any) -> None:
    work, lab = await kept(shelf, b"work"), await kept(shelf, b"lab", role="exported")
    await delete(shelf, "ins-a-1", role="collected")
    await (await shelf.sweeper()).look()
    assert await shelf.all(ARTIFACT).get(work) is None
    assert await shelf.all(ARTIFACT).get(lab) is not None
    assert refusal(await delete(shelf, lab, role="report"))[0] == "unknown-artifact"


async def test_asked_twice_or_for_what_is_not_there(shelf: Any) -> None:
    digest = await kept(shelf, b"hostname r1")
    await delete(shelf, digest)
    assert (await delete(shelf, digest)).status.reason == "AlreadyDeleting"
    assert refusal(await delete(shelf, "0" * 64))[0] == "unknown-artifact"
    assert (await delete(shelf, "ins-never-1")).status.reason == "NothingLeft"


async def test_another_tenants_work_is_not_found(shelf: Any) -> None:
    await shelf.instance("ins-a-1", "Terminated")
    digest = await kept(shelf, b"hostname r1")
    for target, slug in ((digest, "unknown-artifact"), ("ins-a-1", "unknown-instance")):
        asked = await shelf.ask("delete", target, {}, "acme", kind="artifact")
        assert refusal(await shelf.decided(asked))[0] == slug
    assert (await shelf.all(ARTIFACT).require(digest)).status.phase is ArtifactPhase.STORED


async def test_the_same_file_can_be_published_again_after_its_deletion(shelf: Any, small: bytes) -> None:
    await shelf.publish("small", small)
    await shelf.decided(await shelf.ask("archive", "small@1.0.0", {}))
    await delete(shelf, digest_of(small))
    await (await shelf.sweeper()).look()
    again = await shelf.publish("small", small, "2.0.0")
    assert again.status.reason == "Published"
    await (await shelf.sweeper()).look()
    assert shelf.objects.objects[object_key("default", digest_of(small))] == small


async def test_a_running_sweeper_finishes_a_deletion_without_waiting_for_its_next_look(shelf: Any) -> None:
    digest = await kept(shelf, b"hostname r1")
    sweeping = await shelf.sweeper()
    running = asyncio.create_task(sweeping.run())
    try:
        await shelf.settle()
        await delete(shelf, digest)
        sweeping.finish(await shelf.all(ARTIFACT).require(digest))

        async def gone() -> bool:
            return await shelf.all(ARTIFACT).get(digest) is None

        await shelf.until(gone)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert shelf.objects.objects == {}


async def test_a_deletion_outlives_a_store_that_is_down(shelf: Any) -> None:
    digest = await kept(shelf, b"hostname r1")
    await delete(shelf, digest)
    shelf.objects.unavailable = True
    with pytest.raises(ObjectStoreUnavailable):
        await (await shelf.sweeper()).look()
    shelf.objects.unavailable = False
    assert await (await shelf.sweeper()).look() == 1
    assert shelf.objects.objects == {}


async def test_a_tenants_own_retention_wins_over_the_services(shelf: Any) -> None:
    digest = await kept(shelf, b"hostname r1")
    await shelf.store.put(quota_key("default"), Quota(retention_days=7).to_json())
    await shelf.store.put(quota_key("acme"), Quota(retention_days=1).to_json())
    sweeping = await shelf.sweeper()
    sweeping._now = lambda: datetime.now(UTC) + timedelta(hours=2)
    await shelf.clock.advance(timedelta(days=6, hours=23))
    assert await sweeping.look() == 0
    await shelf.clock.advance(timedelta(hours=1))
    assert await sweeping.look() == 1
    assert await shelf.all(ARTIFACT).get(digest) is None
