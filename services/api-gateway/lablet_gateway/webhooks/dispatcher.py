"""Serving subscriptions: on the one replica that owns a subscription, its consumers, its sink, and the book on how it goes.

A durable consumer on the events and one on what is to be sent once more; both per subject one at a time, and whatever is
under way when the shard is given up goes back to the server. The book (phase, counts, last error) is written at most once
a second, so that it costs nothing where all is well; counts of the last second may be lost with the process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from prometheus_client import Counter

from lablet_common.bus import EVENTS_STREAM, Bus, BusUnavailable, MemoryBus, RetryPolicy, intents_stream
from lablet_common.bus.consumer import After, forget_counts
from lablet_common.bus.messages import DeadLetter, Received
from lablet_common.bus.streams import stream_of
from lablet_common.clock import Clock
from lablet_common.events import subjects
from lablet_common.events.binding import encode
from lablet_common.ownership import Fence, NotOwner
from lablet_common.resources.kinds import SUBSCRIPTION, Service
from lablet_common.resources.subscription import EVERY_TENANT, DeliveryError, Subscription, SubscriptionPhase
from lablet_common.secrets import SecretError
from lablet_common.store import Conflict, StoreUnavailable, Transaction
from lablet_common.store.changes import delete_in, update_in
from lablet_common.store.repository import Repository
from lablet_common.tasks import together
from lablet_common.telemetry.metrics import DEAD_LETTERED, REGISTRY
from lablet_gateway.deadletters import (
    concerns,
    earlier_redelivery_subject,
    redelivery_subject,
    webhook_consumer,
)
from lablet_gateway.deeds import SOURCE
from lablet_gateway.identity import Role
from lablet_gateway.parts import Parts
from lablet_gateway.sight import hears
from lablet_gateway.webhooks.delivery import Sink, Try, Wanted
from lablet_gateway.webhooks.registry import PRESET, secrets_of
from lablet_gateway.webhooks.sender import Sender

_log = logging.getLogger(__name__)
_BOOK_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_CONCURRENCY = 128
"""Subjects whose events are under way; most of them wait, as each sink takes `AT_ONCE` calls."""
_MESSAGE_LIMIT = 500
_PATIENCE = RetryPolicy(pauses=(1.0, 5.0, *(60.0,) * 2000), timeout=timedelta(days=3).total_seconds())
"""Retries are the delivery's own; a message comes again only when its replica went away."""
_OUT_OF_SERVICE = (SubscriptionPhase.PAUSED, SubscriptionPhase.DELETING)

DELIVERIES = Counter("lablet_webhook_deliveries", "Tries to deliver an event", ["result"], registry=REGISTRY)


class Dispatcher:
    """Makes the server of each subscription. `clock` is real time."""

    def __init__(self, parts: Parts, bus: Bus | MemoryBus, sender: Sender, clock: Clock) -> None:
        self._parts = parts
        self._bus = bus
        self._sender = sender
        self._clock = clock

    async def serve(self, name: str, fence: Fence) -> None:
        """Serves the subscription `name` until cancelled."""
        await self._parts.caches.reached(fence.create_revision)
        try:
            await _Server(self._parts, self._bus, self._sender, self._clock, name, fence).run()
        finally:
            forget_counts(webhook_consumer(name))


