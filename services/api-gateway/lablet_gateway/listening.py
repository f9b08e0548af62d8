"""The answer that an open event stream is: sent while it is made, and ended when the client no longer reads.

A client that reads too slowly costs nothing but its place: it is served from the ring, or from the log. One that does not
read at all would keep that place for ever; after `patience` without progress it is let go, and resumes by its last id.
Whoever would not be let in any more, because the token has ended or was taken away, hears nothing beyond the next look.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from prometheus_client import Counter
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from lablet_common.tasks import together
from lablet_common.telemetry.metrics import REGISTRY

LET_GO = Counter("lablet_streams_let_go", "Event streams ended because nobody read them", registry=REGISTRY)
_LOOK_SECONDS = 5.0
"""Real seconds between two looks whether the listener would still be let in."""
_log = logging.getLogger(__name__)


class _DoesNotRead(Exception):
    """One frame was not taken within the patience."""


class EventStreamResponse(StreamingResponse):
    """`patience`: real seconds that one frame may wait to be taken. `stands`: whether the listener would be let in now."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[bytes], patience: float, stands: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(frames, headers={"X-Accel-Buffering": "no"})
        self._patience = patience
        self._frames = frames
        self._stands = stands

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stuck = False

        async def bounded(message: Message) -> None:
            nonlocal stuck
            try:
                async with asyncio.timeout(self._patience):
                    await send(message)
            except TimeoutError:
                stuck = True
            if stuck:  # not the timeout's own error, which leaves the task that it ends in a circle
                raise _DoesNotRead

        try:
            # `StreamingResponse` would run the two in a task group, which leaves the frames of both in a circle
            await together(self._stream(bounded), self.listen_for_disconnect(receive))
        except _DoesNotRead:
            LET_GO.inc()
            _log.info("a listener does not read and is let go", extra={"client": str(scope.get("client"))})
        finally:
            closing = getattr(self._frames, "aclose", None)
            if closing is not None:
                await closing()  # its place is free at once, and not when somebody collects it

    async def _stream(self, send: Send) -> None:
        """As long as the listener would be let in; then a proper end, so that it asks again at once."""
        refused = False

        async def until_refused() -> None:
            nonlocal refused
            while not refused:
                await asyncio.sleep(_LOOK_SECONDS)
                refused = not await self._stands()

        await together(self.stream_response(send), until_refused())
        if refused:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
