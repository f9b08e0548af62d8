"""Jobs: what ends by itself queues in order, and follows as soon as what runs has ended, not when it might have."""

from datetime import timedelta
from typing import Any

from lablet_common.resources.instance import InstancePhase
from lablet_scheduler import decide

SEATS = 4
"""Jobs that the pool of two workers runs at one time."""


async def queue(world: Any, count: int) -> list[str]:
    """Jobs that were asked for one second after the other."""
    jobs = []
    for _ in range(count):
        jobs.append(await world.ask(None, 60, definition="job@1.0.0"))
        await world.clock.advance(timedelta(seconds=1))
    return jobs


async def ended(world: Any, job: str) -> None:
    """Its lab has run and is gone."""
    await world.start_lab(job)
    await world.set_lab(job, phase=InstancePhase.TERMINATED, released=True, ran=True)


async def test_a_job_without_room_queues_instead_of_taking_a_slot_behind_the_others(world: Any) -> None:
    await world.pool()
    await world.definition("job@1.0.0", until_completed=True)
    await world.definition("lab@1.0.0")
    jobs = await queue(world, SEATS + 2)
    await world.own()
    await world.settle()
    assert [await world.phase(job) for job in jobs] == ["Scheduled"] * SEATS + ["Waitlisted"] * 2
    lab = await world.ask(None, 60, definition="lab@1.0.0")
    await world.settle()
    found = await world.reservation(lab)
    assert (found.phase, found.slot.start) == ("Scheduled", world.when(61))


async def test_the_queue_moves_in_order_when_a_job_ends_early(world: Any) -> None:
    await world.pool()
    await world.definition("job@1.0.0", until_completed=True)
    jobs = await queue(world, SEATS + 3)
    await world.own()
    await world.settle()
    for minute, (done, following) in enumerate(zip(jobs, jobs[SEATS:], strict=False), 2):
        await world.pass_time(minute)
        await ended(world, done)
        await world.settle()
        assert await world.phase(done) == "Completed"
        placed = await world.reservation(following)
        assert placed.phase == "Scheduled"
        assert placed.slot.start <= world.clock.now() + (world.when(1) - world.when(0))
    assert [await world.phase(job) for job in jobs[SEATS:]] == ["Scheduled"] * 3


async def test_of_many_jobs_that_are_alike_only_the_front_is_tried(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("lablet_scheduler.wishes._MOST_ALIKE", 2)
    await world.pool()
    await world.definition("job@1.0.0", until_completed=True)
    await world.definition("small@1.0.0", until_completed=True, cpu=1, nodes=1)
    jobs = await queue(world, SEATS + 5)
    small = await world.ask(None, 60, definition="small@1.0.0")
    await world.own()
    await world.settle()
    assert await world.phase(small) == "Waitlisted"
    await world.pass_time(3)
    for job in jobs[:3]:
        await ended(world, job)
    await world.settle()
    phases = [await world.phase(job) for job in jobs[SEATS : SEATS + 3]]
    assert phases == ["Scheduled"] * 3


async def test_a_job_goes_behind_those_of_its_kind_without_looking_at_the_calendar(
    world: Any, monkeypatch: Any
) -> None:
    """Ten thousand that queue must not each cost a search; another kind is looked for all the same."""
    await world.pool()
    await world.definition("job@1.0.0", until_completed=True)
    await world.definition("small@1.0.0", until_completed=True, cpu=0.1, nodes=0, ports=0)
    jobs = await queue(world, SEATS + 1)
    await world.own()
    await world.settle()
    assert await world.phase(jobs[-1]) == "Waitlisted"
    searched = []
    real = decide.find_place
    monkeypatch.setattr(decide, "find_place", lambda *given: searched.append(given) or real(*given))
    (last,) = await queue(world, 1)
    await world.settle()
    queued, ahead = await world.reservation(last), await world.reservation(jobs[-1])
    assert (queued.phase, queued.status.reason) == ("Waitlisted", "PoolFull")
    assert queued.status.explanation == ahead.status.explanation
    assert searched == []
    await world.ask(None, 60, definition="small@1.0.0")
    await world.settle()
    assert len(searched) == 1
    await world.pass_time(2)
    await ended(world, jobs[0])
    await world.settle()
    assert (await world.phase(jobs[-1]), await world.phase(last)) == ("Scheduled", "Waitlisted")
