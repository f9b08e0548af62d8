"""A series' owner is lost at every single transaction, before it or after it, or is refused there: whoever comes next brings
the series to the very same end, with nothing held and nothing doubled."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lablet_common.resources.kinds import RESERVATION, SERIES
from lablet_common.store import MemoryStore, OutcomeUnknown
from lablet_common.terms import SeriesCancel, SeriesChange
from lablet_scheduler import desk

WEEK = 7 * 24 * 60
POOLS = ("default", "spare")


class Fate:
    """What happens at the writing transaction number `at` of the owners, counted from now."""

    def __init__(self, world: Any, at: int, way: str) -> None:
        self.world = world
        self.left = at
        self.way = way
        self.seen = 0
        world.seen.before_txn.append(self)

    async def __call__(self, _: Any, writes: Any) -> bool:
        if not writes:
            return False
        self.seen += 1
        self.left -= 1
        if self.left:
            return False
        if self.way == "killed before":
            raise OutcomeUnknown("the owner is no more")
        if self.way == "killed after":
            self.world.store.lose_answer = True
        else:
            for pool in POOLS:
                await self.world.set_worker(f"{pool}-001", runtime_version="2.9.1")
        return True


async def settle(world: Any) -> None:
    """An owner whose term has ended is followed by another."""
    while True:
        try:
            await world.settle()
        except OutcomeUnknown:
            for pool, (_, task) in list(world.owners.items()):
                if task.done():
                    await world.own(pool)
        else:
            return


async def place(world: Any) -> None:
    await world.ask_series(seats=2, pools=POOLS, key="the series")


async def refuse(world: Any) -> None:
    await world.ask(60 + WEEK, 120 + WEEK, seats=2, pools=("spare",))
    await settle(world)
    await place(world)


async def change(world: Any) -> None:
    await place(world)
    await settle(world)
    (series,) = await world.all(SERIES)
    await world.tell_series("change", series.id, SeriesChange(start=world.when(120)))


async def cancel(world: Any) -> None:
    await place(world)
    await settle(world)
    (series,) = await world.all(SERIES)
    await world.tell_series("cancel", series.id, SeriesCancel())


async def outcome(make_world: Any, scenario: Callable[[Any], Awaitable[None]], at: int, way: str) -> tuple[Any, int]:
    """What stands in the end, and how many transactions the owners tried."""
    world = make_world(MemoryStore())
    async with world.caches:
        try:
            for pool in POOLS:
                await world.pool(pool, workers=1)
            await world.definition()
            for pool in POOLS:
                await world.own(pool)
            await world.ask(60 + WEEK, 120 + WEEK, seats=2)
            await world.settle()
            fate = Fate(world, at, way)
            await scenario(world)
            await settle(world)
            return await told(world), fate.seen
        finally:
            await world.end()


async def told(world: Any) -> Any:
    (series,) = await world.all(SERIES)
    reservations = await world.all(RESERVATION)
    assert not [one for one in reservations if one.phase == "Held"], "a hold is left over"
    assert series.status.work is None
    assert not (await world.store.range("/inbox/")).items
    assert not await world.faults()
    for pool in POOLS:
        owner, _ = world.owners[pool]
        assert set(owner.state.calendar.bookings()) == world.rebuilt(owner), pool
    dates = [one.spec.occurrence for one in reservations if one.spec.series == series.id]
    assert len(dates) == len(set(dates)), "a date is doubled"
    mine = sorted((one.spec.occurrence, str(one.phase), one.status.pool, one.slot.start)
                  for one in reservations if one.spec.series == series.id)  # fmt: skip
    request = await world.of(series.id)
    shown = [(one.date, str(one.state), one.pool, one.start) for one in series.status.occurrences]
    return str(series.phase), mine, shown, str(request.phase), request.status.reason


@pytest.mark.parametrize("way", ["killed before", "killed after", "refused by the gate"])
@pytest.mark.parametrize("scenario", [place, refuse, change, cancel], ids=lambda scenario: scenario.__name__)
async def test_lost_at_every_transaction_the_series_comes_to_the_same_end(
    make_world: Any, scenario: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "_AT_ONCE", 2)
    undisturbed, transactions = await outcome(make_world, scenario, 0, way)
    assert transactions > 5
    for at in range(1, transactions + 1):
        found, _ = await outcome(make_world, scenario, at, way)
        assert found == undisturbed, f"{way} transaction {at}"
