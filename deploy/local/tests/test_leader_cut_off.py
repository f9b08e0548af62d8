"""A client of three etcd members, whichever it talks to, when the leader is cut off from the others: as soon as these have a
new one, what is under way is given up (etcd would answer it after six seconds here, seven with its usual election timeout),
something is written again, a watch goes on, and a lease has lived on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lablet_common.store import EtcdStore, LeaseKeeper, OutcomeUnknown, StoreUnavailable, WatchBatch
from lablet_common.testing.etcd import EtcdServer, find_etcd, launch_all
from lablet_local.chaos.peers import PeerNetwork
from lablet_local.members import MANY, Members
from lablet_local.ports import claim_ports

pytestmark = pytest.mark.integration
TTL = 15.0
"""Of the lease, as services have it."""
SOON = 3.0
"""After the election. It takes half a second; etcd alone, another five."""


@dataclass(frozen=True, slots=True)
class Cluster:
    members: Members
    network: PeerNetwork

    async def endpoints(self) -> dict[str, str]:
        """Member → `host:port`, the leader first."""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http, asyncio.timeout(20):
            while (leader := await self.members.etcd_leader(http)) is None:
                await asyncio.sleep(0.05)
        found = dict(zip(self.members.names("etcd"), self.members.etcd_endpoints, strict=True))
        return {leader: found.pop(leader), **found}

    async def until_led_by_another(self, than: str) -> float:
        """When a majority said so."""
        async with httpx.AsyncClient(timeout=1, trust_env=False) as http, asyncio.timeout(30):
            while await self.members.etcd_leader(http) in (None, than):
                await asyncio.sleep(0.05)
        return time.monotonic()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    if find_etcd("any") is None:
        pytest.skip("no etcd on this machine")
    claim = claim_ports({}, members=MANY)
    members = Members(claim.block, MANY)
    places = [claim.block.of_member(number) for number in members.numbers]
    async with PeerNetwork(members) as network:
        servers = EtcdServer.make_cluster(
            tmp_path,
            ports=[(place.etcd, place.etcd_peer, place.nats_monitor) for place in places],
            called_at=[network.addresses[name] for name in members.names("etcd")],
        )
        named = dict(zip(members.names("etcd"), servers, strict=True))
        network.pids = lambda: {server.pid: name for name, server in named.items() if server.pid is not None}
        await asyncio.to_thread(launch_all, servers)
        try:
            yield Cluster(members, network)
        finally:
            for server in servers:
                server.kill()
    claim.release()


@pytest.mark.parametrize("asked", ["the leader", "a follower"])
async def test_writes_watches_and_leases_go_on_when_the_leader_is_cut_off(cluster: Cluster, asked: str) -> None:
    by_name = await cluster.endpoints()
    leader = next(iter(by_name))
    endpoints = list(by_name.values()) if asked == "the leader" else list(by_name.values())[::-1]
    store = EtcdStore(endpoints, timeout=30.0)
    try:
        async with LeaseKeeper(store, TTL) as keeper, store.watch("/w/") as batches:
            await store.put("/w/a", b"before")
            assert (await anext(batches)).events
            cluster.network.cut_off(leader)
            began = time.monotonic()
            electing = asyncio.ensure_future(cluster.until_led_by_another(leader))
            seeing = asyncio.ensure_future(_until_seen(batches, b"after"))
            with pytest.raises(OutcomeUnknown):
                await store.put("/w/a", b"lost")
            given_up = time.monotonic()
            await _until_written(store, b"after")
            await store.lease_keep_alive(keeper.lease)
            await seeing
            over = time.monotonic()
            elected = await electing
            assert given_up - elected < SOON
            assert over - elected < TTL
            assert keeper.alive or elected - began > TTL / 2
            cluster.network.join(leader)
    finally:
        await store.close()


async def _until_written(store: EtcdStore, value: bytes) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.put("/w/a", value)
                return


async def _until_seen(batches: AsyncIterator[WatchBatch], value: bytes) -> None:
    async with asyncio.timeout(30):
        async for batch in batches:
            if any(event.kv.value == value for event in batch.events):
                return
