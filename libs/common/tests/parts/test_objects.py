"""One contract for the object store's twin and a real S3 server."""

import asyncio

import httpx
import pytest
from pydantic import SecretStr

from lablet_common.bus.permissions import ServerTls
from lablet_common.objects import (
    MemoryObjectStore,
    ObjectMismatch,
    ObjectMissing,
    ObjectStoreUnavailable,
    S3ObjectStore,
    digest_of,
    get_content,
    put_content,
)
from lablet_common.resources.artifact import object_key
from lablet_common.settings import StorageSettings
from lablet_common.testing.authority import Authority
from lablet_common.testing.s3 import ACCESS_KEY, SECRET_KEY, s3_server

KEY, SECRET = ACCESS_KEY, SECRET_KEY


@pytest.fixture(scope="session", name="s3_server")
def _s3_server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.integration)])
async def store(request):
    if request.param == "memory":
        made = MemoryObjectStore()
    else:
        url = request.getfixturevalue("s3_server")
        made = S3ObjectStore(StorageSettings(endpoint=url, access_key=SecretStr(KEY), secret_key=SecretStr(SECRET)))
    await made.ensure_bucket()
    yield made
    await made.close()


async def test_what_is_put_is_got(store):
    await store.put("a/b", b"content", "text/plain")
    assert await store.get("a/b") == b"content"
    info = await store.head("a/b")
    assert info is not None
    assert info.bytes == 7


async def test_a_missing_object_is_missing_and_not_an_outage(store):
    with pytest.raises(ObjectMissing, match="nothing/here"):
        await store.get("nothing/here")
    assert await store.head("nothing/here") is None
    await store.delete("nothing/here")


async def test_objects_are_listed_below_a_prefix(store):
    for name in ("list/1", "list/2", "other/3"):
        await store.put(name, b"x")
    assert [info.key for info in await store.list("list/")] == ["list/1", "list/2"]
    await store.delete("list/1")
    assert [info.key for info in await store.list("list/")] == ["list/2"]


async def test_content_is_stored_once_under_its_digest_and_checked_on_read(store):
    data = b"x" * 100_000
    digest = await put_content(store, "t1", data, "text/plain")
    assert digest == digest_of(data)
    assert await put_content(store, "t1", data, "text/plain") == digest
    assert await get_content(store, "t1", digest) == data
    await store.put(object_key("t1", digest), b"y" * 100_000)
    with pytest.raises(ObjectMismatch, match=digest):
        await get_content(store, "t1", digest)


async def test_making_the_bucket_again_changes_nothing(store):
    await store.put("kept", b"1")
    await store.ensure_bucket()
    assert await store.get("kept") == b"1"


async def test_many_calls_at_once(store):
    await asyncio.gather(*(store.put(f"many/{n}", str(n).encode()) for n in range(40)))
    assert sorted(await asyncio.gather(*(store.get(f"many/{n}") for n in range(40)))) == sorted(
        str(n).encode() for n in range(40)
    )


@pytest.mark.integration
async def test_a_presigned_link_downloads_without_further_rights(s3_server):
    store = S3ObjectStore(StorageSettings(endpoint=s3_server, access_key=SecretStr(KEY), secret_key=SecretStr(SECRET)))
    await store.ensure_bucket()
    await store.put("linked", b"content")
    link = await store.presign("linked", 60)
    await store.close()
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(link)).content == b"content"
        assert (await http.get(link.partition("?")[0])).status_code in (400, 403)


@pytest.mark.integration
async def test_wrong_keys_are_refused_and_no_answer_is_an_outage(s3_server):
    wrong = S3ObjectStore(
        StorageSettings(endpoint=s3_server, access_key=SecretStr(KEY), secret_key=SecretStr("another-secret-key"))
    )
    with pytest.raises(Exception, match="403"):
        await wrong.put("x", b"1")
    await wrong.close()
    gone = S3ObjectStore(
        StorageSettings(endpoint="http://127.0.0.1:9", access_key=SecretStr(KEY), secret_key=SecretStr(SECRET))
    )
    with pytest.raises(ObjectStoreUnavailable, match=r"127\.0\.0\.1:9"):
        await gone.get("x")
    await gone.close()


@pytest.mark.integration
async def test_over_tls_the_settings_say_whose_certificate_is_trusted(tmp_path, monkeypatch):
    authority, stranger = (Authority(tmp_path, name) for name in ("authority", "stranger"))
    (tmp_path / "objects").mkdir()
    monkeypatch.setenv("ARTIFACT_STORAGE_ACCESS_KEY", KEY)
    monkeypatch.setenv("ARTIFACT_STORAGE_SECRET_KEY", SECRET)
    with s3_server(tmp_path / "objects", ServerTls(*authority.issue("server"))) as url:
        monkeypatch.setenv("ARTIFACT_STORAGE_ENDPOINT", url.removeprefix("https://"))
        monkeypatch.setenv("ARTIFACT_STORAGE_USE_SSL", "true")
        for trusted in (stranger.cert, ""):
            monkeypatch.setenv("ARTIFACT_STORAGE_CA_CERT", str(trusted))
            store = S3ObjectStore(StorageSettings(), tries=1)
            with pytest.raises(ObjectStoreUnavailable, match=r"not trusted .*ARTIFACT_STORAGE_CA_CERT names"):
                await store.ensure_bucket()
            await store.close()
        monkeypatch.setenv("ARTIFACT_STORAGE_CA_CERT", str(authority.cert))
        store = S3ObjectStore(StorageSettings())
        await store.ensure_bucket()
        digest = await put_content(store, "t1", b"content", "text/plain")
        assert await get_content(store, "t1", digest) == b"content"
        await store.close()
    with s3_server(tmp_path / "objects", ServerTls(*authority.issue("elsewhere", "127.0.0.2"))) as url:
        store = S3ObjectStore(StorageSettings(endpoint=url), tries=1)
        with pytest.raises(ObjectStoreUnavailable, match="not trusted"):
            await store.get("x")
        await store.close()


async def _scripted_server(answer: bytes, seen: list[bytes]) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.integration
async def test_a_put_waits_for_no_word_to_go_on():
    # the wait for "100 Continue" has no limit: a server that closes the connection instead would hold the caller for ever
    seen: list[bytes] = []
    async with await _scripted_server(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", seen
    ) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = S3ObjectStore(StorageSettings(endpoint=url, access_key=SecretStr(KEY), secret_key=SecretStr(SECRET)))
        async with asyncio.timeout(10):
            await store.put("x", b"content")
        await store.close()
    assert b"PUT " in seen[0]
    assert b"expect:" not in seen[0].lower()


@pytest.mark.integration
async def test_an_answer_that_breaks_off_is_an_outage():
    broken = b"HTTP/1.1 200 OK\r\nContent-Length: 868\r\n\r\nonly this much"
    async with await _scripted_server(broken, []) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = S3ObjectStore(StorageSettings(endpoint=url, access_key=SecretStr(KEY), secret_key=SecretStr(SECRET)))
        with pytest.raises(ObjectStoreUnavailable):
            await store.get("x")
        await store.close()
