"""A killed NATS has lost the last events that it had acknowledged: the bridge publishes them again."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js.api import PersistMode

from lablet_common.bridge import Bridge
from lablet_common.bus import EVENTS_STREAM, Bus, BusUnavailable
from lablet_common.bus.connection import CALL_SECONDS
from lablet_common.events import Outgoing
from lablet_common.ownership import Fence
from lablet_common.resources import Metadata, Service, WorkerTemplate
from lablet_common.resources.kinds import TEMPLATE
from lablet_common.resources.worker import Capacity, SimpleStatus, TemplateSpec
from lablet_common.store import MemoryStore
from lablet_common.store.repository import Repository
from lablet_common.testing.nats import NatsServer

Make = Callable[..., Outgoing]
Until = Callable[..., Awaitable[None]]
Connect = Callable[..., Awaitable[Bus]]

pytestmark = pytest.mark.integration


def template(name: str) -> WorkerTemplate:
    return WorkerTemplate(
        metadata=Metadata(id=name, uid=f"uid-{name}", created_at=datetime(2027, 3, 1, tzinfo=UTC)),
        spec=TemplateSpec(
            instance_type="m5",
            capacity=Capacity(cpu_cores=8, memory_gb=32, storage_gb=100),
            license="ENTERPRISE",
            max_nodes=0,
            node_definitions=("iosv",),
        ),
        status=SimpleStatus(),
    )


@pytest.fixture
def lose(server: NatsServer) -> Callable[[int], None]:
    """Kills the server; what it has of EVENTS beyond so many bytes was on no disk. A message that was cut is none."""

    def lose(kept: int) -> None:
        server.kill()
        block = block_of(server)
        os.truncate(block, kept)
        (block.parent / "index.db").unlink(missing_ok=True)
        server.launch()
        server.wait_ready()

    return lose


def block_of(server: NatsServer) -> Path:
    (block,) = (server.folder / "data").rglob(f"{EVENTS_STREAM}/msgs/*.blk")
    return block


async def ids(bus: Bus) -> list[str]:
    """Of all events of the stream, in order."""
    state = (await bus.connection.js.stream_info(EVENTS_STREAM)).state
    numbers = range(state.first_seq, state.last_seq + 1)
    found = [await bus.connection.js.get_msg(EVENTS_STREAM, number) for number in numbers]
    return [str((message.headers or {})["ce-id"]) for message in found]


async def test_what_a_server_lost_when_it_was_killed_is_published_again_in_its_order(
    server: NatsServer,
    connect: Connect,
    lose: Callable[[int], None],
    until: Until,
) -> None:
    bus, watcher = await connect(Service.WORKERS), await connect(Service.GATEWAY)
    store = MemoryStore()
    fence = Fence("/ownership/bridge", await store.put("/ownership/bridge", b"me"))
    bridge = Bridge(store, TEMPLATE, fence, bus, source="/lablet/worker-controller")
    running = asyncio.create_task(bridge.run())
    templates: Repository[WorkerTemplate] = Repository(store, TEMPLATE)

    async def make(*names: str) -> int:
        return [await templates.create(template(name)) for name in names][-1].revision

    try:
        assert (await watcher.connection.js.stream_info(EVENTS_STREAM)).config.persist_mode == PersistMode.ASYNC
        first = await make("a", "b")
        await until(lambda: bridge.cursor >= first)
        await asyncio.to_thread(server.stop)  # in order: all is written
        kept = block_of(server).stat().st_size
        await asyncio.to_thread(server.launch)
        await asyncio.to_thread(server.wait_ready)
        second = await make("c", "d", "e")
        await until(lambda: bridge.cursor >= second, timeout=20)
        before = await ids(watcher)
        assert len(before) == 5
        await asyncio.to_thread(lose, kept)
        third = await make("f")
        await until(lambda: bridge.cursor >= third, timeout=20)
        after = await ids(watcher)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(after[:-1]) == sorted(before)
    assert after[:2] == before[:2]


async def test_nothing_of_one_connection_is_sent_in_the_next(
    server: NatsServer, connect: Connect, make: Make, until: Until
) -> None:
    """Neither what was handed over before the loss was seen, nor what is meant for a connection that is over."""
    bus = await connect(Service.SCHEDULER)
    session = bus.session
    await bus.publish(make("rsv-1", 1, state=True), session=session)
    loop = asyncio.get_running_loop()
    server.kill()
    began = loop.time()
    with pytest.raises(BusUnavailable):
        await bus.publish(make("rsv-1", 2, state=True), session=session)
    assert loop.time() - began < CALL_SECONDS / 2  # told at once, not after the time for an answer
    await asyncio.to_thread(server.launch)
    await asyncio.to_thread(server.wait_ready)
    await until(lambda: bus.connected and bus.session != session)
    with pytest.raises(BusUnavailable, match="meant for it"):
        await bus.publish(make("rsv-1", 3, state=True), session=session)
    await bus.publish(make("rsv-1", 4, state=True), session=bus.session)
    there = await ids(await connect(Service.GATEWAY))
    assert there[-1] == "reservation/rsv-1/4"
    assert set(there) <= {"reservation/rsv-1/1", "reservation/rsv-1/4"}  # the first one may have been on no disk yet


async def test_a_lost_connection_takes_what_was_not_sent_with_it(connect: Connect, make: Make, until: Until) -> None:
    bus = await connect(Service.SCHEDULER)
    client: Any = bus.connection.client
    await client.prepare()
    client._flusher_task.cancel()
    client._flush_queue.put_nowait(asyncio.get_running_loop().create_future())  # it seems that somebody flushes already
    waiting = asyncio.create_task(bus.publish(make("rsv-1", 1, state=True)))
    await until(lambda: client._pending)
    await client._process_op_err(nats.errors.UnexpectedEOF())
    assert client._pending == []
    with pytest.raises(BusUnavailable):
        await waiting


async def test_a_right_that_is_missing_is_named(connect: Connect, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await connect(Service.SCHEDULER)

    async def unanswered(*_: Any, **__: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(bus.connection.js, "get_last_msg", unanswered)
    with pytest.raises(
        BusUnavailable, match=r"scheduler's user must have the right to \$JS.API.DIRECT.GET.EVENTS.lablet"
    ):
        await bus.last(make("rsv-1", 1, state=True).subject)
