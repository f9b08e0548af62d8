"""Following the event stream: every event once and in order, for one process, without acknowledgements.

An ephemeral consumer of the server feeds it; when that or the connection is lost, a new one begins behind the last event
that was handled, or at the beginning of a stream that was made anew meanwhile. JSON data are handed on as they came, unread.
Not guaranteed: events that the stream no longer holds, and repeats of an event that had been published again (its `sequence`
tells).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.errors import NotFoundError

from lablet_common.bus.connection import BusUnavailable, Connection
from lablet_common.bus.consumer import epoch_of
from lablet_common.bus.messages import Received, received
from lablet_common.bus.pull import Pull
from lablet_common.bus.streams import EVENTS_STREAM
from lablet_common.events.binding import InvalidEvent
from lablet_common.tasks import heeding_cancellation, together

_CAPACITY = 256
_INACTIVE_SECONDS = 30.0
"""After which the server forgets a consumer that nobody pulls from."""
_PAUSE = 0.2

_log = logging.getLogger(__name__)


class Follower:
    """Made by `Bus.follow`; `run` it in a task and cancel that. What the handler raises ends `run`."""

    def __init__(
        self,
        connection: Connection,
        restore: Callable[[str], Awaitable[None]],
        filters: Sequence[str],
        handler: Callable[[Received], Awaitable[None]],
        *,
        after: int | None,
    ) -> None:
        self._connection = connection
        self._restore = restore
        self._filters = list(filters)
        self._handler = handler
        self._after = after
        self._epoch = ""
        """Of the stream in which `_after` counts; empty until it was looked at."""
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._pull: Pull | None = None

    async def run(self) -> None:
        """Follows until cancelled."""
        forget = self._connection.on_loss(self._on_loss)
        try:
            await together(self._handle_for_ever(), self._pull_for_ever())
        finally:
            forget()
            self._pull = None  # which holds this

    async def _pull_for_ever(self) -> None:
        while True:
            await self._connection.wait_up()
            try:
                reason = await self._pull_once()
            except (nats.errors.Error, BusUnavailable, TimeoutError, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
            _log.info("following goes on with a new pull", extra={"reason": reason})
            await asyncio.sleep(_PAUSE)

    async def _pull_once(self) -> str:
        js = self._connection.js
        await self._queue.join()  # what was taken in must be handled before we know where to go on
        stream = await self._stream(js)
        last, epoch = stream.state.last_seq, epoch_of(stream)
        # It may have been made anew, also when its numbers have overtaken the old ones.
        if self._after is not None and (self._after > last or epoch != (self._epoch or epoch)):
            self._after = 0
        self._after, self._epoch = last if self._after is None else self._after, epoch
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_INACTIVE_SECONDS,
            filter_subject=self._filters[0] if len(self._filters) == 1 else None,
            filter_subjects=self._filters if len(self._filters) > 1 else None,
            mem_storage=True,
            num_replicas=1,
        )
        name = self._connection.client.new_inbox().rpartition(".")[2]
        with heeding_cancellation():
            info = await js.add_consumer(EVENTS_STREAM, config.evolve(name=name))
        self._pull = Pull(
            self._connection.client, EVENTS_STREAM, info.name, room=self._room, take=self._queue.put_nowait
        )
        return await self._pull.run()

    async def _stream(self, js: JetStreamContext) -> StreamInfo:
        with heeding_cancellation():
            try:
                return await js.stream_info(EVENTS_STREAM)
            except NotFoundError:
                await self._restore(EVENTS_STREAM)
                return await js.stream_info(EVENTS_STREAM)

    def _room(self) -> int:
        return _CAPACITY - self._queue.qsize()

    async def _handle_for_ever(self) -> None:
        while True:
            message = await self._queue.get()
            meta = message.metadata
            try:
                event = received(
                    message.subject, message.headers, message.data, stream_sequence=meta.sequence.stream, raw=True
                )
            except InvalidEvent as error:
                _log.warning("no event, passed over", extra={"subject": message.subject, "cause": str(error)})
            else:
                await self._handler(event)
            self._after = meta.sequence.stream
            self._queue.task_done()
            if self._pull is not None:
                self._pull.look()

    def _on_loss(self, reason: str) -> None:
        if self._pull is not None:
            self._pull.end(reason)
