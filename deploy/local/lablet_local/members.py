"""Members of etcd and NATS: one of each, or three of each of which any one may be lost (`lablet up --ha`).

The first member has the name and the ports of one that stands alone, so everything that knows a mesh of one knows this too.
Who leads is asked of the members themselves. What a folder was begun with it stays: a single etcd's data are not turned
into a cluster's, nor the other way.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx

from lablet_common.bus.streams import EVENTS_STREAM
from lablet_local.folder import DataFolder, Json
from lablet_local.ports import PortBlock

MANY = 3
SERVERS = ("etcd", "nats")


class OtherShape(Exception):
    """The data folder was begun with another number of members."""


@dataclass(frozen=True, slots=True)
class Members:
    """How many of each there are, and where."""

    ports: PortBlock
    count: int = 1
    called_at: Mapping[str, str] = field(default_factory=dict)
    """Member → `host:port` at which the others call it, where that is not the one at which it listens."""

    @property
    def numbers(self) -> range:
        return range(1, self.count + 1)

    def names(self, server: str) -> tuple[str, ...]:
        """The processes of `etcd` or `nats`."""
        return tuple(member_name(server, number) for number in self.numbers)

    def peer_address(self, server: str, number: int) -> str:
        """host:port at which the others call a member."""
        ports = self.ports.of_member(number)
        listens = f"127.0.0.1:{ports.etcd_peer if server == 'etcd' else ports.nats_route}"
        return self.called_at.get(member_name(server, number), listens)

    @property
    def etcd_endpoints(self) -> tuple[str, ...]:
        """host:port of each."""
        return tuple(f"127.0.0.1:{self.ports.of_member(number).etcd}" for number in self.numbers)

    @property
    def nats_urls(self) -> tuple[str, ...]:
        return tuple(f"nats://127.0.0.1:{self.ports.of_member(number).nats}" for number in self.numbers)

    @property
    def settings(self) -> dict[str, str]:
        """What a service is told."""
        return {
            "ETCD_ENDPOINTS": ",".join(self.etcd_endpoints),
            "NATS_URL": ",".join(self.nats_urls),
            "NATS_REPLICAS": str(self.count),
        }

    async def etcd_leader(self, client: httpx.AsyncClient) -> str | None:
        """The process that a majority holds to be the leader now; None while there is no such one."""
        votes: dict[str, int] = {}
        ids: dict[str, str] = {}
        for name, endpoint in zip(self.names("etcd"), self.etcd_endpoints, strict=True):
            try:
                answer = await client.post(f"http://{endpoint}/v3/maintenance/status", json={})
                status: Json = answer.raise_for_status().json()
            except httpx.HTTPError:
                continue
            ids[str(status["header"]["member_id"])] = name
            leader = str(status.get("leader", "0"))
            votes[leader] = votes.get(leader, 0) + 1
        chosen = [ids[leader] for leader, count in votes.items() if count * 2 > self.count and leader in ids]
        return chosen[0] if chosen else None

    async def stream_leader(self, client: httpx.AsyncClient, stream: str) -> str | None:
        """The NATS process that leads a stream, as the first server says that knows one; None while none does."""
        async for one in self._streams(client):
            leader = str((one.get("cluster") or {}).get("leader", ""))
            if one["name"] == stream and leader in self.names("nats"):
                return leader
        return None

    async def stream_replicas(self, client: httpx.AsyncClient) -> dict[str, int]:
        """Stream → how many servers keep it, by its configuration as the servers tell it."""
        return {str(one["name"]): int(one["config"]["num_replicas"]) async for one in self._streams(client)}

    async def _streams(self, client: httpx.AsyncClient) -> AsyncIterator[Json]:
        """What each server that answers says of each stream that it keeps."""
        for number in self.numbers:
            monitor = f"http://127.0.0.1:{self.ports.of_member(number).nats_monitor}"
            try:
                answer = await client.get(f"{monitor}/jsz?streams=true&config=true")
                told: Json = answer.raise_for_status().json()
            except httpx.HTTPError:
                continue
            for account in told.get("account_details") or ():
                for one in account.get("stream_detail") or ():
                    yield one


async def leaders(state: Json, client: httpx.AsyncClient) -> dict[str, str | None]:
    """`etcd` and `EVENTS` → the process that leads it, for a mesh as `mesh.json` tells of it; empty for one of each."""
    found = [member_of(process["name"]) for process in state.get("processes", [])]
    members = Members(PortBlock(state["portBase"]), sum(one is not None and one[0] == "etcd" for one in found))
    if members.count < MANY:
        return {}
    etcd, events = await asyncio.gather(members.etcd_leader(client), members.stream_leader(client, EVENTS_STREAM))
    return {"etcd": etcd, EVENTS_STREAM: events}


def member_name(server: str, number: int) -> str:
    """`etcd`, `etcd-2`, `etcd-3`."""
    return server if number == 1 else f"{server}-{number}"


def member_of(process: str) -> tuple[str, int] | None:
    """`etcd-2` → (`etcd`, 2); None for a process that is neither of etcd nor of NATS."""
    server, _, number = process.partition("-")
    if server not in SERVERS or (number and not number.isdigit()):
        return None
    return server, int(number or 1)


def choose_count(folder: DataFolder, *, asked: bool, chosen: Json) -> int:
    """How many members a mesh on `folder` has: as many as it was begun with, else as asked. `chosen` are the folder's
    choices. Raises `OtherShape` where three are asked for on the data of one."""
    begun = (folder.etcd / "data").exists()
    before = int(chosen.get("members", 1))
    if not begun:
        return MANY if asked else before
    if asked and before != MANY:
        raise OtherShape(
            f"{folder.root} was begun with one etcd, whose data are not turned into a cluster's: choose another --data, "
            "or carry everything over with `lablet admin export` and `import`"
        )
    return before
