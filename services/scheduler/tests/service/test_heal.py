"""Seats that cannot stay where they are, and who waits for a place."""

from datetime import timedelta
from typing import Any

import pytest

from lablet_common.resources import Reservation
from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.worker import WorkerPhase
from lablet_common.store.selectors import FieldSelector
from lablet_common.telemetry.metrics import REGISTRY


async def worker_of(pool: Any, name: str, seat: int = 1) -> str:
    return (await pool.reservation(name)).seat(seat).worker


async def failed(pool: Any, name: str, seat: int = 1) -> None:
    """The seat's lab ran, its worker was lost, and the provider said so."""
    await pool.set_lab(name, seat, phase=InstancePhase.FAILED, reason="WorkerLost", ran=True, released=True)
    await pool.settle()


async def test_a_seat_on_a_lost_worker_moves_before_its_slot(pool: Any) -> None:
    name = await pool.ask(30, 90)
    await pool.settle()
    before = await worker_of(pool, name)
    await pool.set_worker(before, WorkerPhase.FAILED)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.phase == "Scheduled"
    assert reservation.seat(1).worker != before
    assert reservation.seat(1).attempt == 1
    assert reservation.status.condition("Degraded") is None
    assert reservation.status.last_fact.name == "moved"
    assert not await pool.faults()


async def test_a_seat_far_from_its_slot_waits_for_its_worker_to_come_back_until_the_lead_time(pool: Any) -> None:
    name = await pool.ask(600, 660)
    await pool.settle()
    before = await worker_of(pool, name)
    await pool.set_worker(before, WorkerPhase.FAILED)
    await pool.settle()
    assert await worker_of(pool, name) == before
    await pool.pass_time(564)
    assert await worker_of(pool, name) == before
    await pool.pass_time(565)
    assert await worker_of(pool, name) != before


async def test_a_seat_whose_lab_is_proven_gone_runs_elsewhere_for_the_rest_of_the_slot(pool: Any) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    await pool.pass_time(60)
    before = await worker_of(pool, name)
    await pool.start_lab(name)
    await pool.set_lab(name, phase=InstancePhase.RUNNING, ran=True)
    await pool.settle()
    await pool.set_worker(before, WorkerPhase.FAILED)
    await pool.set_lab(name, phase=InstancePhase.FAILED, released=False)
    await pool.settle()
    assert await worker_of(pool, name) == before, "it may still run there"
    await failed(pool, name)
    reservation = await pool.reservation(name)
    assert reservation.phase == "Active"
    assert reservation.seat(1).worker != before
    assert reservation.seat(1).attempt == 2
    assert reservation.status.condition("Degraded").reason == "WorkerLost"


async def test_a_moved_seat_is_booked_before_its_instance_has_followed(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=2)
    await pool.settle()
    await pool.pass_time(50)
    before = await worker_of(pool, name)
    for seat in (1, 2):
        await pool.start_lab(name, seat)
        await failed(pool, name, seat)
    after = await worker_of(pool, name)
    assert after != before
    other = await pool.ask(60, 120, seats=3)
    await pool.settle()
    assert await pool.phase(other) == "Waitlisted", "both seats have a place on the other worker already"
    assert not await pool.faults()


async def test_in_the_slot_a_seat_without_another_place_is_lost_and_the_others_go_on(world: Any) -> None:
    await world.pool(workers=2, cpu=4)
    await world.definition()
    await world.own()
    name = await world.ask(60, 120, seats=2)
    await world.settle()
    await world.pass_time(60)
    for seat in (1, 2):
        await world.start_lab(name, seat)
        await world.set_lab(name, seat, phase=InstancePhase.RUNNING, ran=True)
    await world.settle()
    await world.set_worker(await worker_of(world, name, 1), WorkerPhase.FAILED)
    await failed(world, name, 1)
    reservation = await world.reservation(name)
    assert [seat.state for seat in reservation.status.placement] == ["lost", "placed"]
    assert reservation.status.condition("Degraded") is not None
    await world.set_lab(name, 1, phase=InstancePhase.TERMINATED)
    await world.set_lab(name, 2, phase=InstancePhase.TERMINATED)
    await world.settle()
    assert await world.phase(name) == "Completed"


