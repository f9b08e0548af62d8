"""Booking through the SDK: decided, undecided, refused, and changed by somebody else meanwhile."""

from datetime import UTC, datetime

import httpx
import pytest

from lablet_client import errors
from lablet_common.intents import ReservationCreate

BODY = ReservationCreate(
    definition="ospf-basics", seats=2, start=datetime(2027, 3, 1, 9, tzinfo=UTC), duration_minutes=120
)


@pytest.fixture
def request_document():
    def make(phase: str = "Accepted", **status):
        return {
            "kind": "Request",
            "metadata": {"id": "req-a", "uid": "u", "createdAt": "2027-03-01T07:00:00Z", "resourceVersion": "3"},
            "spec": {
                "type": "io.lablet.reservation.requested.v1",
                "subject": "reservation/rsv-a",
                "data": {},
                "eventId": "e",
                "service": "scheduler",
                "shard": "default",
                "digest": "d",
                "principal": "ada",
                "receivedAt": "2027-03-01T07:00:00Z",
            },
            "status": {"phase": phase, **status},
        }

    return make


async def test_a_decision_that_comes_in_time_is_the_answer(client, scripted, reservation):
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation()))
    found = await client.reservations.create(BODY, wait=5)
    assert (found.id, found.phase) == ("rsv-a", "Scheduled")
    sent = scripted.sent("POST", "/reservations")[0]
    assert sent.headers["prefer"] == "wait=5"
    assert b"durationMinutes" in sent.content


async def test_an_accepted_request_is_followed_to_its_decision(client, scripted, reservation, request_document):
    accepted = httpx.Response(202, json=request_document(), headers={"location": "/api/v1/requests/req-a"})
    scripted.on("POST", "/reservations", accepted)
    scripted.on("GET", "/requests/req-a", request_document(), request_document("Decided"))
    scripted.on("GET", "/reservations/rsv-a", reservation())
    assert (await client.reservations.create(BODY)).phase == "Scheduled"
    assert len(scripted.sent("GET", "/requests/req-a")) == 2


async def test_what_takes_longer_comes_back_pending(client, scripted, reservation, request_document):
    scripted.on("POST", "/reservations", httpx.Response(202, json=request_document()))
    scripted.on("GET", "/requests/req-a", request_document())
    scripted.on("GET", "/reservations/rsv-a", reservation("Pending"))
    assert (await client.reservations.create(BODY, wait=0.05)).phase == "Pending"


async def test_a_later_refusal_is_raised_like_an_immediate_one(client, scripted, request_document):
    said = {
        "type": "https://lablet.io/problems/impossible",
        "title": "Impossible demand",
        "status": 409,
        "detail": "it never fits",
        "extensions": {"explanation": {"summary": "it never fits", "binding": "memoryGb"}},
    }
    scripted.on("POST", "/reservations", httpx.Response(202, json=request_document()))
    scripted.on("GET", "/requests/req-a", request_document("Refused", problem=said))
    with pytest.raises(errors.Conflict, match="it never fits") as caught:
        await client.reservations.create(BODY)
    assert caught.value.explanation == {"summary": "it never fits", "binding": "memoryGb"}


async def test_a_rejected_reservation_is_an_exception_with_its_explanation(client, scripted, reservation):
    why = {"summary": "no worker is large enough", "considered": 3}
    scripted.on("POST", "/reservations", httpx.Response(201, json=reservation("Rejected", explanation=why)))
    with pytest.raises(errors.Conflict, match="no worker is large enough") as caught:
        await client.reservations.create(BODY)
    assert caught.value.explanation["considered"] == 3


async def test_a_change_is_meant_for_the_version_that_was_read(client, scripted, reservation, problem):
    scripted.on("GET", "/reservations/rsv-a", reservation(revision=41))
    booking = await client.reservations.get("rsv-a")
    scripted.on("PATCH", "/reservations/rsv-a", problem(412, "it is at 44"))
    with pytest.raises(errors.Stale):
        await client.reservations.change(booking, end=datetime(2027, 3, 1, 12, tzinfo=UTC))
    sent = scripted.sent("PATCH", "/reservations/rsv-a")[0]
    assert sent.headers["if-match"] == '"41"'
    assert sent.content == b'{"end": "2027-03-01T12:00:00Z"}'


async def test_a_cancellation_gives_the_reason(client, scripted, reservation):
    scripted.on("DELETE", "/reservations/rsv-a", reservation("Cancelled"))
    scripted.on("GET", "/reservations/rsv-a", reservation("Cancelled"))
    assert (await client.reservations.cancel("rsv-a", reason="ill")).phase == "Cancelled"
    assert scripted.sent("DELETE", "/reservations/rsv-a")[0].url.params["reason"] == "ill"
