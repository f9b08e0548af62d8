"""One watch on etcd that survives its connection: resumed at the revision after the last one delivered.

A watch that was compacted away says `canceled` once and is then silent for ever: here it raises `Compacted`. A stream that
is silent for a while is asked for its progress, and rebuilt elsewhere when it does not answer; a member that has lost its
leader ends it by itself, because the watch asks for that. etcd may cut one revision into fragments: they are put together
again, so that a revision is always delivered whole.

etcd lets a watch begin at the very revision up to which was compacted, though it has forgotten part of that one: deletions
(etcd issue 18089) and what stood before each change. So a watch that is behind begins one revision earlier than it delivers,
and where that is gone, it says so. (One that is not behind would be a tenth of a second late with its first change by that.)

An answer to a progress request only proves that the stream lives. It is not passed on as progress: servers before 3.4.25
and 3.5.8 send it ahead of events that are still on their way. Only etcd's own periodic notices are
(`--experimental-watch-progress-notify-interval`, ten minutes unless set).
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from typing import Self

import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from lablet_common.store.api import (
    Compacted,
    EventType,
    InvalidRequest,
    StoreError,
    StoreUnavailable,
    WatchBatch,
    WatchEvent,
)
from lablet_common.store.calls import Calls
from lablet_common.store.channels import Endpoint, Stream
from lablet_common.store.proto import etcd_pb2 as pb
from lablet_common.store.wire import Names
from lablet_common.tasks import is_cancelled

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.05
_PAUSE_MAXIMUM = 2.0
_REQUESTED_PROGRESS = -1
"""Watch id of an answer to a progress request."""


class _TokenRefused(StoreUnavailable):
    """Perhaps a new token will do."""


class Watch:
    """The batches of a watch, as an iterator inside `async with`. With `start_revision` 0 the watch has begun when the
    block is entered, which may raise `StoreUnavailable`; with another it begins, for ever tried, at the first batch.

    `silence_seconds`: how long a stream may be silent before it is asked whether it lives, and again, before it is rebuilt.
    """

    def __init__(
        self,
        calls: Calls,
        names: Names,
        prefix: str,
        *,
        start_revision: int,
        previous: bool,
        silence_seconds: float,
    ) -> None:
        self._calls = calls
        self._names = names
        self._prefix = prefix
        self._next = start_revision
        self._previous = previous
        self._pulse = _Pulse(silence_seconds)
        self._endpoint: Endpoint | None = None
        self._stream: Stream | None = None
        self._refused = False
        self._ended: StoreError | None = None
        self._pause = _PAUSE_SECONDS
        self._held: list[WatchEvent] = []

    async def __aenter__(self) -> AsyncIterator[WatchBatch]:
        if not self._next:
            await self._connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._disconnect()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        if self._ended is not None:
            raise self._ended
        while True:
            try:
                if self._stream is None:
                    await self._connect()
                batch = self._take(await self._read())
            except (Compacted, InvalidRequest) as error:
                self._ended = error
                raise
            except StoreUnavailable as error:
                self._disconnect()
                if self._calls.closed:
                    raise
                _log.info("watch interrupted", extra={"prefix": self._prefix, "next": self._next, "cause": str(error)})
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))
                self._pause = min(self._pause * 2, _PAUSE_MAXIMUM)
                continue
            if batch is not None:
                self._pause = _PAUSE_SECONDS
                return batch

    async def _connect(self, start: int | None = None) -> None:
        """Opens the stream and waits for etcd's word that the watch exists."""
        start = self._next if start is None else start
        request = pb.WatchRequest(create_request=self._request(start))
        endpoint, stream, answer = await self._calls.exchange("Watch", request)
        self._endpoint, self._stream = endpoint, stream
        if answer is EOF:
            raise StoreUnavailable(f"etcd at {endpoint.address} closed the watch at once")
        try:
            self._check(answer)
        except _TokenRefused:
            await self._connect()
            return
        if 1 < start == self._next <= answer.header.revision:
            self._disconnect()
            await self._connect(start - 1)
            return
        self._refused = False
        self._held = []
        if not self._next:
            self._next = answer.header.revision + 1
        self._calls.vigil(endpoint).keep(stream)
        self._pulse.start(stream)

    def _request(self, start: int) -> pb.WatchCreateRequest:
        first, end = self._names.below(self._prefix)
        return pb.WatchCreateRequest(
            key=first,
            range_end=end,
            start_revision=start,
            progress_notify=True,
            prev_kv=self._previous,
            fragment=True,
        )

    def _disconnect(self) -> None:
        self._pulse.stop()
        if self._stream is not None and self._endpoint is not None:
            self._calls.vigil(self._endpoint).drop(self._stream)
            self._stream.cancel()
            self._stream = None
        self._held = []

    async def _read(self) -> pb.WatchResponse:
        assert self._stream is not None
        assert self._endpoint is not None
        try:
            with self._pulse:
                response = await self._stream.read()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._calls.turn(self._endpoint)
            raise StoreUnavailable("the watch was silent, or its member has lost its leader") from None
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            self._calls.turn(self._endpoint)
            raise StoreUnavailable(f"the watch's stream ended: {error}") from error
        if response is EOF:
            raise StoreUnavailable("etcd ended the watch's stream")
        assert isinstance(response, pb.WatchResponse)
        return response

    def _take(self, response: pb.WatchResponse) -> WatchBatch | None:
        """What a response completes: a batch of whole revisions or a notice of progress. None: nothing yet."""
        self._check(response)
        if response.events:
            self._held += map(self._event, response.events)
        if response.fragment or response.created:
            return None
        if self._held:
            fresh = tuple(event for event in self._held if event.kv.mod_revision >= self._next)
            self._held = []
            if not fresh:
                return None
            if self._previous and any(map(_lacks_what_stood_before, fresh)):
                raise Compacted(0)
            revision = fresh[-1].kv.mod_revision
            self._next = revision + 1
            return WatchBatch(revision, fresh)
        if response.watch_id == _REQUESTED_PROGRESS or response.header.revision < self._next - 1:
            return None
        self._next = response.header.revision + 1
        return WatchBatch(response.header.revision)

    def _check(self, response: pb.WatchResponse) -> None:
        if not response.canceled:
            return
        self._disconnect()
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        reason = response.cancel_reason or "no reason given"
        if "permission" in reason or "token" in reason:
            # etcd 3.4 and 3.5 say this of a token that has run out, too: a new one is tried once
            if self._refused:
                raise InvalidRequest(f"etcd refuses the watch on {self._prefix}: {reason}")
            self._refused = True
            self._calls.forget()
            raise _TokenRefused(reason)
        raise StoreUnavailable(f"etcd cancelled the watch on {self._prefix}: {reason}")

    def _event(self, event: pb.Event) -> WatchEvent:
        kind = EventType.DELETE if event.type == pb.Event.DELETE else EventType.PUT
        before = self._names.key_value(event.prev_kv) if event.HasField("prev_kv") else None
        return WatchEvent(kind, self._names.key_value(event.kv), before)


