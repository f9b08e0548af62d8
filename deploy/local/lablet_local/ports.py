"""Ports of a mesh: one block of a hundred on 127.0.0.1, claimed as a whole, so that meshes do not meet.

A listening socket on the block's anchor port is held for the life of the mesh: whoever holds it has the block. Chosen
blocks lie below the range from which the kernel takes ports for outgoing connections.
"""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BASE = 7400
_STEP = 100
_LAST_BASE = 32_600
MOST_REPLICAS = 9
_HEALTH = {"api-gateway": 20, "scheduler": 30, "worker-controller": 40, "artifact-service": 50}


class PortsBusy(Exception):
    """Ports that are needed are taken; names each, and who has it where that can be found out."""


@dataclass(frozen=True, slots=True)
class MemberPorts:
    """Where one member of etcd and one of NATS listen."""

    etcd: int
    etcd_peer: int
    nats: int
    nats_monitor: int
    nats_route: int


@dataclass(frozen=True, slots=True)
class PortBlock:
    """What stands where in the block that begins at `base`."""

    base: int

    def gateway(self, replica: int = 1) -> int:
        return self.base + (0 if replica == 1 else 10 + replica)

    @property
    def anchor(self) -> int:
        return self.base + 1

    @property
    def etcd(self) -> int:
        return self.of_member(1).etcd

    @property
    def nats(self) -> int:
        return self.of_member(1).nats

    @property
    def nats_monitor(self) -> int:
        return self.of_member(1).nats_monitor

    def of_member(self, number: int) -> "MemberPorts":
        """Of one of etcd and one of NATS (from 1); the first has the place of one that stands alone."""
        start = self.base if number == 1 else self.base + 50 + 10 * (number - 1)
        return MemberPorts(start + 2, start + 3, start + 4, start + 5, start + 9)

    @property
    def s3(self) -> int:
        return self.base + 6

    @property
    def cloud(self) -> int:
        return self.base + 7

    @property
    def spans(self) -> int:
        return self.base + 8

    @property
    def machines_front(self) -> int:
        """On the machines' own addresses, for what is put before their APIs. None of the mesh itself listens there; below
        10,000 a lab's console may."""
        return self.base + 10

    def health(self, service: str, replica: int) -> int:
        """The internal port of a service's replica (from 1)."""
        return self.base + _HEALTH[service] + replica

    @property
    def machine_net(self) -> int:
        """Simulated machines get 127.<this>.y.z: another one for each block."""
        return 2 + (self.base // _STEP) % 250

    def needed(self, replicas: dict[str, int], members: int = 1) -> list[int]:
        """Every port that a mesh with so many replicas and members listens on, but for the anchor."""
        ports = [self.s3, self.cloud, self.spans]
        for member in map(self.of_member, range(1, members + 1)):
            ports += [member.etcd, member.etcd_peer, member.nats, member.nats_monitor]
            ports += [member.nats_route] if members > 1 else []  # one alone has no others to meet
        ports += [self.gateway(number) for number in range(1, replicas.get("api-gateway", 1) + 1)]
        for service in _HEALTH:
            ports += [self.health(service, number) for number in range(1, replicas.get(service, 1) + 1)]
        return ports


class Claim:
    """A block that is ours until `release`."""

    def __init__(self, block: PortBlock, anchor: socket.socket) -> None:
        self.block = block
        self._anchor = anchor

    def release(self) -> None:
        self._anchor.close()


def claim_ports(
    replicas: dict[str, int], *, members: int = 1, base: int | None = None, preferred: int | None = None
) -> Claim:
    """Claims the block at `base`, or else the preferred or the first one that is free.

    Raises `PortsBusy` naming the ports that are taken when `base` was asked for, or when no block is free.
    """
    if base is not None:
        return _claim(PortBlock(base), replicas, members)
    candidates = [*([preferred] if preferred else []), *range(DEFAULT_BASE, _LAST_BASE, _STEP)]
    for candidate in candidates:
        with suppress(PortsBusy):
            return _claim(PortBlock(candidate), replicas, members)
    raise PortsBusy(f"no block of {_STEP} ports is free between {DEFAULT_BASE} and {_LAST_BASE}")


def _claim(block: PortBlock, replicas: dict[str, int], members: int) -> Claim:
    if not 1024 <= block.base <= 65_535 - _STEP:
        raise PortsBusy(f"the port base must be between 1024 and {65_535 - _STEP}, not {block.base}")
    anchor = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        anchor.bind(("127.0.0.1", block.anchor))
        anchor.listen(1)
    except OSError as error:
        anchor.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortsBusy(f"port {block.anchor} is taken{_by(block.anchor)}") from error
    busy = [port for port in block.needed(replicas, members) if not port_is_free(port)]
    if busy:
        anchor.close()
        raise PortsBusy("; ".join(f"port {port} is taken{_by(port)}" for port in busy))
    return Claim(block, anchor)


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a listener could be opened now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def _by(port: int) -> str:
    holder = holder_of(port)
    return f" by {holder}" if holder else ""


def holder_of(port: int) -> str | None:
    """The process that listens at a local TCP port, as `name (pid N)`; None where it cannot be seen."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) in wanted:  # noqa: PTH115 - not a path, a socket's name
                pid = descriptor.parts[2]
                return f"{Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()} (pid {pid})"
        except OSError:  # ended meanwhile, or somebody else's
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(columns[9])
    return inodes
