"""Two replicas on a real etcd: the one that stood still past its lease writes nothing more, and each request is decided
once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lablet_common.ownership import Fence, NotOwner, Ownership
from lablet_common.resources.kinds import RESERVATION, Service
from lablet_common.store import Conflict, EtcdStore
from lablet_common.testing.etcd import EtcdServer, find_etcd

_TTL = 2.0
_REQUESTS = 60


class Stalling:
    """The first replica's client, which stands still right before a write: SIGSTOP in the one place where it matters. It
    does not even notice that its lease has run out."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self.stall_after = 2
        self.stalled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.outcomes: list[bool] = []
        """Of the transactions that were sent after it had stood still: whether they were granted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def txn(self, compares: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        writes = any(operation.key.startswith(RESERVATION.prefix) for operation in success)
        if not writes:
            return await self._store.txn(compares, success, failure)
        self.stall_after -= 1
        if self.stall_after == 0:
            self.stalled.set()
            await self.go_on.wait()
        result = await self._store.txn(compares, success, failure)
        if self.stalled.is_set():
            self.outcomes.append(result.succeeded)
        return result


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    if find_etcd() is None:
        pytest.skip("no etcd on this machine")
    server = await asyncio.to_thread(EtcdServer.start, tmp_path)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.integration
async def test_an_owner_that_stood_still_past_its_lease_is_refused_and_each_request_is_decided_once(
    etcd: EtcdServer, make_world: Any
) -> None:
    clients = [EtcdStore([etcd.endpoint], prefix="/lablet") for _ in range(3)]
    shared = make_world(clients[0])
    stalling = Stalling(clients[1])
    first, second = make_world(stalling), make_world(clients[2])
    try:
        await shared.pool(workers=4)
        await shared.definition(cpu=1, nodes=1)
        names = [await shared.ask(seats=1) for _ in range(_REQUESTS)]
        for world in (first, second):
            world.settings = world.settings.model_copy(update={"scheduler_batch_size": 10, "resync_seconds": 1.0})
        async with first.caches, second.caches:
            await first.caches.wait_synced()
            await second.caches.wait_synced()
            await _change_over(shared, stalling, first, second)
        await _each_decided_once(shared, names)
        assert not await shared.faults()
    finally:
        for client in clients:
            await client.close()


async def _change_over(shared: Any, stalling: Stalling, first: Any, second: Any) -> None:
    """The first owner decides some and stalls, its lease runs out, the second decides the rest, the first wakes up."""
    lease = await shared.store.lease_grant(_TTL)
    key = "/ownership/scheduler/default"
    fence = Fence(key, await shared.store.put(key, b"one", lease=lease))
    late = asyncio.create_task(first.owner("default", fence).run())
    await asyncio.wait_for(stalling.stalled.wait(), 10)
    decided = (await shared.store.range(RESERVATION.prefix, keys_only=True)).count
    assert 0 < decided < _REQUESTS

    async def serve(_: str, new_fence: Fence) -> None:
        assert new_fence.create_revision > fence.create_revision
        await second.owner("default", new_fence).run()

    ownership = Ownership(second.store, Service.SCHEDULER, "two", ttl_seconds=_TTL, shards=lambda: ["default"])
    running = asyncio.create_task(ownership.run(serve))
    try:
        deadline = time.monotonic() + 20
        while (await shared.store.range("/inbox/", keys_only=True)).count:
            assert time.monotonic() < deadline, "the second owner did not take over"
            await asyncio.sleep(0.02)
        before = (await shared.store.range(RESERVATION.prefix)).items
        stalling.go_on.set()
        with pytest.raises((NotOwner, Conflict)):
            await asyncio.wait_for(late, 10)
        assert stalling.outcomes == [False], "its write was refused, and it tried no other"
        assert (await shared.store.range(RESERVATION.prefix)).items == before
    finally:
        for task in (running, late):
            task.cancel()
        await asyncio.gather(running, late, return_exceptions=True)


async def _each_decided_once(shared: Any, names: Sequence[str]) -> None:
    for name in names:
        stored = await shared.store.get(RESERVATION.key(name))
        assert stored is not None
        assert stored.version == 1, f"{name} was written {stored.version} times"
        request = await shared.of(name)
        assert request.status.resource == f"reservation/{name}"
        assert len(request.status.history) == 1
    phases = [await shared.phase(name) for name in names]
    assert phases == ["Scheduled"] * 32 + ["Waitlisted"] * (_REQUESTS - 32)
