"""TLS to a real NATS server: whose certificate is trusted, and what is said when it is not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lablet_common.bus import Bus
from lablet_common.bus.permissions import ServerTls
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.testing.authority import Authority
from lablet_common.testing.nats import NatsServer

pytestmark = pytest.mark.integration

Serve = Callable[..., AbstractAsyncContextManager[NatsServer]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def serve(tmp_path: Path, authority: Authority) -> Serve:
    """A server with a certificate of the authority."""

    @asynccontextmanager
    async def serve(address: str = "127.0.0.1") -> AsyncIterator[NatsServer]:
        cert, key = authority.issue("server", address)
        server = await asyncio.to_thread(NatsServer.start, tmp_path / "nats", tls=ServerTls(cert, key))
        with server:
            yield server

    return serve


async def _refused(settings: NatsSettings, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of the certificate; the connection is tried on, since a certificate can be mended."""
    bus = Bus(settings, Service.GATEWAY)
    connecting = asyncio.create_task(bus.connect())
    try:
        async with asyncio.timeout(10):
            while True:
                told = " ".join(str(getattr(record, "cause", "")) for record in caplog.records)
                if "certificate" in told:
                    assert not connecting.done()
                    return told
                await asyncio.sleep(0.02)
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await bus.close()


async def test_a_server_of_the_own_authority_is_trusted_and_work_is_done(
    serve: Serve, authority: Authority, make: Any
) -> None:
    async with serve() as server:
        bus = Bus(NatsSettings(url=server.url, ca_cert=authority.cert), Service.GATEWAY)
        async with asyncio.timeout(10):
            await bus.connect()
            await bus.publish(make())
        await bus.close()


async def test_a_server_of_another_authority_is_not_trusted_and_the_log_says_so(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "stranger")
    with caplog.at_level(logging.WARNING):
        async with serve() as server:
            told = await _refused(NatsSettings(url=server.url, ca_cert=stranger.cert), caplog)
    assert "certificate verify failed" in told


async def test_without_an_authority_of_its_own_a_client_does_not_take_any_certificate(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with serve() as server:
            await _refused(NatsSettings(url=server.url), caplog)


async def test_the_address_in_the_certificate_is_checked(
    serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with serve("127.0.0.2") as server:
            told = await _refused(NatsSettings(url=server.url, ca_cert=authority.cert), caplog)
    assert "127.0.0.1" in told
