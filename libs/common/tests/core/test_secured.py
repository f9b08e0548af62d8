"""A service's own settings against servers with users and certificates: what its environment says is what it shows."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lablet_common.bus import Bus, BusRefused
from lablet_common.bus.permissions import service_user
from lablet_common.resources.kinds import Service
from lablet_common.service import open_store
from lablet_common.settings import EtcdSettings, NatsSettings
from lablet_common.store import InvalidRequest, StoreUnavailable
from lablet_common.testing.authority import Authority
from lablet_common.testing.secured import SecuredServers, can_be_secured, secured_servers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_be_secured(), reason="no etcd, etcdctl or nats-server on this machine"),
]
GATEWAY = "api-gateway"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServers]:
    with secured_servers(tmp_path_factory.mktemp("secured"), [service_user(Service.GATEWAY, "g" * 20)]) as made:
        yield made


@pytest.fixture
def environment(servers: SecuredServers, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """That of a service, in force."""
    for name, value in servers.environment(GATEWAY).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


@pytest.mark.usefixtures("environment")
async def test_etcd_is_reached_with_a_login_and_a_certificate_together() -> None:
    store = open_store(EtcdSettings())
    async with store.watch("/k") as batches:
        lease = await store.lease_grant(60)
        await store.put("/k", b"1", lease=lease)
        async with asyncio.timeout(10):
            assert [event.kv.value for event in (await anext(batches)).events] == [b"1"]
    await store.close()


async def test_without_the_login_the_certificate_does_not_open_etcd(environment: pytest.MonkeyPatch) -> None:
    for name in ("ETCD_USERNAME", "ETCD_PASSWORD_FILE"):
        environment.delenv(name)
    store = open_store(EtcdSettings())
    with pytest.raises(InvalidRequest):
        await store.get("/k")
    await store.close()


async def test_without_the_certificate_the_login_does_not_open_etcd(environment: pytest.MonkeyPatch) -> None:
    for name in ("ETCD_CERT_CERT", "ETCD_CERT_KEY"):
        environment.delenv(name)
    environment.setenv("ETCD_TIMEOUT", "2")
    store = open_store(EtcdSettings())
    with pytest.raises(StoreUnavailable):
        await store.get("/k")
    await store.close()


async def test_beyond_the_prefix_of_its_role_a_service_has_no_rights(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ETCD_PREFIX", "/other")
    store = open_store(EtcdSettings())
    with pytest.raises(InvalidRequest, match="permission"):
        await store.put("/k", b"")
    await store.close()


async def test_an_etcd_of_another_authority_is_not_trusted_and_the_settings_to_look_at_are_named(
    environment: pytest.MonkeyPatch, stranger: Authority
) -> None:
    environment.setenv("ETCD_CA_CERT", str(stranger.cert))
    environment.setenv("ETCD_TIMEOUT", "2")
    store = open_store(EtcdSettings())
    with pytest.raises(StoreUnavailable, match=r"certificate.*ETCD_CA_CERT"):
        await store.get("/k")
    with pytest.raises(StoreUnavailable, match=r"certificate.*ETCD_CA_CERT"):
        await store.put("/k", b"")
    await store.close()


@pytest.mark.usefixtures("environment")
async def test_nats_is_reached_with_a_login_and_its_certificate_checked() -> None:
    bus = Bus(NatsSettings(), Service.GATEWAY)
    async with asyncio.timeout(10):
        await bus.connect()  # and makes its streams
    await bus.look()
    await bus.close()


async def test_a_nats_of_another_authority_is_not_trusted_and_readiness_names_the_setting(
    environment: pytest.MonkeyPatch, stranger: Authority
) -> None:
    environment.setenv("NATS_CA_CERT", str(stranger.cert))
    bus = Bus(NatsSettings(), Service.GATEWAY)
    connecting = asyncio.create_task(bus.connect())
    told = ""
    async with asyncio.timeout(10):
        while "NATS_CA_CERT" not in told:
            with pytest.raises(ConnectionError) as reason:
                await bus.look()
            told = str(reason.value)
            await asyncio.sleep(0.02)
    assert "certificate verify failed" in told
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await bus.close()


async def test_a_wrong_password_over_tls_is_final(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("NATS_PASSWORD_FILE")
    environment.setenv("NATS_PASSWORD", "another")
    bus = Bus(NatsSettings(), Service.GATEWAY)
    with pytest.raises(BusRefused, match=GATEWAY):
        await bus.connect()
    await bus.close()
