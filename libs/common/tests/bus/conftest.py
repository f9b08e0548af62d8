"""A real server, busses on it, and events to send."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lablet_common.bus import Bus, Consumer
from lablet_common.events import CloudEvent, Outgoing, message_id, subjects
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.testing.nats import NatsServer

Make = Callable[..., Outgoing]
Until = Callable[..., Awaitable[None]]


@pytest.fixture
def make() -> Make:
    """An intent for the scheduler (or a state event) with a subject and a sequence."""

    def make(
        resource_id: str = "rsv-1", sequence: int = 1, *, state: bool = False, pool: str = "east", **extra: Any
    ) -> Outgoing:
        event_type = "io.lablet.reservation.changed.v1" if state else "io.lablet.reservation.cancel.requested.v1"
        event_id = f"{'reservation' if state else 'intent'}/{resource_id}/{sequence}"
        attributes = {
            "id": event_id,
            "source": "/lablet/scheduler" if state else "/lablet/api-gateway",
            "type": event_type,
            "subject": f"reservation/{resource_id}",
            "time": datetime(2027, 3, 1, tzinfo=UTC),
            "datacontenttype": "application/json",
            "sequence": f"{sequence:020}",
            "tenant": "acme",
        } | extra
        subject = (
            subjects.event_subject("acme", "reservation", pool, resource_id)
            if state
            else subjects.intent_subject("scheduler", pool, "reservation", resource_id)
        )
        return Outgoing(subject, CloudEvent(attributes, b'{"reason":"rain"}'), message_id("acme", "s", event_id))

    return make


@pytest.fixture
def until() -> Until:
    """Waits until a condition holds; fails with what it last was."""

    async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come about"
            await asyncio.sleep(0.01)

    return until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path / "nats", sync_always=False) as server:
        yield server


@pytest.fixture
async def connect(server: NatsServer) -> AsyncIterator[Callable[..., Awaitable[Bus]]]:
    """Busses of any service on the test's server, closed at its end."""
    async with AsyncExitStack() as opened:

        async def connect(service: Service = Service.GATEWAY, **settings: Any) -> Bus:
            bus = Bus(NatsSettings(url=server.url, **settings), service)
            async with asyncio.timeout(10):
                await bus.connect()
            opened.push_async_callback(bus.close)
            return bus

        yield connect


@pytest.fixture
async def gateway_bus(connect: Callable[..., Awaitable[Bus]]) -> Bus:
    return await connect()


@pytest.fixture
def running() -> Callable[..., Any]:
    """Runs consumers for the length of a block."""

    @asynccontextmanager
    async def running(*consumers: Consumer) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(consumer.run()) for consumer in consumers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return running
