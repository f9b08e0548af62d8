"""Connections to workers' runtimes: each ends when its worker is no longer where it leads to."""

from typing import Any

import pytest

from lablet_common.resources.kinds import WORKER
from lablet_common.resources.worker import WorkerPhase
from lablet_workers.runtimes.memory import MemoryRuntimes


class Counted:
    """Runtimes that know which connections to them are open."""

    def __init__(self, runtimes: MemoryRuntimes) -> None:
        self._runtimes = runtimes
        self.connections: list[str] = []
        self.ever: list[str] = []

    def open(self, url: str, password: str) -> Any:
        runtime, counted = self._runtimes.open(url, password), self
        self.connections.append(url)
        self.ever.append(url)

        class Connection:
            def __getattr__(self, name: str) -> Any:
                return getattr(runtime, name)

            async def close(self) -> None:
                counted.connections.remove(url)

        return Connection()


@pytest.fixture
def counted(fleet: Any) -> Counted:
    fleet.controller.estate.runtimes = counted = Counted(fleet.runtimes)
    return counted


async def test_a_machine_that_is_off_is_not_connected_to_and_the_next_one_is_once(fleet: Any, counted: Counted) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(100)
    assert counted.connections == ["memory://m-1"]
    await fleet.at(180)
    assert (await fleet.worker()).phase is WorkerPhase.OFFLINE
    assert counted.connections == []
    await fleet.book("b", 240, 300)
    await fleet.at(270)
    assert counted.connections == [(await fleet.worker()).status.address]


async def test_a_worker_that_has_another_address_all_at_once_is_connected_to_there_alone(
    fleet: Any, counted: Counted
) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(100)
    worker = await fleet.worker()
    fleet.runtimes.by_url["memory://elsewhere"] = fleet.runtime()
    estate = fleet.controller.estate
    await fleet.all(WORKER).update(worker.observed(address="memory://elsewhere"))
    assert estate.runtime_of(await fleet.worker()) is not None, "somebody is quicker than the look at the worker"
    assert len(counted.connections) == 2
    await fleet.settle()
    assert counted.connections == ["memory://elsewhere"]


async def test_a_worker_whose_record_is_gone_is_not_connected_to(fleet: Any, counted: Counted) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(100)
    assert counted.connections == ["memory://m-1"]
    await fleet.store.delete(WORKER.key("default-001"))
    await fleet.settle()
    assert "memory://m-1" not in counted.connections


async def test_whoever_leaves_the_pool_ends_its_connections(fleet: Any, counted: Counted) -> None:
    await fleet.book("a", 60, 120)
    await fleet.at(100)
    await fleet.crash()
    assert counted.ever
    assert counted.connections == []
