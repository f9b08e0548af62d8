"""Loopback addresses for machines: each its own in 127.<net>.0.0/16, free when it was handed out."""

import errno
import socket
from collections.abc import Iterable

CONTROLLER_PORT = 8080


class NoAddress(Exception):
    """Every address of the net is taken."""


def next_address(net: int, taken: Iterable[str], port: int = CONTROLLER_PORT) -> str:
    """The first address of 127.<net>.y.z that no machine has and on which nobody listens at `port`."""
    used = set(taken)
    for y in range(1, 255):
        for z in range(1, 255):
            host = f"127.{net}.{y}.{z}"
            if host not in used and is_free(host, port):
                return host
    raise NoAddress(f"all addresses of 127.{net}.0.0/16 are taken")


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
