"""Bounded recourse in the service: seats move in quiet moments to save power, and nobody is disturbed by it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from lablet_common.resources.kinds import POOL, RESERVATION
from lablet_common.resources.reservation import Hold
from lablet_common.store.changes import decode
from lablet_scheduler import owner, stirs
from lablet_scheduler.stirs import Stirs

HOUR = (120, 180)


async def scatter(world: Any, **pool: Any) -> list[str]:
    """Two workers that boot for 20 minutes are full at the same time; then half of each is cancelled."""
    await world.pool(workers=2, boot=20, **pool)
    await world.definition()
    await world.own()
    names = [await world.ask(*HOUR) for _ in range(4)]
    await world.settle()
    workers = await where(world, names)
    assert sorted(workers.values()) == ["default-001", "default-001", "default-002", "default-002"]
    left = [next(name for name in names if workers[name] == worker) for worker in sorted(set(workers.values()))]
    world.left = left
    for name in names:
        if name not in left:
            await world.tell("cancel", name)
    return left


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each look so far has moved something."""
    seen: list[bool] = []
    real = owner.Settling.turn

    async def turn(self: Any) -> bool:
        seen.append(await real(self))
        return seen[-1]

    monkeypatch.setattr(owner.Settling, "turn", turn)
    return seen


async def where(world: Any, names: list[str]) -> dict[str, str]:
    found = [await world.reservation(name) for name in names]
    return {one.id: one.status.placement[0].worker for one in found}


async def moved(world: Any) -> list[Any]:
    """The reservations that have moved."""
    return [one for one in await world.all(RESERVATION) if one.status.reason == "Consolidated"]


async def test_what_cancelling_leaves_scattered_moves_together_and_says_why(world: Any) -> None:
    left = await scatter(world)
    await world.settle()
    assert len(set((await where(world, left)).values())) == 1
    (one,) = await moved(world)
    assert await world.facts(one.id) == ["scheduled", "moved"]
    assert one.phase == "Scheduled"
    (worker,) = {seat.worker for seat in one.status.placement}
    said = one.status.explanation
    assert said.summary.endswith(f"to {worker}, so that fewer workers have to be on: saves 80 minutes of power")
    assert one.status.message == said.summary
    assert said.chosen == {worker: {"seats": [1]}}
    assert not await world.faults()
    (mine, _) = world.owners["default"]
    assert set(mine.state.calendar.bookings()) == world.rebuilt(mine)


async def test_it_ends_and_nothing_goes_round_in_circles(world: Any) -> None:
    await scatter(world)
    await world.settle()
    revision = (await world.store.status()).revision
    for _ in range(3):
        world.owners["default"][0].wake()
        await world.settle()
    assert (await world.store.status()).revision == revision
    assert not world.stirs()


async def test_a_new_booking_lets_others_move(world: Any) -> None:
    """The last one switches on a third worker, and with it there is room for both that were alone on the first: they leave
    it together, in one transaction."""
    await world.pool(workers=3, boot=20)
    for name, cpu in (("small@1.0.0", 3), ("large@1.0.0", 5)):
        await world.definition(name, cpu=cpu, nodes=1)
    await world.own()
    names = [await world.ask(*HOUR, definition="small@1.0.0", key=f"small {number}") for number in (1, 2)]
    for number in (1, 2):
        await world.ask(*HOUR, definition="large@1.0.0", key=f"large {number}")
        assert not await moved(world)
        await world.settle()
    both = await moved(world)
    assert {one.id for one in both} == set(names)
    assert len({one.revision for one in both}) == 1
    assert all(one.status.message.endswith("saves 80 minutes of power, together with 1 other seat") for one in both)
    assert not await world.faults()


@pytest.mark.parametrize("pool", [{"recourse_moves": 0}, {"policy": "spread"}])
async def test_a_pool_that_allows_none_or_spreads_is_left_alone(
    world: Any, looks: list[bool], pool: dict[str, Any]
) -> None:
    left = await scatter(world, **pool)
    await world.settle()
    assert len(set((await where(world, left)).values())) == 2
    assert not world.stirs()
    assert not looks


