"""What is done to a real etcd behind all backs: its quota filled and emptied, its history compacted once it is noted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from lablet_common.store import EtcdStore, StoreError
from lablet_local.binaries import find_etcd
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.quota import QUOTA_BYTES, Quota, alarm, alarmed, head
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import Members
from lablet_local.ports import claim_ports
from lablet_local.servers import Site, etcd_process
from lablet_local.supervisor import Supervisor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class Place:
    """An etcd with the fault runs' quota, somebody who writes to it, and the one who notes its history."""

    def __init__(self, endpoint: str, supervisor: Supervisor) -> None:
        self.endpoint = endpoint
        self.supervisor = supervisor
        self.store = EtcdStore([endpoint], timeout=3)
        self.chronicle = Chronicle([endpoint])
        self.quota = Quota([endpoint], self.chronicle)

    @property
    def noted(self) -> list[str]:
        return [change.key for change in self.chronicle.changes]


@asynccontextmanager
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    claim = claim_ports({})
    supervisor = Supervisor()
    folder = DataFolder(tmp_path)
    folder.create()
    members = Members(claim.block)
    async with httpx.AsyncClient(trust_env=False) as client:
        site = Site(folder, claim.block, KeyRing(folder), client, members, QUOTA_BYTES)
        supervisor.start([etcd_process(site, find_etcd())])
        await supervisor.wait_ready()
        found = Place(members.etcd_endpoints[0], supervisor)
        noting = asyncio.create_task(found.chronicle.run())
        try:
            yield found
        finally:
            noting.cancel()
            await found.store.close()
            await supervisor.stop_all()
            claim.release()


async def test_a_quota_is_filled_until_etcd_refuses_and_there_is_room_again_afterwards(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        await there.store.put("/a", b"1")
        await there.chronicle.catch_up(5)
        await there.quota.fill()
        assert await alarmed(there.endpoint)
        with pytest.raises(StoreError, match="space"):
            await there.store.put("/b", b"2")
        await there.quota.make_room()
        assert not await alarmed(there.endpoint)
        await there.store.put("/c", b"3")
        await there.quota.make_room()  # once more than needed does no harm
        await there.store.put("/d", b"4")
        await there.chronicle.catch_up(5)
        assert there.noted == ["/a", "/c", "/d"]
        assert not there.chronicle.gap
        assert (await there.store.range("/")).count == 3, (
            "nothing of the filling is left, and nothing of the mark is seen"
        )


async def test_an_alarm_is_raised_and_cleared_without_anything_being_full(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        await alarm(there.endpoint, raised=True)
        with pytest.raises(StoreError, match="space"):
            await there.store.put("/a", b"1")
        await alarm(there.endpoint, raised=False)
        await there.store.put("/a", b"1")


async def test_what_is_compacted_has_been_noted_before_and_what_was_missed_is_said(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        for number in range(50):
            await there.store.put("/a", str(number).encode())
        await there.quota.compact(await there.chronicle.catch_up(5))
        await there.quota.compact(await head(there.endpoint))
        assert len(there.noted) == 50
        late = Chronicle([there.endpoint])
        noting = asyncio.create_task(late.run())
        await late.catch_up(5)
        noting.cancel()
        assert "revisions 1 to" in late.gap
        assert not there.chronicle.gap


async def test_what_is_noted_goes_on_after_etcd_was_killed(tmp_path: Path) -> None:
    if not find_etcd().sound:
        pytest.skip("this etcd may lose writes in a crash")
    async with place(tmp_path) as there:
        await there.store.put("/a", b"1")
        await there.chronicle.catch_up(5)
        there.supervisor.kill("etcd")
        with pytest.raises((TimeoutError, httpx.HTTPError)):
            await there.chronicle.catch_up(0.05)
        await there.supervisor.wait_ready()
        await there.store.put("/b", b"2")
        await there.chronicle.catch_up(10)
        assert there.noted == ["/a", "/b"]
