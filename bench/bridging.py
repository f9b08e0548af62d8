"""The bridge by itself: committed changes of reservations on real etcd become events on a real NATS server.

How many it carries: changes that were committed while it was away, from its start until the last is confirmed. How long
one takes: from before the commit until a listener has it, while changes are committed at a steady rate. The writer and the
listener are a process of their own, so that the bridge has no other work than in a service.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import uvloop

from lablet_common.bridge import Bridge
from lablet_common.bus import Bus, Received
from lablet_common.events import subjects
from lablet_common.ownership import Fence
from lablet_common.resources import Service
from lablet_common.resources.kinds import RESERVATION, ownership_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import (
    Explanation,
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    SeatPlacement,
    Slot,
)
from lablet_common.service import collect_seldom
from lablet_common.settings import NatsSettings
from lablet_common.store import EtcdStore, Put
from lablet_common.store.changes import encode
from lablet_common.testing.etcd import EtcdServer

CHANGES = 20_000
TOGETHER = 50
"""Changes of one transaction where nothing depends on when each is committed."""
RATE = 1_000
SECONDS = 5
BURST = 5
"""Commits at one time: a timer a millisecond would measure the event loop."""
SOURCE = "/lablet/scheduler"
_AT = datetime(2027, 3, 1, 9, tzinfo=UTC)
_SLOT = Slot(start=_AT, end=_AT + timedelta(minutes=90))


def change(number: int) -> Put:
    """A reservation that has just been placed."""
    name = f"rsv-{number:026}"
    draft = Reservation(
        metadata=Metadata(id=name, uid=f"uid-{number}", owner="ina", labels={"course": "ccna-1"}, created_at=_AT),
        spec=ReservationSpec(definition="ospf-basics@1.0.0", start=_SLOT.start, end=_SLOT.end, duration_minutes=90),
        status=ReservationStatus(phase=ReservationPhase.PENDING),
    )
    seat = SeatPlacement(seat=1, worker="default-003", ports={"r1_serial": 2000, "r2_serial": 2001}, instance="ins-1")
    said = Explanation(summary="Placed on default-003", considered=200, removed={"capacity": 6})
    placed = draft.moved(
        ReservationPhase.SCHEDULED, at=_AT, by=SOURCE, reason="Placed", pool="default", slot=_SLOT,
        placement=(seat,), explanation=said,
    )  # fmt: skip
    return Put(RESERVATION.key(name), encode(placed))


async def _fence(store: EtcdStore) -> Fence:
    key = ownership_key(Service.SCHEDULER, "bridge-reservation")
    return Fence(key, await store.put(key, b"{}"))


async def carried(store: EtcdStore, bus: Bus, fence: Fence, changes: int) -> float:
    """Changes a second, with the whole history before it."""
    for first in range(0, changes, TOGETHER):
        await store.txn([], [change(number) for number in range(first, first + TOGETHER)])
    last = (await store.status()).revision
    bridge = Bridge(store, RESERVATION, fence, bus, source=SOURCE)
    began = time.perf_counter()
    running = asyncio.create_task(bridge.run())
    while bridge.cursor < last:
        await asyncio.sleep(0.01)
        if running.done():
            running.result()
    seconds = time.perf_counter() - began
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return changes / seconds


async def delays(store: EtcdStore, bus: Bus, fence: Fence, endpoint: str, url: str) -> Sequence[float]:
    """Milliseconds, sorted."""
    bridge = asyncio.create_task(Bridge(store, RESERVATION, fence, bus, source=SOURCE).run())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others:
        told = await asyncio.get_running_loop().run_in_executor(others, traffic, endpoint, url)
    bridge.cancel()
    await asyncio.gather(bridge, return_exceptions=True)
    return told


def traffic(endpoint: str, url: str) -> list[float]:
    """In a process of its own: commits at the rate, and hears."""
    collect_seldom()
    return uvloop.run(_traffic(endpoint, url))


async def _traffic(endpoint: str, url: str) -> list[float]:
    count, first = RATE * SECONDS, 10_000_000
    writes = [change(first + number) for number in range(count)]
    sent: dict[str, float] = {}
    heard: list[float] = []
    everything = asyncio.Event()

    async def hear(message: Received) -> None:
        began = sent.get(RESERVATION.key(message.id))
        if began is not None:
            heard.append((time.perf_counter() - began) * 1000)
            if len(heard) == count:
                everything.set()

    store = EtcdStore([endpoint])
    bus = Bus(NatsSettings(url=url), Service.GATEWAY)
    await bus.connect()
    listening = asyncio.create_task(bus.follow([subjects.event_filter("reservation")], hear).run())
    await asyncio.sleep(1)  # the follower's consumer begins with what comes now
    try:
        async with asyncio.TaskGroup() as tasks:
            start = time.perf_counter()
            for number, write in enumerate(writes):
                if number % BURST == 0:
                    await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
                sent[write.key] = time.perf_counter()
                tasks.create_task(store.put(write.key, write.value))
        async with asyncio.timeout(30):
            await everything.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await bus.close()
        await store.close()
    return sorted(heard)


async def bridging(folder: Path, url: str) -> dict[str, object]:
    """The figures of both, with an etcd of its own in `folder`."""
    with EtcdServer.start(folder) as server:
        store = EtcdStore([server.endpoint])
        bus = Bus(NatsSettings(url=url), Service.SCHEDULER)
        await bus.connect()
        try:
            fence = await _fence(store)
            rate = await carried(store, bus, fence, CHANGES)
            times = await delays(store, bus, fence, server.endpoint, url)
        finally:
            await bus.close()
            await store.close()
    return {
        "bridge_changes_per_s": f"{rate:.0f}",
        "bridge_delay_rate_per_s": RATE,
        "bridge_delay_p50_ms": f"{times[len(times) // 2]:.2f}",
        "bridge_delay_p99_ms": f"{times[int(len(times) * 0.99)]:.2f}",
        "bridge_delay_max_ms": f"{times[-1]:.2f}",
    }
