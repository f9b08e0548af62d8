"""A reservation's way through its life, by news and by the clock alone."""

from collections import Counter
from typing import Any

import pytest

from lablet_common.resources.instance import InstancePhase
from lablet_common.resources.kinds import RESERVATION


@pytest.fixture
async def booked(pool: Any) -> Any:
    """A reservation of one seat from minute 60 to minute 120."""
    pool.name = await pool.ask(60, 120)
    await pool.settle()
    return pool


async def test_a_lab_that_runs_when_the_slot_begins_makes_it_active_by_the_clock(booked: Any) -> None:
    await booked.pass_time(30)
    await booked.start_lab(booked.name)
    await booked.set_lab(booked.name, phase=InstancePhase.RUNNING, ran=True)
    await booked.pass_time(59)
    assert await booked.phase(booked.name) == "Scheduled"
    await booked.pass_time(60)
    assert await booked.phase(booked.name) == "Active"


async def test_a_lab_that_comes_up_late_makes_it_active_by_the_news(booked: Any) -> None:
    await booked.pass_time(60)
    await booked.start_lab(booked.name)
    await booked.settle()
    assert await booked.phase(booked.name) == "Scheduled"
    await booked.set_lab(booked.name, phase=InstancePhase.RUNNING, ran=True)
    await booked.settle()
    assert await booked.phase(booked.name) == "Active"


async def test_it_is_completed_when_every_seat_has_ended_and_says_what_became_of_each(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=2)
    await pool.settle()
    await pool.pass_time(60)
    for seat in (1, 2):
        await pool.start_lab(name, seat)
    await pool.set_lab(name, 1, phase=InstancePhase.RUNNING, ran=True)
    await pool.settle()
    await pool.set_lab(name, 1, phase=InstancePhase.TERMINATED, ran=True)
    await pool.settle()
    assert await pool.phase(name) == "Active"
    await pool.set_lab(name, 2, phase=InstancePhase.TERMINATED, reason="ImportFailed")
    await pool.settle()
    reservation = await pool.reservation(name)
    assert (reservation.phase, reservation.status.reason) == ("Completed", "AllSeatsEnded")
    assert reservation.status.outcomes == {"1": "Ran", "2": "Terminated: ImportFailed"}


async def test_it_failed_when_no_seat_ran(booked: Any) -> None:
    await booked.pass_time(60)
    await booked.start_lab(booked.name)
    await booked.set_lab(booked.name, phase=InstancePhase.TERMINATED, reason="ImportFailed")
    await booked.settle()
    reservation = await booked.reservation(booked.name)
    assert (reservation.phase, reservation.status.reason) == ("Failed", "NoSeatRan")


async def test_a_slot_that_passes_without_any_lab_expires_by_the_clock(booked: Any) -> None:
    await booked.pass_time(119)
    assert await booked.phase(booked.name) == "Scheduled"
    await booked.pass_time(120)
    assert (await booked.reservation(booked.name)).status.reason == "SlotMissed"


async def test_a_seat_that_never_got_its_lab_does_not_keep_the_reservation_open(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=2)
    await pool.settle()
    await pool.pass_time(60)
    await pool.start_lab(name, 1)
    await pool.set_lab(name, 1, phase=InstancePhase.TERMINATED, ran=True)
    await pool.settle()
    assert await pool.phase(name) == "Active"
    await pool.pass_time(120)
    reservation = await pool.reservation(name)
    assert reservation.phase == "Completed"
    assert reservation.status.outcomes == {"1": "Ran", "2": "NeverStarted"}


async def test_a_slot_does_not_expire_over_an_instance_that_came_up_meanwhile(booked: Any) -> None:
    """The lab is made between the look and the transaction: that compares its absence."""

    async def start(_: Any, writes: Any) -> bool:
        if any(write.key == RESERVATION.key(booked.name) for write in writes):
            await booked.start_lab(booked.name)
            return True
        return False

    booked.seen.before_txn.append(start)
    await booked.pass_time(120)
    assert await booked.phase(booked.name) == "Scheduled"
    await booked.set_lab(booked.name, phase=InstancePhase.TERMINATED)
    await booked.settle()
    assert await booked.phase(booked.name) == "Failed"


async def test_a_waiting_one_expires_when_its_slot_begins(pool: Any) -> None:
    await pool.ask(60, 120, seats=4)
    name = await pool.ask(60, 120)
    await pool.settle()
    await pool.pass_time(60)
    assert (await pool.reservation(name)).status.reason == "NeverFitted"


async def test_starting_soon_and_ending_soon_are_said_once_each(booked: Any) -> None:
    for minute in range(0, 121, 5):
        if minute == 60:
            await booked.start_lab(booked.name)
            await booked.set_lab(booked.name, phase=InstancePhase.RUNNING, ran=True)
        await booked.pass_time(minute)
        booked.owners["default"][0].wake()
        await booked.settle()
    facts = Counter(await booked.facts(booked.name))
    assert facts == {"scheduled": 1, "starting-soon": 1, "active": 1, "ending-soon": 1}


async def test_a_far_future_booking_never_starts_early_whoever_looks(pool: Any) -> None:
    """News of a lab, a wake-up and a new term look at it: none of them starts it before its time."""
    name = await pool.ask(10_000, 10_060)
    await pool.settle()
    await pool.start_lab(name)
    await pool.set_lab(name, phase=InstancePhase.RUNNING, ran=True)
    await pool.settle()
    await pool.own(replica="two")
    await pool.pass_time(5_000)
    pool.owners["default"][0].wake()
    await pool.settle()
    assert await pool.facts(name) == ["scheduled"]
    await pool.pass_time(10_000)
    assert await pool.phase(name) == "Active"
