"""Limits across pools: refused with the numbers, and a ledger that is the sum of what is open at every revision."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablet_common.intents import ReservationChange
from lablet_common.quotas import Ledger, Limits, Quota
from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import REQUEST, RESERVATION, SERIES, ledger_key, quota_key
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


async def check_ledger(world: Any, since: int, most: int) -> None:
    """At each revision since a limit was set, the ledger is the sum of what is open; it may be missing only until what is
    open has changed for the first time."""
    at_first, _ = await ledgers_at(world, since)
    written = False
    for revision in range(since, (await world.store.status()).revision + 1):
        counted, kept = await ledgers_at(world, revision)
        written = written or counted != at_first or kept is not None
        assert kept == (counted if written else None), f"at revision {revision}"
        assert seats_of(counted) <= max(most, seats_of(at_first))


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
    await check_ledger(world, first, 6)
    assert seats_of((await ledgers_at(world, (await world.store.status()).revision))[1]) == 6


async def again(world: Any) -> str:
    name = await world.ask(200, 260)
    await world.settle()
    return str(name)


def before_commit(world: Any, key: str, act: Callable[[], Awaitable[None]]) -> list[str]:
    """What is to be written at `key` or below waits until `act` is done, the first time. Holds what waited."""
    waited: list[str] = []

    async def step_in(_: Any, writes: Any) -> bool:
        if waited or not any(part.key.startswith(key) for part in writes):
            return False
        waited.append(key)
        await act()
        return True

    world.seen.before_txn.append(step_in)
    return waited


async def given_back(world: Any, name: str, pool: str) -> None:
    """Cancels a reservation and waits for that, while another owner stands still."""
    await world.tell("cancel", name, pool=pool)
    world.owners[pool][0].wake()
    deadline = time.monotonic() + 5
    while await world.phase(name) != "Cancelled":
        assert time.monotonic() < deadline, "the other owner did not cancel"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("what", ["reservation", "series"])
async def test_nobody_is_refused_for_what_another_pool_has_taken_back_meanwhile(two_pools: Any, what: str) -> None:
    """Whoever has read that their reservation is cancelled may ask for as much again at once."""
    world = two_pools
    await limit(world, open_seats=1)
    first = await world.ask(pools=("other",))
    await world.settle()
    decided = REQUEST if what == "reservation" else SERIES
    waited = before_commit(world, decided.prefix, lambda: given_back(world, first, "other"))
    if what == "reservation":
        assert await world.phase(await again(world)) == "Scheduled"
    else:
        series = await world.ask_series("FREQ=WEEKLY;COUNT=1")
        await world.settle()
        assert (await world.series(series)).phase == "Placed"
    assert waited
    assert await world.phase(first) == "Cancelled"


async def test_limits_of_tenants_of_whom_nobody_asks_cost_the_passes_nothing(pool: Any) -> None:
    await pool.ask()
    for tenant in ("silent", "default"):
        await limit(pool, tenant=tenant, open_seats=9)
    await pool.settle()
    summed, inner = [], pool.seen.inner

    class Summing:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def range(self, prefix: str, **options: Any) -> Any:
            summed.append(prefix)
            return await inner.range(prefix, **options)

    pool.seen.inner = Summing()
    for number in range(4):
        await pool.ask(number * 60, number * 60 + 60, seats=2)
        await pool.settle()
    await limit(pool, tenant="silent", open_seats=8)
    await pool.settle()
    assert RESERVATION.prefix not in summed
    counted, kept = await ledgers_at(pool, pool.store.revision)
    assert counted == kept
    assert seats_of(counted) == 9


async def test_a_limit_refuses_nobody_for_what_came_to_nothing_before_them(pool: Any) -> None:
    """The lab ends while its extension is being committed: the hour is free for who asked next, in the same pass."""
    asked: list[str] = []
    await limit(pool, open_seat_hours=2)
    running = await pool.ask(0, 60)
    await pool.settle()
    await pool.start_lab(running, ran=True)
    await pool.settle()

    async def end() -> None:
        await pool.set_lab(running, phase=InstancePhase.TERMINATED, released=True)

    async def ask_both() -> None:
        asked.append(await pool.change(running, end=120))
        await pool.clock.advance(timedelta(seconds=1))
        asked.append(await pool.ask(200, 260))

    first = before_commit(pool, REQUEST.prefix, ask_both)
    waited = before_commit(pool, RESERVATION.key(running), end)
    await pool.tell("confirm", running)
    await pool.settle()
    assert first
    assert waited
    extension, reservation = asked
    assert str((await pool.request(extension)).phase) == "Refused"
    assert await pool.phase(reservation) == "Scheduled"


_DAY = 24 * 60


@pytest.mark.parametrize("scope", ["tenant default", "owner anna"])
@pytest.mark.parametrize(
    ("limits", "slot", "quota", "numbers"),
    [
        ({"open_seats": 2}, (60, 120), "openSeats", (2, 1, 2)),
        ({"open_seat_hours": 2}, (60, 120), "openSeatHours", (2, 0.5, 2)),
        ({"longest_slot_minutes": 59}, (60, 120), "longestSlotMinutes", (59, 0, 60)),
        ({"furthest_ahead_days": 1}, (1.5 * _DAY, 1.5 * _DAY + 60), "furthestAheadDays", (1, 0, 1.5)),
    ],
)
async def test_each_limit_alone_refuses_with_its_numbers_and_leaves_nothing_on_the_calendar(
    pool: Any, scope: str, limits: dict[str, int], slot: tuple[float, float], quota: str, numbers: tuple[float, ...]
) -> None:
    """Half an hour is granted before, so that something is in use."""
    if scope.startswith("owner"):
        await limit(pool, owner=Limits(**limits))
    else:
        await limit(pool, **limits)
    within = await pool.ask(60, 90)
    await pool.settle()
    assert await pool.phase(within) == "Scheduled"
    refused_with(await asked(pool, *slot), scope, quota, numbers)
    assert {booking.reservation for booking in pool.owners["default"][0].state.calendar.bookings()} == {within}


async def asked(world: Any, start: float, end: float) -> dict[str, Any]:
    """The problem with two seats for a slot."""
    name = await world.ask(start, end, seats=2)
    await world.settle()
    return await problem_of(world, name)


def refused_with(said: dict[str, Any], scope: str, quota: str, numbers: tuple[float, ...]) -> None:
    """All that the refusal says, as data and in words. `numbers`: limit, used, asked."""
    assert (said["status"], said["type"].rpartition("/")[2]) == (409, "quota-exceeded")
    wanted = dict(zip(("limit", "used", "asked"), numbers, strict=True))
    assert said["extensions"] == {"scope": scope, "quota": quota, **wanted}
    most, used, more = (f"{number:g}" for number in numbers)
    assert said["detail"] == f"{scope}: {quota} is limited to {most}, {used} in use, {more} more asked"


@pytest.mark.parametrize("scope", ["tenant default", "owner anna"])
async def test_extensions_add_up_and_stop_at_the_limit(pool: Any, scope: str) -> None:
    limits = {"total_extension_minutes": 30}
    if scope.startswith("owner"):
        await limit(pool, owner=Limits(**limits))
    else:
        await limit(pool, **limits)
    name = await pool.ask()
    await pool.settle()
    answers = []
    for end in (140, 130, 140, 150):
        request = await pool.request(await settled_change(pool, name, end))
        answers.append(str(request.phase))
    assert answers == ["Decided", "Decided", "Decided", "Refused"]
    refused_with(request.status.problem.to_dict(), scope, "totalExtensionMinutes", (30, 30, 10))
    assert (await pool.reservation(name)).slot.end == pool.when(140)
    assert set(pool.owners["default"][0].state.calendar.bookings()) == pool.rebuilt(pool.owners["default"][0])


async def settled_change(world: Any, name: str, end: float) -> str:
    request = await world.change(name, end=end)
    await world.settle()
    return str(request)


async def test_what_a_limit_refuses_does_not_wait_ahead_of_anybody(pool: Any) -> None:
    await limit(pool, open_seats=4)
    await pool.ask(seats=3)
    large = await pool.ask(seats=4)
    await pool.clock.advance(timedelta(seconds=1))
    small = await pool.ask()
    await pool.settle()
    assert (await problem_of(pool, large))["extensions"]["quota"] == "openSeats"
    assert await pool.phase(small) == "Scheduled"


async def test_a_ledger_takes_as_many_owners_as_can_be_stored(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lablet_scheduler.accounts.MOST_OWNERS", 2)
    await limit(pool, open_seats=100)
    names = [await pool.ask(number * 60, number * 60 + 60, owner=f"learner-{number}") for number in range(3)]
    await pool.settle()
    assert (await problem_of(pool, names[2]))["extensions"]["quota"] == "owners"
    more = await pool.ask(owner="learner-1")
    await pool.tell("cancel", names[0])
    again = await pool.ask(180, 240, owner="learner-3")
    await pool.settle()
    assert [await pool.phase(name) for name in (more, again)] == ["Scheduled", "Scheduled"]


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
        if since is not None:
            await check_ledger(world, since, open_seats)
        await world.end()
