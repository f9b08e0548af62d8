"""The network between the members of etcd, and between those of NATS, so that one can be cut off from the others while its
clients still reach it.

Each member tells the others an address at which a proxy listens. All who call a member come through the same proxy, so it
asks the kernel which process has the other end of a connection. What it does not do: tell members apart that are not
processes of this machine, or of a user whose processes cannot be looked at.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lablet_common.testing.proxy import FaultyProxy
from lablet_local.members import SERVERS, Members

Address = tuple[str, int]
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_REQUEST = 4, 20, 1
_EVERY_STATE, _ANY_INTERFACE, _NO_COOKIE = 0xFFFFFFFF, b"\0" * 4, b"\xff" * 8
_HEADER_BYTES, _REMOTE_PORT_AT, _INODE_AT = 16, 6, 68
"""`struct nlmsghdr`, and `id.idiag_dport` and `idiag_inode` in the `struct inet_diag_msg` behind it."""
Pids = Callable[[], Mapping[int, str]]
"""Process id → process, of those that run now."""


class PeerNetwork:
    """Proxies before each member's port for the others. A context around the mesh; without others there are none."""

    def __init__(self, members: Members) -> None:
        self._proxies: dict[str, _PeerProxy] = {}
        self._alone: set[str] = set()
        self._stack = AsyncExitStack()
        self.pids: Pids = dict
        """Until it is set nobody is known, and everything passes."""
        for number in members.numbers if members.count > 1 else ():
            ports = members.ports.of_member(number)
            for server, port in zip(SERVERS, (ports.etcd_peer, ports.nats_route), strict=True):
                name = members.names(server)[number - 1]
                self._proxies[name] = _PeerProxy(f"127.0.0.1:{port}", name, self)

    async def __aenter__(self) -> Self:
        for proxy in self._proxies.values():
            await self._stack.enter_async_context(proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def addresses(self) -> dict[str, str]:
        """Member → `host:port` at which the others are to call it."""
        return {name: proxy.endpoint for name, proxy in self._proxies.items()}

    def cut_off(self, member: str) -> None:
        """Breaks its connections with the others, both ways, and lets no new ones be made until `join`."""
        self._alone.add(member)
        for name, proxy in self._proxies.items():
            if name == member:
                proxy.break_off()
            else:
                proxy.break_off_from(member)

    def join(self, member: str) -> None:
        self._alone.discard(member)

    def parted(self, caller: str | None, member: str) -> bool:
        """Whether nothing may pass between the two."""
        return member in self._alone or caller in self._alone


class _PeerProxy(FaultyProxy):
    """Before one member."""

    def __init__(self, target: str, member: str, network: PeerNetwork) -> None:
        super().__init__(target)
        self._member = member
        self._network = network
        self._callers: dict[asyncio.StreamWriter, str | None] = {}

    def break_off_from(self, caller: str) -> None:
        for writer, name in tuple(self._callers.items()):
            if name == caller:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here, there = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        caller = process_at(here, there, self._network.pids())
        if self._network.parted(caller, self._member):
            writer.transport.abort()
            return
        self._callers[writer] = caller
        try:
            await super().serve(reader, writer)
        finally:
            del self._callers[writer]


def process_at(here: Address, there: Address, pids: Mapping[int, str]) -> str | None:
    """Which of the processes has the end `there` of the IPv4 connection to `here`; None: none of them."""
    inode = _inode_of(there, here)
    if inode is None:
        return None
    for pid, name in pids.items():
        try:
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is somebody else's
        for descriptor in descriptors:
            try:
                if os.readlink(descriptor) == f"socket:[{inode}]":  # noqa: PTH115 - not a path, a socket's name
                    return name
            except FileNotFoundError:
                continue  # closed meanwhile
    return None


def _inode_of(local: Address, remote: Address) -> str | None:
    """Of the socket with these two ends, as the kernel says by netlink's `sock_diag`: to read all connections of the machine
    takes a thousand times as long. None where there is none any more."""
    ends = struct.pack("!HH4s12x4s12x", local[1], remote[1], socket.inet_aton(local[0]), socket.inet_aton(remote[0]))
    wanted = (
        struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, _EVERY_STATE) + ends + _ANY_INTERFACE + _NO_COOKIE
    )
    header = struct.pack("=IHHII", _HEADER_BYTES + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + wanted)
        answer = kernel.recv(4096)
    _, kind = struct.unpack_from("=IH", answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        (code,) = struct.unpack_from("=i", answer, _HEADER_BYTES)
        if code != -errno.ENOENT:
            raise OSError(-code, f"{os.strerror(-code)}: the kernel does not say whose a connection is")
        return None
    (port,) = struct.unpack_from("!H", answer, _HEADER_BYTES + _REMOTE_PORT_AT)
    (inode,) = struct.unpack_from("=I", answer, _HEADER_BYTES + _INODE_AT)
    return str(inode) if port == remote[1] else None  # else it is who listens there
