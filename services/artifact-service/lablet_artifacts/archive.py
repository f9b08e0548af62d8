"""Resources that have ended leave etcd for the object store, some lab hours after their last move.

A batch goes in this order: its file is put and read back (digest and count), each resource's entry in the index is put,
and only then the owner of the kind is asked to delete. A crash between any two steps leaves etcd as it was, and the next
look does it again under the same keys. Instances go before their reservation: a reservation is archived only when none
of its instances is left in etcd, and an instance only when its reservation has ended and all that it left was taken over:
what lies in staging for an instance that is not there is nobody's.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
from lablet_common.store import Compacted, Conflict, KeyValue, Store, StoreUnavailable, Transaction
from lablet_common.store.changes import decode

log = logging.getLogger("lablet.artifacts.archive")

_RECORDS = 500
"""Resources of one file."""
_PAGE = 500
_PUTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Known:
    """What of a resource decides whether it is due."""

    id: str
    revision: int
    final: bool
    kept: bool
    """It waits for the archive."""
    moved: datetime
    reservation: str
    """Of an instance its reservation; of a reservation itself."""


class Archiver:
    """Archives while it holds the fence. `after`: lab time between a resource's last move and its leaving; `look_seconds`:
    real time between two looks; `settled`: of an instance that has ended, nothing is left to be done for its files."""

    def __init__(
        self,
        store: Store,
        fence: Fence,
        objects: ObjectStore,
        clock: Clock,
        *,
        after: timedelta,
        look_seconds: float,
        settled: Callable[[Instance], bool] = lambda _: True,
    ) -> None:
        self._store = store
        self._fence = fence
        self._objects = objects
        self._clock = clock
        self._after = after
        self._seconds = look_seconds
        self._settled = settled
        self._known: dict[str, dict[str, _Known]] = {}
        """Kind → key → what was read at the last look."""

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
        reservations = await self._scan(RESERVATION)
        instances = await self._scan(INSTANCE)
        running = {one.id for one, _ in reservations if not one.final}
        peopled = {one.reservation for one, _ in instances}
        asked = {kind.name: await self._asked(kind) for kind in (INSTANCE, RESERVATION, SERIES)}
        ended = [found for found in instances if found[0].reservation not in running]
        empty = [found for found in reservations if found[0].id not in peopled]
        done = await self._archive(INSTANCE, self._due_instances(ended, asked[INSTANCE.name]))
        done += await self._archive(RESERVATION, self._due(RESERVATION, empty, asked[RESERVATION.name]))
        return done + await self._archive(SERIES, self._due(SERIES, await self._scan(SERIES), asked[SERIES.name]))

    def _due(
        self, kind: Kind, found: Iterable[tuple[_Known, KeyValue]], asked: set[tuple[str, int]]
    ) -> list[Resource[Any, Any]]:
        before = self._clock.now() - self._after
        return [
            decode(kind, kv)
            for one, kv in found
            if one.final and one.kept and one.moved <= before and (one.id, one.revision) not in asked
        ]

    def _due_instances(
        self, found: Iterable[tuple[_Known, KeyValue]], asked: set[tuple[str, int]]
    ) -> list[Resource[Any, Any]]:
        due = self._due(INSTANCE, found, asked)
        return [one for one in due if isinstance(one, Instance) and self._settled(one)]

    async def _scan(self, kind: Kind) -> list[tuple[_Known, KeyValue]]:
        """Everything of a kind at one revision, page by page, so that others get a turn. What has not changed since the
        last look is not read again: most of what etcd holds at any time waits for its day."""
        before, now = self._known.get(kind.name, {}), {}
        found: list[tuple[_Known, KeyValue]] = []
        after, revision = "", 0
        while True:
            page = await self._store.range(kind.prefix, limit=_PAGE, start_after=after, revision=revision)
            for kv in page.items:
                one = before.get(kv.key)
                if one is None or one.revision != kv.mod_revision:
                    one = _known(decode(kind, kv))
                now[kv.key] = one
                found.append((one, kv))
            if not page.more:
                self._known[kind.name] = now
                return found
            after, revision = page.items[-1].key, revision or page.revision
            await asyncio.sleep(0)

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
        now = self._clock.now()
        for at in range(0, len(batch), _PUTS_AT_ONCE):
            await asyncio.gather(*(self._index(kind, one, key, digest, now) for one in batch[at : at + _PUTS_AT_ONCE]))
        for at in range(0, len(batch), MAX_ITEMS):
            await self._ask(kind, key, batch[at : at + MAX_ITEMS])

    async def _index(self, kind: Kind, resource: Resource[Any, Any], file: str, digest: str, now: datetime) -> None:
        entry = IndexEntry(file=file, digest=digest, revision=resource.revision)
        await self._objects.put(index_key(kind, resource, now), entry.to_json(), "application/json")

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


def _known(resource: Resource[Any, Any]) -> _Known:
    return _Known(
        id=resource.id,
        revision=resource.revision,
        final=resource.is_final,
        kept=FINALIZER in resource.metadata.finalizers,
        moved=last_moved(resource),
        reservation=resource.spec.reservation if isinstance(resource, Instance) else resource.id,
    )
