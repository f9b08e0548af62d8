"""How far the streams have come, asked of real servers with users and certificates, each refusal in words."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lablet_common.bus import Bus, BusRefused, BusUnavailable
from lablet_common.bus.permissions import (
    NatsUser,
    Permissions,
    ServerTls,
    external_user,
    inbox_prefix,
    service_user,
)
from lablet_common.bus.positions import NotAllowed, stream_positions
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.testing.authority import Authority
from lablet_common.testing.nats import NatsServer

pytestmark = pytest.mark.integration

WATCHER = NatsUser("watcher", "pw", Permissions(("$JS.API.STREAM.INFO.*",), (f"{inbox_prefix('watcher')}.>",)))
USERS = [*(service_user(service, "pw") for service in Service), external_user("lms", "acme", "pw"), WATCHER]
STREAMS = {
    "EVENTS", "DLQ", "INGRESS", "INTENTS_SCHEDULER", "INTENTS_API_GATEWAY", "INTENTS_WORKER_CONTROLLER",
    "INTENTS_ARTIFACT_SERVICE",
}  # fmt: skip


def login(server: NatsServer, user: str, password: str = "pw") -> NatsSettings:
    return NatsSettings(url=server.url, user=user, password=password)


async def published(settings: NatsSettings, service: Service, make: Any, count: int) -> None:
    """Makes the streams, as the service does when it starts, and puts that many events into EVENTS."""
    bus = Bus(settings, service)
    async with asyncio.timeout(10):
        await bus.connect()
        for number in range(count):
            await bus.publish(make(f"r-{number}", state=True))
    await bus.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Any:
    with NatsServer.start(tmp_path / "nats", users=USERS, sync_always=False) as server:
        yield server


async def test_the_gateway_s_user_and_an_observer_s_may_ask(guarded: NatsServer, make: Any) -> None:
    for user in ("api-gateway", "watcher"):
        assert await stream_positions(login(guarded, user)) == {}, "no stream is there yet"
    await published(login(guarded, "api-gateway"), Service.GATEWAY, make, 0)
    await published(login(guarded, "scheduler"), Service.SCHEDULER, make, 3)
    for user in ("api-gateway", "watcher"):
        found = await stream_positions(login(guarded, user))
        assert set(found) == STREAMS, user
        assert found["EVENTS"] == {"first": 1, "last": 3}
        assert found["DLQ"]["last"] == 0


@pytest.mark.parametrize("user", ["scheduler", "lms"])
async def test_a_user_that_may_not_ask_is_told_so_at_once(guarded: NatsServer, make: Any, user: str) -> None:
    await published(login(guarded, "api-gateway"), Service.GATEWAY, make, 0)
    async with asyncio.timeout(2):  # and not after a call's time
        with pytest.raises(NotAllowed) as told:
            await stream_positions(login(guarded, user))
    assert (told.value.user, told.value.stream) == (user, "INGRESS")


@pytest.mark.parametrize(("user", "password"), [("api-gateway", "wrong"), ("nobody", "pw")])
async def test_a_login_that_is_not_taken_is_told(guarded: NatsServer, user: str, password: str) -> None:
    with pytest.raises(BusRefused, match=f"refuses the user {user}"):
        await stream_positions(login(guarded, user, password))


async def test_no_login_where_one_is_wanted_is_told(guarded: NatsServer) -> None:
    with pytest.raises(BusRefused, match="without a name"):
        await stream_positions(NatsSettings(url=guarded.url))


async def test_a_server_that_is_not_there_or_falls_silent_is_told(
    guarded: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(guarded.kill)
    with pytest.raises(BusUnavailable, match=r"cannot be reached: .*(refused|Connect call failed)"):
        await stream_positions(login(guarded, "api-gateway"))
    await asyncio.to_thread(guarded.launch)
    await asyncio.to_thread(guarded.wait_ready)
    monkeypatch.setattr("lablet_common.bus.positions.CALL_SECONDS", 0.3)
    guarded.pause()
    try:
        with pytest.raises(BusUnavailable):
            await stream_positions(login(guarded, "api-gateway"))
    finally:
        guarded.resume()


async def test_a_server_that_ends_in_between_is_told_and_no_stream_is_left_out(
    guarded: NatsServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lablet_common.bus import positions

    await published(login(guarded, "api-gateway"), Service.GATEWAY, make, 0)
    real = positions._state
    asked: list[str] = []

    async def dying(js: Any, stream: str, failed: Any) -> Any:
        if asked:
            await asyncio.to_thread(guarded.kill)
        asked.append(stream)
        return await real(js, stream, failed)

    monkeypatch.setattr(positions, "_state", dying)
    monkeypatch.setattr(positions, "CALL_SECONDS", 1.0)
    with pytest.raises(BusUnavailable, match="does not say how far DLQ has come"):
        await stream_positions(login(guarded, "api-gateway"))
    assert len(asked) == 2


async def test_certificates_are_looked_at(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    cert, key = authority.issue("server", "127.0.0.1")
    server = await asyncio.to_thread(NatsServer.start, tmp_path / "nats", users=USERS, tls=ServerTls(cert, key))
    with server:
        known = NatsSettings(url=server.url, user="api-gateway", password="pw", ca_cert=authority.cert)
        assert await stream_positions(known) == {}
        for strange in (stranger.cert, None):
            with pytest.raises(BusUnavailable, match="certificate verify failed"):
                await stream_positions(known.model_copy(update={"ca_cert": strange}))
