"""CloudEvents in: the three modes, one result per event, the same rights as the routes."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from lablet_common.store import StoreUnavailable
from lablet_gateway.envelopes import BATCH, MAX_BATCH
from lablet_gateway.reserving import Reserving

PATH = "/api/v1/events"
BODY = {"definition": "ospf-basics", "start": "2027-03-01T09:00:00Z", "durationMinutes": 60}


def event(
    event_id: str = "e-1", kind: str = "io.lablet.reservation.requested.v1", data: Any = None, **more: Any
) -> Any:
    attributes = {"id": event_id, "source": "/lms", "type": kind, "specversion": "1.0",
                  "datacontenttype": "application/json", **more}  # fmt: skip
    return CloudEvent(attributes, BODY if data is None else data)


async def test_binary_and_structured_events_of_the_official_sdk_become_requests(world: Any) -> None:
    client = world.client("ina")
    for at, write in enumerate((to_binary_event, to_structured_event)):
        message = write(event(f"e-{at}", correlationid="course-7"))
        answer = await client.post(PATH, content=message.body, headers=message.headers)
        assert answer.status_code == 202, answer.text
        result = answer.json()
        assert result["result"] == "accepted"
        assert (result["id"], result["source"]) == (f"e-{at}", "/lms")
        request = (await client.get(result["request"])).json()
        assert request["spec"]["subject"] == result["resource"]
        assert request["metadata"]["correlationId"] == "course-7"
    assert len(await world.inbox()) == 2


async def test_the_same_event_twice_is_one_request(world: Any) -> None:
    client = world.client("ina")
    message = to_structured_event(event())
    first = await client.post(PATH, content=message.body, headers=message.headers)
    assert (await client.post(PATH, content=message.body, headers=message.headers)).json() == first.json()
    assert len(await world.inbox()) == 1


async def test_a_source_with_a_space_is_not_taken_for_another_source_and_id(world: Any) -> None:
    client, requests = world.client("ina"), []
    for source, event_id in (("/lms a", "1"), ("/lms", "a 1"), ("/lms%20a", "1")):
        message = to_structured_event(event(event_id, source=source))
        answer = await client.post(PATH, content=message.body, headers=message.headers)
        requests.append(answer.json()["request"])
    assert requests[0] != requests[1], "two events"
    assert requests[0] == requests[2], "a space and its percent-encoding are one source"


async def test_a_question_is_named_by_its_chain_of_causes_too(world: Any) -> None:
    message = to_structured_event(event(kind="io.lablet.reservation.simulate.requested.v1", correlationid="course-7"))
    assert (await world.client("ina").post(PATH, content=message.body, headers=message.headers)).status_code == 202
    (request,) = await world.inbox()
    assert request.metadata.correlation_id == "course-7"


async def test_a_good_event_in_a_bad_batch_is_not_lost(world: Any) -> None:
    batch = [
        {"id": "1", "source": "/lms", "type": "io.lablet.reservation.requested.v1", "specversion": "1.0", "data": BODY},
        {"id": "2", "source": "/lms", "type": "io.lablet.nothing.v1", "specversion": "1.0"},
        {"id": "3", "source": "/lms", "type": "io.lablet.reservation.requested.v1", "specversion": "1.0",
         "data": BODY | {"seats": 0}},
        {"source": "/lms"},
        "nonsense",
    ]  # fmt: skip
    answer = await world.client("ina").post(
        PATH, content=json.dumps(batch), headers={"Content-Type": "application/cloudevents-batch+json"}
    )
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [result["result"] for result in results] == ["accepted", "refused", "refused", "refused", "refused"]
    assert results[1]["problem"]["errors"][0]["path"] == "type"
    assert results[2]["problem"]["errors"][0]["path"] == "data.seats"
    assert len(await world.inbox()) == 1


async def test_new_reservations_of_a_batch_that_need_no_look_go_in_one_piece(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others, and what is refused, have the result that each would have alone, at its place."""
    alone: list[Any] = []
    real = Reserving.reserve

    async def counted(intake: Reserving, body: Any) -> Any:
        alone.append((body.definition, body.seats))
        return await real(intake, body)

    monkeypatch.setattr(Reserving, "reserve", counted)
    await world.caught_up()
    exact = BODY | {"definition": "ospf-basics@1.0.0"}

    async def send(*bodies: Any) -> list[Any]:
        batch = [
            {"id": str(at), "source": "/lms", "type": "io.lablet.reservation.requested.v1", "specversion": "1.0",
             "data": body} for at, body in enumerate(bodies)
        ]  # fmt: skip
        answer = await world.client("ina").post(PATH, content=json.dumps(batch), headers={"Content-Type": BATCH})
        assert [result["id"] for result in answer.json()["results"]] == [str(at) for at in range(len(bodies))]
        return list(answer.json()["results"])

    first = await send(exact, exact)
    assert alone == []
    again = await send(exact, exact | {"seats": 2}, BODY, exact | {"seats": 0}, exact)
    assert again[0] == first[0], "the same event again has the same answer"
    assert [one["result"] for one in again] == ["accepted", "refused", "accepted", "refused", "accepted"]
    assert again[1]["problem"]["type"].endswith("/idempotency-key-reused")
    assert alone == [("ospf-basics@1.0.0", 2), ("ospf-basics", 1)]
    assert len(await world.inbox()) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"data": BODY | {"start": "0001-01-01T00:00:00+10:00"}}, {"correlationid": "\ud800"}, {"source": "\udfff"}],
)
async def test_what_cannot_be_written_is_refused_and_the_rest_of_its_batch_accepted(world: Any, wrong: Any) -> None:
    """A moment before the first year in UTC, and halves of surrogate pairs, which are JSON all the same."""
    good = {"source": "/lms", "type": "io.lablet.reservation.requested.v1", "specversion": "1.0",
            "data": BODY | {"definition": "ospf-basics@1.0.0"}}  # fmt: skip
    await world.caught_up()
    batch = json.dumps([good | {"id": "1"}, good | {"id": "2"} | wrong, good | {"id": "3"}])
    answer = await world.client("ina").post(PATH, content=batch, headers={"Content-Type": BATCH})
    assert answer.status_code == 207, answer.text
    assert [one["result"] for one in answer.json()["results"]] == ["accepted", "refused", "accepted"]


