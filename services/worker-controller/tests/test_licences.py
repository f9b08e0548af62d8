"""The licence of a worker that is Ready is watched, and given back on every way out."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from lablet_common.resources.kinds import TEMPLATE
from lablet_workers.providers.port import InsufficientCapacity, MachineState
from lablet_workers.runtimes.port import RuntimeUnavailable
from lablet_workers.settings import CmlSettings


def unlicensed(worker: Any) -> Any:
    return worker.status.condition("Unlicensed")


async def test_a_registration_that_is_lost_is_made_again_and_labs_run_on(fleet: Any) -> None:
    await fleet.book("a", 60, 240)
    await fleet.at(70)
    fleet.runtime().registration = "NOT_REGISTERED"
    await fleet.at(77)
    told = unlicensed(await fleet.worker())
    assert told.message == "registration NOT_REGISTERED, authorization EVAL_MODE"
    await fleet.at(90)
    assert fleet.runtime().registration == "COMPLETED"
    assert unlicensed(await fleet.worker()) is None
    assert [move.to for move in (await fleet.instance()).status.history].count("Running") == 1


async def test_a_licence_out_of_compliance_never_ends_a_running_lab_and_the_worker_fails_after_it(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.book("b", 140, 200)
    await fleet.at(70)
    fleet.runtime().complies = False
    await fleet.at(119)
    assert await fleet.phase() == "Running"
    assert (await fleet.worker()).phase == "Ready"
    await fleet.at(139)
    assert "LicenseLost" in [move.reason for move in (await fleet.worker()).status.history]
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED
    await fleet.at(150)
    assert await fleet.phase("b") == "Running"


async def test_a_licence_for_fewer_nodes_moves_the_gate_once_when_the_worker_is_ready(fleet: Any) -> None:
    """A placement that counted on the shape's twenty nodes is decided again."""
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.node_quota = 8
    before = await fleet.gate()
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    assert ((await fleet.worker()).phase, (await fleet.worker()).nodes) == ("Ready", 8)
    moved = await fleet.gate()
    assert moved > before
    await fleet.at(80)
    assert await fleet.gate() == moved


async def test_what_a_licence_allows_is_remembered_while_the_worker_is_off(fleet: Any) -> None:
    """A lab of more nodes is not placed on it again and again, only to be moved when the machine has come up."""
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.node_quota = 8
    await fleet.book("a", 60, 120)
    await fleet.at(140)
    gate = await fleet.gate()
    off = await fleet.worker()
    assert (off.phase, off.status.license, off.nodes) == ("Offline", None, 8)
    known = off.status.last_license
    assert (known.status, known.node_quota) == ("IN_COMPLIANCE", 8)
    assert known.seen_at >= fleet.clock.now() - timedelta(minutes=20), "when it was switched off, not when it came up"
    await fleet.book("b", 200, 240)
    await fleet.at(205)
    assert ((await fleet.worker()).phase, (await fleet.worker()).nodes) == ("Ready", 8)
    assert await fleet.gate() == gate, "it comes up as it was known: nothing is decided again"


async def test_a_failed_machine_takes_nothing_of_what_is_known_with_it_and_a_replacement_does(fleet: Any) -> None:
    fleet.runtimes.by_url["memory://m-1"] = runtime = type(fleet.runtimes.open("memory://x", "y"))()
    runtime.node_quota = 8
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.provider.launch_refused = InsufficientCapacity("none left")
    fleet.provider.become("m-1", MachineState.TERMINATED)
    await fleet.at(72)
    assert ((await fleet.worker()).phase, (await fleet.worker()).nodes) == ("Provisioning", 8)
    await fleet.cancel("a")
    fleet.provider.launch_refused = None
    await fleet.at(150)
    await fleet.ask("worker", "replace", "default-001")
    await fleet.at(160)
    fresh_one = await fleet.worker()
    assert (fresh_one.status.machine, fresh_one.status.last_license, fresh_one.nodes) == (None, None, 20)


