"""A watch or a call that was cancelled is held by nobody: a term that ends takes all that it held with it."""

import asyncio
import gc
import weakref
from typing import Any

from lablet_common.store import EtcdStore


async def test_a_watch_whose_reader_is_cancelled_is_let_go_at_once(etcd: EtcdStore) -> None:
    """Without anybody who looks for circles: services have Python look for them seldom."""
    watches: list[weakref.ref[Any]] = []
    begun = asyncio.Event()

    async def read() -> None:
        watch = etcd.watch("/a")
        watches.append(weakref.ref(watch))
        async with watch as batches:
            begun.set()
            async for _ in batches:
                pass

    task = asyncio.create_task(read())
    await begun.wait()
    gc.disable()
    try:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        async with asyncio.timeout(5):
            while watches[0]() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
