"""A real gateway process where everything that it calls wants to see a login and shows a certificate: settings from the
environment and from files, and what an operator is told when a certificate is not trusted."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from lablet_common.bus.permissions import ServerTls, service_user
from lablet_common.resources.kinds import Service, kind_of
from lablet_common.secrets import new_key_line
from lablet_common.service import open_store
from lablet_common.settings import EtcdSettings
from lablet_common.store.repository import Repository
from lablet_common.testing.authority import Authority
from lablet_common.testing.etcd import free_ports
from lablet_common.testing.s3 import ACCESS_KEY, SECRET_KEY, s3_server
from lablet_common.testing.secured import SecuredServers, can_be_secured, secured_servers
from lablet_common.testing.sinks import serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_be_secured(), reason="no etcd, etcdctl or nats-server on this machine"),
]


@dataclass(frozen=True, slots=True)
class Installation:
    servers: SecuredServers
    settings: dict[str, str]
    stranger: Authority


@dataclass(frozen=True, slots=True)
class Gateway:
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    health: str
    log: Path

    async def told(self, *words: str) -> str:
        """The log, once every word stands in it."""
        while not all(word in (text := self.log.read_text()) for word in words):
            await asyncio.sleep(0.05)
        return text

    async def checks(self, wanted: Callable[[int, dict[str, str]], bool]) -> dict[str, str]:
        """The findings of its readiness, once they are as wanted."""
        while True:
            try:
                answer = await self.client.get(self.health)
            except httpx.TransportError:
                assert self.process.returncode is None, self.log.read_text()[-4000:]
            else:
                found: dict[str, str] = answer.json()["checks"]
                if wanted(answer.status_code, found):
                    return found
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("secured")
    tokens = folder / "tokens.json"
    digest = hashlib.sha256(b"t").hexdigest()
    tokens.write_text(json.dumps([{"name": "root", "role": "admin", "tenant": "default", "sha256": digest}]))
    (folder / "webhooks.keys").write_text(new_key_line("k1"))
    (folder / "s3.access-key").write_text(ACCESS_KEY)
    (folder / "s3.secret-key").write_text(SECRET_KEY)
    (folder / "objects").mkdir()
    with (
        secured_servers(folder, [service_user(Service.GATEWAY, "nats-password-of-gateway")]) as servers,
        s3_server(folder / "objects", ServerTls(*servers.authority.issue("s3"))) as objects,
    ):
        settings = servers.environment("api-gateway") | {
            "ARTIFACT_STORAGE_ENDPOINT": objects,
            "ARTIFACT_STORAGE_CA_CERT": str(servers.authority.cert),
            "ARTIFACT_STORAGE_ACCESS_KEY_FILE": str(folder / "s3.access-key"),
            "ARTIFACT_STORAGE_SECRET_KEY_FILE": str(folder / "s3.secret-key"),
            "WEBHOOK_CA_CERT": str(servers.authority.cert),
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "SECRETS_KEY_FILE": str(folder / "webhooks.keys"),
            "API_TOKENS_FILE": str(tokens),
            "OWNERSHIP_LEASE_TTL_SECONDS": "2",
            "LOG_FORMAT": "json",
        }
        yield Installation(servers, settings, Authority(folder, "stranger"))


@pytest.fixture
def start(
    installation: Installation, tmp_path: Path
) -> Callable[[dict[str, str]], AbstractAsyncContextManager[Gateway]]:
    """A gateway with the installation's settings but for those that are given."""

    @asynccontextmanager
    async def start(other: dict[str, str]) -> AsyncIterator[Gateway]:
        port, health = free_ports(2)
        settings = installation.settings | {"GATEWAY_PORT": str(port), "HEALTH_PORT": str(health)} | other
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lablet_gateway", env=os.environ | settings, stdout=output, stderr=output
            )
        headers = {"Authorization": "Bearer t"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) as client:
            try:
                async with asyncio.timeout(40):
                    yield Gateway(process, client, f"http://127.0.0.1:{health}/readyz", log)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                print(log.read_text()[-4000:])

    return start


async def test_with_logins_and_certificates_everywhere_it_is_ready_and_does_its_work(
    installation: Installation, start: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in installation.servers.environment("api-gateway").items():
        monkeypatch.setenv(name, value)
    store = open_store(EtcdSettings())
    for resource in (world.template(), world.pool(), world.worker(), world.definition()):
        await Repository(store, kind_of(resource)).create(resource)
    await store.close()
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        heard.put_nowait(json.loads(await request.read()))
        return web.Response(status=204)

    tls = ServerTls(*installation.servers.authority.issue("sink"))
    async with start({}) as gateway, serving(take, tls) as sink:
        checks = await gateway.checks(lambda status, found: status == 200 and set(found.values()) == {"ok"})
        assert {"etcd", "nats", "s3"} <= set(checks)
        api = gateway.client
        subscription = {"name": "lms", "sink": f"{sink}/", "types": ["io.lablet.request.accepted"]}
        made = await api.post("/api/v1/subscriptions", json=subscription)
        assert made.status_code == 201, made.text
        start_at = (datetime.now(UTC) + timedelta(hours=1)).replace(second=0, microsecond=0)
        body = {"definition": "ospf-basics", "start": start_at.isoformat(), "durationMinutes": 60}
        booked = await api.post("/api/v1/reservations", json=body)
        assert booked.status_code == 202, booked.text
        event = await heard.get()
        assert event["subject"] == f"request/{booked.json()['metadata']['id']}"
        told = gateway.log.read_text()
    for secret in (ACCESS_KEY, SECRET_KEY, *installation.servers.passwords.values()):
        assert secret not in told


async def test_an_etcd_that_is_not_trusted_keeps_it_from_starting_and_is_named_with_the_setting(
    installation: Installation, start: Any
) -> None:
    async with start({"ETCD_CA_CERT": str(installation.stranger.cert), "ETCD_TIMEOUT": "2"}) as gateway:
        await gateway.told("a dependency does not answer yet", "CERTIFICATE_VERIFY_FAILED", "ETCD_CA_CERT")
        checks = await gateway.checks(lambda _, found: "ETCD_CA_CERT" in found.get("etcd", ""))
        assert checks["start"] == "failed: still starting"
        assert gateway.process.returncode is None, "a certificate can be mended"


async def test_nats_and_s3_that_are_not_trusted_are_named_with_their_settings_while_it_serves(
    installation: Installation, start: Any
) -> None:
    stranger = str(installation.stranger.cert)
    async with start({"NATS_CA_CERT": stranger, "ARTIFACT_STORAGE_CA_CERT": stranger}) as gateway:
        await gateway.checks(
            lambda status, found: (
                status == 200 and "NATS_CA_CERT" in found["nats"] and "ARTIFACT_STORAGE_CA_CERT" in found["s3"]
            )
        )
        await gateway.told("certificate verify failed", "NATS_CA_CERT")


async def test_a_file_of_certificates_that_is_not_there_ends_it_at_once_with_the_variables_name(start: Any) -> None:
    async with start({"ETCD_CA_CERT": "/nowhere/ca.pem"}) as gateway:
        assert await gateway.process.wait() != 0
        assert "ETCD_CA_CERT names /nowhere/ca.pem, which cannot be read" in gateway.log.read_text()
