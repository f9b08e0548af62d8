"""A worker is Ready with a licence only, and gives it back before its machine goes, whatever fails on the way."""

from datetime import timedelta
from typing import Any

from lablet_workers.providers.port import MachineState
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import RuntimeFault, RuntimeUnavailable

from .conftest import moves


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
    fleet.controller.estate.connections.clear()
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
