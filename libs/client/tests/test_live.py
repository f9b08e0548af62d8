"""The SDK against the real gateway: every room once, and what only the two together can show."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest

from lablet_client import errors
from lablet_client.client import Client
from lablet_client.events import new_event
from lablet_client.sync import Client as BlockingClient
from lablet_common.intents import ReservationCreate
from lablet_common.resources.worker import PoolSpec

pytestmark = pytest.mark.integration
LAB = b"nodes: []\nlinks: []\n"


@pytest.fixture
async def definition(live: Client):
    return await live.definitions.publish(LAB, name="ospf-basics", key="publish-ospf")


@pytest.fixture
def body(mesh):
    start = mesh.clock.now() + timedelta(hours=1)

    def make(**changes) -> ReservationCreate:
        return ReservationCreate(**{"definition": "ospf-basics", "start": start, "duration_minutes": 60} | changes)

    return make


async def test_a_definition_is_published_found_and_downloaded(live, definition):
    assert definition.id == "ospf-basics@1.0.0"
    assert (await live.definitions.get("ospf-basics")).spec.topology == definition.spec.topology
    assert await live.definitions.topology("ospf-basics") == LAB


async def test_a_malformed_lab_is_refused_with_its_line(live):
    with pytest.raises(errors.Invalid) as caught:
        await live.definitions.publish("- a list\n", name="broken")
    assert caught.value.errors[0].path == "topology:3:1"


async def test_a_reservation_is_booked_extended_and_cancelled(live, definition, body):
    booking = await live.reservations.create(body(seats=7))
    assert (booking.phase, len(booking.status.placement)) == ("Scheduled", 7)
    longer = await live.reservations.change(booking, end=booking.slot.end + timedelta(minutes=30))
    assert longer.slot.duration == timedelta(minutes=90)
    with pytest.raises(errors.Stale):
        await live.reservations.change(booking, end=booking.slot.end + timedelta(minutes=60))
    assert (await live.reservations.cancel(booking.id, reason="ill")).phase == "Cancelled"


async def test_the_same_key_books_once(live, definition, body):
    first, second = [await live.reservations.create(body(), key="once") for _ in range(2)]
    assert first.id == second.id
    with pytest.raises(errors.Invalid, match="idempotency key"):
        await live.reservations.create(body(seats=3), key="once")


async def test_what_never_fits_is_refused_with_the_explanation(live, definition, body):
    with pytest.raises(errors.Conflict, match="never fit") as caught:
        await live.reservations.create(body(seats=21))
    assert caught.value.explanation["removed"] == {"nodeLimit": 1, "capacity": 3}


async def test_a_misspelt_definition_gets_the_nearest_name(live, definition, body):
    with pytest.raises(errors.Invalid) as caught:
        await live.reservations.create(body(definition="opsf-basics"))
    assert "ospf-basics" in caught.value.errors[0].remedy


async def test_an_undecided_reservation_is_found_and_waited_for(live, mesh, definition, body):
    mesh.deciding = False
    try:
        booking = await live.reservations.create(body(), wait=0.1)
        assert booking.phase == "Pending"
        waiting = asyncio.create_task(live.wait_for(booking, "Scheduled", timeout=10))
        await asyncio.sleep(0)
    finally:
        mesh.deciding = True
    assert (await waiting).phase == "Scheduled"


async def test_events_are_followed_and_remembered(live, definition, body):
    facts: list[str] = []

    async def follow() -> None:
        connected.set()
        async with aclosing(live.watch(kind="reservation")) as events:
            async for event in events:
                facts.append(event.fact)
                if event.fact == "reservation.cancelled":
                    return

    connected = asyncio.Event()
    following = asyncio.create_task(follow())
    await connected.wait()
    await asyncio.sleep(0.3)  # the stream begins where the log ends when it is connected
    booking = await live.reservations.create(body())
    await live.reservations.cancel(booking.id)
    await asyncio.wait_for(following, 10)
    assert facts[-2:] == ["reservation.scheduled", "reservation.cancelled"]
    story = await live.events.history(f"reservation/{booking.id}")
    assert [event.fact for event in story] == ["reservation.scheduled", "reservation.cancelled"]


async def test_a_good_event_of_a_bad_batch_is_taken(live):
    good = new_event("worker.cordon.requested", "worker/default-004", {"reason": "dust"})
    bad = new_event("worker.polish.requested", "worker/default-004", {})
    first, second = await live.events.publish(good, bad)
    assert first["result"] == "accepted"
    assert second["result"] == "refused"
    assert second["problem"]["status"] == 422


async def test_workers_are_cordoned_and_uncordoned(live):
    worker = await live.workers.cordon("default-002", reason="dust")
    assert worker.spec.unschedulable.reason == "dust"
    assert (await live.workers.uncordon("default-002")).spec.unschedulable is None


async def test_a_pool_is_made_and_changed_but_not_over_another_s_change(live):
    made = await live.pools.apply("exam", PoolSpec(template="simulated", max=2))
    assert made.spec.max == 2
    assert (await live.pools.apply("exam", PoolSpec(template="simulated", max=3))).spec.max == 3
    with pytest.raises(errors.Stale):
        await live.pools.apply("exam", PoolSpec(template="simulated", max=9), revision=made.metadata.resource_version)


async def test_lists_are_paged_and_filtered(live):
    names = [worker.id async for worker in live.workers.list(page_size=2)]
    assert names == ["default-001", "default-002", "default-003", "default-004"]
    none = [worker.id async for worker in live.workers.list(fields="status.phase=Ready")]
    assert none == []


async def test_a_learner_may_not_cordon_and_a_stranger_may_nothing(mesh):
    async with Client(mesh.url, mesh.token("learner")) as learner:
        with pytest.raises(errors.Forbidden):
            await learner.workers.cordon("default-001", reason="fun")
    async with Client(mesh.url, "guessed") as stranger:
        with pytest.raises(errors.Unauthorized):
            await stranger.whoami()


async def test_lab_time_is_the_mesh_s_own(live, mesh):
    assert (await live.lab_time()).now == mesh.clock.now()


def test_the_blocking_client_does_the_same(mesh, body):
    with BlockingClient(mesh.url, mesh.token("instructor")) as client:
        client.definitions.publish(LAB, name="blocking-lab")
        booking = client.reservations.create(body(definition="blocking-lab", seats=2))
        assert client.wait_for(booking, "Scheduled", timeout=5).id == booking.id
        assert booking.id in [found.id for found in client.reservations.list()]
        assert [event.fact for event in client.events.history(f"reservation/{booking.id}")] == ["reservation.scheduled"]
