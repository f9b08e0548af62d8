"""The event stream: read, broken, resumed, begun anew."""

import json
from contextlib import aclosing

import httpx
import pytest

from lablet_client import errors
from lablet_client.events import Event, Filter, new_event
from lablet_client.sse import Message, Parser


def frame(number: int, sequence: int, subject: str = "reservation/rsv-a", fact: str = "scheduled") -> str:
    body = {
        "specversion": "1.0",
        "id": f"reservation/u/{sequence}",
        "source": "/lablet/scheduler",
        "type": f"io.lablet.reservation.{fact}.v1",
        "subject": subject,
        "time": "2027-03-01T08:00:00Z",
        "sequence": f"{sequence:020}",
        "data": {"status": {"phase": "Scheduled"}},
    }
    return f"id: e1-{number}\ndata: {json.dumps(body)}\n\n"


def stream(*frames: str) -> httpx.Response:
    return httpx.Response(200, text=": still here\n\n" + "".join(frames), headers={"content-type": "text/event-stream"})


async def take(events, count: int) -> list[Event]:
    found = []
    async with aclosing(events) as source:
        async for event in source:
            found.append(event)
            if len(found) == count:
                return found
    return found


def test_lines_become_messages_and_heartbeats_nothing():
    parser = Parser()
    lines = [": hello", "", "id: 7", "event: reset", "data: a", "data: b", "", "data:c", "", "id: 9"]
    found = [message for line in lines for message in parser.feed(line)]
    assert found == [Message("a\nb", "reset", "7"), Message("c", "message", "7")]
    assert parser.last_id == "9"


async def test_a_broken_stream_is_resumed_after_the_last_event_without_repeats(client, scripted):
    scripted.on(
        "GET",
        "/events/stream",
        stream(frame(1, 10), frame(2, 11)),
        httpx.ConnectError("refused"),
        stream(frame(3, 11), frame(4, 12)),
    )
    states: list[bool] = []
    found = await take(client.events.watch(Filter(kind="reservation"), on_state=states.append), 3)
    assert [int(event.extensions["sequence"]) for event in found] == [10, 11, 12]
    first, _, third = scripted.sent("GET", "/events/stream")[:3]
    assert "last-event-id" not in first.headers
    assert third.headers["last-event-id"] == "e1-2"
    assert first.url.params["kind"] == "reservation"
    assert states[:3] == [True, False, False]


async def test_who_heard_nothing_is_resumed_at_the_place_that_a_heartbeat_named(client, scripted):
    mark = ": still here\nid: e1-7\n\n"
    broken = "id: e1-8\ndata: {"  # what was begun has not been heard
    scripted.on("GET", "/events/stream", stream(mark + broken), stream(frame(8, 10)))
    await take(client.events.watch(), 1)
    assert scripted.sent("GET", "/events/stream")[1].headers["last-event-id"] == "e1-7"


async def test_events_of_different_subjects_do_not_hide_each_other(client, scripted):
    scripted.on("GET", "/events/stream", stream(frame(1, 10), frame(2, 9, "reservation/rsv-b")))
    found = await take(client.events.watch(), 2)
    assert [event.subject for event in found] == ["reservation/rsv-a", "reservation/rsv-b"]


async def test_a_stream_that_began_anew_is_said_to_whoever_asks_and_raised_otherwise(client, scripted):
    reset = "event: reset\nid: e2-5\ndata: {}\n\n"
    scripted.on("GET", "/events/stream", stream(reset, frame(6, 3)))
    resets: list[str] = []
    found = await take(client.events.watch(after="e1-9", on_reset=lambda: resets.append("reset")), 1)
    assert (len(found), resets) == (1, ["reset"])
    with pytest.raises(errors.Gone):
        await take(client.events.watch(after="e1-9"), 1)


async def test_a_stream_without_a_right_to_it_ends(client, scripted, problem):
    scripted.on("GET", "/events/stream", problem(401, "no such token"))
    with pytest.raises(errors.Unauthorized):
        await take(client.events.watch(), 1)


async def test_history_is_the_story_of_one_resource(client, scripted):
    event = json.loads(frame(1, 10).splitlines()[1].removeprefix("data: "))
    scripted.on("GET", "/events", [event])
    (found,) = await client.events.history("reservation/rsv-a")
    assert found.fact == "reservation.scheduled"
    assert found.document() == event | {"datacontenttype": "application/json"}


async def test_a_batch_of_which_nothing_was_taken_still_tells_each_result(client, scripted, problem):
    results = [{"result": "refused", "problem": {"title": "Invalid request"}}]
    scripted.on("POST", "/events", problem(422, "no event of the batch was accepted", results=results))
    assert await client.events.publish(new_event("worker.cordon.requested", "worker/x", {})) == results
    sent = scripted.sent("POST", "/events")[0]
    assert sent.headers["content-type"] == "application/cloudevents-batch+json"
    assert json.loads(sent.content)[0]["type"] == "io.lablet.worker.cordon.requested.v1"