async def test_a_pool_that_stops_allowing_it_forgets_what_was_left_to_look_at(
    world: Any, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "QUIET_SECONDS", 0.3)
    left = await scatter(world)
    await world.settle_waiting()
    assert world.stirs()
    found = decode(POOL, await world.store.get(POOL.key("default")))
    await world.put(found.respecified(recourse_moves=0).observed())
    await world.settle()
    assert looks == [False] * 5, "four came; of the two that went both are forgotten at once"
    assert len(set((await where(world, left)).values())) == 2


async def test_what_begins_soon_stays(world: Any) -> None:
    """The lead of the settings is 35 minutes: labs are made then."""
    world.settings = world.settings.model_copy(update={"scheduler_lead_time_minutes": 121.0})
    left = await scatter(world)
    await world.settle()
    assert len(set((await where(world, left)).values())) == 2


async def test_who_waits_is_not_disturbed(world: Any) -> None:
    """Somebody waits for both workers, whole: nothing near the slot moves while that lasts."""
    await world.definition("whole@1.0.0", cpu=8, nodes=8)
    await world.pool(workers=2, boot=20)
    await world.definition()
    await world.own()
    names = [await world.ask(*HOUR) for _ in range(4)]
    await world.settle()
    waiting = await world.ask(*HOUR, definition="whole@1.0.0", seats=2)
    await world.settle()
    assert await world.phase(waiting) == "Waitlisted"
    workers = await where(world, names)
    gone = [next(name for name in names if workers[name] == worker) for worker in set(workers.values())]
    for name in gone:
        await world.tell("cancel", name)
    await world.settle()
    assert not await moved(world)
    await world.tell("cancel", waiting)
    await world.settle()
    assert not await moved(world), "what was left to look at while somebody waited there is forgotten"
    await world.ask(400, 460)
    await world.settle()
    assert len(await moved(world)) == 1, "now it may"


async def test_a_seat_whose_lab_is_made_meanwhile_stays(world: Any) -> None:
    """The lab comes up between the look and the write: the transaction is refused, and it is the other one that moves."""
    made: list[str] = []

    async def start(_: Any, writes: Any) -> bool:
        names = [
            write.key.removeprefix(RESERVATION.prefix) for write in writes if write.key.startswith(RESERVATION.prefix)
        ]
        if names and names[0] in getattr(world, "left", ()):
            made.extend(names)
            await world.start_lab(names[0])
        return bool(made)

    left = await scatter(world)
    world.seen.before_txn.append(start)
    await world.settle()
    assert len(made) == 1
    assert await world.facts(made[0]) == ["scheduled"]
    assert not await world.faults()
    (mine, _) = world.owners["default"]
    assert set(mine.state.calendar.bookings()) == world.rebuilt(mine)
    assert made[0] in left


async def test_a_fleet_that_changed_meanwhile_refuses_the_moves(world: Any) -> None:
    closed: list[str] = []

    async def cordon(_: Any, writes: Any) -> bool:
        names = [
            write.key.removeprefix(RESERVATION.prefix) for write in writes if write.key.startswith(RESERVATION.prefix)
        ]
        if names and names[0] in getattr(world, "left", ()):
            for worker in ("default-001", "default-002"):
                await world.set_worker(worker, unschedulable={"reason": "dust", "by": "olaf"})
            closed.extend(names)
        return bool(closed)

    left = await scatter(world)
    world.seen.before_txn.append(cordon)
    await world.settle()
    assert closed
    assert len(set((await where(world, left)).values())) == 2
    assert not await world.faults()


