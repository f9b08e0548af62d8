"""Which addresses a sink may have: against requests into our own network in somebody else's name.

A name is resolved, every address of it is looked at, and the connection goes to the very addresses that were looked at, so
that a name which changes in between gains nothing. Addresses that lead inside another one (IPv4 in IPv6, NAT64, 6to4,
Teredo) are judged by both.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64 = IPv6Network("64:ff9b::/96")
Address = IPv4Address | IPv6Address


class SinkRefused(OSError):
    """The sink's address is one that may not be called; the message says why and what to do."""


def check_url(sink: str) -> None:
    """Raises `SinkRefused` for what is no address of a sink."""
    try:
        parts = urlsplit(sink)
        port = parts.port
    except ValueError as error:
        raise SinkRefused(f"{sink!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SinkRefused(f"{sink!r} is no sink: write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise SinkRefused("the sink's URL carries a login, which would be stored readable: leave it out")
    if parts.fragment:
        raise SinkRefused(f"{sink!r} has a fragment, which is never sent: leave out what follows #")
    if port == 0:
        raise SinkRefused(f"{sink!r} names port 0")


def check_address(host: str, address: str, *, allow_private: bool) -> None:
    """Raises `SinkRefused` unless the address may be called. Link-local (where clouds keep their credentials), multicast
    and reserved ones never may."""
    for one in _with_embedded(ip_address(address.partition("%")[0])):
        if one.is_link_local or one.is_multicast or one.is_unspecified or (one.is_reserved and not one.is_loopback):
            raise SinkRefused(f"{host} leads to {address}, where nobody may be called")
        if not one.is_global and not allow_private:
            raise SinkRefused(
                f"{host} leads to {address}, a private address: take a public one, or have the operator set "
                "WEBHOOK_ALLOW_PRIVATE"
            )


def _with_embedded(address: Address) -> Iterable[Address]:
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield address.teredo[1]
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class CheckedResolver(AbstractResolver):
    """Resolves by the system and lets only allowed addresses through."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `SinkRefused`, also when one address of several is not allowed, and `OSError` for an unknown name."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            check_address(host, str(address[0]), allow_private=self._allow_private)
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""


async def check_sink(sink: str, *, allow_private: bool) -> None:
    """Raises `SinkRefused` unless the sink may be called as things are now, `OSError` where its name is unknown."""
    check_url(sink)
    host = urlsplit(sink).hostname or ""
    if is_literal(host):
        check_address(host, host, allow_private=allow_private)
        return
    await CheckedResolver(allow_private=allow_private).resolve(host)
