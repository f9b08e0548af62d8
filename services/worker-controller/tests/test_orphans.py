"""Machines that nobody accounts for are ended, late and only on what the provider positively shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_workers.orphans import Fault, Sightings
from lablet_workers.providers.port import LaunchOrder, MachineState, ProviderUnavailable, Throttled

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
POOL = {"lablet-pool-uid": "p"}


async def stray(fleet: Any, worker: str = "default-009", uid: str = "gone", **tags: str) -> str:
    """A machine of the pool that no record names."""
    made = {"lablet-worker": worker, "lablet-uid": uid} | POOL | tags
    return (await fleet.provider.launch(LaunchOrder(f"x-{worker}-{uid}", worker, "sim", tags=made))).id


def state(fleet: Any, machine: str) -> MachineState:
    return fleet.provider.machines[machine].state


async def test_a_machine_without_a_record_is_terminated_after_two_sightings_and_the_grace(fleet: Any) -> None:
    machine = await stray(fleet)
    await fleet.at(19)
    assert state(fleet, machine) is MachineState.RUNNING
    await fleet.at(21)
    assert state(fleet, machine) is MachineState.TERMINATED


async def test_a_second_machine_of_a_worker_is_terminated_and_the_recorded_one_is_not(fleet: Any) -> None:
    await fleet.book("a", 30, 120)
    await fleet.at(31)
    worker = await fleet.worker()
    twin = await stray(fleet, worker.id, worker.metadata.uid)
    await fleet.at(60)
    assert state(fleet, twin) is MachineState.TERMINATED
    assert state(fleet, worker.status.machine.id) is MachineState.RUNNING
    assert await fleet.phase() == "Running"


async def test_the_machine_of_an_earlier_worker_of_that_name_is_terminated(fleet: Any) -> None:
    machine = await stray(fleet, "default-001", "an-earlier-uid")
    await fleet.at(21)
    assert state(fleet, machine) is MachineState.TERMINATED


async def test_a_machine_that_runs_although_its_worker_is_off_is_stopped(fleet: Any) -> None:
    await fleet.book("a", 30, 60)
    await fleet.at(90)
    worker = await fleet.worker()
    machine = worker.status.machine.id
    assert worker.phase == "Offline"
    fleet.provider.become(machine, MachineState.RUNNING)
    await fleet.at(120)
    assert state(fleet, machine) is MachineState.STOPPED
    assert (await fleet.worker()).status.machine.id == machine, "it is still its machine"


async def test_another_installations_machines_are_left_alone(fleet: Any) -> None:
    machine = await stray(fleet, **{"lablet-pool-uid": "of-another-mesh"})
    await fleet.at(60)
    assert state(fleet, machine) is MachineState.RUNNING


async def test_an_error_begins_nothing_and_a_restart_begins_the_grace_anew(fleet: Any) -> None:
    machine = await stray(fleet)
    await fleet.at(14)
    await fleet.crash()
    await fleet.clock.advance(timedelta(minutes=4))
    fleet.provider.fail_next(ProviderUnavailable("x"))
    await fleet.start()
    await fleet.at(22)
    assert state(fleet, machine) is MachineState.RUNNING
    await fleet.at(40)
    assert state(fleet, machine) is MachineState.TERMINATED


async def test_what_was_not_ended_because_of_an_error_is_ended_at_a_later_look(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await stray(fleet)
    await fleet.at(14)
    real, refused = fleet.provider.terminate, []

    async def terminate(machine_id: str) -> None:
        if not refused:
            refused.append(machine_id)
            raise Throttled("later")
        await real(machine_id)

    monkeypatch.setattr(fleet.provider, "terminate", terminate)
    await fleet.at(30)
    assert refused == [machine]
    assert state(fleet, machine) is MachineState.TERMINATED


async def test_a_worker_that_is_being_provisioned_claims_its_machines_by_their_tags(fresh: Any) -> None:
    fleet = fresh()
    fleet.provider.instant = False
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 30, 90)
    await fleet.at(40)
    assert (await fleet.worker()).phase == "Provisioning"
    assert state(fleet, "m-1") is MachineState.PENDING


def test_a_fault_that_was_over_in_between_begins_anew() -> None:
    sightings = Sightings(timedelta(minutes=15))
    seen = {"m-1": Fault.UNCLAIMED}
    assert sightings.look(seen, NOON) == {}
    assert sightings.look({}, NOON + timedelta(minutes=10)) == {}
    assert sightings.look(seen, NOON + timedelta(minutes=16)) == {}
    assert sightings.look(seen, NOON + timedelta(minutes=32)) == seen


def test_one_sighting_is_never_enough() -> None:
    assert Sightings(timedelta(0)).look({"m-1": Fault.LEFT_ON}, NOON) == {}


def test_machines_on_their_way_out_are_no_orphans(fresh: Any) -> None:
    from lablet_workers.orphans import faults_among
    from lablet_workers.providers.port import MachineInfo

    gone = MachineInfo("m-1", "x", MachineState.TERMINATING, tags=POOL)
    assert faults_among([gone, replace(gone, id="m-2", state=MachineState.TERMINATED)], {}) == {}
