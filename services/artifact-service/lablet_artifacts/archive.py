"""Resources that have ended leave etcd for the object store, some lab hours after their last move.

A batch goes in this order: its file is put and read back (digest and count), each resource's entry in the index is put,
and only then the owner of the kind is asked to delete. A crash between any two steps leaves etcd as it was, and the next
look does it again under the same keys. Instances go before their reservation: a reservation is archived only when none
of its instances is left in etcd, and an instance only when its reservation has ended.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lablet_common.archive import (
    FINALIZER,
    MEDIA_TYPE,
    Ask,
    IndexEntry,
    Named,
    asks_prefix,
    file_key,
    index_key,
    last_moved,
    pack,
    unpack,
)
from lablet_common.clock import Clock
from lablet_common.objects import ObjectMismatch, ObjectStore, ObjectStoreError, digest_of
from lablet_common.ownership import Fence, NotOwner
from lablet_common.removal import MAX_ITEMS
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, RESERVATION, SERIES, Kind
from lablet_common.resources.model import Resource
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.series import Series
from lablet_common.store import Compacted, Conflict, Store, StoreUnavailable, Transaction
from lablet_common.store.repository import Repository

log = logging.getLogger("lablet.artifacts.archive")

_RECORDS = 500
"""Resources of one file."""
_PAGE = 500
_PUTS_AT_ONCE = 16


class Archiver:
    """Archives while it holds the fence. `after`: lab time between a resource's last move and its leaving; `look_seconds`:
    real time between two looks."""

    def __init__(
        self, store: Store, fence: Fence, objects: ObjectStore, clock: Clock, *, after: timedelta, look_seconds: float
    ) -> None:
        self._store = store
        self._fence = fence
        self._objects = objects
        self._clock = clock
        self._after = after
        self._seconds = look_seconds
        self._reservations: Repository[Reservation] = Repository(store, RESERVATION)
        self._instances: Repository[Instance] = Repository(store, INSTANCE)
        self._series: Repository[Series] = Repository(store, SERIES)

    async def run(self) -> None:
        """Until cancelled. Raises `NotOwner` when the fence no longer stands."""
        while True:
            try:
                if archived := await self.look():
                    log.info("resources archived", extra={"resources": archived})
            except (StoreUnavailable, Compacted, ObjectStoreError) as error:
                log.warning("nothing can be archived just now", extra={"cause": str(error)})
            await asyncio.sleep(self._seconds)

    async def look(self) -> int:
        """One pass; returns how many resources were archived and asked for."""
        # Reservations first: an instance is made only for one that has not ended, so the later list has all of them.
        reservations = await _all(self._reservations)
        instances = await _all(self._instances)
        running = {one.id for one in reservations if not one.is_final}
        peopled = {one.spec.reservation for one in instances}
        asked = {kind.name: await self._asked(kind) for kind in (INSTANCE, RESERVATION, SERIES)}
        ended = [one for one in instances if one.spec.reservation not in running]
        empty = [one for one in reservations if one.id not in peopled]
        done = await self._archive(INSTANCE, self._due(ended, asked[INSTANCE.name]))
        done += await self._archive(RESERVATION, self._due(empty, asked[RESERVATION.name]))
        return done + await self._archive(SERIES, self._due(await _all(self._series), asked[SERIES.name]))

    def _due(self, resources: Iterable[Resource[Any, Any]], asked: set[tuple[str, int]]) -> list[Resource[Any, Any]]:
        before = self._clock.now() - self._after
        return [
            one
            for one in resources
            if one.is_final
            and FINALIZER in one.metadata.finalizers
            and last_moved(one) <= before
            and (one.id, one.revision) not in asked
        ]

    async def _asked(self, kind: Kind) -> set[tuple[str, int]]:
        """What its owner has been asked to delete and has not deleted yet."""
        named: set[tuple[str, int]] = set()
        after = ""
        while True:
            page = await self._store.range(asks_prefix(kind.name), limit=_PAGE, start_after=after)
            for kv in page.items:
                named.update((item.id, item.revision) for item in Ask.model_validate_json(kv.value).items)
            if not page.more:
                return named
            after = page.items[-1].key

    async def _archive(self, kind: Kind, resources: Sequence[Resource[Any, Any]]) -> int:
        batches: defaultdict[tuple[str, Any], list[Resource[Any, Any]]] = defaultdict(list)
        for one in sorted(resources, key=lambda one: one.id):
            batches[one.tenant, last_moved(one).date()].append(one)
        for batch in batches.values():
            for at in range(0, len(batch), _RECORDS):
                await self._archive_batch(kind, batch[at : at + _RECORDS])
        return len(resources)

    async def _archive_batch(self, kind: Kind, batch: Sequence[Resource[Any, Any]]) -> None:
        data = await asyncio.to_thread(pack, batch)
        key, digest = file_key(kind, batch), digest_of(data)
        await self._objects.put(key, data, MEDIA_TYPE)
        stored = await self._objects.get(key)
        if digest_of(stored) != digest or len(await asyncio.to_thread(unpack, kind, stored)) != len(batch):
            raise ObjectMismatch(f"{key} does not read back as it was written")
        for at in range(0, len(batch), _PUTS_AT_ONCE):
            await asyncio.gather(*(self._index(kind, one, key, digest) for one in batch[at : at + _PUTS_AT_ONCE]))
        for at in range(0, len(batch), MAX_ITEMS):
            await self._ask(kind, key, batch[at : at + MAX_ITEMS])

    async def _index(self, kind: Kind, resource: Resource[Any, Any], key: str, digest: str) -> None:
        entry = IndexEntry(file=key, digest=digest, revision=resource.revision)
        await self._objects.put(index_key(kind, resource), entry.to_json(), "application/json")

    async def _ask(self, kind: Kind, key: str, part: Sequence[Resource[Any, Any]]) -> None:
        ask = Ask(file=key, items=tuple(Named(id=one.id, revision=one.revision) for one in part))
        value = ask.to_json()
        txn = Transaction()
        self._fence.guard(txn)
        txn.put(f"{asks_prefix(kind.name)}{uuid5(NAMESPACE_URL, value.decode())}", value)
        try:
            await txn.commit(self._store)
        except Conflict as conflict:
            raise NotOwner("the archive has another owner") from conflict


async def _all(repository: Repository[Any]) -> list[Any]:
    """Everything of a kind at one revision, page by page, so that others get a turn."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = await repository.list(limit=_PAGE, cursor=cursor)
        found += page.items
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor
        await asyncio.sleep(0)
