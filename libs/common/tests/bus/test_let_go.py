"""A consumer that is cancelled is held by nobody: what it remembers of its subjects goes with it.

Services have Python look for circles seldom, and for those that have lived for a while hardly ever.
"""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from lablet_common.bus import EVENTS_STREAM, Bus, BusUnavailable, MemoryBus
from lablet_common.events import subjects
from lablet_common.testing.nats import NatsServer

from .conftest import Make, Until


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.integration)])
def bus(request: pytest.FixtureRequest) -> Bus | MemoryBus:
    return MemoryBus() if request.param == "memory" else request.getfixturevalue("gateway_bus")


class Running:
    """Runs one in a task, and holds nothing else of it."""

    def __init__(self, one: Any) -> None:
        self.ref = weakref.ref(one)
        self._task: asyncio.Task[None] | None = asyncio.create_task(one.run())

    async def end(self) -> None:
        """Cancels it and waits until nothing is left."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        await gone(self.ref)


async def gone(ref: "weakref.ref[Any]") -> None:
    async with asyncio.timeout(5):
        while ref() is not None:
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("uncollected")
async def test_a_consumer_is_let_go_at_once(bus: Bus | MemoryBus, make: Make) -> None:
    heard = asyncio.Event()

    async def handle(_: Any) -> None:
        heard.set()

    await bus.publish(make(state=True))
    running = Running(bus.consumer(EVENTS_STREAM, "brief", [subjects.event_filter()], handle))
    async with asyncio.timeout(10):
        while not getattr(running.ref(), "pulling", False):
            await asyncio.sleep(0.005)
        await bus.publish(make(sequence=2, state=True))
        await heard.wait()
    await running.end()


@pytest.mark.integration
@pytest.mark.usefixtures("uncollected")
async def test_a_follower_is_let_go_at_once(gateway_bus: Bus, make: Make) -> None:
    heard = asyncio.Event()

    async def handle(_: Any) -> None:
        heard.set()

    await gateway_bus.publish(make(state=True))
    running = Running(gateway_bus.follow([subjects.event_filter()], handle, after=0))
    async with asyncio.timeout(10):
        await heard.wait()
    await running.end()


@pytest.mark.integration
async def test_a_pull_that_ended_with_its_connection_is_not_subscribed_anew(
    server: NatsServer, gateway_bus: Bus, make: Make, until: Until, running: Any
) -> None:
    """Each restart of NATS left one behind, and with it the consumer, for as long as the process lived."""
    taken: list[int] = []

    async def handle(message: Any) -> None:
        taken.append(message.sequence)

    consumer = gateway_bus.consumer(EVENTS_STREAM, "lasting", [subjects.event_filter()], handle)
    async with running(consumer):
        await until(lambda: consumer.pulling)
        client = gateway_bus.connection.client

        def pulls() -> list[str]:
            """Inboxes of their own; the client's answers come to one with a star."""
            return [one.subject for one in client._subs.values() if not one.subject.endswith(".*")]

        assert len(pulls()) == 1
        for number in (1, 2):
            server.kill()
            await asyncio.to_thread(server.restart)
            await until(lambda: gateway_bus.connection.connected and consumer.pulling)
            async with asyncio.timeout(20):
                while True:
                    try:
                        await gateway_bus.publish(make(sequence=number, state=True))
                        break
                    except BusUnavailable:
                        await asyncio.sleep(0.05)
            await until(lambda number=number: number in taken, timeout=20)
        assert len(pulls()) == 1