async def test_before_the_slot_a_seat_without_another_place_is_at_risk_once_and_saved_when_room_comes(
    pool: Any,
) -> None:
    name = await pool.ask(30, 90, seats=2)
    other = await pool.ask(30, 90, seats=2)
    await pool.settle()
    await pool.set_worker(await worker_of(pool, name), WorkerPhase.FAILED)
    await pool.settle()
    for minute in (5, 10, 15):
        await pool.pass_time(minute)
        pool.owners["default"][0].wake()
        await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.status.condition("AtRisk").message == "no other worker has room for seats 1, 2"
    assert await pool.facts(name) == ["scheduled", "at-risk"]
    assert at_risk(pool) == 1
    listed = FieldSelector.parse("status.conditions.type=AtRisk", Reservation)
    assert [one.id for one in await pool.all(RESERVATION) if listed.matches(one)] == [name]
    await pool.tell("cancel", other)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.status.condition("AtRisk") is None
    assert {seat.worker for seat in reservation.status.placement} == {await worker_of(pool, other)}
    assert at_risk(pool) == 0


def at_risk(world: Any) -> float | None:
    """What the pool's owner tells as a metric."""
    return REGISTRY.get_sample_value("lablet_reservations_at_risk", {"pool": world.owners["default"][0].pool})


async def test_where_one_seat_moves_and_another_cannot_both_are_told(pool: Any) -> None:
    name = await pool.ask(30, 90, seats=2)
    await pool.ask(30, 90)
    await pool.settle()
    await pool.set_worker(await worker_of(pool, name), WorkerPhase.FAILED)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert len({seat.worker for seat in reservation.status.placement}) == 2
    assert reservation.status.condition("AtRisk").message.startswith("no other worker has room for seat ")
    assert await pool.facts(name) == ["scheduled", "moved", "at-risk"]


async def test_the_risk_is_over_when_the_worker_comes_back(pool: Any) -> None:
    name = await pool.ask(30, 90, seats=4)
    await pool.settle()
    await pool.set_worker("default-001", WorkerPhase.FAILED)
    await pool.settle()
    assert (await pool.reservation(name)).status.condition("AtRisk") is not None
    await pool.set_worker("default-001", WorkerPhase.OFFLINE)
    await pool.settle()
    assert (await pool.reservation(name)).status.condition("AtRisk") is None
    later = await pool.ask(30, 90)
    await pool.settle()
    assert await pool.phase(later) == "Waitlisted", "the seats kept their place all the time"


async def test_a_lab_that_comes_up_nowhere_does_not_wander_for_ever(pool: Any) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    await pool.pass_time(60)
    await pool.start_lab(name)
    for _ in range(5):
        seat = (await pool.reservation(name)).seat(1)
        await pool.set_lab(name, phase=InstancePhase.FAILED, released=True, attempt=seat.attempt)
        await pool.settle()
    seat = (await pool.reservation(name)).seat(1)
    assert (seat.attempt, seat.state) == (5, "lost")


async def test_a_seat_is_not_moved_while_its_instance_comes_up(pool: Any) -> None:
    """The instance is made between the look and the transaction: that compares its absence."""
    name = await pool.ask(30, 90)
    await pool.settle()
    before = await worker_of(pool, name)

    async def start(_: Any, writes: Any) -> bool:
        if any(write.key == RESERVATION.key(name) for write in writes):
            await pool.start_lab(name)
            return True
        return False

    pool.seen.before_txn.append(start)
    await pool.set_worker(before, WorkerPhase.FAILED)
    await pool.settle()
    assert not pool.seen.before_txn
    assert await worker_of(pool, name) == before
    assert await pool.facts(name) == ["scheduled"]


