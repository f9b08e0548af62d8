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
            tasks.create_task(Bridge(world.store, REQUEST, fence, bus.publish, source="/lablet/api-gateway").run()),
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