class _Server:
    def __init__(
        self, parts: Parts, bus: Bus | MemoryBus, sender: Sender, clock: Clock, name: str, fence: Fence
    ) -> None:
        self._parts = parts
        self._bus = bus
        self._sender = sender
        self._clock = clock
        self._name = name
        self._durable = webhook_consumer(name)
        self._fence = fence
        self._cache = parts.caches[SUBSCRIPTION]
        self._book = _Book(parts, clock, name, fence)

    async def run(self) -> None:
        changed = asyncio.Event()
        forget = self._cache.subscribe(lambda *_: changed.set())
        try:
            while True:
                present: Subscription | None = self._cache.get(self._name)
                working = asyncio.create_task(self._work(present))
                try:
                    await self._until_changed(present, changed, working)
                finally:
                    working.cancel()
                    await asyncio.wait({working})
                if not working.cancelled() and (error := working.exception()) is not None:
                    raise error
        finally:
            forget()

    async def _until_changed(
        self, present: Subscription | None, changed: asyncio.Event, working: "asyncio.Task[None]"
    ) -> None:
        """Returns when the subscription is another one to serve, or the work has failed."""
        while not working.done() and _served_as(self._cache.get(self._name)) == _served_as(present):
            changed.clear()
            waiting = asyncio.create_task(changed.wait())
            try:
                await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    async def _work(self, subscription: Subscription | None) -> None:
        """What the subscription's state asks for; never returns by itself."""
        if subscription is not None and subscription.phase == SubscriptionPhase.DELETING:
            await self._remove(subscription)
        elif subscription is not None and subscription.phase not in _OUT_OF_SERVICE:
            await self._send(subscription)
        await asyncio.Event().wait()

    async def _send(self, subscription: Subscription) -> None:
        spec = subscription.spec
        try:
            secrets = self._secrets(subscription)
        except SecretError as error:
            _log.error("a subscription cannot be served", extra={"subscription": self._name, "cause": str(error)})
            return
        wanted = Wanted.of(spec)
        role = subscription.status.role or Role.ADMIN
        operators = subscription.id == PRESET
        allow_private = operators or self._parts.settings.webhook_allow_private
        patience = timedelta(hours=self._parts.settings.webhook_patience_hours)
        sink = Sink(self._sender, spec, secrets, self._clock, self, allow_private=allow_private, patience=patience)

        async def handle(received: Received) -> None:
            may = concerns(subscription, received.event.get_extension("tenant")) and hears(role, received.kind)
            if may and wanted.takes(received.event):
                await sink.deliver(received)

        tenant = subjects.ANY if spec.tenant == EVERY_TENANT else spec.tenant
        begin = subscription.status.beginning
        events = self._bus.consumer(
            EVENTS_STREAM,
            self._durable,
            [subjects.event_filter(tenant=tenant)],
            handle,
            concurrency=_CONCURRENCY,
            policy=_PATIENCE,
            start=After(begin.epoch, begin.number),
        )
        again = self._bus.consumer(
            intents_stream(Service.GATEWAY),
            self._durable,
            [redelivery_subject(subscription), earlier_redelivery_subject(subscription)],
            handle,
            concurrency=_CONCURRENCY,
            policy=_PATIENCE,
            drop_repeats=False,
        )
        await together(events.run(), again.run(), self._book.write_for_ever())

    def _secrets(self, subscription: Subscription) -> Callable[[], Sequence[str]]:
        given = self._parts.settings.cloudevents_sink_secret
        if subscription.id == PRESET:
            return lambda: [given.get_secret_value()] if given is not None else []
        opened = secrets_of(subscription, self._parts.secrets)
        until = subscription.status.previous_until or datetime.min.replace(tzinfo=UTC)
        return lambda: [secret for secret, old in opened if not old or self._clock.now() < until]

    async def _remove(self, subscription: Subscription) -> None:
        for stream in (EVENTS_STREAM, intents_stream(Service.GATEWAY)):
            await self._patiently(partial(self._bus.remove_consumer, stream, self._durable))
        txn = Transaction()
        delete_in(txn, subscription)
        self._fence.guard(txn)
        await txn.commit(self._parts.store)
        _log.info("subscription deleted", extra={"subscription": self._name})

    async def _patiently(self, what: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await what()
            except (BusUnavailable, StoreUnavailable) as error:
                _log.warning("to be tried again", extra={"subscription": self._name, "cause": str(error)})
                await self._clock.sleep(timedelta(seconds=_RETRY_SECONDS))
            else:
                return

    # -- what the sink's deliveries report ---------------------------------------------------------------------------

    async def taken(self, received: Received) -> None:  # noqa: ARG002 - counted, not named
        DELIVERIES.labels("taken").inc()
        self._book.taken()

    async def failed(self, tried: Try) -> None:
        DELIVERIES.labels("failed").inc()
        self._book.failed(tried)
        known = {"subscription": self._name, "event": tried.received.event.get_id(), "attempts": tried.attempts}
        _log.info("a sink did not take an event", extra=known | {"cause": tried.answer.message})

    async def gone(self, tried: Try) -> None:
        DELIVERIES.labels("gone").inc()
        _log.warning("a sink is gone", extra={"subscription": self._name, "cause": tried.answer.message})
        await self._patiently(lambda: self._book.pause(tried))
        await asyncio.Event().wait()  # until the server notices the pause, and hands the event back

    async def given_up(self, tried: Try, reason: str) -> None:
        headers, payload = encode(tried.received.event)
        letter = DeadLetter(
            subject=tried.received.subject,
            headers=headers,
            payload=payload,
            stream=stream_of(tried.received.subject),
            stream_sequence=tried.received.stream_sequence,
            consumer=self._durable,
            reason=reason,
            attempts=tried.attempts,
            at=datetime.now(UTC),
        )
        await self._patiently(lambda: self._bus.bury(letter))
        DELIVERIES.labels("dead").inc()
        DEAD_LETTERED.labels(consumer=self._durable).inc()
        self._book.given_up(tried)
        _log.error("an event was given up on", extra={"subscription": self._name, "reason": reason})


def _served_as(subscription: Subscription | None) -> Any:
    """What the work depends on; the book's own entries do not count."""
    if subscription is None:
        return None
    status = subscription.status
    stopped = status.phase if status.phase in _OUT_OF_SERVICE else None
    return (subscription.metadata.uid, subscription.spec, stopped, status.secret, status.previous_secret, status.role)


class _Book:
    """How it goes, in the subscription's status."""

    def __init__(self, parts: Parts, clock: Clock, name: str, fence: Fence) -> None:
        self._parts = parts
        self._clock = clock
        self._name = name
        self._fence = fence
        self._kept: Repository[Subscription] = Repository(parts.store, SUBSCRIPTION)
        self._news = asyncio.Event()
        self._taken = 0
        self._dead = 0
        self._last_taken: datetime | None = None
        self._error: DeliveryError | None = None
        self._failing = False

    def taken(self) -> None:
        self._taken += 1
        self._last_taken = self._parts.clock.now()
        self._failing = False
        self._news.set()

    def failed(self, tried: Try) -> None:
        self._error = _error(tried, self._parts.clock.now())
        self._failing = True
        self._news.set()

    def given_up(self, tried: Try) -> None:
        self._dead += 1
        self.failed(tried)

    async def write_for_ever(self) -> None:
        """Raises `NotOwner` when somebody else serves the subscription."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write(self._entered)
            except StoreUnavailable as error:
                _log.warning("the book waits", extra={"subscription": self._name, "cause": str(error)})
                self._news.set()
            await self._clock.sleep(timedelta(seconds=_BOOK_SECONDS))

    async def pause(self, tried: Try) -> None:
        """Stops the subscription, because its sink says that it is gone. Raises `StoreUnavailable`, `NotOwner`."""
        error = _error(tried, self._parts.clock.now())

        def stopped(present: Subscription) -> Subscription:
            if present.phase in _OUT_OF_SERVICE:
                return present
            message = "the sink answered 410: set another one, or go on with paused=false"
            return present.moved(
                SubscriptionPhase.PAUSED, at=error.at, by=SOURCE, reason="SinkGone", message=message,
                last_error=error,
            )  # fmt: skip

        await self._write(stopped)

    async def _write(self, change: Callable[[Subscription], Subscription]) -> None:
        while True:
            present = await self._kept.get(self._name)
            if present is None:
                return
            taken, dead = self._taken, self._dead
            changed = change(present)
            if changed is present:
                return
            txn = Transaction()
            update_in(txn, changed)
            self._fence.guard(txn)
            try:
                await txn.commit(self._parts.store)
            except Conflict as error:
                if not await self._fence.stands(self._parts.store):
                    raise NotOwner(f"{self._name} is served by somebody else") from error
                continue
            self._taken -= taken
            self._dead -= dead
            return

    def _entered(self, present: Subscription) -> Subscription:
        now = self._parts.clock.now()
        status = present.status
        entries: dict[str, Any] = {
            "delivered": status.delivered + self._taken,
            "dead_lettered": status.dead_lettered + self._dead,
            "last_delivered_at": self._last_taken or status.last_delivered_at,
            "last_error": self._error or status.last_error,
            "failing_since": (status.failing_since or now) if self._failing else None,
        }
        wanted = SubscriptionPhase.FAILING if self._failing else SubscriptionPhase.ACTIVE
        if status.phase in _OUT_OF_SERVICE or status.phase == wanted:
            return present.observed("changed", **entries)
        reason = "SinkFails" if self._failing else "Delivered"
        return present.moved(wanted, at=now, by=SOURCE, reason=reason, fact="changed", **entries)


def _error(tried: Try, now: datetime) -> DeliveryError:
    event = tried.received.event
    return DeliveryError(
        at=now,
        event=event.get_id(),
        subject=event.get_subject() or "",
        message=tried.answer.message[:_MESSAGE_LIMIT],
        attempts=tried.attempts,
        status=tried.answer.status,
    )
