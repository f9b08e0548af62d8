"""The bus: what a service sees of NATS.

Publishing returns once the server has stored the event (see `client`). Consumers are ours (see `pull`): pools come and
go while the process runs, one slow message must not hold a batch, and a lost pull must be noticed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from weakref import WeakSet

import nats.errors
from faststream.exceptions import IncorrectState
from nats.js.api import PersistMode
from nats.js.errors import NoStreamResponseError, NotFoundError

from lablet_common.bus import streams
from lablet_common.bus.client import MOST_HEADERS
from lablet_common.bus.connection import CALL_SECONDS, BusUnavailable, Connection, TooLarge
from lablet_common.bus.consumer import ACK_WAIT_SECONDS, Consumer, Start, epoch_of
from lablet_common.bus.follower import Follower
from lablet_common.bus.handling import Buried, Handler, RetryPolicy
from lablet_common.bus.messages import DeadLetter, Received, publishable
from lablet_common.bus.seen import Seen
from lablet_common.bus.tracing import publishing
from lablet_common.cursor import Latest, Present
from lablet_common.events import subjects
from lablet_common.events.derive import Outgoing
from lablet_common.settings import NatsSettings
from lablet_common.tasks import heeding_cancellation

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_HEADER_BYTES = 32
"""What a header takes beside its words, and the block of them beside them: generously."""
_SILENT_SECONDS = 30.0
"""A consumer that has had no pull for so long is told of."""

_log = logging.getLogger(__name__)


class Bus:
    """One per process. `service` names the NATS user's rights: its streams, its dead letters, its inbox."""

    def __init__(self, settings: NatsSettings, service: str, *, replicas: int = 1) -> None:
        self._service = service
        self._replicas = replicas
        self._connection = Connection(settings, service)
        self._restoring = asyncio.Lock()
        self._made_anew = 0
        self._consumers: WeakSet[Consumer] = WeakSet()

    @property
    def connected(self) -> bool:
        return self._connection.connected

    async def look(self) -> None:
        """Raises `ConnectionError` where there is no connection, or a consumer has long been without a pull."""
        if not self.connected:
            why = self._connection.trouble
            raise ConnectionError(f"not connected to {self._connection.url}{f': {why}' if why else ''}")
        silent = sorted(one.durable for one in self._consumers if one.silent_seconds > _SILENT_SECONDS)
        if silent:
            raise ConnectionError(f"no messages can come to {', '.join(silent)} for {_SILENT_SECONDS:g} s now")

    @property
    def connection(self) -> Connection:
        """For what the bus does not offer (reading streams, core subscriptions)."""
        return self._connection

    async def connect(self) -> None:
        """Waits until NATS is there and the streams are made, however long. Raises `BusRefused` for a refused login."""
        await self._connection.open()
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.ensure_streams()
            except (BusUnavailable, nats.errors.Error, TimeoutError, OSError) as error:
                _log.warning("the streams cannot be made yet", extra={"cause": f"{type(error).__name__}: {error}"})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                await self._connection.wait_up()
            else:
                return

    async def close(self) -> None:
        """Sends what is under way and closes. Cancel consumers first."""
        await self._connection.close()

    async def ensure_streams(self) -> None:
        """Makes the streams that this service uses, as far as they are missing, and brings them up to date. Raises
        `BusUnavailable` or what the server says."""
        await self._ensure(streams.used_by(self._service))

    @property
    def session(self) -> int:
        """Which connection to NATS it is: changes with each loss of one, and when the stream of events was made anew."""
        return self._connection.session + self._made_anew

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:
        """Stores the event in its stream, in that `session` or not at all; returns once the server has acknowledged it, with
        its number in EVENTS (0: it lies in another stream). Raises `BusUnavailable` (then it may or may not have been
        stored; publishing again is safe), and `TooLarge` or `InvalidEvent` for one that never can be."""
        stream = streams.stream_of(outgoing.subject)
        with publishing(outgoing) as parent:
            headers, payload = publishable(outgoing, parent)
            number = await self._store(outgoing.subject, headers, payload, stream, session)
        return number if stream == streams.EVENTS_STREAM else 0

    async def present(self) -> Present:
        """The stream of events, as it is. Raises `BusUnavailable`."""
        js = self._connection.js
        try:
            with heeding_cancellation():
                try:
                    info = await js.stream_info(streams.EVENTS_STREAM)
                except NotFoundError:
                    await self._restore(streams.EVENTS_STREAM)
                    info = await js.stream_info(streams.EVENTS_STREAM)
        except (nats.errors.Error, IncorrectState, TimeoutError, OSError) as error:
            raise BusUnavailable(f"NATS does not say how {streams.EVENTS_STREAM} is: {error!r}") from error
        return Present(epoch_of(info), info.state.first_seq, info.config.persist_mode == PersistMode.ASYNC)

    async def last(self, subject: str) -> Latest:
        """The last event under it. Raises `BusUnavailable`."""
        try:
            with heeding_cancellation():
                found = await self._connection.js.get_last_msg(streams.EVENTS_STREAM, subject, direct=True)
        except NotFoundError:
            return Latest()
        except TimeoutError as error:
            right = (
                f"{self._service}'s user must have the right to $JS.API.DIRECT.GET.{streams.EVENTS_STREAM}.{subject}"
            )
            raise BusUnavailable(f"NATS does not give the last event of {subject}: no answer ({right})") from error
        except (nats.errors.Error, IncorrectState, OSError) as error:
            raise BusUnavailable(f"NATS does not give the last event of {subject}: {error!r}") from error
        return Latest(found.seq or 0, int((found.headers or {}).get("ce-sequence", "0")))

    async def tell(self, outgoing: Outgoing) -> None:
        """Publishes to whoever listens now (core NATS, no stream): refusals to outside systems. Raises `BusUnavailable`, and
        `TooLarge` for more than NATS takes."""
        headers, payload = publishable(outgoing, None)
        size = len(payload) + sum(len(name) + len(value.encode()) + _HEADER_BYTES for name, value in headers.items())
        if (
            size > self._connection.client.max_payload - _HEADER_BYTES
        ):  # nats-py does not count headers; the server does
            raise TooLarge(f"{outgoing.subject}: {size} bytes with its headers are more than NATS takes")
        try:
            await self._connection.client.publish(outgoing.subject, payload, headers=headers)
        except nats.errors.Error as error:
            raise BusUnavailable(f"NATS did not take {outgoing.subject}: {error}") from error

    async def bury(self, letter: DeadLetter) -> None:
        """Writes a dead letter; the same one twice is one. Where what is known of its end makes the message larger than NATS
        takes, its payload is left out, and if need be its headers, and the reason says so. Raises `BusUnavailable`."""
        subject = subjects.dlq_subject(self._service, letter.consumer)
        without_payload, without_headers = letter.lighter()
        for form in (letter, without_payload):
            try:
                await self._store(subject, *form.message(), streams.DLQ_STREAM)
            except TooLarge:
                continue
            return
        await self._store(subject, *without_headers.message(), streams.DLQ_STREAM)

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
        ack_wait: float = ACK_WAIT_SECONDS,
        buried: Buried | None = None,
        raw: bool = False,
    ) -> Consumer:
        """A durable consumer, to be `run` in a task and cancelled with it; another replica under the same name shares its
        messages.

        `key`: what is handled one at a time (the event's subject). `drop_repeats`: drop events whose sequence is not
        above the last one handled for their subject (on EVENTS). `start`: where a consumer that is new begins (`new` on
        EVENTS, `all` elsewhere). `ack_wait`: real seconds. `buried` hears of each dead letter once it is safe, before the
        message is ended; it may hear of one twice. `raw`: JSON data are handed on as they came, to a handler that does not
        look at them; whether they are JSON nobody asks then."""
        events = stream == streams.EVENTS_STREAM
        consumer = Consumer(
            self._connection,
            self._restore,
            self.bury,
            stream,
            durable,
            filters,
            handler,
            key=key,
            concurrency=concurrency,
            policy=policy or RetryPolicy(),
            seen=Seen() if (events if drop_repeats is None else drop_repeats) else None,
            start=start or ("new" if events else "all"),
            ack_wait=ack_wait,
            buried=buried,
            raw=raw,
        )
        self._consumers.add(consumer)
        return consumer

    def follow(
        self, filters: Sequence[str], handler: Callable[[Received], Awaitable[None]], *, after: int | None = None
    ) -> Follower:
        """Every event on EVENTS that fits, in stream order, for this process alone and without acknowledgement: for live
        streams. From the stream sequence `after` on; None: from now."""
        return Follower(self._connection, self._restore, filters, handler, after=after)

    async def remove_consumer(self, stream: str, durable: str) -> None:
        """Deletes a durable consumer whose pool or subscription is gone. One that is not there is no error. Raises
        `BusUnavailable`."""
        try:
            with heeding_cancellation():
                await self._connection.js.delete_consumer(stream, durable)
        except NotFoundError:
            return
        except nats.errors.Error as error:
            raise BusUnavailable(f"the consumer {durable} was not deleted: {error}") from error

    async def _store(
        self, subject: str, headers: dict[str, str], payload: bytes, stream: str, session: int | None = None
    ) -> int:
        try:
            try:
                return await self._store_in(session, subject, headers, payload, stream)
            except NoStreamResponseError:
                await self._restore(stream)
                return await self._store_in(session, subject, headers, payload, stream)
        except nats.errors.MaxPayloadError as error:
            most = self._connection.client.max_payload
            told = f"headers and {len(payload)} bytes of payload, of {most} in all and {MOST_HEADERS} of headers"
            raise TooLarge(f"{subject}: {told}") from error
        except (nats.errors.Error, IncorrectState, TimeoutError, OSError) as error:
            raise BusUnavailable(f"NATS did not store {subject}: {type(error).__name__} {error}") from error

    async def _store_in(
        self, session: int | None, subject: str, headers: dict[str, str], payload: bytes, stream: str
    ) -> int:
        client = self._connection.client
        if session is not None:
            await client.prepare()
            if session != self.session:
                raise BusUnavailable("NATS was lost, or its stream of events, and this was meant for it")
        return await client.store(subject, headers, payload, stream=stream, within=CALL_SECONDS)

    async def _restore(self, stream: str) -> None:
        """Makes a stream that somebody deleted; many at once make it once. Raises what the server says."""
        async with self._restoring:
            made = await self._ensure([one for one in streams.used_by(self._service) if one.name == stream])
            if streams.EVENTS_STREAM in made:
                self._made_anew += 1

    async def _ensure(self, wanted: Iterable[streams.Stream]) -> list[str]:
        connection = self._connection
        with heeding_cancellation():
            return await streams.ensure(
                connection.js,
                wanted,
                server=connection.server,
                replicas=self._replicas,
                clustered=connection.clustered,
            )