async def test_a_waiting_seat_leaves_a_worker_whose_boot_is_overdue_for_one_that_is_up(world: Any) -> None:
    await world.pool(workers=2, boot=20, preparation_minutes=5, boot_reserve_minutes=20)
    await world.definition()
    await world.own()
    name = await world.ask(60, 120, seats=2)
    await world.settle()
    before = await worker_of(world, name)
    other = {"default-001": "default-002", "default-002": "default-001"}[before]
    await world.pass_time(15)
    await world.set_worker(before, WorkerPhase.PROVISIONING)
    await world.pass_time(30)
    await world.start_lab(name)  # one seat's instance is there and waits, the other's is not made yet
    await world.pass_time(36)
    assert await worker_of(world, name) == before, "another one would have to boot too"
    assert (await world.reservation(name)).status.condition("AtRisk") is None
    await world.set_worker(other, WorkerPhase.READY)
    await world.settle()
    reservation = await world.reservation(name)
    assert [(seat.worker, seat.attempt) for seat in reservation.status.placement] == [(other, 2), (other, 1)]
    assert reservation.status.reason == "BootOverdue"
    assert reservation.status.condition("Degraded") is None, "nothing has been lost"
    assert not await world.faults()


async def test_a_waiting_seat_leaves_when_its_workers_boot_becomes_overdue(world: Any) -> None:
    """By the clock alone: nothing else happens at that moment."""
    await world.pool(workers=2, boot=20, preparation_minutes=5)
    await world.definition()
    await world.own()
    name = await world.ask(60, 120)
    await world.settle()
    before = await worker_of(world, name)
    for worker in ("default-001", "default-002"):
        if worker != before:
            await world.set_worker(worker, WorkerPhase.READY)
    await world.pass_time(30)
    await world.set_worker(before, WorkerPhase.PROVISIONING)
    await world.start_lab(name)
    await world.settle()
    await world.pass_time(49)
    assert await worker_of(world, name) == before
    await world.pass_time(50)
    assert await worker_of(world, name) != before


async def test_a_lab_that_has_begun_stays_whatever_its_worker_says(world: Any) -> None:
    await world.pool(workers=2, boot=20, preparation_minutes=5)
    await world.definition()
    await world.own()
    name = await world.ask(60, 120)
    await world.settle()
    before = await worker_of(world, name)
    for worker in ("default-001", "default-002"):
        await world.set_worker(worker, WorkerPhase.PROVISIONING if worker == before else WorkerPhase.READY)
    await world.pass_time(15)
    await world.start_lab(name)
    await world.set_lab(name, phase=InstancePhase.INSTANTIATING)
    await world.pass_time(59)
    assert await worker_of(world, name) == before


async def test_an_overrunning_lab_keeps_its_seat_and_displaces_who_comes_next(pool: Any) -> None:
    late = await pool.ask(0, 60, seats=2)
    following = await pool.ask(60, 120, seats=2)
    await pool.settle()
    assert await worker_of(pool, late) == await worker_of(pool, following)
    for seat in (1, 2):
        await pool.start_lab(late, seat)
        await pool.set_lab(late, seat, phase=InstancePhase.RUNNING, ran=True)
    await pool.pass_time(60)
    reservation = await pool.reservation(following)
    assert reservation.seat(1).worker != await worker_of(pool, late)
    assert reservation.status.reason == "Displaced"


async def test_an_overrun_that_leaves_no_room_puts_the_next_at_risk_until_it_ends(world: Any) -> None:
    await world.pool(workers=1)
    await world.definition()
    await world.own()
    late = await world.ask(0, 60, seats=2)
    following = await world.ask(60, 120, seats=2)
    await world.settle()
    for seat in (1, 2):
        await world.start_lab(late, seat)
        await world.set_lab(late, seat, phase=InstancePhase.RUNNING, ran=True)
    for minute in range(60, 75):
        await world.pass_time(minute)
    assert (await world.reservation(following)).status.condition("AtRisk").reason == "Displaced"
    assert (await world.facts(following)).count("at-risk") == 1
    for seat in (1, 2):
        await world.set_lab(late, seat, phase=InstancePhase.TERMINATED, ran=True)
    await world.settle()
    assert (await world.reservation(following)).status.condition("AtRisk") is None
    assert await world.phase(late) == "Completed"


