"""The life of a worker's machine: each phase's way forward, each failure, and what is given back on every way out."""

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import lablet_workers.fleet
from lablet_common.resources.kinds import POOL, WORKER
from lablet_common.store import Conflict
from lablet_common.telemetry.metrics import REGISTRY
from lablet_workers.providers.port import (
    InsufficientCapacity,
    MachineState,
    ProviderUnavailable,
    Throttled,
    Unauthorized,
)
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import RuntimeFault, RuntimeUnavailable


def moves(worker: Any) -> list[str]:
    return [move.to for move in worker.status.history]


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


def scaling(worker: Any) -> tuple[str, str, str]:
    told = worker.status.scaling
    return told.direction, told.state, told.rule


async def test_a_worker_kept_off_by_the_pool_s_licences_says_so_once_and_goes_up_when_there_is_one(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(allowed_licenses=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.book("b", 60, 240, workers=("default-002",))
    before = await fleet.gate()
    await fleet.at(48)
    held = await fleet.worker(2)
    assert scaling(held) == ("held", "decided", "licenses")
    await fleet.at(50)
    assert (await fleet.worker(2)).revision == held.revision, "told once"
    assert await fleet.gate() == before
    await fleet.at(130)
    assert scaling(await fleet.worker(2)) == ("up", "completed", "calendar")


async def test_a_worker_kept_on_through_a_gap_says_so_once_and_then_that_it_is_needed_again(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 145, 200)
    await fleet.at(119)
    assert scaling(await fleet.worker()) == ("up", "completed", "calendar"), "a lab that comes up is no new decision"
    before = await fleet.gate()
    await fleet.at(126)
    held = await fleet.worker()
    assert scaling(held) == ("held", "decided", "gap-within-grace")
    await fleet.at(128)
    assert (await fleet.worker()).revision == held.revision, "told once"
    await fleet.at(150)
    assert scaling(await fleet.worker()) == ("held", "decided", "calendar")
    assert await fleet.gate() == before
    await fleet.at(207)
    assert scaling(await fleet.worker()) == ("down", "completed", "no-need")


async def test_a_worker_that_came_up_stays_on_for_the_cooldown_and_says_so(fresh: Any) -> None:
    """It is Ready at 47 and needed until 95; an hour and a half after it came up it may go."""
    fleet = fresh()
    await fleet.seed(cooldown_minutes=90)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.at(97)
    held = await fleet.worker()
    assert scaling(held) == ("held", "decided", "cooldown")
    await fleet.at(136)
    assert (await fleet.worker()).revision == held.revision
    await fleet.at(139)
    down = await fleet.worker()
    assert (down.phase, scaling(down)) == ("Offline", ("down", "completed", "no-need"))


@pytest.mark.parametrize(("cooldown", "late"), [(0, 0), (35, 0), (35, 12), (60, 12)])
async def test_a_cooldown_no_longer_than_the_slot_keeps_no_worker_on_for_longer(
    fresh: Any, cooldown: int, late: int
) -> None:
    """Slot and turnaround take thirty-five minutes, so whatever came up by the slot has cooled down by then (ADR 0034)."""
    fleet = fresh()
    await fleet.seed(cooldown_minutes=cooldown)
    await fleet.define()
    await fleet.start()
    if late:
        fleet.provider.launch_refused = InsufficientCapacity("not yet")
    await fleet.book("a", 60, 90)
    await fleet.at(47 + late)
    fleet.provider.launch_refused = None
    await fleet.at(62)
    assert await fleet.phase() == "Running"
    await fleet.at(97)
    assert (await fleet.worker()).phase == ("Ready" if cooldown == 60 else "Offline")


@pytest.mark.parametrize("way", ["replaced", "maintenance", "licenses"])
async def test_a_cooldown_keeps_nobody_from_being_switched_off_for_another_reason(fresh: Any, way: str) -> None:
    fleet = fresh()
    await fleet.seed(cooldown_minutes=600, allowed_licenses=1 if way == "licenses" else None)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.at(97)
    assert (await fleet.worker()).phase == "Ready"
    match way:
        case "replaced":
            await fleet.ask("worker", "replace", "default-001")
        case "maintenance":
            await fleet.ask("worker", "drain", "default-001", {"force": True})
        case "licenses":
            pool = await fleet.all(POOL).require("default")
            await fleet.all(POOL).update(pool.respecified(allowed_licenses=0))
    await fleet.at(105)
    assert (await fleet.worker()).phase == "Offline"


async def test_a_worker_that_only_cools_down_leaves_its_licence_to_one_that_is_needed(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(cooldown_minutes=600, allowed_licenses=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.book("b", 120, 200, workers=("default-002",))
    await fleet.at(100)
    assert (await fleet.worker(1)).phase == "Ready"
    await fleet.at(125)
    assert ((await fleet.worker(1)).phase, await fleet.phase("b")) == ("Offline", "Running")


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


async def test_a_refused_login_fails_the_worker_and_its_machine_goes(fleet: Any) -> None:
    fleet.runtimes.by_url["memory://m-1"] = MemoryRuntime(password="somebody-elses")
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    worker = await fleet.worker()
    assert "LoginRefused" in [move.reason for move in worker.status.history]
    await fleet.at(54)
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_a_refused_registration_fails_the_worker_with_that_reason(fleet: Any) -> None:
    runtime = fleet.runtimes.by_url["memory://m-1"] = MemoryRuntime()
    runtime.registration = "FAILED"
    await fleet.book("a", 60, 120)
    await fleet.at(54)
    worker = await fleet.worker()
    assert "LicenseRefused" in [move.reason for move in worker.status.history]
    assert "Ready" not in moves(worker)[:4]
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_a_registration_that_cannot_be_made_now_is_tried_again(fleet: Any) -> None:
    runtime = fleet.runtimes.by_url["memory://m-1"] = MemoryRuntime()
    runtime.refusals = {"register": [RuntimeUnavailable("409"), RuntimeFault("400 busy"), RuntimeUnavailable("409")]}
    await fleet.book("a", 60, 120)
    await fleet.at(50)
    assert (await fleet.worker()).phase == "Ready"


async def test_a_licence_that_never_complies_is_given_back_before_the_machine_goes(fleet: Any) -> None:
    runtime = fleet.runtimes.by_url["memory://m-1"] = MemoryRuntime(complies=False)
    await fleet.book("a", 60, 120)
    await fleet.at(60)
    assert (await fleet.worker()).phase == "Licensing"
    assert runtime.registration == "COMPLETED"
    await fleet.at(80)
    assert "DeadlineMissed" in [move.reason for move in (await fleet.worker()).status.history]
    assert runtime.registration == "NOT_REGISTERED"
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_labs_that_nobody_wants_are_stopped_so_that_the_licence_can_be_given_back(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    lab = await fleet.runtime().import_lab("left-over", b"x")
    await fleet.runtime().start(lab)
    await fleet.at(130)
    assert (await fleet.worker()).phase == "Offline"
    assert fleet.runtime().registration == "NOT_REGISTERED"
    assert ("stopped", "left-over") in fleet.runtime().history


async def test_a_licence_that_is_not_taken_back_delays_the_power_off_until_its_deadline(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.runtime().refusals = {"deregister": [RuntimeUnavailable("409")] * 100_000}
    await fleet.at(140)
    assert (await fleet.worker()).phase == "Draining"
    await fleet.at(170)
    worker = await fleet.worker()
    assert worker.phase == "Offline"
    assert "DeadlineMissed" in [move.reason for move in worker.status.history]
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_a_crash_after_the_licence_was_given_back_never_leads_to_an_unlicensed_ready_worker(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(124)
    runtime = fleet.runtime()
    crashed: list[bool] = []

    async def then_crash() -> None:
        await MemoryRuntime.deregister(runtime)
        if not crashed:
            crashed.append(True)
            raise RuntimeUnavailable("the answer is lost")

    fleet.controller.estate.runtimes = _Replaced(fleet.runtimes, then_crash)
    fleet.controller.estate.open.clear()
    await fleet.clock.advance(timedelta(minutes=1))
    await fleet.crash()
    assert crashed
    await fleet.book("b", 130, 160)
    await fleet.start()
    await fleet.at(150)
    assert await fleet.phase("b") == "Running"
    assert runtime.registration == "COMPLETED"


class _Replaced:
    """Runtimes whose `deregister` is the test's."""

    def __init__(self, runtimes: Any, deregister: Any) -> None:
        self._runtimes, self._deregister = runtimes, deregister

    def open(self, url: str, password: str) -> Any:
        runtime = self._runtimes.open(url, password)
        outer = self

        class Proxy:
            def __getattr__(self, name: str) -> Any:
                return outer._deregister if name == "deregister" else getattr(runtime, name)

        return Proxy()


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


async def test_a_worker_in_maintenance_is_not_powered_on_and_a_cancelled_drain_lets_it(fleet: Any) -> None:
    await fleet.ask("worker", "drain", "default-001", {"message": "disk", "deadlineMinutes": 600})
    await fleet.book("a", 60, 120)
    await fleet.at(60)
    assert fleet.provider.power_ons == []
    await fleet.ask("worker", "drain-cancel", "default-001")
    await fleet.at(62)
    assert await fleet.phase() == "Running"


async def test_an_evaluation_worker_is_ready_without_a_registration(fresh: Any) -> None:
    fleet = fresh()
    await fleet.seed(license="EVALUATION")
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    assert (await fleet.worker()).status.reason == "EvaluationLicense"
    assert fleet.runtime().registration == "NOT_REGISTERED"
    await fleet.at(130)
    assert (await fleet.worker()).phase == "Offline"


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
