"""The bus's twin in memory, for unit tests: the same face, the same verdicts, no server and no waiting.

Every event passes the binding both ways, so what cannot travel fails here too. A failed message comes again at once
(pauses are not waited for), up to the same number of attempts, and ends in `dead`. Not there: stream limits, rights,
acknowledgement time-outs.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lablet_common.bus import streams
from lablet_common.bus.connection import BusUnavailable
from lablet_common.bus.consumer import ACK_WAIT_SECONDS, After, Start
from lablet_common.bus.handling import Again, Buried, Done, GiveUp, Handler, RetryPolicy, handle
from lablet_common.bus.lanes import Lanes
from lablet_common.bus.messages import DeadLetter, Received, publishable, received
from lablet_common.bus.seen import Seen
from lablet_common.cursor import Latest, Present
from lablet_common.events.binding import InvalidEvent
from lablet_common.events.derive import Outgoing
from lablet_common.events.subjects import matches
from lablet_common.tasks import together

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Stored:
    subject: str
    headers: dict[str, str]
    payload: bytes
    sequence: int
    deliveries: int = 0


@dataclass(slots=True)
class _Durable:
    """A durable consumer's state, shared by all that run under its name."""

    filters: tuple[str, ...]
    waiting: deque[_Stored] = field(default_factory=deque)
    under_way: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, message: _Stored, *, first: bool = False) -> None:
        if first:
            self.waiting.appendleft(message)
        else:
            self.waiting.append(message)
        self.arrived.set()


class PlainLog:
    """An event log (`lablet_common.cursor`) over whatever publishes; it never forgets and its connection is never lost."""

    session = 0

    def __init__(self, publish: Callable[[Outgoing], Awaitable[object]]) -> None:
        self._publish = publish
        self._count = 0

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:  # noqa: ARG002 - there is one
        await self._publish(outgoing)
        self._count += 1
        return self._count

    async def present(self) -> Present:
        return Present("plain", 1, forgets=False)

    async def last(self, subject: str) -> Latest:  # noqa: ARG002 - nobody goes back
        return Latest()


