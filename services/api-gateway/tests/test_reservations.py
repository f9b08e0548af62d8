"""Booking through the API: accepted in one transaction, answered once per key, found from the first moment on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.resources.request import Problem
from lablet_common.store import OutcomeUnknown, StoreUnavailable

Body = Callable[..., dict[str, Any]]
PATH = "/api/v1/reservations"


def made(world: Any, **more: Any) -> Callable[[Any], Any]:
    return lambda request: world.reservation(
        request.spec.subject.partition("/")[2], owner=request.spec.principal, tenant=request.tenant, **more
    )


async def test_a_reservation_is_accepted_with_the_address_of_its_outcome(world: Any, booking: Body) -> None:
    client = world.client("ina")
    answer = await client.post(PATH, json=booking())
    assert answer.status_code == 202
    request = (await client.get(answer.headers["location"])).json()
    assert request["status"]["phase"] == "Accepted"
    (waiting,) = await world.inbox()
    assert waiting.spec.data["definition"] == "ospf-basics@1.0.0"
    assert waiting.spec.data["pools"] == ["default"]
    assert waiting.spec.data["durationMinutes"] == 120
    assert waiting.spec.data["owner"] == "ina"
    await world.decide(make=made(world))
    request = (await client.get(answer.headers["location"])).json()
    assert (request["status"]["phase"], request["status"]["resourcePhase"]) == ("Decided", "Scheduled")


async def test_an_undecided_reservation_is_pending_and_never_404(world: Any, booking: Body) -> None:
    client = world.client("ina")
    request = (await client.post(PATH, json=booking(labels={"course": "ccna-1"}))).json()
    address = f"/api/v1/{request['spec']['subject'].replace('reservation/', 'reservations/')}"
    pending = (await client.get(address)).json()
    assert pending["status"]["phase"] == "Pending"
    assert pending["metadata"]["labels"] == {"course": "ccna-1"}
    assert pending["spec"]["end"] == "2027-03-01T11:00:00Z"
    assert (await client.get(f"{address}/explanation")).json()["phase"] == "Pending"
    assert (await world.client("bob").get(address)).status_code == 404
    await world.decide(make=made(world))
    assert (await client.get(address)).json()["status"]["phase"] == "Scheduled"


async def test_whoever_waits_gets_the_reservation_itself(world: Any, booking: Body) -> None:
    asking = asyncio.create_task(world.client("ina").post(PATH, json=booking(), headers={"Prefer": "wait=10"}))
    while not await world.inbox():
        await asyncio.sleep(0)
    await world.decide(make=made(world))
    answer = await asking
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.headers["location"] == f"{PATH}/{answer.json()['metadata']['id']}"
    assert answer.headers["etag"] == f'"{answer.json()["metadata"]["resourceVersion"]}"'
    assert answer.json()["status"]["phase"] == "Scheduled"


async def test_a_refusal_carries_the_explanation(world: Any, booking: Body) -> None:
    client = world.client("ina")
    said = Problem(
        type="https://lablet.io/problems/impossible", title="Impossible demand", status=409,
        detail="no worker has 900 GB", extensions={"explanation": {"summary": "no worker has 900 GB"}},
    )  # fmt: skip
    asking = asyncio.create_task(client.post(PATH, json=booking(), headers={"Prefer": "respond-async, wait=10"}))
    while not await world.inbox():
        await asyncio.sleep(0)
    await world.decide(make=made(world, phase="Rejected"), problem=said)
    answer = await asking
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["explanation"] == {"summary": "no worker has 900 GB"}
    assert (await client.get(answer.json()["resource"])).json()["status"]["phase"] == "Rejected"
    assert (await client.get(answer.json()["request"])).json()["status"]["phase"] == "Refused"


async def test_who_waits_in_vain_is_told_where_to_look(world: Any, booking: Body) -> None:
    answer = await world.client("ina").post(PATH, json=booking(), headers={"Prefer": "wait=0.05"})
    assert answer.status_code == 202
    assert answer.headers["location"].startswith("/api/v1/requests/req-")


async def test_the_same_key_and_body_is_one_request_even_after_the_slot_has_begun(world: Any, booking: Body) -> None:
    client = world.client("ina")
    first = await client.post(PATH, json=booking(), headers={"Idempotency-Key": "k-1"})
    world.clock._now = world.now.replace(hour=12)
    await world.add(world.definition(version="1.0.1"))
    again = await client.post(PATH, json=booking(), headers={"Idempotency-Key": "k-1"})
    assert again.status_code == 202
    assert again.json() == first.json()
    assert len(await world.inbox()) == 1


async def test_the_same_key_with_another_body_is_refused(world: Any, booking: Body) -> None:
    client = world.client("ina")
    await client.post(PATH, json=booking(), headers={"Idempotency-Key": "k-1"})
    answer = await client.post(PATH, json=booking(seats=3), headers={"Idempotency-Key": "k-1"})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/idempotency-key-reused")
    assert (await world.client("bob").post(PATH, json=booking(), headers={"Idempotency-Key": "k-1"})).status_code == 202


async def test_booking_what_the_caches_know_is_one_call_of_the_store_and_the_answer_none(
    world: Any, booking: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is exact and in the own tenant, its pool is there: only the acceptance is left."""
    calls: list[str] = []
    real = world.store.txn

    async def counted(compares: Any, success: Any, failure: Any = ()) -> Any:
        calls.append("accept" if success and compares else "look")
        return await real(compares, success, failure)

    client = world.client("ina")
    await client.get(f"{PATH}/rsv-none")
    monkeypatch.setattr(world.store, "txn", counted)
    wanted = booking(definition="ospf-basics@1.0.0")
    asking = asyncio.create_task(client.post(PATH, json=wanted, headers={"Prefer": "wait=10"}))
    while not calls:
        await asyncio.sleep(0)
    assert calls == ["accept"]
    while not await world.inbox():
        await asyncio.sleep(0)
    calls.clear()
    await world.decide(make=made(world))
    own = len(calls)
    assert (await asking).status_code == 201
    assert calls[own:] == []


