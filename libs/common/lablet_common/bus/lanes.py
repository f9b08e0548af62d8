"""Lanes: one at a time per key, many keys at once, never more than a bound.

A slow item holds up its own key and one worker, nothing else. Order within a lane is the order of `put`. Not guaranteed:
any order between lanes, and that items survive `close` (they are handed back).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

from lablet_common.tasks import together

_T = TypeVar("_T")


class Lanes(Generic[_T]):
    """Per-key queues, for `concurrency` items at a time."""

    def __init__(self, *, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes: dict[Hashable, deque[_T]] = {}
        self._ready: asyncio.Queue[Hashable] = asyncio.Queue()
        self._count = 0

    def __len__(self) -> int:
        """Items that wait or are being worked on."""
        return self._count

    def __iter__(self) -> Iterator[_T]:
        return (item for lane in self._lanes.values() for item in lane)

    def put(self, key: Hashable, item: _T) -> None:
        lane = self._lanes.get(key)
        self._count += 1
        if lane is not None:
            lane.append(item)
            return
        self._lanes[key] = deque((item,))
        self._ready.put_nowait(key)

    async def run(self, work: Callable[[_T], Awaitable[None]]) -> None:
        """Feeds `work` for ever; what it raises ends `run`, so it must not. Cancelled, this cancels what is under way."""
        await together(*(self._worker(work) for _ in range(self._concurrency)))

    def drain(self) -> list[_T]:
        """Takes out everything that is left, after `run` has ended; the items that were being worked on among them."""
        left = list(self)
        self._lanes.clear()
        self._ready = asyncio.Queue()
        self._count = 0
        return left

    async def _worker(self, work: Callable[[_T], Awaitable[None]]) -> None:
        while True:
            key = await self._ready.get()
            lane = self._lanes[key]
            await work(lane[0])
            lane.popleft()
            self._count -= 1
            if lane:
                self._ready.put_nowait(key)
            else:
                del self._lanes[key]
