"""Whole stories on a manual clock: a week of classes, a Saturday's maintenance, a shortage, a thousand who wait."""

from datetime import timedelta
from typing import Any

from lablet_workers.providers.port import InsufficientCapacity, MachineState

DAY = 24 * 60


def on(fleet: Any) -> int:
    """Machines that cost money now."""
    paid = (MachineState.PENDING, MachineState.RUNNING, MachineState.STOPPING)
    return sum(machine.state in paid for machine in fleet.provider.machines.values())


async def test_a_class_at_nine_each_day_for_a_week_gives_the_power_curve_minute_by_minute(fresh: Any) -> None:
    """Boot 8, preparation 5, turnaround 5, grace 30: on at 08:47, off after 11:05, each day, and never in between."""
    fleet = fresh()
    fleet.settings |= {"controller_watch_seconds": 3600.0, "controller_sweep_minutes": 600.0}
    await fleet.seed(max=2)
    await fleet.define()
    await fleet.start()
    for day in range(7):
        await fleet.book(f"d{day}", day * DAY + 120, day * DAY + 240, workers=("default-001", "default-002"))
    curve: list[tuple[int, int, int]] = []
    """(day, minute after 07:00, machines on), at each change."""
    last = 0
    for day in range(7):
        await fleet.at(day * DAY + 100, step=60)
        for minute in range(101, 261):
            await fleet.at(day * DAY + minute)
            if on(fleet) != last:
                last = on(fleet)
                curve.append((day, minute, last))
        for seat in (1, 2):
            ran = await fleet.instance(f"d{day}", seat)
            began = next(move.at for move in ran.status.history if move.to == "Running")
            assert began < ran.spec.start
    ups = [(day, minute) for day, minute, count in curve if count == 2]
    downs = [(day, minute) for day, minute, count in curve if count == 0]
    assert ups == [(day, 107) for day in range(7)]
    assert [day for day, _ in downs] == list(range(7))
    assert {minute for _, minute in downs} <= {245, 246, 247}
    assert len(fleet.provider.launches) == 2, "the same two machines all week"
    assert len(fleet.provider.power_ons) == 14


async def test_a_drain_for_saturdays_maintenance_moves_what_overlaps_and_nothing_else(fleet: Any) -> None:
    saturday = 5 * DAY
    at, until = "2027-03-06T08:00:00Z", "2027-03-06T18:00:00Z"
    await fleet.book("friday", 4 * DAY + 60, 4 * DAY + 120)
    await fleet.book("saturday", saturday + 120, saturday + 240)
    await fleet.book("sunday", 6 * DAY + 60, 6 * DAY + 120)
    await fleet.ask("worker", "drain", "default-001", {"at": at, "until": until, "message": "new disks"})
    await fleet.at(4 * DAY + 70, step=30)
    assert await fleet.phase("friday") == "Running"
    await fleet.move_seat("saturday", "default-002", attempt=1)
    await fleet.at(saturday + 50, step=30)
    powered = list(fleet.provider.power_ons)
    await fleet.at(saturday + 130, step=5)
    assert await fleet.phase("saturday") == "Running"
    assert (await fleet.instance("saturday")).spec.worker == "default-002"
    await fleet.at(saturday + 660, step=10)
    assert "default-001" not in fleet.provider.power_ons[len(powered) :], "nothing is switched on in its maintenance"
    assert (await fleet.worker(1)).phase == "Offline"
    await fleet.at(6 * DAY + 70, step=10)
    assert await fleet.phase("sunday") == "Running"
    assert (await fleet.instance("sunday")).spec.worker == "default-001"


async def test_a_spot_shortage_is_waited_for_and_no_machine_is_launched_twice(fleet: Any) -> None:
    await fleet.book("a", 60, 300, workers=("default-001", "default-002"))
    fleet.provider.launch_refused = InsufficientCapacity("no spot capacity")
    await fleet.at(58)
    assert fleet.provider.machines == {}
    assert (await fleet.worker(1)).phase == "Provisioning"
    fleet.provider.launch_refused = None
    await fleet.at(62)
    assert [await fleet.phase("a", seat) for seat in (1, 2)] == ["Running", "Running"]
    assert len(fleet.provider.machines) == 2
    fleet.provider.become("m-1", MachineState.STOPPED, "Server.SpotInstanceTermination")
    fleet.runtime("m-1").lose_power()
    fleet.provider.launch_refused = InsufficientCapacity("no spot capacity")
    await fleet.at(66)
    assert await fleet.phase("a", 1) == "Failed"
    assert await fleet.phase("a", 2) == "Running", "the others go on"
    fleet.provider.launch_refused = None
    await fleet.at(110)
    assert await fleet.phase("a", 1) == "Running", "on a new machine of its worker, for what is left"
    assert len([m for m in fleet.provider.machines.values() if m.state is MachineState.RUNNING]) == 2


async def test_a_thousand_booked_seats_and_no_machine_up_power_on_exactly_what_the_calendar_needs(fresh: Any) -> None:
    fleet = fresh()
    fleet.settings |= {"controller_watch_seconds": 3600.0, "scheduler_lead_time_minutes": 0.0}
    await fleet.seed(max=50)
    await fleet.define()
    await fleet.start()
    near = tuple(f"default-{1 + n % 7:03d}" for n in range(100))
    await fleet.book("near", 60, 120, workers=near)
    for batch in range(9):
        await fleet.book(f"late{batch}", 600, 660, workers=tuple(f"default-{1 + n % 50:03d}" for n in range(100)))
    await fleet.at(59)
    assert sorted(fleet.provider.power_ons) == [f"default-{n:03d}" for n in range(1, 8)]


async def test_a_quiet_exam_keeps_its_worker_on(fleet: Any) -> None:
    """Nobody types for five hours: a lab that runs is use enough."""
    await fleet.book("exam", 60, 360)
    await fleet.at(359, step=5)
    assert await fleet.phase("exam") == "Running"
    assert [move.to for move in (await fleet.worker()).status.history][-1] == "Ready"


async def test_the_next_step_follows_at_once_and_no_poll_is_waited_for(fleet: Any) -> None:
    """Ready to Running takes no lab time where nothing elsewhere does."""
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    moves = {move.to: move.at for move in (await fleet.instance()).status.history}
    worker = {move.to: move.at for move in (await fleet.worker()).status.history}
    assert worker["Ready"] - worker["Provisioning"] <= timedelta(minutes=1)
    assert moves["Running"] - moves["Instantiating"] <= timedelta(minutes=1)
