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
from lablet_common.store import Conflict, EtcdStore, Get
from lablet_common.testing.etcd import EtcdServer, find_etcd

_TTL = 2.0
_REQUESTS = 60


class Stalling:
    """The first replica's client, which stands still right before a write: SIGSTOP in the one place where it matters. It
    does not even notice that its lease has run out. Its lease is not its own business: whatever it writes counts."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self.stall_after = 2
        """The write of reservations before which it stands still."""
        self.stalled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.refused: list[list[str]] = []
        """The keys of each write that was sent after it had stood still, and refused."""
        self.granted: list[list[str]] = []
        """Of each that was granted, or would have been, had nothing but the owner changed."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method) or name in ("get", "range", "watch", "status", "close"):
            return method

        async def write(*arguments: Any, **options: Any) -> Any:
            """Without any comparison, so it is granted whoever owns the pool."""
            done = await method(*arguments, **options)
            if self.stalled.is_set():
                self.granted.append([f"{name} {arguments}"])
            return done

        return write

    async def txn(self, compares: Sequence[Any], success: Sequence[Any], failure: Sequence[Any] = ()) -> Any:
        keys = [part.key for part in success if not isinstance(part, Get)]
        if any(key.startswith(RESERVATION.prefix) for key in keys):
            self.stall_after -= 1
            if self.stall_after == 0:
                self.stalled.set()
                await self.go_on.wait()
        result = await self._store.txn(compares, success, failure)
        if self.stalled.is_set() and (keys or not all(isinstance(part, Get) for part in failure)):
            fence = [one for one in compares if one.key.startswith("/ownership/")]
            by_fence = not (await self._store.txn(fence, [])).succeeded
            (self.refused if by_fence and not result.succeeded else self.granted).append(keys)
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
        before = await _left(shared)
        stalling.go_on.set()
        with pytest.raises((NotOwner, Conflict)):
            await asyncio.wait_for(late, 10)
        assert not stalling.granted, "whatever it wrote, it should have been refused"
        assert len(stalling.refused) == 1, "it was refused, and tried no other"
        assert any(key.startswith(RESERVATION.prefix) for key in stalling.refused[0])
        assert await _left(shared) == before
    finally:
        for task in (running, late):
            task.cancel()
        await asyncio.gather(running, late, return_exceptions=True)


async def _left(shared: Any) -> dict[str, int]:
    """All keys but those of leases, each with the revision at which it was written last."""
    found = (await shared.store.range("/", keys_only=True)).items
    return {kv.key: kv.mod_revision for kv in found if not kv.lease}


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
