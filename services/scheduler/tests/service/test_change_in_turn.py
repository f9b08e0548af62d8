"""A change that asks for more goes behind those who wait for the same room; what a reservation has is its own."""

from datetime import timedelta
from typing import Any

import pytest

from lablet_common.intents import ReservationChange
from lablet_common.resources.instance import InstancePhase
from lablet_common.terms import SeriesChange


@pytest.fixture
async def pool(world: Any) -> Any:
    """Two workers with two seats each, that are filled evenly."""
    await world.pool(policy="spread")
    await world.definition(ports=0)  # an extension keeps its port numbers, which is not what is looked at here
    await world.own()
    await world.settle()
    return world


@pytest.fixture
async def crowded(pool: Any) -> Any:
    """In the second hour a seat is taken on each worker, and somebody waits for all four."""
    pool.mine = await pool.ask(0, 60)
    pool.holder = await pool.ask(60, 120, seats=2)
    await pool.settle()
    pool.large = await pool.ask(60, 120, seats=4)
    await pool.settle()
    assert await pool.phase(pool.large) == "Waitlisted"
    await pool.clock.advance(timedelta(seconds=1))
    return pool


async def running(pool: Any, name: str) -> None:
    await pool.start_lab(name)
    await pool.set_lab(name, phase=InstancePhase.RUNNING, ran=True)
    await pool.settle()
    assert await pool.phase(name) == "Active"


async def test_a_running_lab_is_not_extended_into_the_room_that_one_ahead_waits_for(crowded: Any) -> None:
    await running(crowded, crowded.mine)
    said = await crowded.change(crowded.mine, end=90)
    await crowded.settle()
    problem = (await crowded.request(said)).status.problem
    assert problem.type.endswith("does-not-fit")
    assert "a request that is ahead waits for the room: by priority, then by time of request" in problem.detail
    assert (problem.extensions["longestEnd"], problem.extensions["binding"]) == ("2027-03-01T08:00:00Z", "waitList")
    await crowded.tell("cancel", crowded.large)
    await crowded.settle()
    await crowded.change(crowded.mine, end=90)
    await crowded.settle()
    assert (await crowded.reservation(crowded.mine)).slot.end == crowded.when(90), "nobody waits any more"


async def test_an_extension_gets_the_minutes_before_the_slot_of_who_waits(pool: Any) -> None:
    mine = await pool.ask(0, 60)
    await pool.ask(90, 120, seats=2)
    await pool.settle()
    await pool.ask(90, 120, seats=4)
    await pool.settle()
    await pool.clock.advance(timedelta(seconds=1))
    said = await pool.change(mine, end=110)
    await pool.settle()
    problem = (await pool.request(said)).status.problem
    assert problem.extensions["longestEnd"] == "2027-03-01T08:30:00Z"
    await pool.change(mine, end=90)
    await pool.settle()
    assert (await pool.reservation(mine)).slot.end == pool.when(90)


async def test_a_change_of_higher_priority_goes_ahead_of_those_who_wait(pool: Any) -> None:
    mine = await pool.ask(0, 60, priority=1)
    await pool.ask(60, 120, seats=2)
    large = await pool.ask(60, 120, seats=4)
    await pool.settle()
    await pool.change(mine, end=90)
    await pool.settle()
    assert (await pool.reservation(mine)).slot.end == pool.when(90)
    assert await pool.phase(large) == "Waitlisted"


async def test_who_waits_behind_the_change_does_not_stand_in_its_way(crowded: Any) -> None:
    """It is a request of the moment in which it is made, however old the reservation is."""
    await crowded.tell("cancel", crowded.large)
    await crowded.settle()
    said = await crowded.change(crowded.mine, end=90)
    await crowded.clock.advance(timedelta(seconds=1))
    large = await crowded.ask(60, 120, seats=4)
    await crowded.settle()
    assert (await crowded.request(said)).status.problem is None
    assert await crowded.phase(large) == "Waitlisted"


async def test_a_move_into_the_slot_of_who_waits_is_refused_with_a_start_that_is_granted(crowded: Any) -> None:
    beyond = await crowded.ask(150, 210, seats=4)
    await crowded.ask(125, 150, seats=4)
    await crowded.settle()
    waits = await crowded.ask(200, 230, seats=4)
    await crowded.settle()
    assert [await crowded.phase(name) for name in (beyond, waits)] == ["Scheduled", "Waitlisted"]
    await crowded.clock.advance(timedelta(seconds=1))
    said = await crowded.change(crowded.mine, start=60)
    await crowded.settle()
    problem = (await crowded.request(said)).status.problem
    assert problem.detail.startswith("There is room for 1 seat, but a request that is ahead waits for it")
    assert problem.extensions["explanation"]["binding"] == "waitList"
    assert problem.extensions["explanation"]["earliest"]["start"] == "2027-03-01T10:50:00Z", "nor into another's"
    await crowded.change(crowded.mine, start=230)
    await crowded.settle()
    assert (await crowded.reservation(crowded.mine)).slot.start == crowded.when(230)
    assert not await crowded.faults()


async def test_more_seats_do_not_take_the_room_that_one_ahead_waits_for(pool: Any) -> None:
    mine = await pool.ask(seats=1)
    await pool.ask(seats=1)
    large = await pool.ask(seats=3)
    await pool.settle()
    await pool.clock.advance(timedelta(seconds=1))
    said = await pool.tell("change", mine, ReservationChange(seats=2))
    await pool.settle()
    problem = (await pool.request(said)).status.problem
    assert problem.detail.startswith("There is room for 2 seats, but a request that is ahead waits for it")
    assert len((await pool.reservation(mine)).status.placement) == 1
    await pool.tell("cancel", large)
    await pool.settle()
    await pool.tell("change", mine, ReservationChange(seats=2))
    await pool.settle()
    assert len((await pool.reservation(mine)).status.placement) == 2
    assert not await pool.faults()


