"""A machine on its way up: no capacity for it, a boot that fails, is slow or never ends, and the worker that stands in."""

import itertools
from typing import Any

from lablet_workers.providers.port import (
    InsufficientCapacity,
    MachineState,
)

from .conftest import moves


async def test_insufficient_capacity_is_waited_for_and_used_when_it_is_there(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    fleet.provider.launch_refused = InsufficientCapacity("none left")
    await fleet.at(50)
    assert (await fleet.worker()).phase == "Provisioning"
    fleet.provider.launch_refused = None
    await fleet.at(51)
    assert (await fleet.worker()).phase == "Ready"


async def test_a_machine_that_never_comes_ends_in_a_failure_and_a_later_try(fleet: Any) -> None:
    await fleet.book("a", 60, 600)
    fleet.provider.launch_refused = InsufficientCapacity("none left")
    await fleet.at(80)
    failed = await fleet.worker()
    assert "Failed" in moves(failed)
    assert failed.status.failures == 1
    assert "DeadlineMissed" in [move.reason for move in failed.status.history]


async def test_a_boot_that_fails_is_cleaned_up_and_tried_less_and_less_often(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 400)
    for moment in range(47, 200):
        await fleet.at(moment)
        for machine, info in list(fleet.provider.machines.items()):
            if info.state is MachineState.PENDING:
                fleet.provider.become(machine, MachineState.STOPPED, "bad image")
            elif info.state is MachineState.TERMINATING:
                fleet.provider.become(machine, MachineState.TERMINATED)
    worker = await fleet.worker()
    began = [move.at for move in worker.status.history if move.to == "Provisioning"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert 4 <= len(began) <= 10
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 4 * gaps[0]
    live = [
        m for m in fleet.provider.machines.values() if m.state not in (MachineState.TERMINATED, MachineState.STOPPED)
    ]
    assert len(live) <= 1


async def test_the_first_boot_that_fails_is_followed_by_another_at_once(fresh: Any) -> None:
    """With the reserve that pools have by default, the second one is still in time: boot 8, reserve 8, preparation 5."""
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=1, boot_reserve_minutes=None)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 400)
    await fleet.at(39)
    assert list(fleet.provider.machines) == ["m-1"]
    await fleet.at(46)
    fleet.provider.become("m-1", MachineState.STOPPED, "bad disk")
    await fleet.at(46.1)
    fleet.provider.become("m-1", MachineState.TERMINATED)
    await fleet.at(47, step=0.1)
    assert list(fleet.provider.machines) == ["m-1", "m-2"]
    await fleet.at(54)
    fleet.provider.become("m-2", MachineState.RUNNING)
    await fleet.at(60, step=0.5)
    assert await fleet.phase() == "Running"


async def test_a_boot_that_is_overdue_gets_a_stand_in_which_goes_down_when_it_was_not_needed(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=3)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(54)
    assert fleet.provider.power_ons == ["default-001"]
    await fleet.at(56)
    assert fleet.provider.power_ons == ["default-001", "default-002"]
    assert (await fleet.worker(2)).status.scaling.rule == "stand-in"
    for machine in ("m-1", "m-2"):
        fleet.provider.become(machine, MachineState.RUNNING)
    await fleet.at(58, step=0.5)
    fleet.provider.become("m-2", MachineState.STOPPED)
    await fleet.at(60, step=0.5)
    assert (await fleet.phase(), (await fleet.worker(2)).phase) == ("Running", "Offline")


async def test_a_slow_boot_within_the_deadline_is_waited_for(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed()
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(47 + 2 * 8 + 14)
    assert (await fleet.worker()).phase == "Provisioning"
    fleet.provider.become("m-1", MachineState.RUNNING)
    await fleet.at(79)
    assert await fleet.phase() == "Running"


async def test_a_boot_past_its_deadline_fails_and_its_machine_is_terminated(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed()
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(79)
    worker = await fleet.worker()
    assert moves(worker)[:3] == ["Provisioning", "Failed", "Terminating"]
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATING
