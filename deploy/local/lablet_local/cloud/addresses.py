"""Addresses for machines: each its own in one net, free when it was handed out.

The net is a part of the loopback (127.<net>.0.0/16) or, in a container, one that was taken from the container network
(`reach`). Its first 256 addresses are left alone.
"""

import errno
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

CONTROLLER_PORT = 8080
_BLOCK = 256


class NoAddress(Exception):
    """Every address of the net is taken."""


def loopback(net: int) -> IPv4Network:
    """127.<net>.0.0/16."""
    return IPv4Network(f"127.{net}.0.0/16")


def addresses(net: IPv4Network) -> Iterator[str]:
    """Those that machines may have, in the order in which they are given out; none that ends in 0 or 255."""
    for block in range(_BLOCK, min(net.num_addresses, 255 * _BLOCK), _BLOCK):
        for last in range(1, 255):
            yield str(net[block + last])


def next_address(net: IPv4Network, taken: Iterable[str], port: int = CONTROLLER_PORT) -> str:
    """The first address of `net` that no machine has and on which nobody listens at `port`."""
    used = set(taken)
    for host in addresses(net):
        if host not in used and is_free(host, port):
            return host
    raise NoAddress(f"all addresses of {net} are taken")


def is_free(host: str, port: int) -> bool:
    """Whether a listener could be opened now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            return False
    return True
