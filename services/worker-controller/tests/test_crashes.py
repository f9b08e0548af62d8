"""The controller dies at any call it makes, after the call has had its effect and before it knows; the next one goes on.

One lab, one machine, everything collected, nothing left behind: whatever the moment.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.ownership import NotOwner
from lablet_workers.providers.port import MachineState

_PROVIDER = ("launch", "start", "stop", "terminate")
_RUNTIME = ("secure", "register", "deregister", "import_lab", "start", "stop", "remove", "configurations", "export")
_OBJECTS = ("put",)


class Wire:
    """Counts the calls that change something, and lets nobody hear the answer of one of them."""

    def __init__(self, trip_at: int) -> None:
        self.trip_at = trip_at
        self.calls: list[str] = []
        self.tripped = asyncio.Event()

    def around(self, inner: Any, names: tuple[str, ...]) -> Any:
        wire = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                attribute = getattr(inner, name)
                if name not in names:
                    return attribute

                async def call(*arguments: Any, **more: Any) -> Any:
                    if wire.tripped.is_set():
                        await asyncio.Event().wait()
                    wire.calls.append(name)
                    answer = await attribute(*arguments, **more)
                    if len(wire.calls) == wire.trip_at:
                        wire.tripped.set()
                        await asyncio.Event().wait()
                    return answer

                return call

        return Wrapped()


class WiredRuntimes:
    def __init__(self, wire: Wire, runtimes: Any) -> None:
        self._wire, self._runtimes = wire, runtimes

    def open(self, url: str, password: str) -> Any:
        return self._wire.around(self._runtimes.open(url, password), _RUNTIME)


async def a_life(fleet: Any, trip_at: int) -> Wire:
    """A whole reservation, with a crash at the n-th call."""
    wire = Wire(trip_at)
    real = fleet.provider, fleet.runtimes, fleet.objects, fleet.store
    fleet.provider = wire.around(fleet.provider, _PROVIDER)
    fleet.runtimes = WiredRuntimes(wire, fleet.runtimes)
    fleet.objects = wire.around(fleet.objects, _OBJECTS)
    fleet.store = wire.around(fleet.store, ("txn",))
    # the test's own writes go past the wire
    await fleet.start()
    fleet.provider, fleet.runtimes, fleet.objects, fleet.store = real
    await fleet.book("a", 60, 90)
    for moment in (25, 47, 48, 49, 52, 60, 75, 90, 91, 92, 95, 97, 100, 110, 125):
        await fleet.at(moment, step=5)
        if wire.tripped.is_set() and wire.calls[-1] != "resumed":
            await fleet.crash()
            wire.calls.append("resumed")
            await fleet.start()
    return wire


async def judged(fleet: Any, n: int, wire: Wire) -> None:
    where = f"crash at call {n}: {wire.calls[n - 1] if n else 'none'}"
    done = await fleet.instance()
    assert done is not None, where
    assert done.phase == "Terminated", f"{where}: {[(m.to, m.reason) for m in done.status.history]}"
    assert done.status.ran, where
    assert [move.to for move in done.status.history].count("Running") == 1, where
    assert fleet.imports == ["ins-a-1"], where
    assert {ref.role for ref in done.status.artifacts} == {"rendered", "collected", "exported"}, where
    worker = await fleet.worker()
    assert worker.phase == "Offline", f"{where}: {[(m.to, m.reason) for m in worker.status.history]}"
    assert len(fleet.provider.machines) == 1, where
    (machine,) = fleet.provider.machines.values()
    assert machine.state is MachineState.STOPPED, where
    (runtime,) = fleet.runtimes.by_url.values()
    assert runtime.lab_by_id == {}, where
    assert runtime.registration == "NOT_REGISTERED", where


async def test_a_crash_at_any_call_leaves_one_lab_one_machine_and_nothing_behind(
    fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def new(n: int) -> tuple[Any, Wire]:
        fleet = fresh()
        await fleet.seed(max=1)
        await fleet.define()
        return fleet, await a_life(fleet, n)

    fleet, quiet = await new(0)
    await judged(fleet, 0, quiet)
    await fleet.close()
    total = len(quiet.calls)
    assert total >= 30
    assert {"launch", "import_lab", "start", "stop", "remove", "register", "deregister", "put", "txn"} <= set(
        quiet.calls
    )
    for n in range(1, total + 1):
        fleet, wire = await new(n)
        assert wire.tripped.is_set()
        await judged(fleet, n, wire)
        await fleet.close()


async def test_an_old_owner_that_wakes_up_writes_nothing(fresh: Callable[[], Any]) -> None:
    fleet = fresh()
    await fleet.seed(max=1)
    await fleet.define()
    await fleet.start()
    old, task, stack = fleet.controller, fleet._task, fleet._stack
    fleet._task = fleet._stack = None
    await fleet.start()
    await fleet.book("a", 60, 90)
    await fleet.at(50)
    worker = await fleet.worker()
    assert worker.phase == "Ready"
    assert len(fleet.provider.launches) == 1, "both asked with the same token"
    with pytest.raises(Exception, match="refused"):
        await old.estate.workers.commit(worker.observed(), gate=True)
    with pytest.raises(NotOwner):
        async with asyncio.timeout(5):
            await task
    await stack.aclose()


async def wired(fleet: Any, trip_at: int) -> Wire:
    """The controller started behind a wire that trips at the n-th call."""
    wire = Wire(trip_at)
    real = fleet.provider, fleet.runtimes, fleet.store
    fleet.provider = wire.around(fleet.provider, _PROVIDER)
    fleet.runtimes = WiredRuntimes(wire, fleet.runtimes)
    fleet.store = wire.around(fleet.store, ("txn",))
    await fleet.start()
    fleet.provider, fleet.runtimes, fleet.store = real
    return wire


async def passing(fleet: Any, wire: Wire, *moments: float) -> None:
    """Time passes; a controller that died is followed by another one."""
    for moment in moments:
        await fleet.at(moment, step=5)
        if wire.tripped.is_set() and wire.calls[-1] != "resumed":
            await fleet.crash()
            wire.calls.append("resumed")
            await fleet.start()


async def a_replacement(fleet: Any, trip_at: int) -> Wire:
    await fleet.book("a", 60, 90)
    wire = await wired(fleet, trip_at)
    await passing(fleet, wire, 55, 70)
    await fleet.ask("worker", "replace", "default-001", {"force": True})
    await passing(fleet, wire, 72, 75, 80, 90, 100, 120)
    await fleet.cancel("a")
    await passing(fleet, wire, 130, 140, 160, 180)
    return wire


async def a_failure(fleet: Any, trip_at: int) -> Wire:
    """A machine that is lost while its lab runs: cleaned up, and another one for what is left."""
    await fleet.book("a", 60, 300)
    wire = await wired(fleet, trip_at)
    await passing(fleet, wire, 55, 70)
    first = (await fleet.worker()).status.machine
    if first is not None:
        fleet.provider.become(first.id, MachineState.STOPPED, "lost")
        fleet.runtime(first.id).lose_power()
    await passing(fleet, wire, 75, 80, 90, 100, 120, 150)
    return wire


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("life", [a_replacement, a_failure])
async def test_a_crash_at_any_call_of_a_replacement_or_a_failure_forgets_no_machine(
    fresh: Callable[[], Any], life: Any
) -> None:
    async def new(n: int) -> tuple[Any, Wire]:
        fleet = fresh()
        await fleet.seed(max=1)
        await fleet.define()
        return fleet, await life(fleet, n)

    fleet, quiet = await new(0)
    await fleet.close()
    assert {"launch", "terminate", "txn"} <= set(quiet.calls)
    for n in range(1, len(quiet.calls) + 1):
        fleet, wire = await new(n)
        where = f"crash at call {n}: {wire.calls[n - 1] if n <= len(wire.calls) else 'none'}"
        worker = await fleet.worker()
        kept = [one.id for one in fleet.provider.machines.values() if one.state is not MachineState.TERMINATED]
        recorded = [worker.status.machine.id] if worker.status.machine is not None else []
        assert kept == recorded, where
        if life is a_replacement:
            assert worker.phase == "Offline", f"{where}: {worker.phase} {worker.status.reason}"
            assert (worker.spec.replacing, worker.spec.unschedulable) == (None, None), where
            assert fleet.provider.machines["m-1"].state is MachineState.TERMINATED, where
            assert all(one.registration == "NOT_REGISTERED" for one in fleet.runtimes.by_url.values()), where
        else:
            assert (worker.phase, await fleet.phase()) == ("Ready", "Running"), where
            assert len(fleet.runtime(kept[0]).lab_by_id) == 1, where
        await fleet.close()
