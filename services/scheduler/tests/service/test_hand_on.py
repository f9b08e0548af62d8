"""Requests that name several pools: handed on where one is full, with exactly one owner at every revision."""

from typing import Any

import pytest

from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.request import RequestPhase
from lablet_common.store.changes import decode


@pytest.fixture
async def pools(world: Any) -> Any:
    """Pool `default` with one worker, pool `spare` with two."""
    await world.pool("default", workers=1)
    await world.pool("spare", workers=2)
    await world.definition()
    await world.own("default")
    await world.own("spare")
    await world.settle()
    return world


async def owners_of(world: Any, name: str) -> list[str]:
    """Where the request stood, or who owned the reservation, at each revision since it was accepted."""
    found: list[str] = []
    request = (await world.of(name)).id
    accepted = await world.store.get(f"/requests/default/{request}")
    for revision in range(accepted.create_revision, world.store.revision + 1):
        pointers = [kv.key.split("/") for kv in (await world.store.range("/inbox/", revision=revision)).items]
        inboxes = [shard for _, _, _, shard, pointed in pointers if pointed == request]
        stored = await world.store.get(RESERVATION.key(name), revision=revision)
        pool = [decode(RESERVATION, stored).status.pool] if stored is not None else []
        holders = inboxes + pool
        assert len(holders) == 1, f"{holders} at revision {revision}"
        if not found or found[-1] != holders[0]:
            found.append(holders[0])
    return found


async def test_a_full_pool_hands_on_and_there_is_one_owner_at_every_revision(pools: Any) -> None:
    await pools.ask(seats=2)
    await pools.settle()
    name = await pools.ask(seats=2, pools=("default", "spare"))
    await pools.settle()
    reservation = await pools.reservation(name)
    assert (reservation.phase, reservation.status.pool) == ("Scheduled", "spare")
    assert await owners_of(pools, name) == ["default", "spare"]
    assert (await pools.of(name)).spec.shard == "spare"
    assert not await pools.faults()


async def test_refused_by_all_it_waits_in_the_first_and_is_placed_there_and_nowhere_else(pools: Any) -> None:
    first = await pools.ask(seats=2)
    second = await pools.ask(seats=4, pools=("spare",))
    await pools.settle()
    name = await pools.ask(seats=2, pools=("default", "spare"))
    await pools.settle()
    reservation = await pools.reservation(name)
    assert (reservation.phase, reservation.status.pool) == ("Waitlisted", "default")
    await pools.tell("cancel", second, pool="spare")
    await pools.settle()
    assert await pools.phase(name) == "Waitlisted"
    await pools.tell("cancel", first)
    await pools.settle()
    reservation = await pools.reservation(name)
    assert (reservation.phase, reservation.status.pool) == ("Scheduled", "default")
    assert await owners_of(pools, name) == ["default", "spare", "default"]


async def test_what_the_first_pool_can_never_take_goes_to_one_that_can(pools: Any) -> None:
    name = await pools.ask(seats=4, pools=("default", "spare"))
    impossible = await pools.ask(200, 260, seats=5, pools=("default", "spare"))
    await pools.settle()
    waiting = await pools.ask(seats=3, pools=("default", "spare"))
    await pools.settle()
    assert (await pools.reservation(name)).status.pool == "spare"
    assert await pools.phase(impossible) == "Rejected"
    reservation = await pools.reservation(waiting)
    assert (reservation.phase, reservation.status.pool) == ("Waitlisted", "spare")


async def test_a_pool_that_does_not_exist_is_passed_over(pools: Any) -> None:
    await pools.ask(seats=2)
    await pools.settle()
    name = await pools.ask(seats=2, pools=("default", "nowhere", "spare"))
    await pools.settle()
    assert (await pools.reservation(name)).status.pool == "spare"


async def test_a_cancel_follows_its_reservation_to_the_pool_that_owns_it(pools: Any) -> None:
    await pools.ask(seats=2)
    name = await pools.ask(seats=2, pools=("default", "spare"))
    await pools.settle()
    said = await pools.tell("cancel", name, pool="default")
    await pools.settle()
    assert await pools.phase(name) == "Cancelled"
    assert (await pools.request(said)).spec.shard == "spare"


async def test_a_cancel_follows_its_undecided_request_when_that_is_handed_on(pools: Any) -> None:
    await pools.ask(seats=2)
    await pools.settle()
    name = await pools.ask(seats=2, pools=("default", "spare"))
    said = await pools.tell("cancel", name, pool="default")
    await pools.settle()
    assert (await pools.request(said)).phase == RequestPhase.DECIDED
    assert await pools.phase(name) == "Cancelled"


@pytest.mark.parametrize(
    "asked", [("default", "default"), ("default", "spare", "default"), ("spare", "default", "spare")]
)
async def test_a_pool_that_is_named_twice_is_asked_once(pools: Any, asked: tuple[str, ...]) -> None:
    await pools.ask(seats=2)
    await pools.ask(seats=4, pools=("spare",))
    await pools.settle()
    name = await pools.ask(seats=2, pools=asked)
    series = await pools.ask_series(seats=2, pools=asked, start=60, minutes=60)
    await pools.settle()
    reservation = await pools.reservation(name)
    assert (reservation.phase, reservation.status.pool) == ("Waitlisted", asked[0])
    assert (await owners_of(pools, name))[: len(set(asked))] == list(dict.fromkeys(asked))
    assert await pools.series(series)
    assert (await pools.of(series)).phase == "Refused"
