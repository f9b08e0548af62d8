"""Forgetting etcd's history without ever outrunning a bridge.

etcd keeps every revision until it is compacted. One owner compacts now and then, up to a revision that is old enough for
every reader that pins one (paged lists, watches that resume) and that every bridge's stored cursor has passed. A kind whose
bridge has no cursor yet holds everything.

Not guaranteed: that nobody else compacts. Bridges and caches survive that; they list again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from lablet_common.cursor import Cursor
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.kinds import Kind, cursor_key
from lablet_common.store import Compacted, Store, StoreUnavailable

log = logging.getLogger("lablet.compaction")

_LOOK_SECONDS = 60.0


async def lowest_cursor(store: Store, kinds: Iterable[Kind]) -> int:
    """The revision up to which no bridge will have to tell anything again; 0 while one of them has published nothing."""
    lowest: int | None = None
    for kind in kinds:
        found = await store.get(cursor_key(kind.name))
        revision = Cursor.from_json(found.value).safe if found is not None else 0
        lowest = revision if lowest is None else min(lowest, revision)
    return lowest or 0


class Compactor:
    """Compacts while it holds the fence. `history_seconds`: how much history is always kept, in real time."""

    def __init__(
        self,
        store: Store,
        fence: Fence,
        kinds: Iterable[Kind],
        *,
        history_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._fence = fence
        self._kinds = tuple(kinds)
        self._history = history_seconds
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        """When which revision was the newest."""

    async def run(self) -> None:
        """Looks every minute, until cancelled. Raises `NotOwner` when the fence no longer stands."""
        while True:
            try:
                if not await self._fence.stands(self._store):
                    raise NotOwner("compaction has another owner")
                await self.look()
            except StoreUnavailable as error:
                log.warning("etcd cannot be compacted just now", extra={"cause": str(error)})
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> int:
        """Compacts as far as may be; returns the revision, or 0 where there is nothing to forget."""
        now = self._clock()
        self._seen.append((now, (await self._store.status()).revision))
        old_enough = 0
        while self._seen and now - self._seen[0][0] >= self._history:
            old_enough = self._seen.popleft()[1]
        target = min(old_enough, await lowest_cursor(self._store, self._kinds))
        if target <= 0:
            return 0
        try:
            await self._store.compact(target)
        except Compacted:
            return 0  # it has been done already
        log.info("history forgotten", extra={"revision": target})
        return target
