"""The twin of etcd as one process reaches it over its line: calls that are refused, carried out unheard or carried out too
late, watches that come late or break, and a death in between.

A write without an answer raises `OutcomeUnknown`, as the client of the real etcd does, whether it has happened, will yet
happen, or never arrived.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lablet_common.store.api import (
    Compare,
    Get,
    KeyValue,
    Operation,
    OutcomeUnknown,
    Page,
    StoreStatus,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
)
from lablet_common.store.memory import MemoryStore
from lablet_common.testing.simulation.line import Line

_LONGEST_DELAY = 5.0
"""Real seconds after which a write may still happen whose caller has given up."""


Note = Callable[[int, Sequence[Compare]], None]


class StorePort:
    """A `Store` on `store`, for the process behind `line`. `note` is told of each of its writes that has happened, heard of
    or not: its revision, and what it compared."""

    def __init__(self, store: MemoryStore, line: Line, note: Note = lambda *_: None) -> None:
        self._store = store
        self._line = line
        self._note = note
        self._late: set[asyncio.Task[Any]] = set()

    async def get(self, key: str, *, revision: int = 0, serializable: bool = False) -> KeyValue | None:
        return await self._read("get", key, revision=revision, serializable=serializable)  # type: ignore[no-any-return]

    async def range(self, prefix: str, **options: Any) -> Page:
        return await self._read("range", prefix, **options)  # type: ignore[no-any-return]

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        return await self._write("put", key, value, lease=lease)  # type: ignore[no-any-return]

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        return await self._write("delete", key, prefix=prefix)  # type: ignore[no-any-return]

    async def txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        only_reads = all(isinstance(operation, Get) for operation in (*success, *failure))
        if only_reads:
            return await self._read("txn", compares, success, failure)  # type: ignore[no-any-return]
        return await self._write("txn", compares, success, failure)  # type: ignore[no-any-return]

    async def _txn(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnResult:
        done = await self._store.txn(compares, success, failure)
        if done.succeeded:
            self._note(done.revision, compares)
        return done

    async def _put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        revision = await self._store.put(key, value, lease=lease)
        self._note(revision, ())
        return revision

    async def _delete(self, key: str, *, prefix: bool = False) -> int:
        deleted = await self._store.delete(key, prefix=prefix)
        if deleted:
            self._note(self._store.revision, ())
        return deleted

    async def lease_grant(self, ttl_seconds: float) -> int:
        return await self._write("lease_grant", ttl_seconds)  # type: ignore[no-any-return]

    async def lease_keep_alive(self, lease: int) -> float:
        return await self._read("lease_keep_alive", lease)  # type: ignore[no-any-return]

    async def lease_revoke(self, lease: int) -> None:
        await self._write("lease_revoke", lease)

    async def compact(self, revision: int) -> None:
        await self._write("compact", revision)

    async def status(self) -> StoreStatus:
        return await self._read("status")  # type: ignore[no-any-return]

    async def close(self) -> None:
        """The store itself goes on for the others."""

    @asynccontextmanager
    async def watch(
        self, prefix: str, *, start_revision: int = 0, previous: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        await self._line.enter()
        async with self._store.watch(prefix, start_revision=start_revision, previous=previous) as batches:
            yield self._news(batches)

    async def _news(self, batches: AsyncIterator[WatchBatch]) -> AsyncIterator[WatchBatch]:
        """In their order, each when it has come over the line."""
        async for batch in batches:
            await self._line.way()
            self._line.alive()
            if self._line.chance(self._line.weather.cut):
                raise StoreUnavailable("the watch's connection broke")
            yield batch

    async def _read(self, method: str, *args: Any, **options: Any) -> Any:
        line = self._line
        await line.enter()
        entered = line.calls
        if line.chance(line.weather.refused + line.weather.answer_lost):
            raise StoreUnavailable(f"{method} was not answered")
        answer = await getattr(self._store, method)(*args, **options)
        await line.leave(entered)
        return answer

    async def _write(self, method: str, *args: Any, **options: Any) -> Any:
        line, weather = self._line, self._line.weather
        await line.enter()
        entered = line.calls
        if line.chance(weather.refused):
            raise StoreUnavailable(f"{method} did not arrive")
        noted: dict[str, Callable[..., Any]] = {"txn": self._txn, "put": self._put, "delete": self._delete}
        call = noted.get(method) or getattr(self._store, method)
        if line.chance(weather.overtaken):
            self._later(call, args, options)
            raise OutcomeUnknown(f"{method} was not answered; it is still under way")
        answer = await call(*args, **options)
        if line.chance(weather.answer_lost):
            raise OutcomeUnknown(f"{method} was not answered; it has happened")
        await line.leave(entered)
        return answer

    def _later(self, call: Any, args: Sequence[Any], options: dict[str, Any]) -> None:
        """The network still has it, whatever becomes of the sender."""

        async def arrive() -> None:
            await asyncio.sleep(self._line.rng.random() * _LONGEST_DELAY)
            try:
                await call(*args, **options)
            except Exception:  # noqa: BLE001 - refused there, and nobody is left to be told
                return

        task = asyncio.get_running_loop().create_task(arrive())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