class MemoryBus:
    """Set `connected` to False to play an outage."""

    def __init__(self, service: str = "test") -> None:
        self.service = service
        self.connected = True
        self.published: list[Outgoing] = []
        """What was stored, repeats left out, in order."""
        self.told: list[Outgoing] = []
        self.dead: list[DeadLetter] = []
        self.epoch = "m1"
        self._streams: dict[str, list[_Stored]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self.session = 0
        self.durables: dict[tuple[str, str], _Durable] = {}
        self._changed = asyncio.Condition()

    async def connect(self) -> None:
        self.connected = True

    async def close(self) -> None:
        self.connected = False

    async def ensure_streams(self) -> None:
        self._require()

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:
        self._require()
        if session is not None and session != self.session:
            raise BusUnavailable("the connection was lost, and this was meant for it")
        headers, payload = publishable(outgoing, None)
        stream = streams.stream_of(outgoing.subject)
        number = self._ids.get((stream, outgoing.msg_id))
        if number is None:
            number = self._ids[stream, outgoing.msg_id] = len(self._streams.get(stream, ())) + 1
            self.published.append(outgoing)
            await self.put(outgoing.subject, headers, payload)
        return number if stream == streams.EVENTS_STREAM else 0

    async def present(self) -> Present:
        self._require()
        return Present(self.epoch, 1, forgets=False)

    async def last(self, subject: str) -> Latest:
        self._require()
        stored = self._streams.get(streams.EVENTS_STREAM, ())
        found = next((message for message in reversed(stored) if message.subject == subject), None)
        return Latest(found.sequence, int(found.headers["ce-sequence"])) if found else Latest()

    async def put(self, subject: str, headers: dict[str, str], payload: bytes) -> None:
        """Stores a message as it is, an event or not."""
        name = streams.stream_of(subject)
        stored = self._streams.setdefault(name, [])
        message = _Stored(subject, headers, payload, len(stored) + 1)
        stored.append(message)
        for (stream, _), durable in self.durables.items():
            if stream == name and _fits(durable.filters, subject):
                durable.add(_copy(message))
        await self._notify()

    async def tell(self, outgoing: Outgoing) -> None:
        self._require()
        self.told.append(outgoing)

    async def bury(self, letter: DeadLetter) -> None:
        self.dead.append(letter)

    def consumer(
        self,
        stream: str,
        durable: str,
        filters: Sequence[str],
        handler: Handler,
        *,
        key: Callable[[Received], str] | None = None,
        concurrency: int = 32,
        policy: RetryPolicy | None = None,
        drop_repeats: bool | None = None,
        start: Start | None = None,
        ack_wait: float = ACK_WAIT_SECONDS,  # noqa: ARG002 - nothing is delivered twice by time here
        buried: Buried | None = None,
        raw: bool = False,
    ) -> "MemoryConsumer":
        events = stream == streams.EVENTS_STREAM
        state = self.durables.get((stream, durable))
        if state is None:
            state = self.durables[stream, durable] = _Durable(tuple(filters))
            begin = start or ("new" if events else "all")
            if begin != "new":
                after = begin.number if isinstance(begin, After) and begin.epoch == self.epoch else 0
                for message in self._streams.get(stream, ()):
                    if message.sequence > after and _fits(state.filters, message.subject):
                        state.add(_copy(message))
        return MemoryConsumer(
            self,
            state,
            stream,
            durable,
            handler,
            key=key,
            concurrency=concurrency,
            policy=policy or RetryPolicy(),
            seen=Seen() if (events if drop_repeats is None else drop_repeats) else None,
            buried=buried,
            raw=raw,
        )

    def follow(
        self, filters: Sequence[str], handler: Callable[[Received], Awaitable[None]], *, after: int | None = None
    ) -> "MemoryFollower":
        stored = self._streams.get(streams.EVENTS_STREAM, [])
        return MemoryFollower(self, tuple(filters), handler, len(stored) if after is None else after)

    async def remove_consumer(self, stream: str, durable: str) -> None:
        self.durables.pop((stream, durable), None)

    async def settle(self) -> None:
        """Waits until every consumer has dealt with everything. Only of use while they run."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: all(not one.waiting and not one.under_way for one in self.durables.values())
            )

    async def events_after(self, sequence: int) -> list[_Stored]:
        """Waits for events behind a stream sequence."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._streams.get(streams.EVENTS_STREAM, ())) > sequence)
        return self._streams[streams.EVENTS_STREAM][sequence:]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _require(self) -> None:
        if not self.connected:
            raise BusUnavailable("the bus is played to be away")


class MemoryConsumer:
    """The twin of `Consumer`."""

    def __init__(
        self,
        bus: MemoryBus,
        state: _Durable,
        stream: str,
        durable: str,
        handler: Handler,
        *,
        key: Callable[[Received], str] | None,
        concurrency: int,
        policy: RetryPolicy,
        seen: Seen | None,
        buried: Buried | None = None,
        raw: bool = False,
    ) -> None:
        self.stream = stream
        self.durable = durable
        self._bus = bus
        self._state = state
        self._handler = handler
        self._key = key
        self._policy = policy
        self._seen = seen
        self._buried = buried
        self._raw = raw
        self._lanes: Lanes[tuple[_Stored, Received | InvalidEvent]] = Lanes(concurrency=concurrency)
        self.pulling = False

    async def run(self) -> None:
        self.pulling = True
        try:
            await together(self._lanes.run(self._work), self._take_for_ever())
        finally:
            self.pulling = False
            for message, _ in reversed(self._lanes.drain()):
                self._state.under_way -= 1
                self._state.add(message, first=True)

    async def _take_for_ever(self) -> None:
        while True:
            while self._state.waiting:
                self._take(self._state.waiting.popleft())
            self._state.arrived.clear()
            await self._state.arrived.wait()

    def _take(self, message: _Stored) -> None:
        message.deliveries += 1
        self._state.under_way += 1
        content: Received | InvalidEvent
        try:
            content = received(
                message.subject,
                message.headers,
                message.payload,
                deliveries=message.deliveries,
                stream_sequence=message.sequence,
                raw=self._raw,
            )
        except InvalidEvent as error:
            content = error
        key = message.subject
        if not isinstance(content, InvalidEvent):
            key = self._key(content) if self._key is not None else content.key
        self._lanes.put(key, (message, content))

    async def _work(self, item: tuple[_Stored, Received | InvalidEvent]) -> None:
        message, content = item
        verdict = await handle(
            content,
            self._handler,
            consumer=self.durable,
            policy=self._policy,
            seen=self._seen,
            deliveries=message.deliveries,
        )
        match verdict:
            case Done():
                pass
            case Again():
                self._state.add(message)
            case GiveUp(reason):
                letter = DeadLetter(
                    message.subject,
                    message.headers,
                    message.payload,
                    self.stream,
                    message.sequence,
                    self.durable,
                    reason,
                    message.deliveries,
                    datetime.now(UTC),
                )
                await self._bus.bury(letter)
                if self._buried is not None:
                    await self._buried(letter)
        self._state.under_way -= 1
        await self._bus._notify()


class MemoryFollower:
    """The twin of `Follower`."""

    def __init__(
        self, bus: MemoryBus, filters: tuple[str, ...], handler: Callable[[Received], Awaitable[None]], after: int
    ) -> None:
        self._bus = bus
        self._filters = filters
        self._handler = handler
        self._after = after

    async def run(self) -> None:
        while True:
            for message in await self._bus.events_after(self._after):
                if _fits(self._filters, message.subject):
                    await self._handle(message)
                self._after = message.sequence

    async def _handle(self, message: _Stored) -> None:
        try:
            event = received(
                message.subject, message.headers, message.payload, stream_sequence=message.sequence, raw=True
            )
        except InvalidEvent as error:
            _log.warning("no event, passed over", extra={"subject": message.subject, "cause": str(error)})
        else:
            await self._handler(event)


def _fits(filters: Sequence[str], subject: str) -> bool:
    return any(matches(one, subject) for one in filters)


def _copy(message: _Stored) -> _Stored:
    """Each consumer counts its own deliveries."""
    return _Stored(message.subject, message.headers, message.payload, message.sequence)
