"""Stores to test: the twin, and real etcds that are started once per session; faults, manual time, and certificates."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from lablet_common.store import EtcdStore, MemoryStore, Store, WatchBatch, WatchEvent
from lablet_common.testing.etcd import BinaryName, EtcdServer, find_etcd

Servers = Callable[[BinaryName], EtcdServer]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real etcd of the wanted kind, started when it is first asked for."""
    running: dict[BinaryName, EtcdServer] = {}

    def server(name: BinaryName) -> EtcdServer:
        if name not in running:
            if find_etcd(name) is None:
                pytest.skip(f"no etcd ({name}) on this machine")
            # a short interval of progress notices: the client trusts no others
            often = ("--experimental-watch-progress-notify-interval=200ms",)
            running[name] = EtcdServer.start(tmp_path_factory.mktemp(f"etcd-{name}"), name, arguments=often)
        return running[name]

    try:
        yield server
    finally:
        for one in running.values():
            one.stop()


@pytest.fixture
def sound_server(tmp_path: Path) -> Iterator[EtcdServer]:
    """A server of the test's own, which it may kill."""
    if find_etcd("sound") is None:
        pytest.skip("killing etcd needs a sound one (etcd issue 13766): set ETCD_BIN or install etcd-server")
    with EtcdServer.start(tmp_path / "etcd", "sound") as server:
        yield server


_REAL = [pytest.param(name, marks=pytest.mark.integration) for name in ("debian", "wheel")]


@pytest.fixture(params=_REAL)
async def etcd(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[EtcdStore]:
    """A client of a real etcd, with keys of its own."""
    store = EtcdStore([servers(request.param).endpoint], prefix=f"/test-{next(_numbers)}")
    yield store
    await store.close()


@pytest.fixture(params=["memory", *_REAL])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """The twin and the real client, one after the other."""
    if request.param == "memory":
        twin = MemoryStore()
        yield twin
        await twin.close()
        return
    servers = cast("Servers", request.getfixturevalue("servers"))
    real = EtcdStore([servers(request.param).endpoint], prefix=f"/test-{next(_numbers)}")
    yield real
    await real.close()


Take = Callable[[AsyncIterator[WatchBatch], int], Awaitable[list[WatchEvent]]]


@pytest.fixture
def take() -> Take:
    """The next so many events of a watch, which must come within ten seconds."""

    async def events(batches: AsyncIterator[WatchBatch], count: int) -> list[WatchEvent]:
        taken: list[WatchEvent] = []
        async with asyncio.timeout(10):
            while len(taken) < count:
                taken += (await anext(batches)).events
        return taken

    return events


class ManualTime:
    """A monotonic clock that stands still until it is advanced, and the sleep that belongs to it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(_numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Lets the time pass and wakes every sleeper at its instant."""
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            self.now = max(self.now, due)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self.now = end
        await self.settle()

    def jump(self, seconds: float) -> None:
        """Time passes while the event loop is blocked: nobody is woken."""
        self.now += seconds

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def manual_time() -> ManualTime:
    return ManualTime()
