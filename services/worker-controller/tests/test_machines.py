"""The life of a worker's machine: each phase's way forward, what is lost or refused, and never two for one worker."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import lablet_workers.fleet
from lablet_common.resources.kinds import POOL, WORKER
from lablet_common.store import Conflict
from lablet_common.telemetry.metrics import REGISTRY
from lablet_workers.providers.port import (
    MachineState,
    ProviderUnavailable,
    Throttled,
    Unauthorized,
)
from lablet_workers.runtimes.port import RuntimeUnavailable

from .conftest import moves


def running(fleet: Any) -> list[str]:
    return [machine.id for machine in fleet.provider.machines.values() if machine.state is MachineState.RUNNING]


async def test_a_worker_goes_up_for_its_slot_and_down_after_it(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(46)
    assert (await fleet.worker()).phase == "Offline"
    await fleet.at(48)
    up = await fleet.worker()
    assert moves(up) == ["Provisioning", "Starting", "Licensing", "Ready"]
    assert (up.status.scaling.direction, up.status.scaling.state) == ("up", "completed")
    assert up.status.license.status == "IN_COMPLIANCE"
    assert fleet.runtime().password not in ("admin", "")
    assert fleet.runtime().password not in up.to_json().decode()
    await fleet.at(124)
    assert (await fleet.worker()).phase == "Ready"
    await fleet.at(127)
    down = await fleet.worker()
    assert moves(down)[4:] == ["Draining", "Stopping", "Offline"]
    assert (down.status.scaling.direction, down.status.scaling.state) == ("down", "completed")
    assert fleet.runtime().registration == "NOT_REGISTERED"
    assert fleet.provider.machines["m-1"].state is MachineState.STOPPED


async def test_bookings_are_counted_anew_now_and_then_a_few_at_a_time(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was missed is found; the lease is kept on the same loop."""
    monkeypatch.setattr(lablet_workers.fleet, "_AT_ONCE", 2)
    for number in range(6):
        await fleet.book(f"r{number}", 60 + 120 * number, 120 + 120 * number)
    machines = fleet.controller.fleet
    whole = list(machines._bookings.needs["default-001"])
    machines._bookings.enter("rsv-r3")
    machines._bookings.enter("rsv-gone", [("default-001", replace(whole[0], end=whole[1].end))])
    counting = asyncio.create_task(machines.recount())
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 3
    assert list(machines._bookings.needs["default-001"]) == whole


