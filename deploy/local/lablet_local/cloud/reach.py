"""A net for machines that other containers reach: the upper half of the container's own network.

On one machine the simulated workers listen on loopback addresses. In a container those would be its own alone, so the
cloud takes a part of the container network instead: one local route tells the kernel that every address of it is here,
and it then answers for all of them on the wire. That needs NET_ADMIN in the container's own network namespace, so the
cloud starts as root, takes the net, and becomes an ordinary user before it opens anything.

Not guaranteed: that the engine never gives such an address to another container. Engines count upwards from the low end,
so that takes thousands of containers made on the same network.
"""

import fcntl
import os
import socket
import struct
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

_ROUTES = Path("/proc/net/route")
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_RTM_NEWROUTE = 24
_NLM_REQUEST_ACK_CREATE_REPLACE = 0x0001 | 0x0004 | 0x0400 | 0x0100
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_DESTINATION, _OUT_INTERFACE = 1, 4
_SMALLEST = 1024
"""Addresses that the net must have at least."""


class NoNet(Exception):
    """No net for machines can be had here; the message says why."""


def own_interface(routes: Path = _ROUTES) -> tuple[str, IPv4Interface]:
    """Name and address of the interface that the default route goes through. Raises `NoNet`."""
    for line in routes.read_text(encoding="ascii").splitlines()[1:]:
        name, destination, *_ = line.split()
        if destination == "00000000":
            return name, IPv4Interface(f"{_ask(name, _SIOCGIFADDR)}/{_ask(name, _SIOCGIFNETMASK)}")
    raise NoNet("there is no default route: the cloud needs a container network that is not `internal`")


def _ask(name: str, what: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        answer = fcntl.ioctl(wire, what, struct.pack("256s", name.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def upper_half(own: IPv4Interface) -> IPv4Network:
    """The half of the network that the engine gives out last. Raises `NoNet` where it is too small or holds `own`."""
    half = list(own.network.subnets(prefixlen_diff=1))[-1]
    if half.num_addresses < _SMALLEST:
        raise NoNet(f"the container network {own.network} is too small: give it at least {2 * _SMALLEST} addresses")
    if own.ip in half:
        raise NoNet(f"{own.ip} lies in the upper half of {own.network} itself: make the network anew")
    return half


def take(net: IPv4Network) -> None:
    """Makes every address of `net` one of this machine. Again is no error. Raises `PermissionError` without NET_ADMIN."""
    route = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, net.prefixlen, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0
    )
    body = route + _attribute(_DESTINATION, net.network_address.packed)
    body += _attribute(_OUT_INTERFACE, struct.pack("=I", socket.if_nametoindex("lo")))
    header = struct.pack("=IHHII", 16 + len(body), _RTM_NEWROUTE, _NLM_REQUEST_ACK_CREATE_REPLACE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        kernel.send(header + body)
        (code,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if code:
        raise OSError(-code, f"{os.strerror(-code)}: {net} cannot be taken")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def become(user: int) -> None:
    """Gives up root for good: user and group `user`, no other groups, and with them every capability."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
