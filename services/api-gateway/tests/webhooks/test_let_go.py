"""A subscription that is no longer served is held by nobody (see `../test_let_go.py`)."""

import asyncio
import gc
import weakref
from typing import Any

from lablet_common.bus import MemoryBus

from .conftest import Desk, SinkServer, until


async def test_what_served_a_subscription_is_let_go_at_once(world: Any, desk: Desk, sink: SinkServer) -> None:
    served: list[weakref.ref[Any]] = []

    class Watched(MemoryBus):
        def consumer(self, *given: Any, **more: Any) -> Any:
            made = super().consumer(*given, **more)
            served.append(weakref.ref(made))
            return made

    desk.bus = Watched("api-gateway")
    await desk.subscribe(sink.url)
    gc.collect()
    gc.disable()
    try:
        async with desk.serving():
            await desk.publish(world.reservation("rsv-a"))
            await until(lambda: sink.taken)
        assert len(served) == 2
        async with asyncio.timeout(5):
            while any(ref() is not None for ref in served):
                await asyncio.sleep(0.005)
    finally:
        gc.enable()
