"""Decided requests go after a day (real hours), and their idempotency keys with them.

Runs where the bridge for requests runs, under its fence. A request is deleted only once the bridge has published its
outcome, and only as it was read. Undecided ones stay, however old they are.
"""

import asyncio
import logging
from datetime import timedelta

from lablet_common.bridge import Bridge
from lablet_common.clock import Clock
from lablet_common.ownership import Fence
from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_common.store import Compacted, Conflict, Store, StoreUnavailable, Transaction
from lablet_common.store.changes import delete_in
from lablet_common.store.repository import Repository

_log = logging.getLogger(__name__)
_PAGE = 100
"""Requests in memory at a time."""
_AT_ONCE = 50
"""Deletions per transaction; each also compares."""
LOOK_SECONDS = 300.0
_BEGIN_SECONDS = 1.0
"""Until the bridge has read how far it has published."""


class Expiry:
    """One owner's sweep over all requests. `retention` is real time."""

    def __init__(self, store: Store, clock: Clock, fence: Fence, bridge: Bridge, retention: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._fence = fence
        self._bridge = bridge
        self._retention = retention
        self._requests: Repository[Request] = Repository(store, REQUEST)

    async def run(self) -> None:
        """Sweeps every few minutes, until it is cancelled."""
        while True:
            if not self._bridge.cursor:  # nothing would be due, and an owner that is lost often would never sweep
                await asyncio.sleep(_BEGIN_SECONDS)
                continue
            try:
                swept = await self.sweep()
                if swept:
                    _log.info("requests expired", extra={"requests": swept})
            except (StoreUnavailable, Compacted) as error:
                _log.warning("requests cannot be swept just now", extra={"cause": str(error)})
            await asyncio.sleep(LOOK_SECONDS)

    async def sweep(self) -> int:
        """One pass; returns how many went."""
        published = self._bridge.cursor
        cursor: str | None = None
        swept = 0
        while True:
            page = await self._requests.list(limit=_PAGE, cursor=cursor)
            due = [request for request in page.items if self._is_due(request, published)]
            for at in range(0, len(due), _AT_ONCE):
                swept += await self._delete(due[at : at + _AT_ONCE])
            if page.next_cursor is None:
                return swept
            cursor = page.next_cursor

    def _is_due(self, request: Request, published: int) -> bool:
        decided = request.status.decided_at
        if not request.is_final or decided is None or request.revision > published:
            return False
        return self._clock.real_seconds(self._clock.now() - decided) >= self._retention.total_seconds()

    async def _delete(self, requests: list[Request]) -> int:
        txn = Transaction()
        self._fence.guard(txn)
        for request in requests:
            delete_in(txn, request)
        try:
            await txn.commit(self._store)
        except Conflict as error:
            _log.warning("requests were not deleted", extra={"cause": str(error)})
            return 0
        return len(requests)
