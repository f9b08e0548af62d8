"""The twin of etcd in memory, for tests: the same history, transactions, leases and watches, and switches for faults.

It passes the contract suite of the real client. Leases run out by a monotonic clock: the real one by itself, an injected
one whenever somebody calls the store (or `expire_due`), and any lease at once by `expire`.

Not guaranteed: anything about time. Calls answer at once, and nothing is kept when the process ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lablet_common.store.api import (
    Compacted,
    Compare,
    Delete,
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
    TxnResult,
    WatchBatch,
    WatchEvent,
)
from lablet_common.store.history import History
from lablet_common.store.limits import check_key, check_put, check_range, check_transaction


@dataclass(slots=True)
class _Lease:
    ttl: float
    deadline: float
    keys: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class _Watcher:
    prefix: str
    start: int
    previous: bool
    queue: asyncio.Queue[WatchBatch | StoreError] = field(default_factory=asyncio.Queue)

    def offer(self, change: WatchBatch, bare: WatchBatch) -> None:
        """Takes what of a change lies below the prefix and is not too old. `bare`: the same without the values before."""
        if change.revision < self.start:
            return
        told, prefix = change if self.previous else bare, self.prefix
        mine = [event for event in told.events if event.kv.key.startswith(prefix)]
        if mine:
            self.queue.put_nowait(told if len(mine) == len(told.events) else WatchBatch(told.revision, tuple(mine)))


def _bare(change: WatchBatch) -> WatchBatch:
    """Without the values before, as most watchers are told it."""
    return WatchBatch(change.revision, tuple([WatchEvent(kind, kv) for kind, kv, _ in change.events]))


class MemoryStore:
    """A `Store` without a server. `clock` gives monotonic seconds for leases (None: the real ones)."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._own_time = clock is None
        self._alarm: asyncio.TimerHandle | None = None
        self._history = History()
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1000
        self._watchers: dict[_Watcher, None] = {}  # in the order in which they came
        self._faults: list[StoreError] = []
        self._reachable = asyncio.Event()
        self._reachable.set()
        self.lose_answer = False
        """True: the next write happens and its answer gets lost (`OutcomeUnknown`); then it is False again."""

    # -- faults for tests ------------------------------------------------------------------------------------------

    @property
    def unavailable(self) -> bool:
        """True: every call fails as if no endpoint answered, and watches are silent until it is False again."""
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

    def notify_progress(self) -> None:
        """Tells every watcher the present revision, as etcd does now and then."""
        for watcher in self._watchers:
            if self._history.revision >= watcher.start:
                watcher.queue.put_nowait(WatchBatch(self._history.revision))

    @property
    def watchers(self) -> int:
        """Watches that are open now."""
        return len(self._watchers)

    @property
    def revision(self) -> int:
        """The newest revision, also while `unavailable`."""
        return self._history.revision

    # -- reads -----------------------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:  # noqa: ARG002 - there is only one member here
        check_key(key)
        self._enter()
        return self._history.get(key, self._history.readable(revision))

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
        check_range(prefix, limit=limit, start_after=start_after, order_by_create=order_by_create)
        self._enter()
        at = self._history.readable(revision)
        found = [kv for kv in self._history.below(prefix, at) if kv.key > start_after]
        if order_by_create:
            found.sort(key=lambda kv: kv.create_revision)
        cut = found[:limit] if limit else found
        if keys_only:
            cut = [kv._replace(value=b"") for kv in cut]
        return Page(tuple(cut), at, len(cut) < len(found), len(found))

    # -- writes ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        check_put(key, value)
        self._enter()
        self._apply([Put(key, value, lease)])
        self._answer()
        return self._history.revision

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        check_key(key)
        self._enter()
        _, change = self._apply([Delete(key, prefix)])
        self._answer()
        return len(change.events) if change else 0

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        check_transaction(compares, success, failure)
        self._enter()
        held = all(self._history.holds(compare) for compare in compares)
        reads, _ = self._apply(success if held else failure)
        self._answer()
        return TxnResult(held, self._history.revision, tuple(reads))

    def _apply(self, operations: Sequence[Operation]) -> tuple[list[tuple[KeyValue, ...]], WatchBatch | None]:
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise LeaseLost(f"lease {operation.lease:x} is gone")
        reads, change = self._history.apply(operations)
        if change is not None:
            for event in change.events:
                self._attach(event)
            bare = _bare(change)
            for watcher in self._watchers:
                watcher.offer(change, bare)
        return reads, change

    def _attach(self, event: WatchEvent) -> None:
        if event.previous is not None and event.previous.lease in self._leases:
            self._leases[event.previous.lease].keys.discard(event.kv.key)
        if event.kv.lease:
            self._leases[event.kv.lease].keys.add(event.kv.key)

    # -- watches ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        check_key(prefix)
        if not start_revision:
            self._enter()
        watcher = _Watcher(prefix, start_revision or self._history.revision + 1, previous)
        # of the compacted revision itself, etcd keeps but a part of the changes
        if max(watcher.start - 1, 1) < self._history.compacted:
            watcher.queue.put_nowait(Compacted(self._history.compacted))
        else:
            for change in self._history.since(watcher.start):
                watcher.offer(change, _bare(change))
        self._watchers[watcher] = None
        try:
            yield self._deliver(watcher)
        finally:
            self._watchers.pop(watcher, None)

    async def _deliver(self, watcher: _Watcher) -> AsyncIterator[WatchBatch]:
        while True:
            item = await watcher.queue.get()
            await self._reachable.wait()
            if isinstance(item, StoreError):
                raise item
            yield item

    # -- leases ----------------------------------------------------------------------------------------------------

    async def lease_grant(self, ttl_seconds: float) -> int:
        if ttl_seconds <= 0:
            raise InvalidRequest(f"a lease of {ttl_seconds} s")
        self._enter()
        self._next_lease += 1
        self._leases[self._next_lease] = _Lease(ttl_seconds, self._clock() + ttl_seconds)
        self._set_alarm()
        return self._next_lease

    async def lease_keep_alive(self, lease: int) -> float:
        self._enter()
        known = self._leases.get(lease)
        if known is None:
            raise LeaseLost(f"lease {lease:x} is gone")
        known.deadline = self._clock() + known.ttl
        return known.ttl

    async def lease_revoke(self, lease: int) -> None:
        self._enter()
        self.expire(lease)
        self._answer()

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

    def _set_alarm(self) -> None:
        """With the real clock, leases also run out while nobody calls."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._own_time and self._leases:
            wait = min(known.deadline for known in self._leases.values()) - self._clock()
            self._alarm = asyncio.get_running_loop().call_later(max(wait, 0.0), self._ring)

    def _ring(self) -> None:
        self.expire_due()
        self._set_alarm()

    # -- the rest --------------------------------------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        self._enter()
        self._history.compact(revision)
        self._answer()

    async def status(self) -> StoreStatus:
        self._enter()
        size = sum(len(kv.key) + len(kv.value) for kv in self._history.below("/"))
        return StoreStatus("memory", self._history.revision, size, leader=True)

    async def close(self) -> None:
        """Ends the watches; the keys stay for whoever looks at them afterwards."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for watcher in self._watchers:
            watcher.queue.put_nowait(StoreUnavailable("the store was closed"))

    def _enter(self) -> None:
        self.expire_due()
        if self._faults:
            raise self._faults.pop(0)
        if self.unavailable:
            raise StoreUnavailable("the store is switched off")

    def _answer(self) -> None:
        if self.lose_answer:
            self.lose_answer = False
            raise OutcomeUnknown("the answer got lost")
