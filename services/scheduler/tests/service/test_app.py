"""The wiring: a scheduler on the twins of etcd and NATS, woken by intents alone, with its own bridge."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lablet_common.bridge import Bridge
from lablet_common.bus import MemoryBus
from lablet_common.clock import ClockOrigin, ScaledClock
from lablet_common.ownership import Fence
from lablet_common.resources.kinds import REQUEST, RESERVATION, Service
from lablet_common.service import Runtime
from lablet_common.store import Get
from lablet_common.telemetry.health import Health
from lablet_scheduler.app import Scheduler


@pytest.fixture
async def running(world: Any) -> AsyncIterator[tuple[Any, MemoryBus]]:
    """A scheduler and the gateway's bridge for requests. The periodic look is an hour away."""
    bus = MemoryBus(Service.SCHEDULER)
    world.settings = world.settings.model_copy(update={"resync_seconds": 3600.0, "replica_id": "one"})
    clock = ScaledClock(ClockOrigin(real=datetime.now(UTC), lab=world.when(0)))
    async with asyncio.TaskGroup() as tasks:
        runtime = Runtime(
            Service.SCHEDULER, world.settings, world.store, bus, clock, Health(), tasks, logging.getLogger("test")
        )
        fence = Fence(
            "/ownership/api-gateway/bridge-request",
            await world.store.put("/ownership/api-gateway/bridge-request", b"g"),
        )
        alive = [
            tasks.create_task(Scheduler(runtime, world.settings).run()),
            tasks.create_task(Bridge(world.store, REQUEST, fence, bus, source="/lablet/api-gateway").run()),
        ]
        yield world, bus
        for task in alive:
            task.cancel()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_an_intent_wakes_the_owner_and_the_bridge_tells_what_it_decided(running: Any) -> None:
    world, bus = running
    await world.pool()
    await world.definition()

    async def owned() -> bool:
        return await world.store.get("/ownership/scheduler/default") is not None

    await _until(owned)
    names = []
    for _ in range(2):  # the second finds an owner that has come to rest
        names.append(await world.ask(seats=2))

        async def decided() -> bool:
            return await world.store.get(RESERVATION.key(names[-1])) is not None

        await _until(decided)

    async def told() -> bool:
        return len([sent for sent in bus.published if "reservation.scheduled" in str(sent.event.get_type())]) == 2

    await _until(told)
    assert [await world.phase(name) for name in names] == ["Scheduled", "Scheduled"]


async def test_a_request_that_is_handed_on_wakes_its_next_owner(running: Any) -> None:
    world, _ = running
    await world.definition()
    await world.pool("default", workers=1)
    await world.pool("spare", workers=1)
    await world.ask(seats=2)
    name = await world.ask(seats=2, pools=("default", "spare"))

    async def decided() -> bool:
        return await world.store.get(RESERVATION.key(name)) is not None

    await _until(decided)
    assert (await world.reservation(name)).status.pool == "spare"


async def test_a_deleted_pool_is_given_up_and_the_scheduler_goes_on(running: Any) -> None:
    world, _ = running
    await world.definition()
    await world.pool("default", workers=1)
    await world.pool("spare", workers=1)

    async def both() -> bool:
        return (await world.store.range("/ownership/scheduler/", keys_only=True)).count == 4

    await _until(both)
    await world.store.delete("/pools/spare")

    async def given_up() -> bool:
        return await world.store.get("/ownership/scheduler/spare") is None

    await _until(given_up)
    name = await world.ask()

    async def decided() -> bool:
        return await world.store.get(RESERVATION.key(name)) is not None

    await _until(decided)


class Reading:
    """A store that lets nobody read the reservations until it may, and notes who does."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.may = asyncio.Event()
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("range", "txn"):
            return method

        async def call(*arguments: Any, **options: Any) -> Any:
            asked = arguments[:1] if name == "range" else [part.key for part in arguments[1] if isinstance(part, Get)]
            if RESERVATION.prefix in asked:
                self.reads += 1
                await self.may.wait()
            return await method(*arguments, **options)

        return call


async def test_a_pool_is_handed_over_only_to_who_knows_it_already(world: Any) -> None:
    """A newcomer is no member before its caches are filled, so nobody gives a pool up for it while it reads; and who takes
    one over reads no reservation again before it decides, however many there are."""
    await world.definition()
    await world.pool(workers=4)
    first = await world.own()
    for number in range(6):
        await world.ask(60 + number, 120 + number)
    await world.settle()
    store = Reading(world.store)
    settings = world.settings.model_copy(update={"resync_seconds": 3600.0, "replica_id": "newcomer"})
    clock = ScaledClock(ClockOrigin(real=datetime.now(UTC), lab=world.when(0)))
    async with asyncio.TaskGroup() as tasks:
        bus, log = MemoryBus(Service.SCHEDULER), logging.getLogger("test")
        runtime = Runtime(Service.SCHEDULER, settings, store, bus, clock, Health(), tasks, log)  # type: ignore[arg-type]  # a store
        newcomer = tasks.create_task(Scheduler(runtime, settings).run())

        async def reads() -> bool:
            return store.reads > 0

        async def member() -> bool:
            return (await world.store.range("/members/scheduler/", keys_only=True)).count > 0

        await _until(reads)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not await member()
        assert first.state.reservations, "the first goes on meanwhile"
        store.may.set()
        await _until(member)
        known = store.reads
        await world.end()
        await world.store.delete("/ownership/scheduler/default")  # as the first does when its work has ended
        late = await world.ask(200, 260)

        async def decided() -> bool:
            return await world.store.get(RESERVATION.key(late)) is not None

        await _until(decided)
        assert store.reads == known
        newcomer.cancel()


async def test_a_pool_that_is_named_like_a_bridge_is_a_pool(running: Any) -> None:
    world, _ = running
    await world.pool("bridge-lab")
    await world.definition()
    name = await world.ask(pools=("bridge-lab",))

    async def decided() -> bool:
        return await world.store.get(RESERVATION.key(name)) is not None

    await _until(decided)
    assert await world.phase(name) == "Scheduled"
