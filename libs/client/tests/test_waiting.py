"""Waiting for a phase: reached, passed through, out of reach, too late."""

import httpx
import pytest

from lablet_client.errors import TimedOut
from lablet_client.waiting import OutOfReach, reachable
from lablet_common.resources.reservation import Reservation, ReservationPhase

NO_STREAM = httpx.Response(404, json={"title": "none"}, headers={"content-type": "application/problem+json"})


@pytest.fixture
async def booking(client, scripted, reservation):
    scripted.on("GET", "/reservations/rsv-a", reservation("Scheduled", revision=1))
    return await client.reservations.get("rsv-a")


async def test_events_wake_the_wait_and_the_resource_decides(client, scripted, reservation, booking):
    scripted.on("GET", "/reservations/rsv-a", reservation(revision=1), reservation("Active", revision=2))
    event = '{"specversion":"1.0","id":"x","source":"s","type":"io.lablet.reservation.active.v1"}'
    scripted.on("GET", "/events/stream", httpx.Response(200, text=f"id: 1\ndata: {event}\n\n"))
    seen: list[str] = []
    found = await client.wait_for(
        booking, ReservationPhase.ACTIVE, timeout=1.5, on_change=lambda r: seen.append(str(r.phase))
    )
    assert found.phase == "Active"
    assert seen == ["Scheduled", "Active"]
    assert dict(scripted.sent("GET", "/events/stream")[0].url.params) == {"kind": "reservation", "id": "rsv-a"}


async def test_a_phase_that_was_passed_through_counts(client, scripted, reservation, booking):
    scripted.on("GET", "/reservations/rsv-a", reservation("Completed", passed=("Scheduled", "Active")))
    assert (await client.wait_for(booking, ReservationPhase.ACTIVE, timeout=1)).phase == "Completed"


async def test_a_phase_that_cannot_come_any_more_ends_the_wait_at_once(client, scripted, reservation, booking):
    scripted.on("GET", "/reservations/rsv-a", reservation("Cancelled", message="the owner is ill"))
    with pytest.raises(OutOfReach, match="Cancelled: the owner is ill"):
        await client.wait_for(booking, ReservationPhase.ACTIVE, timeout=60)


async def test_too_late_names_what_was_seen_last(client, booking):
    with pytest.raises(TimedOut, match=r"rsv-a is Scheduled after 0\.05 s, not Active") as caught:
        await client.wait_for(booking, ReservationPhase.ACTIVE, timeout=0.05)
    assert caught.value.last.id == "rsv-a"


async def test_a_phase_that_the_kind_does_not_have_is_a_mistake_of_the_caller(client, booking):
    with pytest.raises(ValueError, match="Runing"):
        await client.wait_for(booking, "Runing", timeout=1)


def test_reachable_follows_the_state_machine():
    assert "Completed" in reachable(Reservation.machine, "Pending")
    assert reachable(Reservation.machine, "Completed") == frozenset()
