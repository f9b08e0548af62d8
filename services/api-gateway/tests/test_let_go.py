"""Who leaves is held by nobody: neither a listener nor a subscription stays in a circle that waits to be found.

Services have Python look for circles seldom, and for those that have lived for a while hardly ever.
"""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from lablet_common.bus.seen import Seen
from lablet_common.events import derive
from lablet_common.resources.kinds import kind_of
from lablet_gateway import streams
from lablet_gateway.eventlog import MemoryEventLog
from lablet_gateway.gathering import Gathering
from lablet_gateway.listening import EventStreamResponse
from lablet_gateway.streams import Hub


def published(resource: Any, revision: int) -> Any:
    (outgoing,) = derive(kind_of(resource), None, resource, revision, source="/lablet/scheduler")
    return outgoing.event


Refs = list[weakref.ref[Any]]


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def gone(refs: Refs) -> None:
    """Waits until nothing holds any of them."""
    assert refs
    async with asyncio.timeout(5):
        while any(ref() is not None for ref in refs):
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("uncollected")
async def test_a_listener_that_leaves_is_let_go_at_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: Refs = []

    class Watched(Seen):
        def __init__(self, limit: int) -> None:
            super().__init__(limit)
            remembered.append(weakref.ref(self))

    monkeypatch.setattr(streams, "Seen", Watched)
    leaves, heard = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if b"reservation/rsv-a" in message.get("body", b""):
            heard.set()

    headers = [(b"authorization", b"Bearer secret-of-admin@default")]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/api/v1/events/stream", "raw_path": b"", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("gateway", 80), "root_path": "",
    }  # fmt: skip
    async with asyncio.timeout(10):
        serving = asyncio.create_task(world.app(scope, receive, send))
        while not world.parts.hub.clients:
            await asyncio.sleep(0.005)
        world.log.append(published(world.reservation("rsv-a"), 1))
        await heard.wait()
        leaves.set()
        await serving
    del serving
    await gone(remembered)


@pytest.mark.usefixtures("uncollected")
async def test_following_that_rests_is_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One spell of it for each time that somebody listens."""
    monkeypatch.setattr(streams, "_LOOK_SECONDS", 0.01)
    follows: Refs = []

    class Spell:
        """What a spell holds."""

    class Watched(MemoryEventLog):
        async def follow(self, after: int, handler: Any) -> None:
            spell = Spell()
            follows.append(weakref.ref(spell))
            await super().follow(after, handler)

    hub = Hub(Watched(), 100)
    running = asyncio.create_task(hub.run())
    await hub.ready(5)
    async with asyncio.timeout(5):
        while not follows:
            await asyncio.sleep(0.005)
    await gone(follows)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.usefixtures("uncollected")
async def test_a_listener_that_does_not_read_is_let_go_with_what_it_held() -> None:
    held: Refs = []

    class Held:
        """What its frames are made of."""

    async def frames() -> AsyncIterator[bytes]:
        one = Held()
        held.append(weakref.ref(one))
        while True:
            yield b"data: 1"

    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def stands() -> bool:
        return True

    async def wants_more() -> None:
        taken = 0

        async def send_some(message: Any) -> None:
            nonlocal taken
            taken += 1
            if taken > 2:
                await send(message)

        await EventStreamResponse(frames(), 0.01, stands)({"type": "http"}, receive, send_some)

    async with asyncio.timeout(5):
        await wants_more()
    await gone(held)


@pytest.mark.usefixtures("uncollected")
async def test_who_asked_in_vain_is_let_go_with_the_error() -> None:
    held: Refs = []

    class Held:
        """What whoever asks has in hand."""

    async def work(_: Sequence[int]) -> Sequence[int | Exception]:
        raise ConnectionError("etcd is away")

    async def ask() -> None:
        one = Held()
        held.append(weakref.ref(one))
        await Gathering(work).ask((1,))

    with pytest.raises(ConnectionError):
        await ask()
    await gone(held)