async def test_what_stays_within_its_own_room_is_granted_while_others_wait_for_the_worker(pool: Any) -> None:
    await pool.definition("tiny@1.0.0", cpu=1, nodes=1, ports=0)
    mine = await pool.ask(60, 120, seats=2)
    other = await pool.ask(60, 120, seats=1)
    await pool.settle()
    large = await pool.ask(60, 120, seats=4)
    await pool.settle()
    assert await pool.phase(large) == "Waitlisted"
    await pool.clock.advance(timedelta(seconds=1))
    for body, now in (
        (ReservationChange(start=pool.when(70), end=pool.when(110)), (70, 110, 2)),
        (ReservationChange(seats=1), (70, 110, 1)),
        (ReservationChange(definition="tiny@1.0.0"), (70, 110, 1)),
        (ReservationChange(end=pool.when(100)), (70, 100, 1)),
    ):
        said = await pool.tell("change", mine, body)
        await pool.settle()
        assert (await pool.request(said)).status.problem is None, body
        found = await pool.reservation(mine)
        start, end, seats = now
        assert (found.slot.start, found.slot.end) == (pool.when(start), pool.when(end))
        assert len(found.status.placement) == seats
    await pool.tell("cancel", mine)
    await pool.tell("cancel", other)
    await pool.settle()
    assert await pool.phase(large) == "Scheduled", "what was given back is for who waits"


async def test_a_date_of_a_series_does_not_move_into_the_room_that_one_ahead_waits_for(crowded: Any) -> None:
    name = await crowded.ask_series("FREQ=DAILY;COUNT=2", 120, 60, mode="fits")
    await crowded.settle()
    await crowded.clock.advance(timedelta(seconds=1))
    await crowded.tell_series("change", name, SeriesChange(start=crowded.when(60)))
    await crowded.settle()
    first, second = (await crowded.series(name)).status.occurrences
    assert (first.start, second.start) == (crowded.when(120), crowded.when(24 * 60 + 60))


async def test_jobs_that_queue_do_not_keep_a_running_lab_from_its_next_hour(pool: Any) -> None:
    """They begin whenever a place comes free, and none is refused because a lab stays; a slot that passes is lost."""
    await pool.definition("job@1.0.0", cpu=8, nodes=1, ports=0, until_completed=True)
    mine = await pool.ask(0, 30)
    await pool.ask(0, 30)
    await pool.settle()
    job = await pool.ask(None, 60, definition="job@1.0.0")
    await pool.settle()
    assert await pool.phase(job) == "Waitlisted"
    await running(pool, mine)
    await pool.clock.advance(timedelta(seconds=1))
    said = await pool.change(mine, end=60)
    await pool.settle()
    assert (await pool.request(said)).status.problem is None
    assert (await pool.reservation(mine)).slot.end == pool.when(60)


async def test_of_two_that_move_into_the_same_room_in_one_pass_one_does(pool: Any) -> None:
    one, other = await pool.ask(0, 60, seats=4), await pool.ask(60, 120, seats=4)
    await pool.settle()
    said = [await pool.change(name, start=200) for name in (one, other)]
    await pool.settle()
    answers = [(await pool.request(name)).status.problem for name in said]
    assert (answers[0], answers[1] is None) == (None, False)
    assert answers[1].type.endswith("does-not-fit")
    starts = [(await pool.reservation(name)).slot.start for name in (one, other)]
    assert starts == [pool.when(200), pool.when(60)]
    owner, _ = pool.owners["default"]
    assert set(owner.state.calendar.bookings()) == pool.rebuilt(owner)
    assert not await pool.faults()


async def test_changes_of_one_reservation_in_one_pass_each_see_the_one_before(pool: Any) -> None:
    """The second asks for an end; the first has moved the start, and the third is none any more."""
    name = await pool.ask(60, 120)
    await pool.settle()
    said = [
        await pool.change(name, start=90),
        await pool.change(name, end=180),
        await pool.tell("cancel", name),
        await pool.change(name, end=200),
    ]
    await pool.settle()
    problems = [(await pool.request(one)).status.problem for one in said]
    assert [problem is None for problem in problems] == [True, True, True, False]
    assert problems[3].type.endswith("illegal-transition")
    found = await pool.reservation(name)
    assert (found.phase, found.slot.start, found.slot.end) == ("Cancelled", pool.when(90), pool.when(180))
    owner, _ = pool.owners["default"]
    assert not list(owner.state.calendar.bookings())


async def test_of_two_changes_of_one_state_the_second_does_not_undo_the_first(pool: Any) -> None:
    """Both were let in while the reservation still stood as they say (`If-Match`)."""
    name = await pool.ask(60, 120)
    await pool.settle()
    seen = (await pool.reservation(name)).revision
    said = [await pool.change(name, end=180, meant_for=seen), await pool.change(name, end=150, meant_for=seen)]
    await pool.settle()
    first, second = [(await pool.request(one)).status.problem for one in said]
    assert first is None
    assert (second.status, second.type) == (412, "https://lablet.io/problems/precondition-failed")
    assert str(seen) in second.detail
    found = await pool.reservation(name)
    assert found.slot.end == pool.when(180)
    await pool.change(name, end=150, meant_for=found.revision)
    await pool.settle()
    assert (await pool.reservation(name)).slot.end == pool.when(150)
