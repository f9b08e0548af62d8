"""How often a lab may be started: by what etcd's history had it started for, and by what its machines went through; and labs
that are left on the disk of a machine that was stopped and started again."""

import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from lablet_common.testing.simulation import simulated
from lablet_local.chaos.starts import never_started_again
from lablet_local.demo.checks import ground
from lablet_local.demo.checks.check import Check
from lablet_local.demo.evidence import Change, Evidence
from lablet_local.simulation.world import Fate, World
from lablet_workers.providers.port import LaunchOrder

LAB = {"lab": "l", "title": "ins-1"}
OFF = {"state": "stopped", "reason": "lost", "at": "1970-01-01T00:00:09Z"}


def lived(*facts: str, name: str = "w-1", begin: int = 1, **more: Any) -> dict[str, Any]:
    told = [{"fact": fact, "at": float(at), **LAB} for at, fact in enumerate(facts, begin)]
    return {"name": name, "id": f"m-{name}", "state": "stopped", "facts": told, **more}


def of_instance(attempts: int, restart: bool = False) -> dict[str, Any]:
    tries = [{"worker": "w-1", "beganAt": "2027-03-01T09:00:00Z"}] * attempts
    return {"status": {"phase": "Running", "attempts": tries, "restart": restart}}


def started(machines: Iterable[dict[str, Any]], *states: dict[str, Any]) -> Check:
    history = tuple(Change(at, "/instances/ins-1", state) for at, state in enumerate(states, 2))
    evidence = Evidence(history=history, machines=tuple(machines))
    return never_started_again(evidence, ground.read(evidence))


UP, STARTED, STOPPED, DOWN = "controller.started", "lab.started", "lab.stopped", "controller.stopped"
ONCE = (UP, STARTED, STOPPED, DOWN)


@pytest.mark.parametrize(
    ("machines", "states", "ok"),
    [
        ([lived(*ONCE)], [of_instance(1)], True),
        ([lived(*ONCE)], [of_instance(0)], False),
        ([lived(UP, STARTED, STOPPED, STARTED, STOPPED, DOWN)], [of_instance(1)], False),
        ([lived(*ONCE), lived(*ONCE, name="w-2", begin=20)], [of_instance(1)], False),
        ([lived(*ONCE), lived(*ONCE, name="w-2", begin=20)], [of_instance(1), of_instance(2)], True),
        ([lived(*ONCE), lived(*ONCE, name="w-2", begin=20)], [of_instance(2), of_instance(1)], True),
        # asked to start again after a stop: once for each time that it was asked, however often that is written
        (
            [lived(UP, STARTED, STOPPED, STARTED, DOWN)],
            [of_instance(1), of_instance(1, True), of_instance(1, True)],
            True,
        ),
        (
            [lived(UP, *[STARTED, STOPPED] * 3, DOWN)],
            [of_instance(1), of_instance(1, True), of_instance(1, True)],
            False,
        ),
        ([lived(UP, *[STARTED, STOPPED] * 3, DOWN)], [of_instance(1, one) for one in (True, False, True)], True),
        # its machine ended under it, by itself or with its simulator, and it was made anew in the same attempt
        ([lived(UP, STARTED, UP, STARTED, STOPPED)], [of_instance(1)], True),
        ([lived(UP, STARTED, begin=7, history=[OFF]), lived(*ONCE, name="w-2", begin=20)], [of_instance(1)], True),
        ([lived(UP, STARTED, UP, STARTED, STOPPED, STARTED, STOPPED)], [of_instance(1)], False),
        # that it was cut off in the end is no reason to have been started before
        ([lived(UP, STARTED, STOPPED, STARTED, UP)], [of_instance(1)], False),
    ],
)
def test_a_lab_is_started_once_for_each_attempt_request_and_loss(
    machines: list[dict[str, Any]], states: list[dict[str, Any]], ok: bool
) -> None:
    check = started(machines, *states)
    assert check.looked_at
    assert check.ok is ok, check.detail


def test_a_lab_left_on_a_disk_is_seen_though_its_machine_was_stopped_and_started_since() -> None:
    """The twin of a worker keeps its labs over that, other than the simulator, whose labs are in its memory."""

    async def live() -> Evidence:
        world = World(Fate(random.Random(1), speed=480.0))
        machine = (await world.cloud.launch(LaunchOrder("token", "w-1", "sim"))).id
        await world.clock.sleep(timedelta(minutes=30))
        runtime = world.cloud.runtimes[machine]
        lab = await runtime.import_lab("ins-1", b"lab: {}")
        await runtime.start(lab)
        await runtime.stop(lab)
        for _ in range(2):
            await world.cloud.stop(machine)
            await world.clock.sleep(timedelta(minutes=30))
            await world.cloud.start(machine)
            await world.clock.sleep(timedelta(minutes=30))
        await world.cloud.stop(machine)
        await world.clock.sleep(timedelta(minutes=30))
        return Evidence(machines=world.cloud.witness())

    with simulated(1) as loop:
        evidence = loop.run_until_complete(live())
    assert [one["state"] for one in evidence.machines] == ["stopped"]
    assert ground.read(evidence).left == ["lab ins-1 on w-1"]
    by_log_alone = [{part: told for part, told in one.items() if part != "labs"} for one in evidence.machines]
    assert ground.read(Evidence(machines=tuple(by_log_alone))).left == [], "it would be lost sight of"
