"""Lanes: one at a time per key, many keys at once, never more than a bound.

A slow item holds up its own key and one worker, nothing else. There is a worker for each lane that has something, up to the
bound, and none while there is nothing: a bound may be large. Order within a lane is the order of `put`. Not guaranteed: any
order between lanes, and that items survive the end of `run` (`drain` gives them back).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

from lablet_common.tasks import ended

_T = TypeVar("_T")


class Lanes(Generic[_T]):
    """Per-key queues, for `concurrency` items at a time."""

    def __init__(self, *, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes: dict[Hashable, deque[_T]] = {}
        self._ready: deque[Hashable] = deque()
        self._count = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._work: Callable[[_T], Awaitable[None]] | None = None
        """None while nothing runs."""
        self._failed: asyncio.Future[None] | None = None

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
        self._ready.append(key)
        if self._work is not None and len(self._workers) < self._concurrency:
            self._begin()

    async def run(self, work: Callable[[_T], Awaitable[None]]) -> None:
        """Feeds `work` for ever; what it raises ends `run`, so it must not. Cancelled, this cancels what is under way."""
        self._failed = asyncio.get_running_loop().create_future()
        self._work = work
        try:
            for _ in range(min(len(self._ready), self._concurrency)):
                self._begin()
            await self._failed
        finally:
            self._work = self._failed = None  # they hold whoever runs this, and the error that is being raised
            await ended(tuple(self._workers))

    def _begin(self) -> None:
        task = asyncio.create_task(self._worker(), name="lane")
        self._workers.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        if self._failed is None or self._failed.done():
            return
        if task.cancelled():
            self._failed.cancel()
        elif (error := task.exception()) is not None:
            self._failed.set_exception(error)
        elif self._ready:
            self._begin()  # put when this one had just found nothing more

    def drain(self) -> list[_T]:
        """Takes out everything that is left, after `run` has ended; the items that were being worked on among them."""
        left = list(self)
        self._lanes.clear()
        self._ready.clear()
        self._count = 0
        return left

    async def _worker(self) -> None:
        work = self._work
        while work is not None and self._ready:
            key = self._ready.popleft()
            lane = self._lanes[key]
            await work(lane[0])
            lane.popleft()
            self._count -= 1
            if lane:
                self._ready.append(key)
            else:
                del self._lanes[key]
