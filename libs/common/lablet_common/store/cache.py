"""Resources of a kind in memory, decoded once, indexed, and kept up to date by a mirror of their keys.

`Cache` follows one kind; `Caches` follows several through one watch, so that all of them reach a revision together and
a handler that was woken by an event of one kind sees the others at least as new.

Not guaranteed: freshness (see `Mirror`). Whoever decides from a cached resource compares its revision in the
transaction. A value that cannot be read ends `run` with `Unreadable`: deciding as if it were absent could double-book.
"""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from lablet_common.resources.kinds import Kind
from lablet_common.resources.model import Resource
from lablet_common.resources.weight import lighten
from lablet_common.store.api import KeyValue, Store
from lablet_common.store.changes import decode
from lablet_common.store.mirror import Mirror, Sink

R = TypeVar("R", bound=Resource[Any, Any])
Listener = Callable[[R | None, R | None, int], None]


class _Index(Generic[R]):
    """Resources by the values that a function names for each."""

    def __init__(self, values: Callable[[R], Iterable[str]]) -> None:
        self._values = values
        self._members: dict[str, dict[str, R]] = {}

    def change(self, key: str, old: R | None, new: R | None) -> None:
        before = set(self._values(old)) if old is not None else set()
        after = set(self._values(new)) if new is not None else set()
        for value in before - after:
            members = self._members[value]
            del members[key]
            if not members:
                del self._members[value]
        if new is not None:
            for value in after:
                self._members.setdefault(value, {})[key] = new

    def get(self, value: str) -> list[R]:
        return list(self._members.get(value, {}).values())


