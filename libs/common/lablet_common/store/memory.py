"""The twin of etcd in memory, for tests: the same history, transactions, leases and watches, and switches for faults.

It passes the contract suite of the real client. Time is given by an injectable monotonic clock (leases run out when it
says so and somebody looks), or a lease is ended by `expire`.
"""

import asyncio
import bisect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lablet_common.store.api import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Compacted,
    Compare,
    Delete,
    EventType,
    Get,
    InvalidRequest,
    KeyValue,
    LeaseLost,
    Operation,
    OutcomeUnknown,
    Page,
    Put,
    StoreError,
    StoreStatus,
    StoreUnavailable,
    Target,
    TxnResult,
    WatchBatch,
    WatchEvent,
)


@dataclass(slots=True)
class _Lease:
    ttl: float
    deadline: float
    keys: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Watcher:
    prefix: str
    previous: bool
    queue: asyncio.Queue[WatchBatch | StoreError]

    def offer(self, revision: int, events: Iterable[WatchEvent]) -> None:
        mine = tuple(
            event if self.previous else WatchEvent(event.type, event.kv)
            for event in events
            if event.kv.key.startswith(self.prefix)
        )
        if mine:
            self.queue.put_nowait(WatchBatch(revision, mine))


class MemoryStore:
    """A `Store` without a server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._revision = 1
        self._compacted = 0
        self._keys: list[str] = []
        self._versions: dict[str, list[KeyValue | int]] = {}
        """Per key its history, oldest first; a bare revision is a deletion."""
        self._log: list[WatchBatch] = []
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1000
        self._watchers: set[_Watcher] = set()
        self._faults: list[StoreError] = []
        self._reachable = asyncio.Event()
        self._reachable.set()
        self.lose_answer = False
        """True: the next write happens, and its answer gets lost (`OutcomeUnknown`)."""

    @property
    def unavailable(self) -> bool:
        """True: every call fails as if no endpoint answered, and watches stay silent until it is False again."""
        return not self._reachable.is_set()

    @unavailable.setter
    def unavailable(self, value: bool) -> None:
        if value:
            self._reachable.clear()
        else:
            self._reachable.set()

    def fail_next(self, count: int, error: StoreError) -> None:
        """The next `count` calls raise this instead of doing anything."""
        self._faults += [error] * count

    # -- reads -----------------------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:  # noqa: ARG002
        self._enter()
        return self._at(key, self._readable(revision))

    async def range(
        self,
        prefix: str,
        *,
        limit: int = 0,
        start_after: str = "",
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,  # noqa: ARG002 - there is only one member here
        order_by_create: bool = False,
    ) -> Page:
        self._enter()
        at = self._readable(revision)
        everything = [kv for key in self._below(prefix) if (kv := self._at(key, at)) is not None]
        rest = [kv for kv in everything if kv.key > start_after] if start_after else everything
        if order_by_create:
            rest.sort(key=lambda kv: kv.create_revision)
        cut = rest[:limit] if limit else rest
        if keys_only:
            cut = [KeyValue(k.key, b"", k.mod_revision, k.create_revision, k.version, k.lease) for k in cut]
        return Page(tuple(cut), at if revision else self._revision, len(cut) < len(rest), len(rest))

    def _readable(self, revision: int) -> int:
        if revision and revision < self._compacted:
            raise Compacted(self._compacted)
        if revision > self._revision:
            raise InvalidRequest(f"revision {revision} is in the future; the newest is {self._revision}")
        return revision or self._revision

    def _below(self, prefix: str) -> list[str]:
        begin = bisect.bisect_left(self._keys, prefix)
        end = begin
        while end < len(self._keys) and self._keys[end].startswith(prefix):
            end += 1
        return self._keys[begin:end]

    def _at(self, key: str, revision: int) -> KeyValue | None:
        for entry in reversed(self._versions.get(key, ())):
            if isinstance(entry, int):
                if entry <= revision:
                    return None
            elif entry.mod_revision <= revision:
                return entry
        return None

    # -- writes ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        return (await self.txn((), [Put(key, value, lease)])).revision

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        self._enter()
        doomed = [k for k in (self._below(key) if prefix else [key]) if self._at(k, self._revision)]
        self._apply([Delete(key, prefix)])
        self._answer()
        return len(doomed)

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        self._enter()
        for what in (compares, success, failure):
            if len(what) > MAX_OPERATIONS:
                raise InvalidRequest(f"a transaction of {len(what)} parts; the most is {MAX_OPERATIONS}")
        for branch in (success, failure):
            written = [op.key for op in branch if isinstance(op, Put)]
            if len(set(written)) < len(written):
                raise InvalidRequest("one transaction cannot put a key twice")
        held = all(self._holds(compare) for compare in compares)
        reads = self._apply(success if held else failure)
        self._answer()
        return TxnResult(held, self._revision, tuple(reads))

    def _holds(self, compare: Compare) -> bool:
        kv = self._at(compare.key, self._revision)
        actual: int | bytes
        match compare.target:
            case Target.MOD:
                actual = kv.mod_revision if kv else 0
            case Target.CREATE:
                actual = kv.create_revision if kv else 0
            case Target.VERSION:
                actual = kv.version if kv else 0
            case Target.VALUE:
                if kv is None:
                    return False
                actual = kv.value
        wanted = compare.operand
        match compare.operator:
            case "=":
                return actual == wanted
            case "!=":
                return actual != wanted
            case "<":
                return actual < wanted  # type: ignore[operator]
            case ">":
                return actual > wanted  # type: ignore[operator]
            case other:
                raise InvalidRequest(f"unknown comparison {other!r}")

    def _apply(self, operations: Sequence[Operation]) -> list[tuple[KeyValue, ...]]:
        for op in operations:
            if isinstance(op, Put):
                if len(op.value) > MAX_VALUE_BYTES * 3:
                    raise InvalidRequest(f"the value of {op.key} has {len(op.value)} bytes: etcd takes 1.5 MiB")
                if op.lease and op.lease not in self._leases:
                    raise LeaseLost(f"lease {op.lease} is gone")
        revision = self._revision + 1
        events: list[WatchEvent] = []
        reads: list[tuple[KeyValue, ...]] = []
        for op in operations:
            if isinstance(op, Put):
                events.append(self._put(op, revision))
            elif isinstance(op, Delete):
                for key in self._below(op.key) if op.prefix else [op.key]:
                    gone = self._delete(key, revision)
                    if gone is not None:
                        events.append(gone)
            elif isinstance(op, Get):
                keys = self._below(op.key) if op.prefix else [op.key]
                reads.append(tuple(kv for key in keys if (kv := self._at(key, revision)) is not None))
        if events:
            self._revision = revision
            batch = WatchBatch(revision, tuple(events))
            self._log.append(batch)
            for watcher in self._watchers:
                watcher.offer(revision, events)
        return reads

    def _put(self, op: Put, revision: int) -> WatchEvent:
        before = self._at(op.key, revision)
        after = KeyValue(
            op.key,
            op.value,
            revision,
            before.create_revision if before else revision,
            before.version + 1 if before else 1,
            op.lease,
        )
        if op.key not in self._versions:
            bisect.insort(self._keys, op.key)
            self._versions[op.key] = []
        self._versions[op.key].append(after)
        if before and before.lease in self._leases:
            self._leases[before.lease].keys.discard(op.key)
        if op.lease:
            self._leases[op.lease].keys.add(op.key)
        return WatchEvent(EventType.PUT, after, before)

    def _delete(self, key: str, revision: int) -> WatchEvent | None:
        before = self._at(key, revision)
        if before is None:
            return None
        self._versions[key].append(revision)
        if before.lease in self._leases:
            self._leases[before.lease].keys.discard(key)
        return WatchEvent(EventType.DELETE, KeyValue(key, b"", revision, 0, 0), before)

    # -- watches ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        watcher = _Watcher(prefix, previous, asyncio.Queue())
        if start_revision and start_revision <= self._compacted:
            watcher.queue.put_nowait(Compacted(self._compacted))
        elif start_revision:
            for batch in self._log:
                if batch.revision >= start_revision:
                    watcher.offer(batch.revision, batch.events)
        self._watchers.add(watcher)
        try:
            yield self._deliver(watcher)
        finally:
            self._watchers.discard(watcher)

    async def _deliver(self, watcher: _Watcher) -> AsyncIterator[WatchBatch]:
        while True:
            item = await watcher.queue.get()
            await self._reachable.wait()
            if isinstance(item, StoreError):
                raise item
            yield item

    def notify_progress(self) -> None:
        """Tells every watcher the present revision, as etcd does now and then."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(WatchBatch(self._revision))

    # -- leases ----------------------------------------------------------------------------------------------------

    async def lease_grant(self, ttl_seconds: float) -> int:
        self._enter()
        self._next_lease += 1
        self._leases[self._next_lease] = _Lease(ttl_seconds, self._clock() + ttl_seconds)
        return self._next_lease

    async def lease_keep_alive(self, lease: int) -> float:
        self._enter()
        known = self._leases.get(lease)
        if known is None:
            raise LeaseLost(f"lease {lease} is gone")
        known.deadline = self._clock() + known.ttl
        return known.ttl

    async def lease_revoke(self, lease: int) -> None:
        self._enter()
        self.expire(lease)

    def expire(self, lease: int) -> None:
        """Ends a lease now and deletes its keys, as its running out does."""
        known = self._leases.pop(lease, None)
        if known is not None and known.keys:
            self._apply([Delete(key) for key in sorted(known.keys)])

    def expire_due(self) -> None:
        """Ends the leases whose time is over by the clock."""
        now = self._clock()
        for lease in [number for number, known in self._leases.items() if known.deadline <= now]:
            self.expire(lease)

    # -- the rest --------------------------------------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        self._enter()
        if revision <= self._compacted:
            raise Compacted(self._compacted)
        if revision > self._revision:
            raise InvalidRequest(f"revision {revision} is in the future; the newest is {self._revision}")
        self._compacted = revision
        self._log = [batch for batch in self._log if batch.revision > revision]

    async def status(self) -> StoreStatus:
        self._enter()
        return StoreStatus("memory", self._revision, sum(map(len, self._keys)), leader=True)

    async def close(self) -> None:
        self._watchers.clear()

    @property
    def watchers(self) -> int:
        """Watches that are open now."""
        return len(self._watchers)

    def _enter(self) -> None:
        if self._faults:
            raise self._faults.pop(0)
        if self.unavailable:
            raise StoreUnavailable("the store is switched off")
        self.expire_due()

    def _answer(self) -> None:
        if self.lose_answer:
            self.lose_answer = False
            raise OutcomeUnknown("the answer got lost")
