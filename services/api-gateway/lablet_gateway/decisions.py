"""Waiting for decisions: everybody on this replica who waits hears of them through the watch that the caches follow anyway.

A watch for each caller would cost etcd and this process more than the decision itself. What a caller may have missed
between the answer to the acceptance and the beginning of the wait is kept for a moment. What was not overheard (the watch
was away, or a burst was long) is found by a look of one's own, now and then.
"""

import asyncio
import time
from collections import OrderedDict
from typing import cast

from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_common.store import KeyValue, Store
from lablet_common.store.changes import decode
from lablet_common.store.repository import Repository
from lablet_gateway.underway import aside

_REMEMBERED = 1000
"""Latest changes that are kept for those who are about to wait."""
_LOOK_SECONDS = 2.0
"""Real seconds after which whoever still waits looks for itself."""


class Decisions:
    """Told by `hear` of each request that was put."""

    def __init__(self, store: Store) -> None:
        self._requests: Repository[Request] = Repository(store, REQUEST)
        self._waiting: dict[str, list[asyncio.Future[Request]]] = {}
        self._recent: OrderedDict[str, KeyValue] = OrderedDict()

    def hear(self, kv: KeyValue) -> None:
        """A request is stored like this now."""
        self._recent[kv.key] = kv
        self._recent.move_to_end(kv.key)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        if kv.key in self._waiting and (request := _read(kv)).is_final:
            for future in self._waiting.pop(kv.key):
                if not future.done():
                    future.set_result(request)

    async def wait(self, request: Request, timeout: float) -> Request:
        """Waits up to `timeout` real seconds for the decision and returns the request as it then stands. Raises
        `NotFound`, `StoreUnavailable`."""
        with aside():
            return await self._wait(request, timeout)

    async def _wait(self, request: Request, timeout: float) -> Request:
        ends = time.monotonic() + timeout
        while (left := ends - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                    return await self._told(request)
            except TimeoutError:
                found = await self._requests.require(request.id, request.tenant)
                if found.is_final:
                    return found
        return await self._requests.require(request.id, request.tenant)

    async def _told(self, request: Request) -> Request:
        key = REQUEST.key_of(request)
        known = self._recent.get(key)
        # an older one is of an earlier request under the same key, which has expired since
        if known is not None and known.mod_revision >= request.revision and (seen := _read(known)).is_final:
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


def _read(kv: KeyValue) -> Request:
    return cast("Request", decode(REQUEST, kv))
