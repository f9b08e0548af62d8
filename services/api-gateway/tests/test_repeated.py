"""A client that got no answer asks again with the same key, at another gateway, while its first try is still under way: what
that has changed is no reason to refuse the second."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import POOL, REQUEST, RESERVATION, TEMPLATE, Kind, kind_of
from lablet_common.resources.model import Resource
from lablet_common.resources.reservation import Claim, RosterEntry
from lablet_common.resources.series import SeriesPhase
from lablet_common.store.repository import Repository
from lablet_gateway import seats

KEY = {"Idempotency-Key": "k-1"}
Try = Callable[[], Awaitable[httpx.Response]]


async def changed(world: Any, resource: Resource[Any, Any], **status: Any) -> None:
    """As its owner does when it has decided."""
    present = await Repository(world.store, kind_of(resource)).require(resource.id, resource.tenant)
    more = {"message": "decided", **status}
    update = {"status": present.status.model_copy(update=more)}
    await Repository(world.store, kind_of(resource)).update(present.model_copy(update=update))
    await world.caught_up()


async def crossed(world: Any, ask: Try, then: Callable[[], Awaitable[None]]) -> tuple[httpx.Response, httpx.Response]:
    """The answers to two tries: the first one is let in, and `then` carried out, when the second has just looked whether
    there was one before."""
    look = world.parts.lookups.ask
    first: list[httpx.Response] = []

    async def late(gets: Any) -> Any:
        world.parts.lookups.ask = look
        found = await look(gets)
        first.append(await ask())
        await then()
        return found

    world.parts.lookups.ask = late
    try:
        second = await ask()
    finally:
        world.parts.lookups.ask = look
    return first[0], second


async def test_a_change_is_not_stale_by_what_its_own_first_try_has_done(world: Any) -> None:
    reservation = world.reservation("rsv-a", owner="ina")
    await world.add(reservation)
    client = world.client("ina")
    etag = (await client.get("/api/v1/reservations/rsv-a")).headers["etag"]

    async def ask(**more: str) -> httpx.Response:
        body = {"end": "2027-03-01T12:00:00Z"}
        return await client.patch("/api/v1/reservations/rsv-a", json=body, headers={**KEY, "If-Match": etag, **more})

    first, second = await crossed(world, ask, lambda: changed(world, reservation))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]
    assert len(await world.inbox()) == 1
    assert (await ask(**{"Idempotency-Key": "k-2"})).status_code == 412, "by another's change it is"
    reused = await client.patch("/api/v1/reservations/rsv-a", json={"seats": 1}, headers={**KEY, "If-Match": etag})
    assert reused.json()["type"].endswith("/idempotency-key-reused")


async def test_what_has_ended_by_the_first_try_is_not_refused_to_the_second(world: Any) -> None:
    reservation = world.reservation("rsv-a", owner="ina", phase="Active")
    instance = world.instance(reservation)
    await world.add(reservation, instance)
    client = world.client("ina")

    async def ask() -> httpx.Response:
        return await client.post(f"/api/v1/instances/{instance.id}/stop", headers=KEY)

    first, second = await crossed(world, ask, lambda: changed(world, instance, phase=InstancePhase.TERMINATED))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]


async def test_nor_a_change_of_a_series_or_a_pool(world: Any) -> None:
    series = world.series()
    await world.add(series)
    client = world.client("admin@default")
    etag = (await client.get("/api/v1/series/ser-a")).headers["etag"]
    start = (world.now + timedelta(weeks=1, hours=2)).isoformat()
    date = series.status.occurrences[1].date

    async def change() -> httpx.Response:
        body = {"scope": "this", "date": date, "start": start}
        return await client.patch("/api/v1/series/ser-a", json=body, headers={**KEY, "If-Match": etag})

    first, second = await crossed(world, change, lambda: changed(world, series, phase=SeriesPhase.COMPLETED))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]

    pool = world.pool()
    etag = (await client.get("/api/v1/pools/default")).headers["etag"]

    async def apply() -> httpx.Response:
        return await client.put(
            "/api/v1/pools/default", json={"spec": pool.spec.to_dict()}, headers={**KEY, "If-Match": etag}
        )

    first, second = await crossed(world, apply, lambda: changed(world, pool))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]


@pytest.mark.parametrize("what", ["reservations/rsv-a", "series/ser-a"])
async def test_a_change_of_the_definition_is_known_again_when_a_newer_version_was_published_since(
    world: Any, what: str
) -> None:
    series = world.series()
    await world.add(world.reservation("rsv-a", owner="ina"), series)
    client = world.client("ina")
    etag = (await client.get(f"/api/v1/{what}")).headers["etag"]
    body: dict[str, Any] = {"definition": "ospf-basics"}
    body |= {"scope": "this", "date": series.status.occurrences[1].date} if what.startswith("series") else {}

    async def ask() -> httpx.Response:
        return await client.patch(f"/api/v1/{what}", json=body, headers={**KEY, "If-Match": etag})

    first = await ask()
    await world.add(world.definition(version="1.1.0"))
    await world.caught_up()
    second = await ask()
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]
    (request,) = await world.inbox()
    assert request.spec.data["definition"] == "ospf-basics@1.0.0"


@pytest.mark.parametrize(
    ("what", "patch"), [("pools/default", {"spec": {"max": 6}}), ("templates/simulated", {"spec": {"maxNodes": 60}})]
)
async def test_a_patch_is_known_again_by_what_was_sent_and_not_by_what_came_of_it(
    world: Any, what: str, patch: dict[str, Any]
) -> None:
    client = world.client("admin@default")
    kind, name = POOL if what.startswith("pools") else TEMPLATE, what.partition("/")[2]
    etag = (await client.get(f"/api/v1/{what}")).headers["etag"]

    async def ask(sent: dict[str, Any] = patch, **more: str) -> httpx.Response:
        return await client.patch(f"/api/v1/{what}", json=sent, headers={**KEY, "If-Match": etag, **more})

    async def decided() -> None:
        await world.decide("worker-controller", "-")
        await changed_labels(world, kind, name)

    first, second = await crossed(world, ask, decided)
    third = await ask()
    assert [answer.status_code for answer in (first, second, third)] == [202] * 3
    assert first.headers["location"] == second.headers["location"] == third.headers["location"]
    stored = await Repository(world.store, REQUEST).require(first.headers["location"].rpartition("/")[2])
    assert f'"{stored.spec.meant_for}"' == etag, "it rests on what stood there"
    assert (await ask(**{"Idempotency-Key": "k-2"})).status_code == 412, "by another's change it is"
    assert (await ask({"labels": {"a": "b"}})).json()["type"].endswith("/idempotency-key-reused")


async def changed_labels(world: Any, kind: Kind, name: str) -> None:
    """As somebody else does next."""
    repository: Repository[Any] = Repository(world.store, kind)
    present = await repository.require(name)
    metadata = present.metadata.model_copy(update={"labels": {"by": "another"}})
    await repository.update(present.model_copy(update={"metadata": metadata}))
    await world.caught_up()


async def taken(world: Any, seat: int, user: str) -> None:
    """As its owner does when a link has been used."""
    present = await Repository(world.store, RESERVATION).require("rsv-a")
    roster = (*present.spec.roster, RosterEntry(seat=seat, user=user))
    await Repository(world.store, RESERVATION).update(present.respecified(roster=roster))
    await world.caught_up()


async def test_links_for_whoever_has_no_seat_are_known_again_when_the_seats_have_been_taken_since(world: Any) -> None:
    await world.add(world.reservation("rsv-a", owner="ina"))
    client = world.client("ina")

    async def ask() -> httpx.Response:
        return await client.post("/api/v1/reservations/rsv-a/claims", headers={**KEY, "Prefer": "wait=0"})

    async def used() -> None:
        await world.decide()
        await taken(world, 1, "ann")
        await taken(world, 2, "bob")

    first, second = await crossed(world, ask, used)
    third = await ask()
    assert [answer.status_code for answer in (first, second, third)] == [202, 201, 201]
    assert first.json()["request"] == second.json()["request"] == third.json()["request"]
    assert [len(answer.json()["links"]) for answer in (first, second, third)] == [2, 0, 0], "codes are shown once"
    other = await client.post("/api/v1/reservations/rsv-a/claims", headers={"Idempotency-Key": "k-2"})
    assert other.status_code == 409, "nobody is without a seat any more"
    reused = await client.post("/api/v1/reservations/rsv-a/claims", json={"seats": [1]}, headers=KEY)
    assert reused.json()["type"].endswith("/idempotency-key-reused")


async def test_a_seat_that_was_taken_and_given_up_since_is_not_denied_to_who_asks_again(world: Any) -> None:
    code = seats.new_code("rsv-a")
    claims = (Claim(seat=2, sha256=seats.hash_of(code)),)
    await world.add(world.reservation("rsv-a", owner="ina").respecified(claims=claims))
    ann = world.client("ann")

    async def ask(**more: str) -> httpx.Response:
        return await ann.post(f"/api/v1/claims/{code}", headers={**KEY, "Prefer": "wait=0", **more})

    first = await ask()
    await world.decide()
    present = await Repository(world.store, RESERVATION).require("rsv-a")
    await Repository(world.store, RESERVATION).update(present.respecified(claims=()))
    await world.caught_up()
    second = await ask()
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["kind"] == "Request", "that it was given; the class is no longer theirs to see"
    assert (await ask(**{"Idempotency-Key": "k-2"})).status_code == 404


@pytest.mark.parametrize("what", ["POST reservations", "PATCH reservations/rsv-a", "POST series", "PATCH series/ser-a"])
async def test_what_was_not_there_yet_for_the_second_is_no_reason_to_refuse_it_once_the_first_is_in(
    world: Any, booking: Any, what: str
) -> None:
    """A lab that is published between the two: the second has looked for it before, and asks after its key again."""
    series = world.series()
    await world.add(world.reservation("rsv-a", owner="ina"), series)
    client, (method, path) = world.client("ina"), what.split()
    etag = "" if method == "POST" else (await client.get(f"/api/v1/{path}")).headers["etag"]
    slot = {"start": booking()["start"], "durationMinutes": 60}
    more: dict[str, Any] = {
        "POST reservations": slot,
        "POST series": {"rule": "FREQ=WEEKLY;COUNT=2", "timezone": "Europe/Berlin", **slot},
        "PATCH series/ser-a": {"scope": "this", "date": series.status.occurrences[1].date},
    }
    body = {"definition": "vlans", **more.get(what, {})}

    async def ask() -> httpx.Response:
        return await client.request(method, f"/api/v1/{path}", json=body, headers={**KEY, "If-Match": etag or "*"})

    look = world.parts.lookups.ask
    first: list[httpx.Response] = []

    async def late(gets: Any) -> Any:
        found = await look(gets)
        if any("vlans" in get.key for get in gets):
            world.parts.lookups.ask = look
            await world.add(world.definition("vlans"))
            first.append(await ask())
        return found

    world.parts.lookups.ask = late
    try:
        second = await ask()
    finally:
        world.parts.lookups.ask = look
    assert (first[0].status_code, second.status_code) == (202, 202), second.text
    assert first[0].headers["location"] == second.headers["location"]
