"""Calls under way are bounded, in all and for one caller; who waits for a decision takes nobody's place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from lablet_gateway.app import create_app
from lablet_gateway.middleware import BodyLimit

BODY = {"definition": "ospf-basics", "seats": 1, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60}
WAIT = {"Prefer": "wait=5"}


class Slow:
    """A gateway whose store keeps everybody waiting until `go`."""

    def __init__(self, world: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.go = asyncio.Event()
        self._app = create_app(replace(world.parts, settings=world.parts.settings.model_copy(update=settings)))
        self._txn = world.store.txn
        monkeypatch.setattr(world.store, "txn", self._late)
        self._clients: list[httpx.AsyncClient] = []

    async def _late(self, *args: Any, **more: Any) -> Any:
        await self.go.wait()
        return await self._txn(*args, **more)

    def client(self, name: str) -> httpx.AsyncClient:
        self._clients.append(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(self._app),
                base_url="http://gateway/api/v1",
                headers={"Authorization": f"Bearer secret-of-{name}"},
            )
        )
        return self._clients[-1]

    async def close(self) -> None:
        self.go.set()
        for client in self._clients:
            await client.aclose()


@asynccontextmanager
async def slow(world: Any, monkeypatch: pytest.MonkeyPatch, most: int) -> AsyncIterator[Slow]:
    made = Slow(world, monkeypatch, gateway_max_underway=most)
    yield made
    await made.close()


async def done(calls: list[asyncio.Task[httpx.Response]], count: int) -> None:
    async with asyncio.timeout(5):
        while sum(call.done() for call in calls) < count:
            await asyncio.sleep(0.005)


def read(client: httpx.AsyncClient, times: int) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(client.get("/workers/default-001")) for _ in range(times)]


async def test_beyond_the_places_calls_are_sent_away_at_once_and_those_under_way_are_served(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow(world, monkeypatch, 4) as gateway:
        ann, bob, ina = (gateway.client(name) for name in ("admin@default", "operator@default", "ina"))
        first = read(ann, 2) + read(bob, 2)
        await asyncio.sleep(0)
        shed = read(ina, 3)
        await done(shed, 3)
        for answer in [await call for call in shed]:
            assert (answer.status_code, answer.json()["type"]) == (503, "https://lablet.io/problems/overloaded")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-request-id"], "it can be asked about"
        async with gateway.client("nobody") as nobody:
            assert (await nobody.get("/whoami")).status_code == 401, "who asks is proven first"
        gateway.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200] * 4
        assert (await ina.get("/workers/default-001")).status_code == 200


async def test_no_caller_has_more_than_half_of_the_places(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow(world, monkeypatch, 4) as gateway:
        greedy = read(gateway.client("admin@default"), 5)
        await done(greedy, 3)
        refused = [call.result() for call in greedy if call.done()]
        assert {answer.status_code for answer in refused} == {429}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        other = read(gateway.client("operator@default"), 2)
        gateway.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*other)] == [200, 200]
        assert sorted(answer.status_code for answer in await asyncio.gather(*greedy)) == [200] * 2 + [429] * 3


async def test_who_waits_for_a_decision_takes_nobodys_place(world: Any) -> None:
    settings = world.parts.settings.model_copy(update={"gateway_max_underway": 2})
    app = create_app(replace(world.parts, settings=settings))
    headers = {"Authorization": "Bearer secret-of-ina"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway/api/v1", headers=headers) as ina:
        waiting = []
        for number in range(4):
            waiting.append(asyncio.create_task(ina.post("/reservations", json=BODY, headers=WAIT)))
            async with asyncio.timeout(5):
                while len(await world.inbox()) <= number:
                    await asyncio.sleep(0.005)
        assert (await ina.get("/workers")).status_code in (200, 403)
        assert not any(call.done() for call in waiting)
        for _ in range(4):
            await world.decide()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {200, 201}
        assert (await ina.get("/whoami")).status_code == 200, "and every place is free again"


class Hanging:
    """A call whose body begins and does not go on."""

    def __init__(self, app: Any, name: str, path: str, media_type: bytes, begin: bytes) -> None:
        self.answer: dict[str, Any] = {}
        self._chunks = [begin]
        headers = ((b"content-type", media_type),)
        self._scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"authorization", f"Bearer secret-of-{name}".encode()), *headers], "client": ("127.0.0.1", 1),
            "server": ("gateway", 80), "scheme": "http", "http_version": "1.1", "root_path": "", "state": {},
        }  # fmt: skip
        self.task = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._chunks:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._chunks.pop(0), "more_body": True}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.answer = {"status": message["status"], "headers": dict(message["headers"])}


@pytest.mark.parametrize(
    ("path", "media_type", "begin"),
    [
        ("/api/v1/reservations", b"application/json", b"{"),
        ("/api/v1/series", b"application/json", b"{"),
        ("/api/v1/events", b"application/cloudevents+json", b"{"),
        ("/api/v1/definitions", b"application/yaml", b"lab:"),
        ("/api/v1/definitions", b"multipart/form-data; boundary=x", b"--x\r\n"),
    ],
)
async def test_a_body_that_does_not_come_gives_its_place_back(
    world: Any, monkeypatch: pytest.MonkeyPatch, path: str, media_type: bytes, begin: bytes
) -> None:
    monkeypatch.setattr("lablet_gateway.middleware._BODY_SECONDS", 0.2)
    settings = world.parts.settings.model_copy(update={"gateway_max_underway": 2})
    app = create_app(replace(world.parts, settings=settings))
    hanging = [Hanging(app, name, path, media_type, begin) for name in ("ina", "admin@default")]
    bearer = {"Authorization": "Bearer secret-of-operator@default"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway/api/v1") as bob:
        async with asyncio.timeout(5):
            while (await bob.get("/whoami", headers=bearer)).status_code != 503:
                await asyncio.sleep(0.005)
            await asyncio.gather(*(call.task for call in hanging))
        assert [call.answer["status"] for call in hanging] == [408, 408]
        assert all(call.answer["headers"][b"connection"] == b"close" for call in hanging)
        assert (await bob.get("/whoami", headers=bearer)).status_code == 200


async def test_a_large_lab_file_on_a_slow_line_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    size, piece, now = 2 * 1024 * 1024, 8 * 1024, 100.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("lablet_gateway.middleware.time", clock)
    came = 0

    async def receive() -> Any:
        nonlocal came, now
        await asyncio.sleep(0.001)
        came += piece
        now += 1.0
        return {"type": "http.request", "body": b"x" * piece, "more_body": came < size}

    async def read(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    limit = BodyLimit(read, 2 * size, {})
    async with asyncio.timeout(10):
        await limit({"type": "http", "method": "POST", "path": "/api/v1/definitions", "headers": []}, receive, receive)
    assert came == size


async def test_an_open_stream_takes_nobodys_place(world: Any) -> None:
    settings = world.parts.settings.model_copy(update={"gateway_max_underway": 2, "gateway_heartbeat_seconds": 0.05})
    app = create_app(replace(world.parts, settings=settings))
    sent, asked = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        if not asked.is_set():
            asked.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            sent.set()

    token = b"Bearer secret-of-ina"
    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/events/stream", "raw_path": b"/api/v1/events/stream",
        "query_string": b"", "headers": [(b"authorization", token)], "client": ("127.0.0.1", 1),
        "server": ("gateway", 80), "scheme": "http", "http_version": "1.1", "root_path": "", "state": {},
    }  # fmt: skip
    stream = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(5):
        await sent.wait()
    headers = {"Authorization": token.decode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway/api/v1") as ina:
        assert (await ina.get("/whoami", headers=headers)).status_code == 200
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