async def test_a_definition_of_another_tenants_is_looked_up_and_the_own_one_comes_first(
    world: Any, booking: Body
) -> None:
    await world.add(world.definition(name="bgp", tenant="public"))
    wanted = booking(definition="bgp@1.0.0")
    assert (await world.client("ina").post(PATH, json=wanted)).status_code == 202
    assert (await world.client("ina").post(PATH, json=booking(definition="bgp@2.0.0"))).status_code == 422
    assert (await world.client("ina").post(PATH, json=booking(pool="elsewhere"))).status_code == 422


async def test_fifty_retries_at_once_are_one_request(world: Any, booking: Body) -> None:
    client = world.client("ina")
    answers = await asyncio.gather(
        *(client.post(PATH, json=booking(), headers={"Idempotency-Key": "k"}) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["metadata"]["id"] for answer in answers}) == 1
    assert len(await world.inbox()) == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"seats": 0}, "seats"),
        ({"seats": 101}, "seats"),
        ({"end": "2027-03-01T08:30:00Z"}, "end"),
        ({"start": "2027-03-01T09:00:30Z"}, "start"),
        ({"start": "2027-03-01T09:00:00"}, "start"),
        ({"start": "2027-03-01T07:00:00Z"}, "start"),
        ({"definition": "opsf-basics"}, "definition"),
        ({"definition": "ospf-basics@9.9.9"}, "definition"),
        ({"pool": "defualt"}, "pool"),
        ({"pools": ["default", "nope"]}, "pools[1]"),
        ({"pool": "default", "pools": ["default"]}, "pools"),
        ({"durationMinutes": 30}, "end"),
        ({"roster": [{"seat": 5, "user": "ann"}]}, "roster"),
        ({"roster": [{"seat": 1}]}, "roster[0].user"),
        ({"colour": "red"}, "colour"),
        ({"hold": {"expiresAt": "2027-03-01T07:00:00Z"}}, "hold.expiresAt"),
        ({"start": None, "end": None, "asap": True}, "durationMinutes"),
    ],
)
async def test_bad_input_is_refused_with_the_field_named(
    world: Any, booking: Body, change: dict[str, Any], path: str
) -> None:
    body = {name: value for name, value in booking(**change).items() if value is not None}
    answer = await world.client("ina").post(PATH, json=body)
    assert answer.status_code == 422, answer.text
    assert path in [error["path"] for error in answer.json()["errors"]]
    assert await world.inbox() == []


async def test_misspelt_names_are_answered_with_the_nearest_ones(world: Any, booking: Body) -> None:
    answer = await world.client("ina").post(PATH, json=booking(definition="opsf-basics", pool="defualt"))
    remedies = {error["path"]: error["remedy"] for error in answer.json()["errors"]}
    assert "ospf-basics" in remedies["definition"]
    assert remedies["pool"] == "did you mean default?"


