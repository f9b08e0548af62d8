"""The owner's half of archiving: resources that stand in the archive are deleted, each only as it was archived.

The artifact-service asks under `/archived/<kind>/`. Runs where the kind's bridge runs, under its fence, and deletes what
the bridge has published. One transaction deletes a whole ask with its resources, so a crash leaves either all or nothing
to do. What has changed since it was archived stays and is archived anew.
"""

import asyncio
import logging
from typing import Protocol

from lablet_common.archive import FINALIZER, Ask, Named, asks_prefix
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.kinds import Kind
from lablet_common.store.api import Get, KeyValue, Store, StoreUnavailable
from lablet_common.store.changes import decode, delete_in
from lablet_common.store.transaction import Conflict, Transaction

_log = logging.getLogger("lablet.removal")

MAX_ITEMS = 50
"""Resources of one ask: each costs a comparison and a deletion of its transaction."""
_LOOK_SECONDS = 5.0
_PAGE = 100


class Published(Protocol):
    """The kind's bridge."""

    @property
    def cursor(self) -> int:
        """Everything up to this revision has been published."""
        ...


class Removal:
    """Deletes archived resources of `kind` while the fence stands."""

    def __init__(self, store: Store, kind: Kind, fence: Fence, bridge: Published) -> None:
        self._store = store
        self._kind = kind
        self._fence = fence
        self._bridge = bridge

    async def run(self) -> None:
        """Looks every few real seconds, until cancelled. Raises `NotOwner` when the fence no longer stands."""
        while True:
            try:
                if removed := await self.look():
                    _log.info("archived resources deleted", extra={"kind": self._kind.name, "resources": removed})
            except StoreUnavailable as error:
                _log.warning("archived resources stay for now", extra={"kind": self._kind.name, "cause": str(error)})
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> int:
        """Does what is asked; returns how many resources went."""
        removed, after = 0, ""
        prefix = asks_prefix(self._kind.name)
        while True:
            page = await self._store.range(prefix, limit=_PAGE, start_after=after)
            for asked in page.items:
                removed += await self._remove(asked)
            if not page.more:
                return removed
            after = page.items[-1].key

    async def _remove(self, asked: KeyValue) -> int:
        ask = Ask.model_validate_json(asked.value)
        if any(item.revision > self._bridge.cursor for item in ask.items):
            return 0
        found = await self._store.txn([], [Get(self._kind.key(item.id)) for item in ask.items])
        txn = Transaction()
        self._fence.guard(txn)
        txn.require(asked.key, mod_revision=asked.mod_revision).delete(asked.key)
        removed = sum(self._remove_in(txn, item, read) for item, read in zip(ask.items, found.reads, strict=True))
        try:
            await txn.commit(self._store)
        except Conflict as conflict:
            if not await self._fence.stands(self._store):
                raise NotOwner(f"{self._kind.name}s have another owner") from conflict
            return 0
        return removed

    def _remove_in(self, txn: Transaction, item: Named, read: tuple[KeyValue, ...]) -> bool:
        if not read or read[0].mod_revision != item.revision:
            return False
        resource = decode(self._kind, read[0])
        if not resource.is_final:
            _log.error("asked to delete what has not ended", extra={"kind": self._kind.name, "id": item.id})
            return False
        released = resource.without_finalizer(FINALIZER)
        if released.metadata.finalizers:
            return False  # somebody else still needs it
        delete_in(txn, released)
        return True