async def test_a_held_seat_moves_and_stays_held(world: Any) -> None:
    await world.pool(workers=2, boot=20)
    await world.definition()
    await world.own()
    hold = Hold(expires_at=world.when(90))
    names = [await world.ask(*HOUR, hold=hold) for _ in range(4)]
    await world.settle()
    workers = await where(world, names)
    for worker in ("default-001", "default-002"):
        await world.tell("cancel", next(name for name in names if workers[name] == worker))
    await world.settle()
    (one,) = await moved(world)
    assert (one.phase, (await world.facts(one.id))[-1]) == ("Held", "moved")


async def test_there_is_one_look_for_each_that_comes_or_goes_and_none_for_what_has_moved(
    world: Any, looks: list[bool]
) -> None:
    await scatter(world)
    await world.settle()
    assert sorted(looks) == [False] * 5 + [True], "four came, two went"


async def test_nothing_is_looked_for_while_there_is_something_to_decide(
    world: Any, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that come faster than the quiet moment find nobody looking; afterwards each stir has its turn."""
    monkeypatch.setattr(owner, "QUIET_SECONDS", 0.2)
    await world.pool(workers=4, boot=20)
    await world.definition()
    await world.own()
    for number in range(6):
        await world.ask(*HOUR, seats=1, key=f"one {number}")
        await world.settle_waiting()
    assert not looks
    assert world.stirs() == 6
    await world.settle()
    assert len(looks) == 6


async def test_a_request_that_stays_in_the_inbox_keeps_it_waiting(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the optimiser looks for its plan nothing moves under it."""
    mine = await world_with_a_stir(world, monkeypatch)
    mine._waiting = 1
    assert not await mine._settle()
    assert world.stirs()
    mine._waiting = 0
    assert await mine._settle()
    assert not world.stirs()


async def world_with_a_stir(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(owner, "QUIET_SECONDS", 5)
    await world.pool(workers=1)
    await world.definition()
    mine = await world.own()
    await world.ask(*HOUR)
    await world.settle_waiting()
    assert world.stirs()
    task = world.owners["default"][1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    monkeypatch.setattr(owner, "QUIET_SECONDS", 0)
    mine._wake.clear()
    return mine


async def test_stirs_are_where_seats_have_come_or_gone_and_the_oldest_are_forgotten(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    one = await pool.reservation(name)
    worker = one.status.placement[0].worker
    kept = Stirs()
    kept.note(one, one)
    assert not kept
    kept.note(None, one)
    came = kept.take()
    assert (came.workers, came.end - came.start) == ((worker,), 60)
    kept.note(one, one.model_copy(update={"status": one.status.model_copy(update={"phase": "Cancelled"})}))
    assert kept.take() == came, "it has left the same place"
    (seat,) = one.status.placement
    other = one.status.model_copy(update={"placement": (seat.model_copy(update={"worker": "other"}),)})
    kept.note(one, one.model_copy(update={"status": other}))
    assert [kept.take().workers for _ in range(2)] == [(worker,), ("other",)]
    told = one.status.model_copy(update={"placement": (seat.model_copy(update={"worker": worker}),)})
    kept.note(one, one.model_copy(update={"status": told}))
    assert kept.take() is None, "nobody came or went"
    assert not kept
    for _ in range(stirs.MOST_STIRS + 5):
        kept.note(None, one)
    assert len(kept) == stirs.MOST_STIRS
    kept.clear()
    assert not kept


async def test_a_place_that_somebody_waits_for_is_known(pool: Any) -> None:
    await pool.ask(60, 120, seats=4)
    await pool.ask(60, 120, seats=1)
    await pool.settle()
    waitlist = pool.owners["default"][0].state.waitlist
    slot = (await pool.all(RESERVATION))[0].slot

    def shifted(minutes: int) -> Any:
        step = timedelta(minutes=minutes)
        return slot.model_copy(update={"start": slot.start + step, "end": slot.end + step})

    assert [waitlist.touches(shifted(by)) for by in (-60, -59, 0, 59, 60)] == [False, True, True, True, False]
