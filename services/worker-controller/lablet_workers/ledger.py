"""Writing what this owner owns: fenced, compared, and seen by itself at once.

A cache shows a commit a few milliseconds later than it happened. Whoever takes the next step must not take it from the
older value, so the owner's own commits are remembered here until the cache has caught up.
"""

from typing import Any, Generic, TypeVar

from lablet_common.ownership import Fence
from lablet_common.resources.kinds import Kind, gate_key
from lablet_common.resources.model import Resource
from lablet_common.store import Store, Transaction
from lablet_common.store.cache import Cache
from lablet_common.store.changes import committed_in, create_in, delete_in, update_in

R = TypeVar("R", bound=Resource[Any, Any])


class Ledger(Generic[R]):
    """The resources of one kind as this owner knows them: the cache's, or its own newer commit."""

    def __init__(self, store: Store, fence: Fence, cache: Cache[R], pool: str) -> None:
        self._store = store
        self._fence = fence
        self._cache = cache
        self._pool = pool
        self._own: dict[str, R] = {}

    @property
    def kind(self) -> Kind:
        return self._cache.kind

    def get(self, resource_id: str) -> R | None:
        own, cached = self._own.get(resource_id), self._cache.get(resource_id)
        if own is None:
            return cached
        if cached is not None and cached.revision >= own.revision:
            del self._own[resource_id]
            return cached
        return own

    async def commit(self, resource: R, *, gate: bool = False, also: Transaction | None = None) -> R:
        """Writes the resource over the revision it was made from (or anew, at revision 0), under the fence. `gate` moves
        the pool's gate in the same transaction: to be given exactly when the eligibility or capacity of a worker changes.
        Raises `Conflict`."""
        txn = Transaction()
        self._fence.guard(txn)
        if resource.revision:
            update_in(txn, resource)
        else:
            create_in(txn, resource)
        if gate:
            move_gate_in(txn, self._pool, resource.id)
        if also is not None:
            txn.merge(also)
        result = await txn.commit(self._store)
        written = self._own[resource.id] = committed_in(txn, resource, result.revision)
        return written

    async def forget(self, resource: R) -> None:
        """Deletes the resource as it was read, under the fence, and moves the pool's gate. Raises `Conflict`."""
        txn = Transaction()
        self._fence.guard(txn)
        delete_in(txn, resource)
        move_gate_in(txn, self._pool, resource.id)
        await txn.commit(self._store)
        self._own.pop(resource.id, None)


def move_gate_in(txn: Transaction, pool: str, cause: str) -> None:
    """Makes every placement of the pool that was decided before this transaction be decided again."""
    txn.put(gate_key(pool), cause.encode())