async def test_nobody_is_placed_on_an_overrunning_lab_however_long_it_stays(world: Any) -> None:
    """Also of a cancelled reservation: its labs are there until they are gone."""
    await world.pool(workers=1)
    await world.definition()
    await world.own()
    late = await world.ask(0, 60, seats=2)
    await world.settle()
    for seat in (1, 2):
        await world.start_lab(late, seat)
    await world.tell("cancel", late)
    await world.settle()
    for minute in range(55, 90):
        await world.pass_time(minute)
        name = await world.ask(minute, minute + 2)
        await world.settle()
        assert await world.phase(name) != "Scheduled", f"at minute {minute}"
    for seat in (1, 2):
        await world.set_lab(late, seat, phase=InstancePhase.TERMINATED)
    await world.settle()
    name = await world.ask(100, 110)
    await world.settle()
    assert await world.phase(name) == "Scheduled"


async def test_the_wait_list_goes_by_priority_then_by_age_when_something_is_freed(pool: Any) -> None:
    holder = await pool.ask(seats=4)
    old = await pool.ask(seats=4)
    await pool.clock.advance(timedelta(minutes=1))
    urgent = await pool.ask(seats=4, priority=5)
    await pool.settle()
    await pool.tell("cancel", holder)
    await pool.settle()
    assert [await pool.phase(name) for name in (old, urgent)] == ["Waitlisted", "Scheduled"]


async def test_who_waits_comes_before_who_asks_now(pool: Any) -> None:
    holder = await pool.ask(seats=4)
    waiting = await pool.ask(seats=4)
    await pool.settle()
    await pool.clock.advance(timedelta(seconds=1))
    await pool.tell("cancel", holder)
    late = await pool.ask(seats=4)
    await pool.settle()
    assert [await pool.phase(name) for name in (waiting, late)] == ["Scheduled", "Waitlisted"]


async def test_who_asks_now_does_not_take_the_room_that_one_ahead_waits_for(pool: Any) -> None:
    holder = await pool.ask(seats=3)
    large = await pool.ask(seats=4)
    await pool.settle()
    await pool.clock.advance(timedelta(seconds=1))
    small = await pool.ask()  # one seat is free, and the large one waits for it
    later = await pool.ask(600, 660)
    urgent = await pool.ask(200, 260, priority=1)
    await pool.settle()
    assert [await pool.phase(name) for name in (small, later, urgent)] == ["Waitlisted", "Scheduled", "Scheduled"]
    said = (await pool.reservation(small)).status.explanation
    assert said.summary.startswith("There is room for 1 seat, but a request that is ahead waits for it")
    assert (said.binding, said.removed) == ("waitList", {"waitList": 1})
    assert said.earliest.start >= pool.when(120), "not in the slot in which it waits"
    await pool.tell("cancel", holder)
    await pool.settle()
    assert [await pool.phase(large), await pool.phase(small)] == ["Scheduled", "Waitlisted"]


async def test_a_date_of_a_series_does_not_take_the_room_that_one_ahead_waits_for(pool: Any) -> None:
    await pool.ask(seats=3)
    large = await pool.ask(seats=4)
    await pool.settle()
    await pool.clock.advance(timedelta(seconds=1))
    name = await pool.ask_series("FREQ=DAILY;COUNT=2", mode="fits")
    await pool.settle()
    first, second = (await pool.series(name)).status.occurrences
    assert (first.state, second.state) == ("unfit", "placed")
    assert first.reason.startswith("There is room for 1 seat, but a request that is ahead waits for it")
    assert await pool.phase(large) == "Waitlisted"