async def test_single_events_that_are_wrong_are_answered_with_their_problem(world: Any) -> None:
    client = world.client("ina")
    cases = [
        (event(kind="io.lablet.reservation.requestd.v1"), 422, "type"),
        (event(kind="io.lablet.reservation.cancel.requested.v1", data={}), 422, "subject"),
        (
            event(kind="io.lablet.reservation.cancel.requested.v1", data={"x": 1}, subject="reservation/rsv-a"),
            422,
            "data.x",
        ),
        (event(data={"definition": "nope", "start": "2027-03-01T09:00:00Z", "durationMinutes": 5}), 422, "definition"),
    ]
    for wrong, status, path in cases:
        message = to_structured_event(wrong)
        answer = await client.post(PATH, content=message.body, headers=message.headers)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (status, path), answer.text
    missing = to_structured_event(
        event(kind="io.lablet.reservation.cancel.requested.v1", data={}, subject="reservation/rsv-a")
    )
    assert (await client.post(PATH, content=missing.body, headers=missing.headers)).status_code == 404
    assert (await client.post(PATH, json={})).status_code == 415
    assert (
        await client.post(PATH, content=b"{", headers={"Content-Type": "application/cloudevents+json"})
    ).status_code == 422


async def test_an_event_needs_the_right_of_the_route_that_asks_the_same(world: Any) -> None:
    drain = to_structured_event(
        event(kind="io.lablet.worker.drain.requested.v1", data={}, subject="worker/default-001")
    )
    for name, status in (("ann", 403), ("ina", 403), ("operator@acme", 403), ("operator@default", 202)):
        answer = await world.client(name).post(PATH, content=drain.body, headers=drain.headers)
        assert answer.status_code == status, name
    foreign = to_structured_event(event(tenant="acme"))
    assert (await world.client("ina").post(PATH, content=foreign.body, headers=foreign.headers)).status_code == 403


@pytest.mark.parametrize(
    "staging",
    [
        pytest.param("staging/uploads/acme/x", id="another tenant's"),
        pytest.param("staging/uploads/default/../acme/x", id="another tenant's, by a detour"),
        pytest.param("staging/uploads/default/", id="nothing"),
        pytest.param("staging/uploads/default//x", id="what our own S3 answers 400"),
        pytest.param("staging/uploads/default/" + "x" * 1100, id="what AWS answers 400"),
        pytest.param("staging/uploads/default/a\x00b", id="no text"),
    ],
)
async def test_a_staged_file_that_cannot_be_the_tenants_own_is_not_published(world: Any, staging: str) -> None:
    """For what the store does not even look up its owner would wait, and with it everybody's uploads."""
    data = {"name": "stolen", "staging": staging, "digest": "0" * 64, "bytes": 1}
    message = to_structured_event(event(kind="io.lablet.definition.publish.requested.v1", data=data))
    answer = await world.client("ina").post(PATH, content=message.body, headers=message.headers)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "data.staging")


