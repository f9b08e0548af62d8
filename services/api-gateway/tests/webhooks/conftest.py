"""Webhooks with a real HTTP sink on 127.0.0.1, the bus's twin, a clock that stands still, and the API in front."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web

from lablet_common.bus import MemoryBus
from lablet_common.events import derive
from lablet_common.ownership import Fence
from lablet_common.resources.kinds import ownership_key
from lablet_common.secrets import SecretBox
from lablet_common.store import Transaction
from lablet_common.testing.sinks import serving
from lablet_gateway.app import create_app
from lablet_gateway.webhooks.dispatcher import Dispatcher
from lablet_gateway.webhooks.sender import HttpSender

PATH = "/api/v1/subscriptions"


@dataclass
class SinkServer:
    """Answers as `answer` says, and keeps what it accepted."""

    url: str = ""
    answer: Callable[[dict[str, Any]], int] = lambda _: 204
    tries: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    location: str = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = json.loads(body)
        self.tries.append(event)
        status = self.answer(event)
        if 200 <= status < 300:
            self.taken.append(event)
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=status, headers={"Location": self.location} if self.location else {})

    def subjects(self) -> list[tuple[str, int]]:
        return [(event["subject"], int(event["sequence"])) for event in self.taken]


@pytest.fixture
async def sink() -> AsyncIterator[SinkServer]:
    server = SinkServer()
    async with serving(server.take) as url:
        server.url = f"{url}/hook"
        yield server


@dataclass
class Desk:
    """The gateway with a bus, and replicas that serve its subscriptions."""

    world: Any
    parts: Any
    bus: MemoryBus
    sender: HttpSender
    revision: int = 0

    def client(self, name: str = "admin@default") -> httpx.AsyncClient:
        return self.world.client(name)

    async def subscribe(self, sink: str, name: str = "lms", *, by: str = "admin@default", **more: Any) -> Any:
        answer = await self.client(by).post(PATH, json={"name": name, "sink": sink, **more})
        assert answer.status_code == 201, answer.text
        await self.world.caught_up()
        return answer.json()

    async def publish(self, *resources: Any) -> None:
        """Commits as a bridge tells of them, each with the next revision."""
        for resource in resources:
            self.revision += 1
            (outgoing,) = derive(_kind(resource), None, resource, self.revision, source="/lablet/scheduler")
            await self.bus.publish(outgoing)
            self.world.log.append(outgoing.event)

    @asynccontextmanager
    async def serving(self, name: str = "lms") -> AsyncIterator["asyncio.Task[None]"]:
        """A replica that owns the subscription, until the block ends; then the shard is given up."""
        key = ownership_key("api-gateway", f"webhook-{name}")
        done = await Transaction().put(key, os.urandom(4)).commit(self.world.store)
        fence = Fence(key, done.revision)
        dispatcher = Dispatcher(self.parts, self.bus, self.sender, self.world.clock)
        task = asyncio.create_task(dispatcher.serve(name, fence))
        try:
            yield task
        finally:
            failed = task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, *((Exception,) if failed else ())):
                await task
            await self.world.store.delete(key)

    async def pass_time(self, span: timedelta, step: timedelta = timedelta(seconds=30)) -> None:
        """Lets real calls happen between the steps."""
        end = self.world.clock.now() + span
        while self.world.clock.now() < end:
            await self.quiet()
            await self.world.clock.set(min(end, self.world.clock.now() + step))

    async def quiet(self) -> None:
        """Waits until no HTTP call is under way."""
        for _ in range(3):
            await asyncio.sleep(0)
        while self.calls.under_way:
            await asyncio.sleep(0.0005)

    @property
    def calls(self) -> "Counted":
        assert isinstance(self.sender, Counted)
        return self.sender

    async def state(self, name: str = "lms") -> Any:
        return (await self.client().get(f"{PATH}/{name}")).json()["status"]


class Counted(HttpSender):
    """The real sender, which also tells how many calls are under way."""

    under_way = 0
    send: Callable[..., Awaitable[Any]] = staticmethod(HttpSender.post)

    async def post(self, *args: Any, **more: Any) -> Any:
        self.under_way += 1
        try:
            return await self.send(self, *args, **more)
        finally:
            self.under_way -= 1


def _kind(resource: Any) -> Any:
    from lablet_common.resources.kinds import kind_of

    return kind_of(resource)


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.002)


def box() -> SecretBox:
    return SecretBox({"k1": b"k" * 32})


@pytest.fixture
async def desk(world: Any) -> AsyncIterator[Desk]:
    settings = world.parts.settings.model_copy(update={"webhook_allow_private": True})
    parts = replace(world.parts, settings=settings, secrets=box(), real_time=world.clock)
    world.app, world.parts = create_app(parts), parts
    async with Counted(timeout=5) as sender:
        yield Desk(world, parts, MemoryBus("api-gateway"), sender)