def _lacks_what_stood_before(event: WatchEvent) -> bool:
    """etcd looks for it when it sends the event. What a slow reader is behind with may have been compacted by then."""
    return event.previous is None and (event.type is EventType.DELETE or event.kv.version > 1)


class _Pulse:
    """Asks a stream that is silent while somebody reads from it whether it lives, and cancels it when it does not say.

    Reading itself costs nothing more: a timer looks now and then how long the present read has been waiting. Two questions
    are asked, because a watch that has only just begun may leave the first one unanswered (etcd issue 17507).
    """

    def __init__(self, silence_seconds: float) -> None:
        self._silence = silence_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._stream: Stream | None = None
        self._asking: asyncio.Task[None] | None = None
        self._waiting_since = 0.0
        """When the present read began, monotonic; 0: nobody reads."""
        self._questions = 0

    def start(self, stream: Stream) -> None:
        self._stream = stream
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._timer = self._asking = self._stream = None

    def __enter__(self) -> None:
        self._waiting_since = time.monotonic()
        self._questions = 0

    def __exit__(self, *error: object) -> None:
        self._waiting_since = 0.0

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._silence / 4, self._look)

    def _look(self) -> None:
        stream = self._stream
        if stream is None:
            return
        silent = time.monotonic() - self._waiting_since if self._waiting_since else 0.0
        if silent > self._silence * 3:
            stream.cancel()
            return
        if silent > self._silence * (1 + self._questions):
            self._questions += 1
            self._asking = asyncio.create_task(self._ask(stream))
        self._arm()

    async def _ask(self, stream: Stream) -> None:
        try:
            await stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            _log.debug(
                "a watch could not be asked for its progress", extra={"cause": str(error)}
            )  # the read will say so