async def test_what_is_too_large_is_413_whole_and_says_the_limit(world: Any) -> None:
    client = world.client("ina")
    large = to_structured_event(event(data=BODY | {"labels": {"x": "y" * 5000}}))
    answer = await client.post(PATH, content=large.body, headers=large.headers)
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (413, "too-large")
    many = json.dumps([0] * (MAX_BATCH + 1))
    answer = await client.post(PATH, content=many, headers={"Content-Type": BATCH})
    assert (answer.status_code, str(MAX_BATCH) in answer.json()["detail"]) == (413, True)
    assert await world.inbox() == []


async def test_a_body_that_does_not_say_how_long_it_is_is_refused_once_too_much_has_come(world: Any) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 1000

    answer = await world.client("ina").post(PATH, content=parts(), headers={"Content-Type": BATCH})
    assert "content-length" not in answer.request.headers
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (413, "too-large")


async def test_a_batch_of_the_official_sdk_is_taken_event_by_event(world: Any) -> None:
    events = [event("e-1"), event("e-2")]
    batch = b"[%b]" % b",".join(to_structured_event(one).body for one in events)
    answer = await world.client("ina").post(PATH, content=batch, headers={"Content-Type": BATCH})
    assert answer.status_code == 202
    assert [result["id"] for result in answer.json()["results"]] == [one.get_id() for one in events]


async def test_a_batch_during_an_outage_of_etcd_is_503_and_can_be_sent_again(world: Any, monkeypatch: Any) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("no endpoint answered")

    client = world.client("ina")
    message = to_structured_event(event())
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "txn", away)
        answer = await client.post(PATH, content=message.body, headers=message.headers)
    assert (answer.status_code, answer.json()["dependency"]) == (503, "etcd")
    assert (await client.post(PATH, content=message.body, headers=message.headers)).status_code == 202


@pytest.mark.parametrize("name", ["bob", "learner@acme", "instructor@acme"])
@pytest.mark.parametrize(
    ("subject", "word", "data"),
    [
        ("reservation/rsv-a", "cancel", {}),
        ("reservation/rsv-a", "confirm", {}),
        ("reservation/rsv-a", "change", {"end": "2027-03-01T12:00:00Z"}),
        ("instance/ins-a-1", "start", {}),
        ("instance/ins-a-1", "stop", {}),
        ("instance/ins-a-1", "collect", {}),
        ("instance/ins-a-1", "retry", {}),
    ],
)
async def test_whose_seat_it_is_not_finds_nothing_to_ask_for(
    world: Any, name: str, subject: str, word: str, data: dict[str, Any]
) -> None:
    booked = world.reservation("rsv-a", owner="ann", phase="Held" if word == "confirm" else "Active")
    await world.add(booked, world.instance(booked))
    kind = f"io.lablet.{subject.partition('/')[0]}.{word}.requested.v1"
    message = to_structured_event(event(kind=kind, data=data, subject=subject))
    answer = await world.client(name).post(PATH, content=message.body, headers=message.headers)
    assert answer.status_code == 404, answer.text
    assert await world.inbox("scheduler") + await world.inbox("worker-controller") == []


async def test_an_unknown_type_is_ignored_where_the_settings_say_so(world: Any) -> None:
    tolerant = world.parts.settings.model_copy(update={"events_accept_unknown": True})
    world.app.state.parts = replace(world.parts, settings=tolerant)
    message = to_structured_event(event(kind="com.example.course.opened.v1", data={"course": 7}))
    answer = await world.client("ina").post(PATH, content=message.body, headers=message.headers)
    assert (answer.status_code, answer.json()["result"]) == (202, "ignored")
    assert await world.inbox() == []


async def test_a_correlation_that_no_event_could_carry_on_is_refused(world: Any) -> None:
    client = world.client("ina")
    message = to_structured_event(event(correlationid="x" * 1025))
    answer = await client.post(PATH, content=message.body, headers=message.headers)
    assert answer.status_code == 422
    assert "correlationid" in answer.text
    assert await world.inbox() == []
