"""The network between members: one is cut off from the others, and each is called where the others were told."""

import asyncio
import os
from pathlib import Path

import httpx

from lablet_local.binaries import Binary
from lablet_local.chaos.peers import PeerNetwork, process_at
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import MANY, Members
from lablet_local.messaging import write_nats_config
from lablet_local.ports import PortBlock, claim_ports
from lablet_local.servers import Site, etcd_process


async def is_over(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_a_member_is_cut_off_from_the_others_both_ways_and_from_nobody_else() -> None:
    """This process plays each caller in turn: who calls is asked when a connection is made."""
    claim = claim_ports({}, members=MANY)
    caller: list[str] = []

    async def call(target: str, member: str) -> asyncio.StreamReader | None:
        caller[:] = [member]
        host, _, port = target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        try:
            return reader if await reader.read(2) == b"hi" else None
        except ConnectionResetError:
            return None

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi")
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    members = Members(claim.block, MANY)
    servers = [await asyncio.start_server(greet, "127.0.0.1", members.ports.of_member(n).etcd_peer) for n in (1, 2)]
    async with PeerNetwork(members) as network:
        network.pids = lambda: {os.getpid(): name for name in caller}
        first, second = network.addresses["etcd"], network.addresses["etcd-2"]
        from_second, from_third = await call(first, "etcd-2"), await call(first, "etcd-3")
        to_second = await call(second, "etcd-3")
        assert from_second
        assert from_third
        assert to_second
        network.cut_off("etcd-2")
        assert await is_over(from_second)
        assert await is_over(to_second)
        assert await call(first, "etcd-2") is None
        assert await call(second, "etcd-3") is None
        assert await call(first, "etcd-3")
        assert not from_third.at_eof()
        network.join("etcd-2")
        assert await call(first, "etcd-2")
        assert await call(second, "etcd-3")
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()
    claim.release()


def test_members_tell_each_other_the_addresses_that_they_were_given(tmp_path: Path) -> None:
    members = Members(PortBlock(7400), 3, {"etcd-2": "127.0.0.1:99", "nats-2": "127.0.0.1:98"})
    folder = DataFolder(tmp_path)
    folder.create()
    site = Site(folder, members.ports, KeyRing(folder), httpx.AsyncClient(), members)
    argv = etcd_process(site, Binary(Path("etcd"), "3.5.21", "PATH")).argv
    assert (
        "--initial-cluster=etcd=http://127.0.0.1:7403,etcd-2=http://127.0.0.1:99,etcd-3=http://127.0.0.1:7473" in argv
    )
    config = {n: write_nats_config(folder, members, site.keys, number=n).read_text() for n in (1, 2)}
    assert "@127.0.0.1:98" in config[1]
    assert 'advertise: "127.0.0.1:98"' in config[2]
    assert "@127.0.0.1:7479" in config[2]


async def test_whose_a_connection_is_is_asked_of_the_kernel_and_none_where_it_is_over() -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(writer)

    answering: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    here = server.sockets[0].getsockname()
    _, writer = await asyncio.open_connection(*here)
    there = writer.get_extra_info("sockname")
    assert process_at(here, there, {1 << 22: "nobody", os.getpid(): "this"}) == "this"
    assert process_at(here, there, {os.getppid(): "another"}) is None
    for port in (here[1], 1):  # who listens is not who calls
        assert process_at(here, (there[0], port), {os.getpid(): "this"}) is None, "there is no such connection"
    for one in (writer, *answering):
        one.close()
    server.close()