async def test_a_licence_that_changes_while_a_worker_is_up_counts_from_then_on(fleet: Any) -> None:
    await fleet.book("a", 60, 240)
    await fleet.at(70)
    before, gate = await fleet.worker(), await fleet.gate()
    await fleet.at(90)
    assert (await fleet.worker()).revision == before.revision, "looked at often, and written only when it changes"
    fleet.runtime().node_quota = 5
    await fleet.at(97)
    assert ((await fleet.worker()).nodes, await fleet.gate() > gate) == (5, True)
    fleet.runtime().complies = False
    await fleet.at(103)
    told = (await fleet.worker()).status
    assert (told.license.status, told.last_license.status, told.license.node_quota) == ("EVAL_MODE", "EVAL_MODE", 5)


@pytest.mark.parametrize(
    ("provider", "token", "phase"),
    [("simulated", None, "Ready"), ("ec2", "tok", "Ready"), ("ec2", None, "Failed"), ("static", None, "Failed")],
)
async def test_no_token_is_invented_for_machines_that_are_not_simulated(
    fresh: Any, provider: str, token: str | None, phase: str
) -> None:
    fleet = fresh()
    fleet.settings["cml"] = CmlSettings(license_token=SecretStr(token) if token else None)
    await fleet.seed()
    template = await fleet.all(TEMPLATE).require("sim")
    await fleet.all(TEMPLATE).update(template.respecified(provider=provider))
    await fleet.define()
    await fleet.start()
    await fleet.book("a", 60, 120)
    await fleet.at(48)
    history = (await fleet.worker()).status.history
    assert phase in [move.to for move in history]
    failures = [(move.reason, "CML_LICENSE_TOKEN" in move.message) for move in history if move.to == "Failed"]
    assert set(failures) == ({("LicenseTokenMissing", True)} if phase == "Failed" else set())
    asked = ("registered", "CML_Enterprise") in fleet.runtime().history
    assert asked is (phase == "Ready"), "without a token nobody is asked"


async def test_a_runtime_that_does_not_tell_of_its_licence_says_nothing(fleet: Any) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    fleet.runtime().refusals = {"license": [RuntimeUnavailable("500")] * 3}
    revision = (await fleet.worker()).revision
    await fleet.at(85)
    assert (await fleet.worker()).revision == revision, "looking writes nothing"


@pytest.mark.parametrize("way", ["power-off", "silent", "shrunk", "replaced", "drained"])
async def test_the_licence_is_given_back_on_every_way_out(fleet: Any, way: str) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(70)
    runtime = fleet.runtime()
    assert runtime.registration == "COMPLETED"
    match way:
        case "silent":
            runtime.up = False
            await fleet.at(86)
            runtime.up = True
        case "replaced":
            await fleet.ask("worker", "replace", "default-001", {"force": True})
        case "drained":
            await fleet.ask("worker", "drain", "default-001", {"force": True})
        case "shrunk":
            from lablet_common.resources.kinds import POOL

            pool = await fleet.all(POOL).require("default")
            await fleet.all(POOL).update(pool.respecified(max=0))
    await fleet.at(130)
    assert runtime.registration == "NOT_REGISTERED"
    assert ("deregistered", "") in runtime.history
    stopped = [what for what, _ in runtime.history if what in ("stopped", "deregistered")]
    assert stopped[-1] == "deregistered", "labs are stopped first"


async def test_a_pool_that_shrinks_gives_up_the_machines_that_nothing_is_booked_on(fleet: Any) -> None:
    from lablet_common.resources.kinds import POOL

    await fleet.book("a", 60, 90)
    await fleet.at(130)
    assert (await fleet.worker()).status.machine is not None
    pool = await fleet.all(POOL).require("default")
    await fleet.all(POOL).update(pool.respecified(max=0))
    await fleet.at(135)
    assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED


async def test_a_worker_is_ready_only_when_host_and_runtime_and_licence_are(fleet: Any) -> None:
    runtime = fleet.runtimes.by_url.setdefault("memory://m-1", type(fleet.runtimes.open("memory://x", "y"))())
    runtime.up, runtime.complies = False, False
    await fleet.book("a", 60, 240)
    await fleet.at(50)
    assert (await fleet.worker()).phase == "Starting", "the machine runs, its runtime does not answer"
    runtime.up = True
    await fleet.at(53)
    assert (await fleet.worker()).phase == "Licensing", "it answers, and is not in compliance"
    assert await fleet.phase() == "Pending"
    runtime.complies = True
    await fleet.at(56)
    assert (await fleet.worker()).phase == "Ready"
    assert await fleet.phase() == "Running"
