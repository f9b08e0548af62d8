"""Drains and replacements: what moves, what stays and until when, what is ended, and what stands again when it is cancelled.

The scheduler is played by the test: it moves seats that have been released.
"""

from typing import Any

import pytest

from lablet_common.resources.kinds import POOL, RESERVATION, WORKER
from lablet_common.resources.worker import Rollout
from lablet_workers.providers.port import MachineState
from lablet_workers.rollout import next_turn

from .conftest import MORNING, minutes


async def drain(fleet: Any, **body: Any) -> Any:
    return await fleet.ask("worker", "drain", "default-001", body)


def reasons(resource: Any) -> list[str]:
    return [move.reason for move in resource.status.history]


async def test_a_lab_whose_slot_ends_before_the_deadline_is_never_ended(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    await drain(fleet, deadlineMinutes=60)
    await fleet.at(119)
    assert await fleet.phase() == "Running"
    await fleet.at(123)
    done = await fleet.instance()
    assert done.phase == "Terminated"
    assert "Drained" not in reasons(done)


async def test_a_lab_whose_slot_goes_on_is_collected_and_ended_at_the_deadline_and_runs_elsewhere(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed()
    await fleet.define(collect=["configurations", "export"])
    await fleet.start()
    await fleet.book("a", 60, 300)
    await fleet.at(70)
    lab = next(iter(fleet.runtime().lab_by_id.values()))
    lab.configurations = {"r1": b"hostname r1"}
    await drain(fleet, deadlineMinutes=30)
    await fleet.at(99)
    assert await fleet.phase() == "Running"
    await fleet.at(103)
    ended = await fleet.instance()
    assert (ended.phase, ended.status.released, ended.status.reason) == ("Failed", True, "Drained")
    assert {"collected", "exported"} <= {ref.role for ref in ended.status.artifacts}
    assert fleet.runtime().lab_by_id == {}
    await fleet.move_seat("a", "default-002")
    await fleet.at(120)
    again = await fleet.instance()
    assert (again.phase, again.spec.worker) == ("Running", "default-002")
    assert not again.status.evicted
    await fleet.at(310)
    assert await fleet.phase() == "Terminated"


async def test_a_drain_without_a_deadline_takes_the_template_s_which_is_four_hours(fleet: Any) -> None:
    await fleet.book("a", 60, 600)
    await fleet.at(70)
    await drain(fleet)
    await fleet.at(309)
    assert await fleet.phase() == "Running"
    await fleet.at(314)
    ended = await fleet.instance()
    assert (ended.phase, ended.status.reason) == ("Failed", "Drained")


async def test_a_forced_drain_ends_labs_at_once_and_collects_first(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed()
    await fleet.define(collect=["configurations"])
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    next(iter(fleet.runtime().lab_by_id.values())).configurations = {"r1": b"x"}
    await drain(fleet, force=True)
    await fleet.at(74)
    ended = await fleet.instance()
    assert (ended.phase, ended.status.reason) == ("Failed", "Drained")
    assert [ref.role for ref in ended.status.artifacts].count("collected") >= 1
    await fleet.at(76)
    assert (await fleet.worker()).phase == "Offline"


async def test_a_deadline_beside_force_is_refused_at_the_door(fleet: Any) -> None:
    with pytest.raises(ValueError, match="give force or deadlineMinutes, not both"):
        await drain(fleet, force=True, deadlineMinutes=10)


async def test_a_later_drain_lets_labs_run_until_its_own_deadline(fleet: Any) -> None:
    await fleet.book("a", 60, 400)
    await fleet.at(70)
    await drain(fleet, at="2027-03-01T09:00:00Z", until="2027-03-01T15:00:00Z", deadlineMinutes=45)
    await fleet.at(164)
    assert await fleet.phase() == "Running"
    await fleet.at(168)
    assert (await fleet.instance()).status.reason == "Drained"


async def test_until_before_the_deadline_ends_nobody(fleet: Any) -> None:
    await fleet.book("a", 60, 400)
    await fleet.at(70)
    await drain(fleet, until="2027-03-01T09:00:00Z", deadlineMinutes=120)
    await fleet.at(390)
    assert await fleet.phase() == "Running"


async def test_a_seat_that_waits_for_its_slot_gives_its_place_up_when_its_worker_is_drained(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(30)
    assert await fleet.phase() == "Pending"
    await drain(fleet, deadlineMinutes=240)
    waits = await fleet.instance()
    assert (waits.phase, waits.status.reason, waits.status.released) == ("Failed", "Drained", True)
    await fleet.move_seat("a", "default-002")
    await fleet.at(62)
    assert await fleet.phase() == "Running"
    assert fleet.provider.power_ons == ["default-002"]


async def test_a_cancelled_drain_gives_the_seat_its_place_back(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(30)
    await drain(fleet, deadlineMinutes=240)
    assert await fleet.phase() == "Failed"
    await fleet.ask("worker", "drain-cancel", "default-001")
    await fleet.at(62)
    assert (await fleet.instance()).spec.worker == "default-001"
    assert await fleet.phase() == "Running"


async def test_cancelling_a_drain_leaves_the_cordon_that_was_there_before(fleet: Any) -> None:
    await fleet.ask("worker", "cordon", "default-001", {"reason": "bad disk"})
    await drain(fleet, deadlineMinutes=30)
    assert (await fleet.worker()).spec.unschedulable.drain
    await drain(fleet, deadlineMinutes=90)
    await fleet.ask("worker", "drain-cancel", "default-001")
    cordon = (await fleet.worker()).spec.unschedulable
    assert (cordon.reason, cordon.drain) == ("bad disk", False)
    request = await fleet.ask("worker", "drain-cancel", "default-001")
    assert request.status.reason == "NotDraining"
    assert (await fleet.worker()).spec.unschedulable.reason == "bad disk"


async def test_a_cordon_set_during_a_drain_outlives_it(fleet: Any) -> None:
    await drain(fleet, deadlineMinutes=30)
    await fleet.ask("worker", "cordon", "default-001", {"reason": "bad disk"})
    await fleet.ask("worker", "drain-cancel", "default-001")
    assert (await fleet.worker()).spec.unschedulable.reason == "bad disk"


async def test_when_a_drains_time_is_over_the_cordon_that_was_there_before_stands_again(fleet: Any) -> None:
    await fleet.ask("worker", "cordon", "default-001", {"reason": "its disk is failing"})
    await fleet.ask(
        "worker", "cordon", "default-002", {"reason": "lunch", "until": (MORNING + minutes(30)).isoformat()}
    )
    await drain(fleet, until=(MORNING + minutes(60)).isoformat(), deadlineMinutes=20)
    await fleet.at(59)
    gate = await fleet.gate()
    fleet.controller.fleet.replan()
    await fleet.settle()
    assert (await fleet.worker()).spec.unschedulable.drain
    await fleet.at(61)
    fleet.controller.fleet.replan()
    await fleet.settle()
    cordon = (await fleet.worker()).spec.unschedulable
    assert (cordon.reason, cordon.drain, cordon.until) == ("its disk is failing", False, None)
    assert (await fleet.worker(2)).spec.unschedulable is None
    assert await fleet.gate() > gate


async def test_a_cordon_whose_time_is_over_does_not_keep_a_worker_in_a_pool_that_has_shrunk(fleet: Any) -> None:
    await fleet.book("a", 60, 120, workers=("default-002",))
    await fleet.ask(
        "worker", "cordon", "default-002", {"reason": "lunch", "until": (MORNING + minutes(30)).isoformat()}
    )
    pool = await fleet.all(POOL).get("default")
    await fleet.all(POOL).update(pool.respecified(max=1))
    await fleet.at(31)
    fleet.controller.fleet.replan()
    await fleet.settle()
    assert (await fleet.worker(2)).spec.unschedulable.reason == "pool-shrunk"


async def test_another_maintenance_outlives_a_cancelled_drain(fleet: Any) -> None:
    worker = await fleet.worker()
    other = {"from": "2027-03-02T00:00:00Z", "to": "2027-03-02T01:00:00Z", "reason": "power cut"}
    span = type(worker.spec).model_fields["maintenance"].annotation.__args__[0].model_validate(other)
    await fleet.all(WORKER).update(worker.respecified(maintenance=(span,)))
    await drain(fleet)
    await fleet.ask("worker", "drain-cancel", "default-001")
    assert [one.reason for one in (await fleet.worker()).spec.maintenance] == ["power cut"]


# -- replacement ---------------------------------------------------------------------------------------------------


async def test_a_worker_that_is_off_gets_a_new_machine_at_its_next_power_on(fleet: Any) -> None:
    await fleet.book("a", 60, 90)
    await fleet.at(130)
    request = await fleet.ask("worker", "replace", "default-001")
    assert request.status.reason == "ReplacementBooked"
    await fleet.at(132)
    bare = await fleet.worker()
    assert (bare.status.machine, bare.spec.replacing, bare.spec.unschedulable) == (None, None, None)
    assert bare.spec.maintenance == ()
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED
    await fleet.book("b", 200, 240)
    await fleet.at(201)
    assert await fleet.phase("b") == "Running"
    assert (await fleet.worker()).status.machine.id == "m-2"


async def test_a_worker_with_a_lab_is_replaced_when_the_lab_has_ended_and_not_before(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 200, 240)
    await fleet.at(70)
    await fleet.ask("worker", "replace", "default-001", {"deadlineMinutes": 90})
    assert (await fleet.worker()).spec.unschedulable.drain
    await fleet.at(119)
    assert await fleet.phase() == "Running"
    await fleet.at(135)
    worker = await fleet.worker()
    assert (worker.phase, worker.spec.replacing, worker.spec.unschedulable) == ("Offline", None, None)
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED
    assert fleet.runtime().registration == "NOT_REGISTERED"
    await fleet.at(201)
    assert await fleet.phase("b") == "Running"
    assert (await fleet.worker()).status.machine.id == "m-2"


async def test_an_agents_host_is_replaced_when_it_is_empty_and_its_agent_begins_anew(fleet: Any) -> None:
    """Nobody switches it off, so it is never off by itself: a replacement that waited for that held all others back."""
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    worker = await fleet.worker()
    await fleet.all(WORKER).update(worker.respecified(runtime="process"))
    await fleet.ask("worker", "replace", "default-001", {"deadlineMinutes": 90})
    await fleet.at(119)
    assert (await fleet.phase(), (await fleet.worker()).phase) == ("Running", "Ready")
    await fleet.at(135)
    worker = await fleet.worker()
    assert (worker.phase, worker.spec.replacing, worker.spec.unschedulable) == ("Offline", None, None)
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_a_replacement_that_is_cancelled_changes_nothing(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    await fleet.ask("worker", "replace", "default-001")
    again = await fleet.ask("worker", "replace", "default-001")
    assert again.status.reason == "AlreadyReplacing"
    await fleet.ask("worker", "drain-cancel", "default-001")
    await fleet.at(140)
    worker = await fleet.worker()
    assert (worker.spec.replacing, worker.spec.unschedulable, worker.status.machine.id) == (None, None, "m-1")


async def test_a_replacement_survives_a_crash_of_the_controller(fleet: Any) -> None:
    await fleet.book("a", 60, 90)
    await fleet.at(130)
    await fleet.crash()
    await fleet.ask("worker", "replace", "default-001")
    await fleet.start()
    await fleet.at(133)
    assert (await fleet.worker()).status.machine is None


@pytest.mark.parametrize("budget", [1, 2])
async def test_a_pool_is_replaced_within_its_budget_and_says_when_it_has_ended(fresh: Any, budget: int) -> None:
    fleet = fresh()
    await fleet.seed(max=4)
    await fleet.define()
    await fleet.start()
    names = tuple(f"default-{n:03d}" for n in range(1, 5))
    await fleet.book("a", 60, 90, workers=names)
    await fleet.book("b", 120, 200, workers=names[:3])
    await fleet.at(130)
    request = await fleet.ask(
        "pool", "replace", "default", {"maxUnavailable": budget, "deadlineMinutes": 10}, shard="-"
    )
    assert request.status.reason == "ReplacementBooked"
    most = 0
    for moment in range(131, 260):
        await fleet.at(moment)
        workers = (await fleet.all(WORKER).list()).items
        most = max(most, sum(1 for worker in workers if worker.spec.replacing is not None))
        for seat in (1, 2, 3):  # the scheduler gives an evicted seat up
            instance = await fleet.instance("b", seat)
            if instance.status.reason == "Drained" and instance.phase == "Failed":
                await lose(fleet, "b", seat)
    assert most == budget
    pool = await fleet.all(POOL).get("default")
    assert pool.status.rollout.finished_at is not None
    old = {f"m-{n}" for n in range(1, 5)}
    assert all(fleet.provider.machines[machine].state is MachineState.TERMINATED for machine in old)
    assert all(worker.spec.unschedulable is None for worker in (await fleet.all(WORKER).list()).items)


async def lose(fleet: Any, name: str, number: int) -> None:
    def lost(reservation: Any) -> Any:
        seats = tuple(
            seat.model_copy(update={"state": "lost"}) if seat.seat == number else seat
            for seat in reservation.status.placement
        )
        return reservation.observed("moved", placement=seats)

    if (await fleet.all(RESERVATION).get(f"rsv-{name}")).status.placement[number - 1].state != "lost":
        await fleet.rebook(name, lost)


async def test_a_worker_that_fails_holds_the_next_one_back(fleet: Any) -> None:
    await fleet.book("a", 60, 300, workers=("default-001", "default-002"))
    await fleet.at(70)
    await fleet.ask("pool", "replace", "default", {"deadlineMinutes": 600}, shard="-")
    first, second = await fleet.worker(1), await fleet.worker(2)
    rollout = Rollout(at=fleet.clock.now(), by="op", waiting=(second.id,))
    pool = (await fleet.all(POOL).get("default")).observed(rollout=rollout)
    well = first.respecified(replacing=None)
    broken = well.moved("Failed", at=fleet.clock.now(), by="test", reason="NoAnswer")
    assert next_turn(pool, [well, second], set(), fleet.clock.now()).worker is second
    assert next_turn(pool, [broken, second], set(), fleet.clock.now()) is None


async def test_a_rolling_replacement_can_be_cancelled_and_is_not_begun_twice(fleet: Any) -> None:
    await fleet.book("a", 60, 200, workers=("default-001", "default-002"))
    await fleet.at(70)
    await fleet.ask("pool", "replace", "default", {"deadlineMinutes": 600}, shard="-")
    assert (await fleet.ask("pool", "replace", "default", {}, shard="-")).status.reason == "AlreadyReplacing"
    assert (await fleet.worker(1)).spec.replacing is not None
    cancelled = await fleet.ask("pool", "replace-cancel", "default", shard="-")
    assert cancelled.status.reason == "ReplacementCancelled"
    await fleet.at(230)
    assert (await fleet.worker(2)).status.machine.id == "m-2", "its turn never came"
    assert (await fleet.ask("pool", "replace-cancel", "default", shard="-")).status.reason == "NotReplacing"
