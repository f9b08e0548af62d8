"""Login and TLS against a real etcd: tokens that run out, rights that are missing, certificates on both sides."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from lablet_common.store import EtcdStore, InvalidRequest, OutcomeUnknown, StoreUnavailable
from lablet_common.testing.authority import Authority
from lablet_common.testing.etcd import EtcdServer, EtcdTls, find_etcd

pytestmark = pytest.mark.integration

Open = Callable[..., AbstractAsyncContextManager[EtcdStore]]


def etcdctl(server: EtcdServer, *arguments: str) -> None:
    program = server.binary.etcdctl
    if program is None:
        pytest.skip("no etcdctl on this machine")
    environment = {**os.environ, "ETCDCTL_API": "3"}
    command = [str(program), f"--endpoints=http://{server.endpoint}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["debian", "wheel"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdServer]:
    """A server with authentication, where the user `lablet` may touch `/lablet/` alone."""
    if find_etcd(request.param) is None:
        pytest.skip(f"no etcd ({request.param}) on this machine")
    with EtcdServer.start(tmp_path / "etcd", request.param) as server:
        etcdctl(server, "user", "add", "root:topsecret")
        etcdctl(server, "user", "grant-role", "root", "root")
        etcdctl(server, "user", "add", "lablet:geheim")
        etcdctl(server, "role", "add", "lablet")
        etcdctl(server, "role", "grant-permission", "lablet", "--prefix=true", "readwrite", "/lablet/")
        etcdctl(server, "user", "grant-role", "lablet", "lablet")
        etcdctl(server, "auth", "enable")
        yield server


@asynccontextmanager
async def client(server: EtcdServer, **settings: object) -> AsyncIterator[EtcdStore]:
    store = EtcdStore([server.endpoint], **settings)
    try:
        yield store
    finally:
        await store.close()


LOGIN = {"username": "lablet", "password": "geheim"}


class TestLogin:
    async def test_with_a_login_everything_works(self, guarded: EtcdServer, take) -> None:
        async with client(guarded, **LOGIN) as store, store.watch("/k") as batches:
            lease = await store.lease_grant(60)
            await store.put("/k", b"1", lease=lease)
            (event,) = await take(batches, 1)
            assert event.kv.value == b"1"
            assert await store.lease_keep_alive(lease) == 60
            assert (await store.range("/")).count == 1

    async def test_without_a_login_or_with_a_wrong_password_the_refusal_is_final(self, guarded: EtcdServer) -> None:
        async with client(guarded) as store:
            with pytest.raises(InvalidRequest, match="user name"):
                await store.get("/k")
        async with client(guarded, username="lablet", password="wrong") as store:
            with pytest.raises(InvalidRequest, match="password"):
                await store.put("/k", b"")

    async def test_keys_outside_of_the_rights_are_refused(self, guarded: EtcdServer) -> None:
        async with client(guarded, prefix="/other", **LOGIN) as store:
            with pytest.raises(InvalidRequest, match="permission"):
                await store.put("/k", b"")
            with pytest.raises(InvalidRequest, match="permission"):
                async with store.watch("/k") as batches, asyncio.timeout(10):
                    await anext(batches)

    async def test_a_token_that_the_server_forgot_is_fetched_anew(self, guarded: EtcdServer, take) -> None:
        """Simple tokens live in etcd's memory: a restart forgets them, as their running out does."""
        async with client(guarded, **LOGIN) as store, store.watch("/k") as batches:
            await store.put("/k", b"1")
            await take(batches, 1)
            await asyncio.to_thread(guarded.restart)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await store.put("/k", b"2")
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
            (event,) = await take(batches, 1)
            assert event.kv.value == b"2"

    async def test_fifty_calls_at_once_log_in_together(self, guarded: EtcdServer) -> None:
        async with client(guarded, **LOGIN) as store:
            await asyncio.gather(*(store.put(f"/{i}", b"") for i in range(50)))
            assert (await store.range("/")).count == 50


async def test_half_of_a_login_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ETCD_PASSWORD"):
        EtcdStore(["127.0.0.1:1"], username="lablet")


async def test_a_login_that_the_server_does_not_want_is_no_obstacle(servers) -> None:
    async with client(servers("any"), prefix="/login", **LOGIN) as store:
        await store.put("/k", b"")
        assert await store.get("/k") is not None


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path, "authority")

    @pytest.fixture
    def secured(self, tmp_path: Path, authority: Authority) -> Iterator[EtcdServer]:
        """A server that speaks TLS and wants certificates of its clients."""
        if find_etcd("any") is None:
            pytest.skip("no etcd on this machine")
        cert, key = authority.issue("server")
        with EtcdServer.start(tmp_path / "etcd", tls=EtcdTls(cert, key, client_ca=authority.cert)) as server:
            yield server

    async def test_certificates_on_both_sides_are_accepted(
        self, secured: EtcdServer, authority: Authority, take
    ) -> None:
        cert, key = authority.issue("client")
        async with (
            client(secured, ca_cert=authority.cert, cert=cert, key=key) as store,
            store.watch("/k") as batches,
        ):
            await store.put("/k", b"1")
            (event,) = await take(batches, 1)
            assert event.kv.value == b"1"

    async def test_a_client_without_a_certificate_is_not_let_in(
        self, secured: EtcdServer, authority: Authority
    ) -> None:
        async with client(secured, ca_cert=authority.cert, timeout=2.0) as store:
            with pytest.raises(StoreUnavailable):
                await store.get("/k")

    async def test_a_server_of_another_authority_is_not_trusted(
        self, secured: EtcdServer, authority: Authority, tmp_path: Path
    ) -> None:
        cert, key = authority.issue("client")
        stranger = Authority(tmp_path, "stranger")
        async with client(secured, ca_cert=stranger.cert, cert=cert, key=key, timeout=2.0) as store:
            with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
                await store.get("/k")
            with pytest.raises(StoreUnavailable, match="TLS") as write:
                await store.put("/k", b"")
            assert not isinstance(write.value, OutcomeUnknown)

    async def test_the_name_in_the_certificate_is_checked(self, secured: EtcdServer, authority: Authority) -> None:
        cert, key = authority.issue("client")
        settings = {"ca_cert": authority.cert, "cert": cert, "key": key, "timeout": 2.0}
        async with client(secured, server_name="other.example", **settings) as store:
            with pytest.raises(StoreUnavailable):
                await store.get("/k")
        async with client(secured, server_name="server.example", **settings) as store:
            assert await store.get("/k") is None

    async def test_plain_text_to_a_tls_server_is_an_error_and_no_hang(self, secured: EtcdServer) -> None:
        async with client(secured, timeout=2.0) as store, asyncio.timeout(5):
            with pytest.raises(StoreUnavailable):
                await store.get("/k")
