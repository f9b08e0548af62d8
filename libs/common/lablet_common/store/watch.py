"""One watch on etcd that survives its connection: resumed at the revision after the last one delivered.

A watch that was compacted away says `canceled` once and is then silent for ever: here it raises `Compacted`. A stream that
is silent for a while is asked for its progress, and rebuilt when it does not answer. etcd may cut one revision into
fragments: they are put together again, so that a revision is always delivered whole.

An answer to a progress request only proves that the stream lives. It is not passed on as progress: servers before 3.5.8
send it ahead of events that are still on their way. Only etcd's own periodic notices are.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from lablet_common.store.api import Compacted, EventType, InvalidRequest, StoreUnavailable, WatchBatch, WatchEvent
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.store.wire import Names

if TYPE_CHECKING:
    from lablet_common.store.etcd import EtcdStore

log = logging.getLogger("lablet.store")

_SILENCE_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_CREATE_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_PAUSE_MAXIMUM = 2.0
_REQUESTED_PROGRESS = -1
"""Watch id of an answer to a progress request (older servers send the watch's own id and no events)."""


@asynccontextmanager
async def open_watch(
    store: "EtcdStore", names: Names, prefix: str, start_revision: int, previous: bool
) -> AsyncIterator[AsyncIterator[WatchBatch]]:
    """The batches of a watch. With `start_revision` 0 the watch has begun when the context is entered."""
    watch = _Watch(store, names, prefix, start_revision, previous)
    try:
        if not start_revision:
            await watch.connect()
        yield watch.batches()
    finally:
        watch.disconnect()


class _Watch:
    def __init__(self, store: "EtcdStore", names: Names, prefix: str, start_revision: int, previous: bool) -> None:
        self._store = store
        self._names = names
        self._prefix = prefix
        self._next = start_revision
        self._previous = previous
        self._stream: Any = None
        self._asked = False

    async def connect(self) -> None:
        """Opens the stream and waits for etcd's word that the watch exists."""
        endpoint = self._store.endpoint
        metadata = (*await self._store.metadata(), ("hasleader", "true"))
        first, end = self._names.below(self._prefix)
        create = pb.WatchCreateRequest(
            key=first,
            range_end=end,
            start_revision=self._next,
            progress_notify=True,
            prev_kv=self._previous,
            fragment=True,
        )
        self._stream = endpoint.watch(metadata=metadata)
        try:
            async with asyncio.timeout(_CREATE_SECONDS):
                await self._stream.write(pb.WatchRequest(create_request=create))
                answer = await self._stream.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            self.disconnect()
            self._store.turn(endpoint)
            if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self._store.forget_token()
            raise StoreUnavailable(f"etcd at {endpoint.address} does not open a watch: {error!r}") from error
        if answer is EOF:
            self.disconnect()
            self._store.turn(endpoint)
            raise StoreUnavailable(f"etcd at {endpoint.address} closed the watch at once")
        self._check(answer)
        if not self._next:
            self._next = answer.header.revision + 1

    def disconnect(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def batches(self) -> AsyncIterator[WatchBatch]:
        pause = _PAUSE_SECONDS
        while True:
            try:
                if self._stream is None:
                    await self.connect()
                async for batch in self._delivered():
                    pause = _PAUSE_SECONDS
                    yield batch
            except StoreUnavailable as error:
                log.info("watch interrupted", extra={"prefix": self._prefix, "next": self._next, "cause": str(error)})
            self.disconnect()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_MAXIMUM)

    async def _delivered(self) -> AsyncIterator[WatchBatch]:
        """Batches until the stream ends. Raises `Compacted` and `StoreUnavailable`."""
        held: list[WatchEvent] = []
        while True:
            response = await self._read()
            self._check(response)
            if response.created:
                continue
            held += [self._event(event) for event in response.events]
            if response.fragment:
                continue
            if held:
                fresh = tuple(event for event in held if event.kv.mod_revision >= self._next)
                held = []
                if fresh:
                    self._next = fresh[-1].kv.mod_revision + 1
                    yield WatchBatch(fresh[-1].kv.mod_revision, fresh)
            elif self._is_notice(response):
                self._next = max(self._next, response.header.revision + 1)
                yield WatchBatch(response.header.revision)

    def _is_notice(self, response: pb.WatchResponse) -> bool:
        """An unasked notice of progress."""
        if self._asked or response.watch_id == _REQUESTED_PROGRESS:
            self._asked = False
            return False
        return True

    async def _read(self) -> pb.WatchResponse:
        reading = asyncio.ensure_future(self._stream.read())
        try:
            done, _ = await asyncio.wait({reading}, timeout=_SILENCE_SECONDS)
            if not done:
                self._asked = True
                await self._stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                done, _ = await asyncio.wait({reading}, timeout=_ANSWER_SECONDS)
            if not done:
                raise StoreUnavailable("the watch is silent and does not answer")
            response = reading.result()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise StoreUnavailable(f"the watch's stream ended: {error!r}") from error
        finally:
            reading.cancel()
        if response is EOF:
            raise StoreUnavailable("etcd ended the watch's stream")
        assert isinstance(response, pb.WatchResponse)
        return response

    def _check(self, response: pb.WatchResponse) -> None:
        if not response.canceled:
            return
        self.disconnect()
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        if "permission" in response.cancel_reason:
            raise InvalidRequest(f"etcd refuses the watch on {self._prefix}: {response.cancel_reason}")
        raise StoreUnavailable(f"etcd cancelled the watch: {response.cancel_reason or 'no reason given'}")

    def _event(self, event: pb.Event) -> WatchEvent:
        kind = EventType.DELETE if event.type == pb.Event.DELETE else EventType.PUT
        before = self._names.key_value(event.prev_kv) if event.HasField("prev_kv") else None
        return WatchEvent(kind, self._names.key_value(event.kv), before)
