"""What an owner writes, as it and those beside it see it."""

import asyncio

from lablet_common.ownership import Fence
from lablet_common.resources.kinds import WORKER
from lablet_common.resources.worker import Worker
from lablet_common.store import MemoryStore
from lablet_common.store.cache import Cache
from lablet_workers.ledger import Ledger

from .test_needs import a_worker


async def test_what_an_owner_has_written_is_the_very_resource_that_its_caches_hold() -> None:
    store = MemoryStore()
    fence = Fence("/owners/here", await store.put("/owners/here", b"me"))
    cache: Cache[Worker] = Cache(store, WORKER)
    following = asyncio.ensure_future(cache.run())
    ledger = Ledger(store, fence, cache, "default")
    made = await ledger.commit(a_worker())
    assert ledger.get(made.id) is made
    changed = await ledger.commit(made.observed("changed"))
    assert changed.revision > made.revision
    await cache.reached(changed.revision)
    assert cache.get(made.id) is changed
    following.cancel()
