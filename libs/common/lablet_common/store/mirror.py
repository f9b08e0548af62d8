"""A copy of the keys below some prefixes, kept up to date: list at one revision, then watch from the next.

What falls between a list and a watch is nothing, because the watch starts at the list's revision + 1. A compaction
while the watcher is away, a silent watch and a missed deletion are healed the same way: list again and apply the
difference. Changes reach the sinks in the order of their revisions, whole revisions at a time, each once.

Not guaranteed: that the copy is current. Who needs that waits with `reached` for the revision of what it has read or
written; when the watch does not bring it soon, the mirror lists again.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lablet_common.store.api import Behind, Compacted, EventType, KeyValue, Store, StoreUnavailable, WatchBatch
from lablet_common.tasks import together

_log = logging.getLogger(__name__)
_PAGE = 1000
_GRACE_SECONDS = 0.03
"""How long the watch has to bring a revision somebody waits for, before the mirror lists again."""
_RETRY_SECONDS = 0.2
_RETRY_MAXIMUM = 3.0


class Sink(Protocol):
    """Where the keys below one prefix go. Called between two awaits: what one revision changed appears at once."""

    def put(self, kv: KeyValue) -> None: ...

    def drop(self, key: str, revision: int) -> None: ...

    def knows(self, kv: KeyValue) -> bool:
        """It has been put here as it is, and need not be again."""
        ...

    def keys(self) -> Iterable[str]: ...


class Keys:
    """The keys below a prefix just as they are, for what is no resource."""

    def __init__(self) -> None:
        self._kept: dict[str, KeyValue] = {}

    def get(self, key: str) -> KeyValue | None:
        return self._kept.get(key)

    def values(self) -> Iterable[KeyValue]:
        return self._kept.values()

    def put(self, kv: KeyValue) -> None:
        self._kept[kv.key] = kv

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - a sink
        self._kept.pop(key, None)

    def knows(self, kv: KeyValue) -> bool:
        kept = self._kept.get(kv.key)
        return kept is not None and kept.mod_revision == kv.mod_revision

    def keys(self) -> Iterable[str]:
        return self._kept.keys()


@dataclass(slots=True)
class _Listed:
    """What a list has found below a prefix. Of all values only the new ones are kept: a list of what is known already takes
    no memory but for its keys."""

    keys: set[str] = field(default_factory=set)
    news: list[KeyValue] = field(default_factory=list)


class Mirror:
    """Feeds `sinks` (by prefix) from one watch on `watched`, which must be a beginning of every prefix.

    `resync_seconds` (real): how often the whole is listed and compared, and the watch opened anew.
    """

    def __init__(
        self,
        store: Store,
        sinks: Mapping[str, Sink],
        *,
        watched: str,
        resync_seconds: float = 300.0,
    ) -> None:
        if outside := [prefix for prefix in sinks if not prefix.startswith(watched)]:
            raise ValueError(f"a watch on {watched} does not see {', '.join(outside)}")
        self._store = store
        self._sinks = dict(sinks)
        self._late: list[Sink] = []
        self._deeper = _deeper(sinks)
        self._ears: dict[str, Callable[[KeyValue], None]] = {}
        self._watched = watched
        self._resync_seconds = resync_seconds
        self._revision = 0
        self._listing = asyncio.Lock()
        self._first = asyncio.Event()
        self._wanted = asyncio.Event()
        self._order = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def revision(self) -> int:
        """Everything up to this revision has been applied; 0 before the first list."""
        return self._revision

    @property
    def synced(self) -> bool:
        return self._first.is_set()

    def follow(self, prefix: str, sink: Sink) -> None:
        """Feeds one more sink, or one that is fed already after the others, of each list and each revision: it may ask them.
        Before `run`."""
        if not prefix.startswith(self._watched):
            raise ValueError(f"a watch on {self._watched} does not see {prefix}")
        self._sinks[prefix] = sink
        self._late.append(sink)
        self._deeper = _deeper(self._sinks)

    def overhear(self, prefix: str, ear: Callable[[KeyValue], None]) -> None:
        """Tells what the watch says of other keys that were put below a kind's prefix. Nothing is promised: such keys are
        never listed, so what happens while the watch is away is not told."""
        self._ears[prefix] = ear

    async def wait_synced(self) -> None:
        await self._first.wait()

    async def reached(self, revision: int, timeout: float = 10.0) -> None:
        """Waits until everything up to `revision` has been applied. Raises `Behind`, which is a `TimeoutError`."""
        if self._revision >= revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._order), waiter))
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise Behind(
                f"the copy of {self._watched} is at revision {self._revision}; {revision} did not come in {timeout} s"
            ) from None

    async def run(self) -> None:
        """Follows the store for ever. Ends only by an error of a sink, such as `Unreadable`."""
        await together(self._follow(), self._serve_waiters())

    async def _follow(self) -> None:
        pause = _RETRY_SECONDS
        while True:
            try:
                await self._list()
                pause = _RETRY_SECONDS
                async with (
                    asyncio.timeout(self._resync_seconds),
                    self._store.watch(self._watched, start_revision=self._revision + 1) as batches,
                ):
                    async for batch in batches:
                        self._take(batch)
            except TimeoutError:
                continue  # time to compare with a fresh list, and to watch anew
            except Compacted as error:
                _log.warning("the watch was compacted away, listing again", extra={"oldest": error.compact_revision})
                continue
            except StoreUnavailable as error:
                _log.warning("etcd cannot be followed just now", extra={"prefix": self._watched, "cause": str(error)})
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_MAXIMUM)

    async def _serve_waiters(self) -> None:
        """Lists again for those who wait for a revision that changed nothing here, so that no event will tell. Where there is
        always somebody who waits, but nobody for long, the watch brings what they wait for."""
        grace = _GRACE_SECONDS
        while True:
            await self._first.wait()
            await self._wanted.wait()
            begun = next(self._order)
            await asyncio.sleep(grace)
            while self._waiters and self._waiters[0][2].done():
                heapq.heappop(self._waiters)
            if not self._waiters:
                self._wanted.clear()
            if not any(came < begun and not waiter.done() for _, came, waiter in self._waiters):
                grace = _GRACE_SECONDS
                continue
            grace = min(grace * 2, _RETRY_MAXIMUM)  # for revisions that no list brings either
            try:
                await self._list()
            except (StoreUnavailable, Compacted) as error:
                _log.warning("etcd cannot be listed just now", extra={"prefix": self._watched, "cause": str(error)})

    async def _list(self) -> None:
        """Lists at one revision and applies the difference, unless the watch has overtaken the list."""
        async with self._listing:
            revision = 0
            listed: dict[str, _Listed] = {}
            for prefix, sink in self._sinks.items():
                found = listed[prefix] = _Listed()
                after = ""
                while True:
                    page = await self._store.range(prefix, limit=_PAGE, start_after=after, revision=revision)
                    revision = revision or page.revision
                    found.keys.update([kv.key for kv in page.items])
                    found.news += [kv for kv in page.items if not sink.knows(kv)]
                    if not page.more:
                        break
                    after = page.items[-1].key
            if revision >= self._revision:
                self._apply(listed, revision)
            self._first.set()

    def _apply(self, listed: Mapping[str, _Listed], revision: int) -> None:
        changes: list[tuple[KeyValue, Sink]] = []
        for prefix, found in listed.items():
            sink = self._sinks[prefix]
            for gone in list(itertools.filterfalse(found.keys.__contains__, sink.keys())):
                sink.drop(gone, revision)
            changes += [(kv, sink) for kv in found.news if not sink.knows(kv)]
        changes.sort(key=lambda change: (self._rank(change[1]), change[0].mod_revision))
        for kv, sink in changes:
            sink.put(kv)
        self._advance(revision)

    def _take(self, batch: WatchBatch) -> None:
        events = batch.events
        if self._late and len(events) > 1:
            events = tuple(sorted(events, key=lambda one: (one.kv.mod_revision, self._rank(self._sink_of(one.kv.key)))))
        for event in events:
            kv = event.kv
            if kv.mod_revision <= self._revision:
                continue  # a list has brought it already
            is_put = event.type is EventType.PUT
            sink = self._sink_of(kv.key)
            if sink is None:
                if is_put and (hear := self._ears.get(_first_part(kv.key))) is not None:
                    hear(kv)
            elif is_put:
                sink.put(kv)
            else:
                sink.drop(kv.key, kv.mod_revision)
        self._advance(batch.events[-1].kv.mod_revision if batch.events else batch.revision)

    def _rank(self, sink: Sink | None) -> int:
        return 1 + self._late.index(sink) if sink in self._late else 0

    def _sink_of(self, key: str) -> Sink | None:
        sink = self._sinks.get(_first_part(key))
        if sink is None:
            for prefix, deeper in self._deeper:
                if key.startswith(prefix):
                    return deeper
        return sink

    def _advance(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        while self._waiters and (self._waiters[0][0] <= self._revision or self._waiters[0][2].done()):
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)


def _deeper(sinks: Mapping[str, Sink]) -> list[tuple[str, Sink]]:
    """Those whose prefix is not a kind's."""
    return [(prefix, sink) for prefix, sink in sinks.items() if prefix != _first_part(prefix)]


def _first_part(key: str) -> str:
    """The prefix that a kind's keys have."""
    return key[: key.find("/", 1) + 1]
