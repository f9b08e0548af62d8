"""What readiness is told of the bus: no connection, and consumers to which no messages can come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lablet_common.bus import Bus, consumer
from lablet_common.settings import NatsSettings


class Time:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(consumer, "time", made)
    return made


@asynccontextmanager
async def consuming(pull: Callable[[Any, asyncio.Event], Awaitable[str]]) -> AsyncIterator[Bus]:
    """A bus that is connected, with one consumer whose pulls are `pull`, once the first is under way."""

    async def handle(_: Any) -> None:
        raise AssertionError("nothing is sent")

    bus, under_way = Bus(NatsSettings(), "scheduler"), asyncio.Event()
    bus.connection._up.set()
    made: Any = bus.consumer("INTENTS_SCHEDULER", "scheduler-east", ["lablet.intent.scheduler.>"], handle)
    made._pull_once = lambda: pull(made, under_way)
    task = asyncio.create_task(made.run())
    try:
        await asyncio.wait_for(under_way.wait(), 5)
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await bus.look()  # who has been told to stop is not missed


async def refused(_: Any, under_way: asyncio.Event) -> str:
    under_way.set()
    raise TimeoutError("no answer")


async def standing(made: Any, under_way: asyncio.Event) -> str:
    made.pulling = True
    under_way.set()
    return await asyncio.Event().wait() or "never"


async def test_no_connection_is_told() -> None:
    with pytest.raises(ConnectionError, match="not connected to nats://"):
        await Bus(NatsSettings(), "scheduler").look()


async def test_a_consumer_without_a_pull_is_told_after_half_a_minute(time: Time) -> None:
    async with consuming(refused) as bus:
        time.now += 29
        await bus.look()
        time.now += 2
        with pytest.raises(ConnectionError, match="scheduler-east"):
            await bus.look()


async def test_a_pull_that_stands_may_be_quiet_for_as_long_as_it_likes(time: Time) -> None:
    async with consuming(standing) as bus:
        time.now += 3600
        await bus.look()


async def test_a_connection_that_was_away_for_long_is_no_fault_of_its_consumers(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls: asyncio.Queue[str] = asyncio.Queue()
    lost, waiting = asyncio.Event(), asyncio.Event()

    def wait_up(wait: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def told() -> None:
            waiting.set()
            await wait()

        return told

    async def until_lost(made: Any, under_way: asyncio.Event) -> str:
        made.pulling = True
        pulls.put_nowait("open")
        under_way.set()
        await lost.wait()
        lost.clear()
        return "lost"

    async with consuming(until_lost) as bus:
        await pulls.get()
        monkeypatch.setattr(bus.connection, "wait_up", wait_up(bus.connection.wait_up))
        bus.connection._up.clear()
        lost.set()
        await asyncio.wait_for(waiting.wait(), 5)
        time.now += 3600
        with pytest.raises(ConnectionError, match="not connected"):
            await bus.look()
        bus.connection._up.set()
        await asyncio.wait_for(pulls.get(), 5)
        await bus.look()
