"""One reservation goes the whole way, and what happens when parts of it fail: all services, no servers, a manual clock."""

from datetime import timedelta
from typing import Any

from lablet_workers.providers.port import MachineState


async def test_a_reservation_goes_the_whole_way(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    reservation = await mesh.reserve("rsv-a", at=timedelta(hours=3), seats=2)
    assert reservation.phase == "Scheduled", reservation.status
    assert (await mesh.worker()).phase == "Offline"

    await mesh.until(timedelta(hours=2, minutes=46))
    assert mesh.provider.power_ons == []
    await mesh.until(timedelta(hours=2, minutes=55))
    assert mesh.provider.power_ons == ["default-001"]
    await mesh.until(timedelta(hours=3))
    assert (await mesh.instance("ins-a-1")).phase == "Running"
    assert (await mesh.instance("ins-a-2")).phase == "Running"
    assert (await mesh.reservation("rsv-a")).phase == "Active"

    await mesh.until(timedelta(hours=4, minutes=3))
    finished = await mesh.instance("ins-a-1")
    assert finished.phase == "Terminated"
    assert {(a.role, a.name) for a in finished.status.artifacts} == {
        ("rendered", "lab.yaml"),
        ("collected", "r1.cfg"),
        ("collected", "collection.json"),
        ("exported", "lab.yaml"),
    }
    assert (await mesh.reservation("rsv-a")).phase == "Completed"
    await mesh.until(timedelta(hours=4, minutes=20))
    assert (await mesh.worker()).phase == "Offline"
    (runtime,) = mesh.runtimes.by_url.values()
    assert runtime.lab_by_id == {}
    assert [what for what, _ in runtime.history].count("started") == 2
    assert runtime.history[-1] == ("deregistered", "")
    assert mesh.provider.machines["m-1"].state is MachineState.STOPPED


async def test_nothing_is_powered_on_or_started_before_its_time(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-later", at=timedelta(days=3))
    await mesh.until(timedelta(days=2), step=timedelta(hours=4))
    assert mesh.provider.power_ons == []
    assert await mesh.instance("ins-later-1") is None


async def test_a_cancelled_reservation_ends_its_lab_and_its_worker(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-c", at=timedelta(hours=1))
    await mesh.until(timedelta(hours=1, minutes=5))
    assert (await mesh.instance("ins-c-1")).phase == "Running"
    await mesh.ask("cancel.requested", "rsv-c", {"reason": "changed my mind"})
    await mesh.until(timedelta(hours=1, minutes=10))
    assert (await mesh.reservation("rsv-c")).phase == "Cancelled"
    assert (await mesh.instance("ins-c-1")).phase == "Terminated"
    await mesh.until(timedelta(hours=1, minutes=20))
    assert (await mesh.worker()).phase == "Offline"


async def test_a_worker_lost_in_the_slot_gives_its_seat_to_another(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    await mesh.reserve("rsv-l", at=timedelta(hours=1))
    await mesh.until(timedelta(hours=1, minutes=5))
    first = (await mesh.instance("ins-l-1")).spec.worker
    (machine,) = mesh.provider.machines
    mesh.provider.become(machine, MachineState.STOPPED, "lost")
    mesh.runtimes.by_url[f"memory://{machine}"].lose_power()
    await mesh.until(timedelta(hours=1, minutes=25))
    instance = await mesh.instance("ins-l-1")
    assert instance.spec.worker != first
    assert instance.phase == "Running"
    assert instance.status.attempt == 2
    reservation = await mesh.reservation("rsv-l")
    assert reservation.phase == "Active"
    assert reservation.status.condition("Degraded") is not None
    assert (await mesh.worker(first)).phase == "Offline"
    await mesh.until(timedelta(hours=2, minutes=10))
    assert (await mesh.reservation("rsv-l")).phase == "Completed"


async def test_waiting_seats_lead_to_no_storm_of_power_ons(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    for number in range(40):
        await mesh.reserve(f"rsv-w{number}", at=timedelta(hours=1), seats=3)
    await mesh.until(timedelta(hours=1, minutes=2))
    assert sorted(mesh.provider.power_ons) == ["default-001", "default-002", "default-003"]


async def test_a_worker_that_keeps_failing_is_tried_less_and_less_often(mesh: Any) -> None:
    await mesh.publish("ospf-basics")
    mesh.provider.instant = False
    await mesh.reserve("rsv-f", at=timedelta(minutes=30), minutes=240)

    for _ in range(120):
        for machine, info in list(mesh.provider.machines.items()):
            if info.state is MachineState.PENDING:
                mesh.provider.become(machine, MachineState.STOPPED, "boot failed")
            elif info.state is MachineState.TERMINATING:
                mesh.provider.become(machine, MachineState.TERMINATED)
        await mesh.clock.advance(timedelta(minutes=1))
        await mesh.settle()
    per_worker = [mesh.provider.power_ons.count(name) for name in set(mesh.provider.power_ons)]
    assert max(per_worker) <= 8, mesh.provider.power_ons
