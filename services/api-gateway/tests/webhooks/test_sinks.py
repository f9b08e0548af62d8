"""Whom a webhook may call: no address of our own network, by no name and over no redirect; and when it is to come back."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lablet_common.bus.permissions import ServerTls
from lablet_common.testing.authority import Authority
from lablet_common.testing.sinks import serving
from lablet_gateway.app import create_app
from lablet_gateway.webhooks.addresses import SinkRefused, check_address, check_sink, check_url
from lablet_gateway.webhooks.sender import Answer, HttpSender

from .conftest import PATH, Desk, SinkServer, box, until

PRIVATE = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1",
    "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:db8::1", "192.0.2.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(SinkRefused):
        check_address("sink.example", address, allow_private=False)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:169.254.1.1"])
def test_where_clouds_keep_credentials_nobody_may_be_called_ever(address: str) -> None:
    with pytest.raises(SinkRefused, match="nobody may be called"):
        check_address("sink.example", address, allow_private=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_fine(address: str) -> None:
    check_address("sink.example", address, allow_private=False)


@pytest.mark.parametrize(
    "sink",
    ["ftp://a.example/", "a.example", "https://", "https://user:pw@a.example/", "http://a.example:0/",
     "http://a.example:x/", "http://a.example/#x", "file:///etc/passwd", "http://[::1"],
)  # fmt: skip
def test_what_is_no_sink_is_refused(sink: str) -> None:
    with pytest.raises(SinkRefused):
        check_url(sink)


@pytest.mark.parametrize(
    "sink", ["http://127.0.0.1/", "http://[::1]:80/", "http://2130706433/", "http://localhost/", "http://0x7f.1/"]
)
async def test_the_api_refuses_a_private_sink_unless_the_operator_allows_it(world: Any, sink: str) -> None:
    parts = replace(world.parts, secrets=box())
    world.app = create_app(parts)
    answer = await world.client().post(PATH, json={"name": "lms", "sink": sink})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "sink")
    assert "WEBHOOK_ALLOW_PRIVATE" in answer.text or "nobody may be called" in answer.text


async def test_every_address_of_a_name_is_looked_at_at_the_time_of_the_call(
    sink: SinkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was public when the subscription was made and is private now gains nothing."""
    port = int(sink.url.rpartition(":")[2].partition("/")[0])
    answers = [["8.8.8.8"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]]

    async def resolve(host: str, port: Any, **_: Any) -> Any:
        assert host == "sink.example"
        return [(2, 1, 6, "", (address, port)) for address in answers[0]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    await check_sink("http://sink.example/", allow_private=False)
    async with HttpSender(timeout=2) as sender:
        for found in answers[1:]:
            answers[0] = found
            told = await sender.post(f"http://sink.example:{port}/", {}, b"{}", allow_private=False)
            assert told.status is None
            assert "private address" in told.message
        assert sink.tries == []
        told = await sender.post(f"http://sink.example:{port}/", {}, b"{}", allow_private=True)
        assert told.taken


async def test_a_sink_over_tls_is_believed_by_the_systems_authorities_and_those_that_the_operator_adds(
    tmp_path: Path,
) -> None:
    authority, stranger = (Authority(tmp_path, name) for name in ("authority", "stranger"))

    async def take(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def told(url: str, trusted: Path | None) -> Answer:
        async with HttpSender(timeout=5, ca_cert=trusted) as sender:
            return await sender.post(url, {}, b"{}", allow_private=True)

    async with serving(take, ServerTls(*authority.issue("sink"))) as url:
        assert (await told(url, authority.cert)).status == 204
        for trusted in (stranger.cert, None):
            answer = await told(url, trusted)
            assert answer.status is None
            assert "not trusted" in answer.message
            assert "WEBHOOK_CA_CERT" in answer.message
        assert "not trusted" in (await told(url.replace("127.0.0.1", "localhost"), authority.cert)).message


async def test_further_authorities_do_not_replace_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = (Authority(tmp_path, name) for name in ("system", "own"))
    monkeypatch.setenv("SSL_CERT_FILE", str(system.cert))

    async def take(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async with (
        serving(take, ServerTls(*system.issue("public"))) as public,
        serving(take, ServerTls(*own.issue("private"))) as private,
        HttpSender(timeout=5, ca_cert=own.cert) as sender,
    ):
        for url in (public, private):
            assert (await sender.post(url, {}, b"{}", allow_private=True)).taken


async def test_a_redirect_is_not_followed(desk: Desk, sink: SinkServer) -> None:
    sink.location = sink.url
    sink.answer = lambda _: 307
    told = await desk.sender.post(sink.url, {}, b"{}", allow_private=True)
    assert (told.status, len(sink.tries)) == (307, 1)
    assert "redirects are not followed" in told.message


async def test_a_sink_that_says_when_to_come_back_is_left_alone_until_then(desk: Desk, sink: SinkServer) -> None:
    async def busy(request: web.Request) -> web.Response:
        sink.tries.append({})
        return web.Response(status=429, headers={"Retry-After": "600"})

    async with serving(busy) as url:
        await desk.subscribe(f"{url}/")
        async with desk.serving():
            await desk.publish(*(desk.world.reservation(f"rsv-{n}") for n in range(40)))
            await until(lambda: sink.tries)
            await desk.quiet()
            seen = len(sink.tries)
            await desk.pass_time(timedelta(seconds=590), timedelta(seconds=59))
            assert len(sink.tries) == seen