async def test_malformed_json_is_a_problem_too(world: Any) -> None:
    answer = await world.client("ina").post(PATH, content=b'{"seats":', headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "body"


async def test_a_name_without_version_means_the_newest_published_one(world: Any, booking: Body) -> None:
    await world.add(
        world.definition(version="1.9.0"),
        world.definition(version="1.10.0"),
        world.definition(version="2.0.0", phase="Deprecated"),
        world.definition(version="3.0.0", tenant="public"),
    )
    client = world.client("ina")
    await client.post(PATH, json=booking())
    await client.post(PATH, json=booking(definition="ospf-basics@2.0.0"))
    assert [r.spec.data["definition"] for r in await world.inbox()] == ["ospf-basics@1.10.0", "ospf-basics@2.0.0"]


async def test_a_change_needs_if_match_with_the_present_state(world: Any) -> None:
    await world.add(world.reservation("rsv-a", owner="ina"))
    client = world.client("ina")
    etag = (await client.get(f"{PATH}/rsv-a")).headers["etag"]
    body = {"end": "2027-03-01T12:00:00Z"}
    missing = await client.patch(f"{PATH}/rsv-a", json=body)
    assert (missing.status_code, missing.json()["errors"][0]["path"]) == (428, "If-Match")
    assert (await client.patch(f"{PATH}/rsv-a", json=body, headers={"If-Match": '"1"'})).status_code == 412
    assert (await client.patch(f"{PATH}/rsv-a", json=body, headers={"If-Match": etag})).status_code == 202
    assert (await client.patch(f"{PATH}/rsv-a", json={}, headers={"If-Match": etag})).status_code == 422
    (request,) = await world.inbox()
    assert request.spec.type == "io.lablet.reservation.change.requested.v1"
    assert request.spec.data == {"end": "2027-03-01T12:00:00Z"}


async def test_a_cancel_of_an_undecided_reservation_waits_in_the_same_inbox_behind_it(
    world: Any, booking: Body
) -> None:
    await world.add(world.pool("second"))
    client = world.client("ina")
    request = (await client.post(PATH, json=booking(pools=["second", "default"]))).json()
    reservation = request["spec"]["subject"].partition("/")[2]
    assert (await client.delete(f"{PATH}/{reservation}")).status_code == 202
    assert [r.spec.type.split(".")[3] for r in await world.inbox(shard="second")] == ["requested", "cancel"]


async def test_nothing_can_be_asked_of_what_has_ended(world: Any) -> None:
    await world.add(
        world.reservation("rsv-done", phase="Completed", owner="ina"),
        world.reservation("rsv-off", phase="Cancelled", owner="ina"),
    )
    client = world.client("ina")
    answer = await client.delete(f"{PATH}/rsv-done")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/illegal-transition")
    assert (await client.post(f"{PATH}/rsv-done:confirm")).status_code == 409
    assert (await client.delete(f"{PATH}/rsv-off")).status_code == 202  # cancelling twice is no error


async def test_a_post_at_one_replica_is_found_at_another(world: Any, booking: Body) -> None:
    here, there = world.client("ina"), world.client("ina")
    for _ in range(50):
        request = (await here.post(PATH, json=booking())).json()
        deciding = asyncio.create_task(world.decide(make=made(world)))
        reservation = request["spec"]["subject"].partition("/")[2]
        assert (await there.get(f"{PATH}/{reservation}")).status_code == 200
        await deciding


async def test_when_etcd_is_away_the_answer_is_503_and_names_it(
    world: Any, booking: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("no endpoint answered")

    client = world.client("ina")
    for name in ("get", "range", "txn"):
        monkeypatch.setattr(world.store, name, away)
    for answer in (
        await client.post(PATH, json=booking()),
        await client.get(PATH),
        await client.get(f"{PATH}/rsv-a"),
        await client.get("/api/v1/workers"),
    ):
        assert answer.status_code == 503
        assert answer.json()["dependency"] == "etcd"
        assert "retry-after" in answer.headers


async def test_a_lost_answer_of_etcd_does_not_book_twice(
    world: Any, booking: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = world.store.txn
    lost = []

    async def loses_the_first_answer(compares: Any, success: Any, failure: Any = ()) -> Any:
        done = await whole(compares, success, failure)
        if compares and not lost:
            lost.append(done)
            raise OutcomeUnknown("no answer")
        return done

    monkeypatch.setattr(world.store, "txn", loses_the_first_answer)
    answer = await world.client("ina").post(PATH, json=booking())
    assert answer.status_code == 202
    assert lost
    assert len(await world.inbox()) == 1


@pytest.mark.parametrize(
    ("phase", "if_match", "kept"), [("Scheduled", "", True), ("Scheduled", "*", False), ("Pending", "", False)]
)
async def test_what_a_change_is_meant_for_goes_to_whoever_decides(
    world: Any, phase: str, if_match: str, kept: bool
) -> None:
    """Two may be let in before the first is decided. What is undecided changes by being decided."""
    await world.add(world.reservation("rsv-a", owner="ina", phase=phase))
    client = world.client("ina")
    etag = (await client.get("/api/v1/reservations/rsv-a")).headers["etag"]
    headers = {"If-Match": if_match or etag}
    await client.patch("/api/v1/reservations/rsv-a", json={"end": "2027-03-01T12:00:00Z"}, headers=headers)
    (request,) = await world.inbox()
    assert request.spec.meant_for == (int(etag.strip('"')) if kept else None)