async def test_a_stopped_machine_is_started_again_and_not_launched_anew(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(150)
    await fleet.book("b", 240, 300)
    await fleet.at(241)
    assert await fleet.phase("b") == "Running"
    assert len(fleet.provider.launches) == 1
    assert fleet.provider.power_ons == ["default-001", "default-001"]


async def test_the_hours_that_a_machine_was_on_are_counted_when_it_goes_off(fleet: Any) -> None:
    """Each life by itself: what it lay switched off in between is no hour of anybody's."""

    def counted() -> float:
        return REGISTRY.get_sample_value("lablet_worker_hours_total", {"pool": "default"}) or 0.0

    before = counted()
    for name, start, end in (("a", 60, 120), ("b", 600, 720)):
        await fleet.book(name, start, end)
        await fleet.at(end)
        assert counted() == before, "it is on"
        await fleet.at(end + 10)
        history = (await fleet.worker()).status.history
        assert history[-1].to == "Offline"
        on = max(move.at for move in history if move.to == "Provisioning")
        hours = (history[-1].at - on) / timedelta(hours=1)
        assert (end - start) / 60 < hours < (end - start) / 60 + 0.5
        assert counted() - before == pytest.approx(hours)
        before = counted()


async def test_the_gate_moves_exactly_when_eligibility_changes(fleet: Any) -> None:
    """Over a whole life: a placement is decided again only for a mark, its undoing, a failure and the way back."""
    seen: list[tuple[int, str]] = []
    caches = fleet.controller.estate.caches
    last = [await fleet.gate()]

    def note(old: Any, new: Any, revision: int) -> None:
        found = fleet.store._history.get("/gates/default", revision)
        if found.mod_revision != last[0]:
            last[0] = found.mod_revision
            seen.append((revision, f"{old.phase}>{new.phase}"))

    caches[WORKER].subscribe(note)
    before = await fleet.gate()
    await fleet.book("a", 60, 120)
    await fleet.at(130)
    assert [what for _, what in seen] == ["Ready>Draining"]
    assert (await fleet.gate()) > before
    seen.clear()
    await fleet.book("b", 300, 360)
    await fleet.at(310)
    fleet.provider.become("m-1", MachineState.STOPPED, "lost")
    fleet.runtime().lose_power()
    await fleet.at(311)
    assert [what for _, what in seen] == ["Ready>Failed", "Terminating>Offline"]
    seen.clear()
    await fleet.ask("worker", "cordon", "default-002", {"reason": "disk"})
    await fleet.ask("worker", "cordon", "default-002", {"reason": "disk"})
    await fleet.ask("worker", "uncordon", "default-002")
    assert [what for _, what in seen] == ["Offline>Offline", "Offline>Offline"]


async def test_a_booking_that_comes_while_a_worker_goes_down_keeps_it_up(fleet: Any) -> None:
    """The mark moves the gate first; then the bookings are listed; and what was booked in between undoes the mark."""
    await fleet.book("a", 60, 120)
    await fleet.at(124)
    marked: list[int] = []
    real = fleet.controller.fleet._reservations

    async def booked_in_between() -> Any:
        if not marked:
            marked.append(await fleet.gate())
            await fleet.book("b", 135, 160)
        return await real()

    fleet.controller.fleet._reservations = booked_in_between
    before = await fleet.gate()
    await fleet.at(127)
    back = await fleet.worker()
    assert marked
    assert marked[0] > before
    assert back.phase == "Ready"
    assert moves(back)[-2:] == ["Draining", "Ready"]
    assert back.status.last_fact.name != "ready"
    assert back.status.scaling.direction == "held"
    assert fleet.runtime().registration == "COMPLETED"
    await fleet.at(136)
    assert await fleet.phase("b") == "Running"


@pytest.mark.parametrize("phase", ["Ready", "Offline"])
async def test_a_machine_that_vanished_while_nobody_looked_is_replaced(fleet: Any, phase: str) -> None:
    """Ready: its lab runs again on the new one. Offline: the record of a stopped machine is not believed at power-on."""
    off = phase == "Offline"
    await fleet.book("a", 60, 90 if off else 240)
    await fleet.at(130 if off else 70)
    before = await fleet.worker()
    assert (before.phase, before.status.machine.id) == (phase, "m-1")
    await fleet.crash()
    del fleet.provider.machines["m-1"]
    fleet.runtime().lose_power()
    await fleet.clock.advance(timedelta(minutes=5))
    await fleet.start()
    if off:
        await fleet.book("b", 160, 240)
        await fleet.at(161)
        assert await fleet.phase("b") == "Running"
    else:
        await fleet.at(80)
        await fleet.move_seat("a", "default-001")
        await fleet.at(95)
        assert await fleet.phase() == "Running"
    after = await fleet.worker()
    assert (after.phase, after.status.machine.id, running(fleet)) == ("Ready", "m-2", ["m-2"])


@pytest.mark.parametrize("error", [ProviderUnavailable("timeout"), Throttled("slow down"), Unauthorized("who?")])
async def test_an_error_of_the_provider_is_never_read_as_absence(fleet: Any, error: Exception) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.provider.fail_next(*[error] * 500)
    await fleet.at(100)
    assert (await fleet.worker()).phase == "Ready"
    assert await fleet.phase() == "Running"


async def test_a_machine_that_the_provider_knows_no_more_fails_its_worker(fleet: Any) -> None:
    await fleet.book("a", 60, 240)
    await fleet.at(70)
    del fleet.provider.machines["m-1"]
    await fleet.at(71)
    worker = await fleet.worker()
    assert "MachineGone" in [move.reason for move in worker.status.history]
    await fleet.at(75)
    assert (await fleet.worker()).phase == "Ready"
    assert running(fleet) == ["m-2"]


async def test_a_silent_runtime_is_unknown_first_and_failed_by_its_deadline(fleet: Any) -> None:
    await fleet.book("a", 60, 240)
    await fleet.at(70)
    gate = await fleet.gate()
    fleet.runtime().up = False
    await fleet.at(72)
    unknown = await fleet.worker()
    assert unknown.phase == "Ready"
    assert unknown.status.condition("Unknown") is not None
    assert await fleet.gate() == gate, "what probes see never touches the gate"
    fleet.runtime().up = True
    await fleet.at(74)
    assert (await fleet.worker()).status.condition("Unknown") is None
    fleet.runtime().up = False
    await fleet.at(88)
    assert (await fleet.worker()).phase == "Ready"
    await fleet.at(91)
    assert "NoAnswer" in [move.reason for move in (await fleet.worker()).status.history]
    await fleet.at(98)
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


@pytest.mark.parametrize("net", ["tags", "token"])
async def test_a_launch_whose_record_was_lost_gives_one_machine(fleet: Any, net: str) -> None:
    """The controller dies between launch and record; the next one adopts the machine by its tags, and where the provider
    does not find it yet, the token gives the same machine again."""
    await fleet.book("a", 60, 120)
    await fleet.at(46)
    real = fleet.controller.estate.workers.commit

    async def lost(worker: Any, **more: Any) -> Any:
        if worker.status.machine is not None:
            raise RuntimeUnavailable("died")
        return await real(worker, **more)

    fleet.controller.estate.workers.commit = lost
    await fleet.clock.advance(timedelta(minutes=2))
    assert len(fleet.provider.launches) == 1
    assert (await fleet.worker()).status.machine is None
    await fleet.crash()
    if net == "tags":
        fleet.provider.forget_tokens()
    else:
        fleet.provider.find_nothing = True
    await fleet.start()
    await fleet.at(50)
    assert (await fleet.worker()).phase == "Ready"
    assert len(fleet.provider.machines) == 1


async def test_a_machine_that_was_never_recorded_is_terminated_when_its_worker_fails(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    fleet.provider.launch_answer_lost = True
    await fleet.book("a", 60, 600)
    fleet.provider.find_nothing = True
    await fleet.at(60)
    assert (await fleet.worker()).status.machine is None
    assert running(fleet) == ["m-1"]
    await fleet.crash()
    fleet.provider.find_nothing = fleet.provider.launch_answer_lost = False
    await fleet.clock.advance(timedelta(minutes=19))
    await fleet.start()
    assert "m-1" not in running(fleet)
    await fleet.at(90)
    assert (await fleet.worker()).phase == "Ready"
    assert len(running(fleet)) == 1


async def test_a_drain_with_a_running_lab_stops_nothing_and_then_the_worker_goes_down(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    request = await fleet.ask("worker", "drain", "default-001", {"message": "new disk"})
    assert request.phase == "Decided"
    await fleet.at(119)
    assert await fleet.phase() == "Running"
    assert (await fleet.worker()).phase == "Ready"
    await fleet.at(123)
    assert (await fleet.worker()).phase == "Offline"
    await fleet.at(300)
    assert (await fleet.worker()).phase == "Offline"


async def test_a_drained_worker_that_is_silent_ends_by_a_deadline_also_when_a_lab_was_on_it_meanwhile(
    fleet: Any,
) -> None:
    """A lab that began while its licence was given back ends the deadline of that, and another one has to follow."""
    await fleet.book("a", 30, 60)
    await fleet.at(62)
    worker = await fleet.worker()
    drained = worker.moved("Draining", at=fleet.clock.now(), by="/x", reason="PowerOff", license=None, deadline=None)
    await fleet.all(WORKER).update(drained)
    fleet.runtime().up = False
    await fleet.at(70)
    assert (await fleet.worker()).phase == "Draining"
    await fleet.at(110)
    assert (await fleet.worker()).phase == "Offline"
    assert not running(fleet)


async def test_a_worker_in_maintenance_is_not_powered_on_and_a_cancelled_drain_lets_it(fleet: Any) -> None:
    await fleet.ask("worker", "drain", "default-001", {"message": "disk", "deadlineMinutes": 600})
    await fleet.book("a", 60, 120)
    await fleet.at(60)
    assert fleet.provider.power_ons == []
    await fleet.ask("worker", "drain-cancel", "default-001")
    await fleet.at(62)
    assert await fleet.phase() == "Running"


async def test_no_two_machines_ever_run_for_one_worker_under_a_storm_of_provider_errors(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(46)
    fleet.provider.fail_next(*[ProviderUnavailable("x"), Throttled("y")] * 6)
    await fleet.at(59)
    assert await fleet.phase() == "Running"
    assert len(fleet.provider.machines) == 1


async def test_what_the_provider_refuses_for_good_is_read_at_the_worker_and_goes_when_it_is_mended(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    fleet.provider.launch_refused = Unauthorized("not allowed to launch: give the role ec2:RunInstances")
    await fleet.at(52)
    told = (await fleet.worker()).status.condition("ProviderRefuses")
    assert (told.reason, "ec2:RunInstances" in told.message) == ("Unauthorized", True)
    revision = (await fleet.worker()).revision
    await fleet.at(54)
    assert (await fleet.worker()).revision == revision, "said once"
    fleet.provider.launch_refused = None
    await fleet.at(58)
    worker = await fleet.worker()
    assert (worker.phase, worker.status.condition("ProviderRefuses")) == ("Ready", None)


@pytest.mark.parametrize("error", [Throttled("slow down"), ProviderUnavailable("no answer")])
async def test_what_passes_by_itself_is_not_written_at_the_worker(fleet: Any, error: Exception) -> None:
    await fleet.book("a", 60, 120)
    fleet.provider.launch_refused = error
    await fleet.at(52)
    assert (await fleet.worker()).status.condition("ProviderRefuses") is None


async def test_a_booking_behind_others_does_not_plan_the_pool_anew(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plan costs grows with the pool, and thousands book slots that lie weeks ahead."""
    plans: list[Any] = []
    real = lablet_workers.fleet.plan_power

    def counted(*given: Any) -> Any:
        plans.append(given)
        return real(*given)

    await fleet.book("first", 600, 660)
    await fleet.at(1)
    monkeypatch.setattr(lablet_workers.fleet, "plan_power", counted)
    await fleet.book("later", 900, 960)
    await fleet.book("with-the-first", 600, 660)
    await fleet.settle()
    assert not plans
    await fleet.book("before", 300, 360)
    await fleet.settle()
    assert plans


async def test_a_cancelled_booking_a_moved_seat_and_a_longer_turnaround_all_change_when_workers_are_needed(
    fleet: Any,
) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 60, 120)
    await fleet.at(1)

    def needed() -> dict[str, list[int]]:
        controller = fleet.controller
        needs = controller.fleet._needs(controller.estate.pool_record)
        begin = fleet.clock.now() - timedelta(minutes=1)
        return {name: [(need.end - begin) // timedelta(minutes=1) for need in of] for name, of in needs.items() if of}

    assert needed() == {"default-001": [125]}
    await fleet.cancel("b")
    await fleet.settle()
    assert needed() == {"default-001": [125]}
    await fleet.move_seat("a", "default-002")
    await fleet.settle()
    assert needed() == {"default-002": [125]}
    pools = fleet.all(POOL)
    await pools.update((await pools.require("default")).respecified(turnaround_minutes=20))
    await fleet.settle()
    assert needed() == {"default-002": [140]}
    await fleet.rebook("a", lambda r: r.observed(pool="elsewhere"))
    await fleet.settle()
    assert needed() == {}


async def test_all_bookings_are_read_only_for_a_surplus_worker_that_may_go(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for each that is booked for weeks, whenever anything happens."""
    await fleet.book("a", 3000, 3100, workers=("default-002",))
    pools = fleet.all(POOL)
    await pools.update((await pools.require("default")).respecified(max=1))
    await fleet.settle()
    assert (await fleet.worker(2)).spec.unschedulable is not None
    of, reads = fleet.controller.fleet, list[int]()
    real = of._reservations

    async def read() -> Any:
        reads.append(1)
        return await real()

    monkeypatch.setattr(of, "_reservations", read)
    for _ in range(3):
        of.replan()
        await fleet.settle()
    assert not reads
    await fleet.cancel("a")
    await fleet.settle()
    assert reads
    assert await fleet.worker(2) is None


async def test_a_cordon_of_a_surplus_worker_that_meets_a_conflict_is_tried_again(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.at(1)
    workers = fleet.controller.estate.workers
    real, refused = workers.commit, list[str]()

    async def once(worker: Any, **more: Any) -> Any:
        if not refused and worker.spec.unschedulable is not None:
            refused.append(worker.id)
            raise Conflict([worker.id], (await fleet.store.status()).revision)
        return await real(worker, **more)

    monkeypatch.setattr(workers, "commit", once)
    pools = fleet.all(POOL)
    await pools.update((await pools.require("default")).respecified(max=1))
    await fleet.settle()
    assert refused
    second = await fleet.all(WORKER).get("default-002")
    assert second is None or second.spec.unschedulable is not None


async def test_a_rolling_replacement_that_meets_a_conflict_goes_on(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.book("a", 10, 20)
    await fleet.at(15)
    workers = fleet.controller.estate.workers
    real, refused = workers.commit, list[str]()

    async def once(worker: Any, **more: Any) -> Any:
        if not refused and more.get("also") is not None:
            refused.append(worker.id)
            raise Conflict([worker.id], (await fleet.store.status()).revision)
        return await real(worker, **more)

    monkeypatch.setattr(workers, "commit", once)
    await fleet.ask("pool", "replace", "default", {})
    await fleet.decide()
    await fleet.settle()
    assert refused == ["default-001"]
    assert (await fleet.worker()).spec.replacing is not None