async def test_who_waited_behind_one_ahead_is_placed_when_that_one_goes(pool: Any) -> None:
    await pool.ask(seats=3)
    large = await pool.ask(seats=4)
    await pool.clock.advance(timedelta(seconds=1))
    small = await pool.ask()
    await pool.settle()
    assert await pool.phase(small) == "Waitlisted", "though both are decided in one pass"
    urgent = await pool.ask(priority=1)  # nobody is ahead of it
    await pool.settle()
    assert await pool.phase(urgent) == "Scheduled"
    for gone in (urgent, large):
        await pool.tell("cancel", gone)
        await pool.settle()
        assert await pool.phase(small) == ("Waitlisted" if gone == urgent else "Scheduled")


async def test_of_those_on_a_lost_worker_the_soonest_gets_the_last_place(world: Any) -> None:
    """However they are called: eight that cannot all move, and one place."""
    await world.pool(workers=1, cpu=32, nodes=100)
    await world.definition()
    await world.own()
    names = [await world.ask(34 - number, 90) for number in range(8)]
    await world.settle()
    await world.worker("default-002", cpu=4)
    await world.settle()
    await world.set_worker("default-001", WorkerPhase.FAILED)
    await world.settle()
    moved = [name for name in names if await worker_of(world, name) == "default-002"]
    assert moved == [names[-1]], "the one that begins first, though it was asked for last"


async def test_a_worker_that_is_added_takes_who_waits(pool: Any) -> None:
    await pool.ask(seats=4)
    waiting = await pool.ask(seats=2)
    await pool.settle()
    await pool.worker("default-003")
    await pool.settle()
    assert await worker_of(pool, waiting) == "default-003"


async def test_a_seat_in_maintenance_stays_at_risk_when_its_worker_fails_besides(pool: Any) -> None:
    name = await pool.ask(600, 660, seats=4)
    await pool.settle()
    await pool.set_worker("default-002", maintenance=(pool.maintenance(590, 700),))
    await pool.settle()
    assert (await pool.reservation(name)).status.condition("AtRisk").reason == "Maintenance"
    await pool.set_worker("default-002", WorkerPhase.FAILED)
    await pool.settle()
    assert (await pool.reservation(name)).status.condition("AtRisk").reason == "Maintenance"


async def test_maintenance_moves_the_seats_that_it_overlaps_and_no_others(pool: Any) -> None:
    within = await pool.ask(60, 120)
    after = await pool.ask(240, 300)
    await pool.settle()
    worker = await worker_of(pool, within)
    assert await worker_of(pool, after) == worker
    await pool.set_worker(worker, maintenance=(pool.maintenance(100, 200),))
    await pool.settle()
    assert await worker_of(pool, within) != worker
    assert (await pool.reservation(within)).status.reason == "Maintenance"
    assert await worker_of(pool, after) == worker


async def test_maintenance_leaves_a_running_lab_where_it_is(pool: Any) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    worker = await worker_of(pool, name)
    await pool.start_lab(name)
    await pool.set_worker(worker, maintenance=(pool.maintenance(100, 200),))
    await pool.settle()
    assert await worker_of(pool, name) == worker


async def test_maintenance_that_leaves_no_room_puts_the_seats_at_risk(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=4)
    await pool.settle()
    await pool.set_worker("default-001", maintenance=(pool.maintenance(100, 200),))
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.status.condition("AtRisk").reason == "Maintenance"
    assert reservation.phase == "Scheduled"


@pytest.mark.parametrize("gone", [True, False])
async def test_a_worker_whose_record_goes_takes_nobody_with_it(pool: Any, gone: bool) -> None:
    name = await pool.ask(30, 90)
    await pool.settle()
    before = await worker_of(pool, name)
    await pool.store.delete(f"/workers/{before}")
    if not gone:
        await pool.worker(before)
    await pool.settle()
    assert (await worker_of(pool, name) == before) is not gone
    assert not await pool.faults()
