"""The event log and the dead letters as they lie in JetStream's streams EVENTS and DLQ.

Live events come from the bus's follower; ranges and stories from ephemeral consumers that acknowledge nothing, ask for
just as much as there is, and leave nothing behind.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from lablet_common.bus import Bus, BusUnavailable, Received
from lablet_common.bus.consumer import epoch_of
from lablet_common.bus.messages import DeadLetter
from lablet_common.bus.streams import DLQ_STREAM, EVENTS_STREAM
from lablet_common.events import InvalidEvent, subjects
from lablet_common.events.binding import decode
from lablet_common.tasks import heeding_cancellation
from lablet_gateway.deadletters import Buried
from lablet_gateway.eventlog import Bounds, EventLogUnavailable, Handler, Logged

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 30.0
"""After which the server forgets an ephemeral consumer that nobody reads."""
_CALL_SECONDS = 5.0
_BATCH = 500
_EVERYTHING = "lablet.event.>"
_NO_MESSAGE = 10043
"""JetStream's code for a message that is not there (any more)."""


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        with heeding_cancellation():
            yield
    except (nats.errors.Error, nats.js.errors.Error, BusUnavailable, OSError, TimeoutError) as error:
        raise EventLogUnavailable(f"{type(error).__name__}: {error}".rstrip(": ")) from error


class JetStreamLog:
    """The port on the process's bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def bounds(self) -> Bounds:
        with _reaching():
            async with asyncio.timeout(_CALL_SECONDS):
                try:
                    info = await self._bus.connection.js.stream_info(EVENTS_STREAM)
                except nats.js.errors.NotFoundError:  # in a new installation, until somebody tells something
                    await self._bus.present()
                    info = await self._bus.connection.js.stream_info(EVENTS_STREAM)
        return Bounds(epoch_of(info), info.state.first_seq, info.state.last_seq)

    async def follow(self, after: int, handler: Handler) -> None:
        async def take(received: Received) -> None:
            await handler(Logged(received.stream_sequence, received.event))

        await self._bus.follow([_EVERYTHING], take, after=after).run()

    async def read(self, after: int, limit: int) -> Sequence[Logged]:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
        return _read(await _pull(self._bus, EVENTS_STREAM, config, limit), raw=True)  # it is passed on as it came

    async def of_kind(self, tenant: str, kind: str, after: int, limit: int) -> Sequence[Logged]:
        wanted = subjects.event_filter(kind, tenant=tenant)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1, filter_subject=wanted
        )
        return _read(await _pull(self._bus, EVENTS_STREAM, config, limit))

    async def story(self, tenant: str, kind: str, resource_id: str, limit: int) -> Sequence[Logged]:
        wanted = subjects.event_filter(kind, tenant=tenant, resource_id=resource_id)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, filter_subject=wanted)
        return _read(await _pull(self._bus, EVENTS_STREAM, config, limit))


class JetStreamDeadLetters:
    """The dead letter queue on the process's bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self, after: int, limit: int, consumer: str | None = None) -> Sequence[Buried]:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            filter_subject=_of(consumer) if consumer else None,
        )
        found = []
        for message in await _pull(self._bus, DLQ_STREAM, config, limit):
            number = message.metadata.sequence.stream
            if (letter := _letter(number, message.headers, message.data)) is not None:
                found.append(Buried(number, letter))
        return found

    async def get(self, number: int) -> Buried | None:
        with _reaching():
            try:
                message = await self._bus.connection.js.get_msg(DLQ_STREAM, seq=number)
            except nats.js.errors.NotFoundError:
                return None
        letter = _letter(number, message.headers, message.data or b"")
        return None if letter is None else Buried(number, letter)

    async def replay(self, buried: Buried, subject: str) -> None:
        _, headers, payload = buried.letter.original()
        with _reaching():
            await self._bus.connection.js.publish(subject, payload, headers=headers, timeout=_CALL_SECONDS)
        await self.remove(buried.number)

    async def remove(self, number: int) -> None:
        with _reaching():
            try:
                await self._bus.connection.js.delete_msg(DLQ_STREAM, number)
            except nats.js.errors.NotFoundError:
                _log.debug("the dead letter is gone already", extra={"number": number})
            except nats.js.errors.APIError as error:
                if error.err_code != _NO_MESSAGE:
                    raise

    async def purge(self, consumer: str | None = None) -> int:
        with _reaching():
            info = await self._bus.connection.js.stream_info(DLQ_STREAM)
            wanted = _of(consumer) if consumer else None
            await self._bus.connection.js.purge_stream(DLQ_STREAM, seq=info.state.last_seq + 1, subject=wanted)
            left = await self._bus.connection.js.stream_info(DLQ_STREAM)
        return max(0, info.state.messages - left.state.messages)

    async def count(self) -> int:
        with _reaching():
            return (await self._bus.connection.js.stream_info(DLQ_STREAM)).state.messages


def _of(consumer: str) -> str:
    """The letters of a consumer, whichever service it belongs to."""
    return f"lablet.dlq.*.{subjects.escape(consumer)}"


def _letter(number: int, headers: Mapping[str, str] | None, payload: bytes) -> DeadLetter | None:
    try:
        return DeadLetter.parse(headers or {}, payload)
    except (KeyError, ValueError) as error:
        _log.warning("the queue holds what is no dead letter", extra={"number": number, "cause": repr(error)})
        return None


async def _pull(bus: Bus, stream: str, config: ConsumerConfig, limit: int) -> list[Msg]:
    """Up to `limit` messages that are there now, in order."""
    config.ack_policy = AckPolicy.NONE
    config.inactive_threshold = _IDLE_SECONDS
    config.num_replicas = 1
    config.mem_storage = True
    found: list[Msg] = []
    with _reaching():
        js = bus.connection.js
        info = await js.add_consumer(stream, config)
        left = min(limit, info.num_pending or 0)
        if not left:
            return found
        subscription = await js.pull_subscribe_bind(consumer=info.name, stream=stream)
        try:
            while len(found) < left:
                found += await subscription.fetch(min(left - len(found), _BATCH), timeout=_CALL_SECONDS)
        finally:
            await subscription.unsubscribe()
    return found


def _read(messages: Sequence[Msg], *, raw: bool = False) -> list[Logged]:
    found = []
    for message in messages:
        number = message.metadata.sequence.stream
        try:
            found.append(Logged(number, decode(message.headers, message.data, raw=raw)))
        except InvalidEvent as error:
            _log.warning("the log holds what is no event", extra={"number": number, "cause": str(error)})
    return found
