"""Waiting for decisions: one watch on the requests for everybody on this replica who waits, for as long as somebody does.

A watch for each caller would cost etcd and this process more than the decision itself. What a caller may have missed
between the answer to the acceptance and the beginning of the wait is kept for a moment. When the shared watch breaks, each
goes on with a look of its own.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import cast

from lablet_common.requests import wait_decided
from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_common.store import EventType, KeyValue, Store, StoreError, WatchBatch
from lablet_common.store.changes import decode
from lablet_gateway.underway import aside

_log = logging.getLogger(__name__)
_REMEMBERED = 2000
"""Latest changes that are kept for those who are about to wait."""


class _WatchLost(Exception):
    """The shared watch cannot tell: ask for oneself."""


class Decisions:
    """The shared watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[asyncio.Future[Request]]] = {}
        self._recent: OrderedDict[str, KeyValue] = OrderedDict()
        self._floor = 0
        """Every later change is among the recent ones, or yet to come."""
        self._watch: asyncio.Task[None] | None = None

    async def wait(self, request: Request, timeout: float) -> Request:
        """Waits up to `timeout` real seconds for the decision and returns the request as it then stands. Raises
        `NotFound`, `StoreUnavailable`."""
        with aside():
            return await self._wait(request, timeout)

    async def _wait(self, request: Request, timeout: float) -> Request:
        began = time.monotonic()
        key = REQUEST.key_of(request)
        try:
            async with asyncio.timeout(timeout):
                return await self._decided(key, request)
        except TimeoutError:
            left = 0.0
        except _WatchLost:
            left = max(0.0, began + timeout - time.monotonic())
        return await wait_decided(self._store, request.tenant, request.id, left)

    async def _decided(self, key: str, request: Request) -> Request:
        if self._watch is None:
            self._floor = request.revision
            self._watch = asyncio.create_task(self._follow(request.revision + 1), name="decisions")
        elif request.revision < self._floor:
            raise _WatchLost
        elif (known := self._recent.get(key)) is not None:
            seen = _read(known)
            if seen.is_final:
                return seen
        future: asyncio.Future[Request] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        try:
            return await future
        finally:
            self._leave(key, future)

    def _leave(self, key: str, future: asyncio.Future[Request]) -> None:
        if key in self._waiting:
            self._waiting[key] = [other for other in self._waiting[key] if other is not future]
            if not self._waiting[key]:
                del self._waiting[key]
        if not self._waiting:
            self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = None
        self._recent.clear()

    async def _follow(self, revision: int) -> None:
        try:
            async with self._store.watch(REQUEST.prefix, start_revision=revision) as batches:
                async for batch in batches:
                    self._take(batch)
        except StoreError as error:
            _log.info("the watch for decisions has ended", extra={"cause": str(error)})
        lost = [future for futures in self._waiting.values() for future in futures if not future.done()]
        for future in lost:
            future.set_exception(_WatchLost())
        self._stop()

    def _take(self, batch: WatchBatch) -> None:
        for event in batch.events:
            key = event.kv.key
            self._recent[key] = event.kv
            self._recent.move_to_end(key)
            if key not in self._waiting:
                continue
            if event.type is EventType.DELETE:
                self._tell(key, _WatchLost())
            elif (request := _read(event.kv)).is_final:
                self._tell(key, request)
        while len(self._recent) > _REMEMBERED:
            _, oldest = self._recent.popitem(last=False)
            self._floor = max(self._floor, oldest.mod_revision)

    def _tell(self, key: str, outcome: Request | Exception) -> None:
        for future in self._waiting.pop(key):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _read(kv: KeyValue) -> Request:
    return cast("Request", decode(REQUEST, kv))
