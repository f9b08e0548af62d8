"""A durable consumer that runs for ever: pulls, decodes, hands out by key, acknowledges, retries, gives up.

Delivery is at least once. Per key one message at a time and in order, except that a message which failed comes back
after those behind it; keys side by side, up to `concurrency`. A stream or consumer that somebody deleted is made again; a
pull that went silent is rebuilt; every rebuild is counted, and paused for a growing while when they follow each other.
Cancelled, it hands back what it holds so that another replica gets it at once.

Not guaranteed: exactly-once handling. An acknowledgement may be lost, or count for another delivery; handlers look at
the present state and do nothing the second time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.errors import BadRequestError, NotFoundError
from prometheus_client import Counter

from lablet_common.bus.connection import BusUnavailable, Connection
from lablet_common.bus.handling import Again, Buried, Done, GiveUp, Handler, RetryPolicy, Verdict, handle
from lablet_common.bus.lanes import Lanes
from lablet_common.bus.messages import DeadLetter, Received, received
from lablet_common.bus.pull import Pull
from lablet_common.bus.seen import Seen
from lablet_common.events.binding import InvalidEvent
from lablet_common.tasks import heeding_cancellation, together
from lablet_common.telemetry.metrics import DEAD_LETTERED, EVENT_HANDLING, REGISTRY


@dataclass(frozen=True, slots=True)
class After:
    """Begin behind this message of the very stream that was made at `epoch` (see `epoch_of`); of one that has been made
    anew, everything is behind it."""

    epoch: str
    number: int


Start = Literal["all", "new"] | After

ACK_WAIT_SECONDS = 30.0
"""After which the server delivers again what nobody spoke about; work under way is reported three times as often."""
_SPARE_DELIVERIES = 1000
"""Deliveries beyond our attempts, while a dead letter cannot be written; past them the server stays silent for ever."""
_MAX_ACK_PENDING = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_STEADY_SECONDS = 5.0
"""A pull that lived for so long was sound: the next rebuild does not wait."""

REBUILDS = Counter("lablet_bus_rebuilds", "Pulls that had to be built anew", ["consumer"], registry=REGISTRY)

_log = logging.getLogger(__name__)
_TELLINGS = 5
"""How often `buried` is tried for a letter that is safe; then the message is ended without it."""


def forget_counts(durable: str) -> None:
    """Takes the series of a consumer out of the metrics, where it is served no more and its name may never come again."""
    for metric in (EVENT_HANDLING, DEAD_LETTERED, REBUILDS):
        metric.remove(durable)


_Which = tuple[int, datetime]
"""A message's number in its stream, and when it was stored: in a stream that is made anew the numbers come again."""


@dataclass(slots=True)
class _Held:
    """A message between delivery and acknowledgement."""

    raw: Msg
    content: Received | InvalidEvent
    deliveries: int
    which: _Which
    reported: float = field(default_factory=time.monotonic)


