"""Limits across pools: refused with the numbers, and a ledger that is the sum of what is open at every revision."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablet_common.intents import ReservationChange
from lablet_common.quotas import Ledger, Limits, Quota
from lablet_common.resources.kinds import RESERVATION, ledger_key, quota_key
from lablet_common.store import MemoryStore
from lablet_common.store.changes import decode

_OPEN = {"Held", "Scheduled", "Waitlisted", "Active"}


@pytest.fixture
async def two_pools(world: Any) -> Any:
    for name in ("default", "other"):
        await world.pool(name, workers=4)
    await world.definition()
    for name in ("default", "other"):
        await world.own(name)
    await world.settle()
    return world


async def limit(world: Any, *, owner: Limits | None = None, tenant: str = "default", **limits: int) -> None:
    quota = Quota(tenant=Limits(**limits), owner=owner or Limits())
    await world.store.put(quota_key(tenant), quota.to_json())


async def ledgers_at(
    world: Any, revision: int
) -> tuple[dict[str, tuple[int, float]], dict[str, tuple[int, float]] | None]:
    """Open seats and their minutes by owner: counted from the reservations, and as the ledger has them."""
    counted: dict[str, tuple[int, float]] = {}
    for kv in (await world.store.range(RESERVATION.prefix, revision=revision)).items:
        found = decode(RESERVATION, kv)
        if str(found.phase) in _OPEN:
            seats, minutes = counted.get(found.metadata.owner, (0, 0))
            length = (found.slot.end - found.slot.start) / timedelta(minutes=1)
            counted[found.metadata.owner] = seats + found.spec.seats, minutes + found.spec.seats * length
    stored = await world.store.get(ledger_key("default"), revision=revision)
    if stored is None:
        return counted, None
    ledger = Ledger.model_validate_json(stored.value)
    return counted, {owner: (usage.seats, usage.seat_minutes) for owner, usage in ledger.owners.items()}


def seats_of(owners: dict[str, tuple[int, float]]) -> int:
    return sum(seats for seats, _ in owners.values())


async def problem_of(world: Any, name: str) -> dict[str, Any]:
    request = await world.of(name)
    assert request.status.problem is not None, request.status
    return request.status.problem.to_dict()


async def test_two_pools_at_once_do_not_grant_more_than_the_tenant_may_have(two_pools: Any) -> None:
    world = two_pools
    await world.ask(seats=2)  # from before the limit
    await world.settle()
    await limit(world, open_seats=6)
    first = (await world.store.status()).revision
    names = [await world.ask(pools=(pool,)) for _ in range(5) for pool in ("default", "other")]
    await world.settle()
    refused = [name for name in names if await world.store.get(RESERVATION.key(name)) is None]
    assert len(refused) == 6
    said = await problem_of(world, refused[0])
    assert said["type"].endswith("/quota-exceeded")
    assert said["status"] == 409
    numbers = {key: said["extensions"][key] for key in ("quota", "limit", "used", "asked")}
    assert numbers == {"quota": "openSeats", "limit": 6, "used": 6, "asked": 1}
    granted = [name for name in names if name not in refused]
    await world.tell("cancel", granted[0], pool=(await world.reservation(granted[0])).status.pool)
    await world.settle()
    assert await world.phase(await again(world)) == "Scheduled"
    last = (await world.store.status()).revision
    for revision in range(first, last + 1):
        counted, kept = await ledgers_at(world, revision)
        assert seats_of(counted) <= 6
        assert kept in (None, counted), f"at revision {revision}"
    assert seats_of((await ledgers_at(world, last))[1]) == 6


async def again(world: Any) -> str:
    name = await world.ask(200, 260)
    await world.settle()
    return str(name)


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({"open_seats": 1}, "openSeats"),
        ({"open_seat_hours": 1}, "openSeatHours"),
        ({"longest_slot_minutes": 59}, "longestSlotMinutes"),
        ({"furthest_ahead_days": 0}, "furthestAheadDays"),
    ],
)
async def test_each_limit_alone_refuses_and_leaves_nothing_on_the_calendar(
    pool: Any, limits: dict[str, int], quota: str
) -> None:
    await limit(pool, owner=Limits(**limits))
    name = await pool.ask(seats=2)
    await pool.settle()
    assert (await problem_of(pool, name))["extensions"]["quota"] == quota
    assert list(pool.owners["default"][0].state.calendar.bookings()) == []


async def test_extensions_add_up_and_stop_at_the_limit(pool: Any) -> None:
    await limit(pool, total_extension_minutes=30)
    name = await pool.ask()
    await pool.settle()
    answers = []
    for end in (140, 130, 140, 150):
        request = await pool.change(name, end=end)
        await pool.settle()
        answers.append(str((await pool.request(request)).phase))
    assert answers == ["Decided", "Decided", "Decided", "Refused"]
    assert (await pool.reservation(name)).slot.end == pool.when(140)
    assert set(pool.owners["default"][0].state.calendar.bookings()) == pool.rebuilt(pool.owners["default"][0])


async def test_what_a_limit_refuses_does_not_wait_ahead_of_anybody(pool: Any) -> None:
    await limit(pool, open_seats=4)
    await pool.ask(seats=3)
    large = await pool.ask(seats=4)
    await pool.clock.advance(timedelta(seconds=1))
    small = await pool.ask()
    await pool.settle()
    assert (await problem_of(pool, large))["extensions"]["quota"] == "openSeats"
    assert await pool.phase(small) == "Scheduled"


async def test_another_tenant_is_not_counted(pool: Any) -> None:
    await limit(pool, open_seats=0)
    await pool.definition(tenant="acme")
    name = await pool.ask(tenant="acme")
    await pool.settle()
    assert await pool.phase(name) == "Scheduled"


_ASKS = st.tuples(
    st.sampled_from(["ask", "cancel", "extend", "shorten", "later"]),
    st.sampled_from(["default", "other"]),
    st.integers(1, 4),
    st.booleans(),
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(_ASKS, min_size=1, max_size=14), limit_at=st.integers(0, 5), open_seats=st.integers(0, 12))
async def test_whatever_is_asked_of_two_pools_the_ledger_is_the_sum_of_what_is_open(
    make_world: Any, acts: list[Any], limit_at: int, open_seats: int
) -> None:
    world = make_world(MemoryStore())
    async with world.caches:
        for name in ("default", "other"):
            await world.pool(name, workers=2)
        await world.definition()
        for name in ("default", "other"):
            await world.own(name)
        made: list[tuple[str, str]] = []
        since = None
        for number, (verb, pool, amount, settled) in enumerate(acts):
            if number == limit_at:
                await limit(world, open_seats=open_seats)
                since = (await world.store.status()).revision
            if verb == "ask" or not made:
                owner = ("anna", "berta")[number % 2]
                made.append((await world.ask(60, 60 + 30 * amount, seats=amount, pools=(pool,), owner=owner), pool))
            else:
                name, pool = made[amount % len(made)]
                body = ReservationChange(end=world.when(60 + (150 if verb == "extend" else 15)))
                if verb == "later":
                    await world.pass_time(number * 15)
                elif verb == "cancel":
                    await world.tell("cancel", name, pool=pool)
                else:
                    await world.tell("change", name, body, pool=pool)
            if settled:
                await world.settle()
        await world.settle()
        last = (await world.store.status()).revision
        before = 0 if since is None else seats_of((await ledgers_at(world, since))[0])
        for revision in range(since or last, last + 1):
            counted, kept = await ledgers_at(world, revision)
            assert kept in (None, counted), f"at revision {revision}"
            assert since is None or seats_of(counted) <= max(open_seats, before)
        await world.end()