class Cache(Generic[R]):
    """All resources of `kind`, or only a tenant's. Listeners are called after each change with the old value, the new
    value and the revision; they must be quick and must not raise (an error ends `run`)."""

    def __init__(self, store: Store, kind: Kind, *, tenant: str | None = None, resync_seconds: float = 300.0) -> None:
        self.kind = kind
        self._tenant = tenant
        self.prefix = f"{kind.prefix}{tenant}/" if kind.tenanted and tenant is not None else kind.prefix
        self._resources: dict[str, R] = {}
        self._ordered: list[str] = []
        """Their keys, sorted."""
        self._revisions: dict[str, int] = {}
        self._indexes: dict[str, _Index[R]] = {}
        self._listeners: list[Listener[R]] = []
        self._wanted: Callable[[R], bool] | None = None
        self._seen = 0
        """The latest revision of what came, wanted or not."""
        self._mirror = Mirror(store, {self.prefix: _Feed(self)}, watched=self.prefix, resync_seconds=resync_seconds)

    async def run(self) -> None:
        """Follows the store for ever. Raises `Unreadable`."""
        await self._mirror.run()

    @property
    def synced(self) -> bool:
        return self._mirror.synced

    @property
    def revision(self) -> int:
        """Everything up to this revision is in here."""
        return self._mirror.revision

    async def wait_synced(self) -> None:
        await self._mirror.wait_synced()

    async def reached(self, revision: int, timeout: float = 10.0) -> None:
        """Waits until everything up to `revision` is in here. Raises `Behind`, which is a `TimeoutError`."""
        await self._mirror.reached(revision, timeout)

    def get(self, resource_id: str, tenant: str = "default") -> R | None:
        return self._resources.get(self.kind.key(resource_id, tenant))

    def known(self, kv: KeyValue) -> R | None:
        """The resource that a value read elsewhere stands for, if it is in here at that very revision: then it need not
        be decoded again."""
        return self._resources.get(kv.key) if self._revisions.get(kv.key) == kv.mod_revision else None

    def items(self) -> list[R]:
        return list(self._resources.values())

    def in_order(self) -> Iterator[R]:
        """By key, as lists of the store are. Use it up between two awaits."""
        return map(self._resources.__getitem__, self._ordered)

    def __len__(self) -> int:
        return len(self._resources)

    def subscribe(self, listener: Listener[R]) -> Callable[[], None]:
        """Tells of every later change; returns a function that ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def let_go(self, resource: R) -> None:
        """Keeps it no longer, of a kind of which only what is wanted is kept; tells nobody."""
        key = self.kind.key_of(resource)
        old = self._resources.get(key)
        if old is not None:
            self._remove(key, old)

    def add_index(self, name: str, values: Callable[[R], Iterable[str]]) -> None:
        """Keeps the resources findable `by` the values that the function names for each."""
        if name in self._indexes:
            raise ValueError(f"{self.kind.name} has an index {name} already")
        index = self._indexes[name] = _Index(values)
        for key, resource in self._resources.items():
            index.change(key, None, resource)

    def by(self, name: str, value: str) -> list[R]:
        """The resources that the index `name` knows under `value`. Raises `KeyError` for an unknown index."""
        return self._indexes[name].get(value)

    def _put(self, kv: KeyValue) -> None:
        resource = cast("R", decode(self.kind, kv))
        if self._tenant is not None and resource.tenant != self._tenant:
            self._revisions[kv.key] = kv.mod_revision
            return
        self._seen = max(self._seen, kv.mod_revision)
        if self._wanted is not None and not self._wanted(resource):
            self._drop(kv.key, kv.mod_revision)
            return
        lighten(resource)
        old = self._resources.get(kv.key)
        if old is None:
            insort(self._ordered, kv.key)
        self._resources[kv.key] = resource
        self._revisions[kv.key] = kv.mod_revision
        self._tell(kv.key, old, resource, kv.mod_revision)

    def _drop(self, key: str, revision: int) -> None:
        old = self._resources.get(key)
        if old is None:
            self._revisions.pop(key, None)
            return
        self._remove(key, old)
        for listener in tuple(self._listeners):
            listener(old, None, revision)

    def _remove(self, key: str, old: R) -> None:
        del self._resources[key], self._revisions[key]
        del self._ordered[bisect_left(self._ordered, key)]
        for index in self._indexes.values():
            index.change(key, old, None)

    def _knows(self, kv: KeyValue) -> bool:
        if self._wanted is not None and kv.mod_revision <= self._seen:
            return True  # whatever was put up to then has been here; what was not wanted is not until it changes
        return self._revisions.get(kv.key) == kv.mod_revision

    def _tell(self, key: str, old: R | None, new: R, revision: int) -> None:
        for index in self._indexes.values():
            index.change(key, old, new)
        for listener in tuple(self._listeners):
            listener(old, new, revision)


class _Feed:
    """The side of a cache that its mirror sees."""

    def __init__(self, cache: Cache[Any]) -> None:
        self._cache = cache

    def put(self, kv: KeyValue) -> None:
        self._cache._put(kv)

    def drop(self, key: str, revision: int) -> None:
        self._cache._drop(key, revision)

    def knows(self, kv: KeyValue) -> bool:
        return self._cache._knows(kv)

    def keys(self) -> KeysView[str]:
        return self._cache._revisions.keys()


class Caches:
    """Caches of several kinds behind one watch, alive inside `async with`; an error in it ends the block. What is `beside`
    them (by prefix) stands at the same revision."""

    def __init__(
        self,
        store: Store,
        kinds: Sequence[Kind],
        *,
        beside: Mapping[str, Sink] | None = None,
        resync_seconds: float = 300.0,
    ) -> None:
        self._caches: dict[str, Cache[Any]] = {kind.name: Cache(store, kind) for kind in kinds}
        feeds: dict[str, Sink] = {cache.prefix: _Feed(cache) for cache in self._caches.values()} | dict(beside or {})
        self._mirror = Mirror(store, feeds, watched="/", resync_seconds=resync_seconds)
        for cache in self._caches.values():
            cache._mirror = self._mirror
        self._feeds = feeds
        self._beside = dict(beside or {})
        self._life = asyncio.TaskGroup()
        self._running: asyncio.Task[None] | None = None

    def follow(self, prefix: str, sink: Sink) -> None:
        """Has the sink fed with what lies below the prefix, beside the caches and of each list after them; before they are
        entered."""
        self._beside[prefix] = sink
        self._mirror.follow(prefix, sink)

    def keep_only(self, kind: Kind, wanted: Callable[[Any], bool]) -> None:
        """Has the kind's cache keep only what is wanted when it comes, which may be asked of everything that is followed by
        now. What is not wanted must not become so without a change of its own. Before they are entered."""
        cache = self._caches[kind.name]
        cache._wanted = wanted
        self._mirror.follow(cache.prefix, self._feeds[cache.prefix])

    def beside(self, prefix: str) -> Sink:
        """The sink that is fed with the prefix. Raises `KeyError`."""
        return self._beside[prefix]

    def overhear(self, prefix: str, ear: Callable[[KeyValue], None]) -> None:
        """As `Mirror.overhear`, for a kind that is not cached."""
        self._mirror.overhear(prefix, ear)

    def __getitem__(self, kind: Kind) -> Cache[Any]:
        return self._caches[kind.name]

    def __contains__(self, kind: Kind) -> bool:
        return kind.name in self._caches

    @property
    def synced(self) -> bool:
        return self._mirror.synced

    @property
    def revision(self) -> int:
        return self._mirror.revision

    async def wait_synced(self) -> None:
        await self._mirror.wait_synced()

    async def reached(self, revision: int, timeout: float = 10.0) -> None:
        """Waits until every cache holds everything up to `revision`. Raises `Behind`, which is a `TimeoutError`."""
        await self._mirror.reached(revision, timeout)

    async def __aenter__(self) -> Self:
        await self._life.__aenter__()
        self._running = self._life.create_task(self._mirror.run(), name="caches")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the watch. The block's own error goes on as it is; an error of the caches is raised in its place."""
        crashed = self._running is not None and self._running.done()
        if self._running is not None:
            self._running.cancel()
        try:
            await self._life.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is not None and not crashed:
                return
            raise group.exceptions[-1] from error