class Consumer:
    """Made by `Bus.consumer`; `run` it in a task and cancel that."""

    def __init__(
        self,
        connection: Connection,
        restore: Callable[[str], Awaitable[None]],
        bury: Callable[[DeadLetter], Awaitable[None]],
        stream: str,
        durable: str,
        filters: Sequence[str],
        handler: Handler,
        *,
        key: Callable[[Received], str] | None,
        concurrency: int,
        policy: RetryPolicy,
        seen: Seen | None,
        start: Start,
        ack_wait: float = ACK_WAIT_SECONDS,
        buried: Buried | None = None,
        raw: bool = False,
    ) -> None:
        self.stream = stream
        self.durable = durable
        self._connection = connection
        self._restore = restore
        self._bury = bury
        self._filters = tuple(filters)
        self._handler = handler
        self._key = key
        self._policy = policy
        self._seen = seen
        self._start = start
        self._ack_wait = ack_wait
        self._buried = buried
        self._raw = raw
        self._lanes: Lanes[_Held] = Lanes(concurrency=concurrency)
        self._capacity = max(4 * concurrency, 128)
        self._pull: Pull | None = None
        self._reasons: dict[_Which, str] = {}
        """Why messages were given up on whose dead letter could not be written yet."""
        self._tellings: dict[_Which, int] = {}
        """Messages whose dead letter is written → how often its `buried` may still be tried."""
        self.pulling = False
        """A pull is open: messages can come."""
        self._opened = 0.0
        self._stood: float | None = None
        """When the last sound pull ended, the connection came back, or running began; None while it does not run."""

    @property
    def silent_seconds(self) -> float:
        """For how long it has been running without a pull that stands."""
        if self._stood is None or self._stands():
            return 0.0
        return time.monotonic() - self._stood

    def _stands(self) -> bool:
        return self.pulling and time.monotonic() - self._opened > _STEADY_SECONDS

    async def run(self) -> None:
        """Consumes until cancelled."""
        DEAD_LETTERED.labels(
            consumer=self.durable
        )  # from 0 on: a first one that appears as 1 is no increase to an alert
        forget = self._connection.on_loss(self._on_loss)
        self._stood = time.monotonic()
        try:
            await together(self._lanes.run(self._work), self._report_progress(), self._pull_for_ever())
        finally:
            forget()
            self.pulling = False
            self._stood = None
            self._pull = None  # which holds this
            await self._hand_back()

    async def _pull_for_ever(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if not self._connection.connected:  # which is told as that
                await self._connection.wait_up()
                self._stood = time.monotonic()
            began = self._opened = time.monotonic()
            try:
                reason = await self._pull_once()
            except (nats.errors.Error, BusUnavailable, TimeoutError, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
            finally:
                if self._stands():
                    self._stood = time.monotonic()
                self.pulling = False
            REBUILDS.labels(consumer=self.durable).inc()
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            _log.warning(
                "a pull ended and is built anew",
                extra={"consumer": self.durable, "stream": self.stream, "reason": reason, "pause": pause},
            )
            await asyncio.sleep(pause)

    async def _pull_once(self) -> str:
        js = self._connection.js
        try:
            await ensure_consumer(js, self.stream, self._config(await self._begin(js)))
        except NotFoundError:
            await self._restore(self.stream)
            await ensure_consumer(js, self.stream, self._config(await self._begin(js)))
        self._pull = Pull(self._connection.client, self.stream, self.durable, room=self._room, take=self._take)
        self.pulling = True
        return await self._pull.run()

    async def _begin(self, js: JetStreamContext) -> int:
        """The first message that a new consumer gets; 0: all, -1: what comes."""
        match self._start:
            case After(epoch, number):
                with heeding_cancellation():
                    info = await js.stream_info(self.stream)
                return number + 1 if epoch_of(info) == epoch else 0
            case "new":
                return -1
            case _:
                return 0

    def _config(self, begin: int) -> ConsumerConfig:
        one = len(self._filters) == 1
        policy = {0: DeliverPolicy.ALL, -1: DeliverPolicy.NEW}.get(begin, DeliverPolicy.BY_START_SEQUENCE)
        return ConsumerConfig(
            name=self.durable,
            durable_name=self.durable,
            deliver_policy=policy,
            opt_start_seq=begin if begin > 0 else None,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_deliver=self._policy.attempts + _SPARE_DELIVERIES,
            max_ack_pending=_MAX_ACK_PENDING,
            filter_subject=self._filters[0] if one else None,
            filter_subjects=None if one else list(self._filters),
        )

    def _room(self) -> int:
        return self._capacity - len(self._lanes)

    def _take(self, message: Msg) -> None:
        meta = message.metadata
        content: Received | InvalidEvent
        try:
            content = received(
                message.subject,
                message.headers,
                message.data,
                deliveries=meta.num_delivered,
                stream_sequence=meta.sequence.stream,
                raw=self._raw,
            )
        except InvalidEvent as error:
            content = error
        held = _Held(message, content, meta.num_delivered, (meta.sequence.stream, meta.timestamp))
        if isinstance(content, InvalidEvent):
            key = message.subject
        else:
            key = self._key(content) if self._key is not None else content.key
        self._lanes.put(key, held)

    async def _work(self, held: _Held) -> None:
        verdict: Verdict
        if held.which in self._reasons:
            verdict = GiveUp(self._reasons[held.which])
        else:
            verdict = await handle(
                held.content,
                self._handler,
                consumer=self.durable,
                policy=self._policy,
                seen=self._seen,
                deliveries=held.deliveries,
            )
        try:
            await self._settle(held, verdict)
        except (nats.errors.Error, BusUnavailable, TimeoutError, OSError) as error:
            # It comes again by itself; handlers and dead letters are made for that.
            _log.warning("a message could not be settled", extra={"consumer": self.durable, "cause": str(error)})
        except Exception:  # noqa: BLE001 - one message, perhaps made for it, must not end the consumer and the process for all
            _log.exception("a message could not be settled, by a defect", extra={"consumer": self.durable})
        if self._pull is not None:
            self._pull.look()

    async def _settle(self, held: _Held, verdict: Verdict) -> None:
        match verdict:
            case Done():
                await held.raw.ack()
            case Again(seconds):
                await held.raw.nak(delay=seconds)
            case GiveUp(reason):
                self._reasons[held.which] = reason
                letter = self._dead_letter(held, reason)
                if held.which not in self._tellings:
                    await self._bury(letter)
                    DEAD_LETTERED.labels(consumer=self.durable).inc()
                    self._tellings[held.which] = _TELLINGS if self._buried is not None else 0
                await self._tell(held.which, letter)
                await held.raw.term()
                del self._reasons[held.which], self._tellings[held.which]

    async def _tell(self, which: _Which, letter: DeadLetter) -> None:
        """Says that the letter is safe, to whoever wants to know; what it raises is tried again, some times."""
        if self._buried is not None and self._tellings[which]:
            self._tellings[which] -= 1
            await self._buried(letter)
            self._tellings[which] = 0

    def _dead_letter(self, held: _Held, reason: str) -> DeadLetter:
        return DeadLetter(
            subject=held.raw.subject,
            headers=held.raw.headers or {},
            payload=held.raw.data,
            stream=self.stream,
            stream_sequence=held.which[0],
            consumer=self.durable,
            reason=reason,
            attempts=held.deliveries,
            at=datetime.now(UTC),
        )

    async def _report_progress(self) -> None:
        """Keeps the server from delivering again what waits its turn or takes long."""
        interval = self._ack_wait / 3
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            for held in list(self._lanes):
                if now - held.reported >= interval and self._connection.connected:
                    held.reported = now
                    try:
                        await held.raw.in_progress()
                    except nats.errors.Error as error:
                        _log.info("no progress could be reported", extra={"cause": str(error)})
                        break

    async def _hand_back(self) -> None:
        for held in self._lanes.drain():
            if not self._connection.connected:
                return
            try:
                await held.raw.nak()
            except nats.errors.Error as error:
                _log.info("messages were not handed back", extra={"consumer": self.durable, "cause": str(error)})
                return

    def _on_loss(self, reason: str) -> None:
        if self._pull is not None:
            self._pull.end(reason)


def epoch_of(info: StreamInfo) -> str:
    """Which stream it is: another one of the same name, made later, has another epoch."""
    return f"{info.created.timestamp():.6f}".replace(".", "") if info.created else "0"


async def ensure_consumer(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Makes the consumer, or brings it up to date. Where it begins cannot be changed any more: then the one that is there
    is used. Raises `NotFoundError` where the stream is missing."""
    try:
        with heeding_cancellation():
            await js.add_consumer(stream, config)
    except BadRequestError as error:
        assert config.name is not None
        with heeding_cancellation():
            present = (await js.consumer_info(stream, config.name)).config
        kept = replace(config, deliver_policy=present.deliver_policy, opt_start_seq=present.opt_start_seq)
        _log.warning("a consumer keeps its old start", extra={"consumer": config.name, "cause": str(error)})
        with heeding_cancellation():
            await js.add_consumer(stream, kept)
