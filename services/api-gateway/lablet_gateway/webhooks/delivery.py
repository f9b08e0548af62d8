"""One event on its way to one sink: tried until it is taken, for as long as the settings say, in the order of its subject.

Two kinds of pause: an event's own, which grows with its failures, and the sink's, which holds everybody back while the
sink itself is down, so that an outage costs it a few calls and not one for each waiting event. Who pauses holds none of the
sink's calls. Pauses and this time
are real, and it begins with the first try: what waits behind a long outage, or in a paused subscription, is not
older for it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lablet_common.bus.messages import Received
from lablet_common.clock import Clock
from lablet_common.events import CloudEvent, InvalidEvent, data_of
from lablet_common.events.binding import encode, encode_structured
from lablet_common.events.derive import message_id
from lablet_common.reconcile import Backoff
from lablet_common.resources.subscription import Mode, SubscriptionSpec
from lablet_common.store.selectors import LabelSelector
from lablet_gateway.webhooks import signing
from lablet_gateway.webhooks.sender import Answer, Sender

_HOUR = timedelta(hours=1)
AT_ONCE = 32
"""Calls to one sink at the same time."""
BACKOFF = Backoff(initial=1.0, maximum=300.0)


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it is sent, but for the signature, which each try makes anew."""

    id: str
    headers: Mapping[str, str]
    body: bytes


def message_of(event: CloudEvent, mode: Mode) -> Message:
    """Raises `InvalidEvent` for one that cannot be written."""
    known = str(event.get_extension("tenant") or "")
    sent_id = f"msg_{message_id(known, event.get_source(), event.get_id())}"
    if mode == "structured":
        headers, body = encode_structured(event)
        return Message(sent_id, headers, body)
    headers, body = encode(event)
    content_type = headers.pop("ce-datacontenttype", "application/json")
    return Message(sent_id, headers | {"Content-Type": content_type}, body)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription's filters, ready for use."""

    types: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: LabelSelector

    @classmethod
    def of(cls, spec: SubscriptionSpec) -> "Wanted":
        """Raises `SelectorError`."""
        return cls(spec.types, spec.subjects, LabelSelector.parse(spec.label_selector))

    def takes(self, event: CloudEvent) -> bool:
        return (
            (not self.types or event.get_type().startswith(self.types))
            and (not self.subjects or (event.get_subject() or "").startswith(self.subjects))
            and (not self.labels.requirements or self.labels.matches_labels(_labels(event)))
        )


def _labels(event: CloudEvent) -> Mapping[str, str]:
    try:
        metadata = data_of(event).get("metadata")
    except InvalidEvent:
        return {}
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt that did not succeed."""

    received: Received
    answer: Answer
    attempts: int
    """This one included."""


class Report(Protocol):
    """Hears how it goes. May wait; what it raises ends the delivery."""

    async def taken(self, received: Received) -> None: ...

    async def failed(self, tried: Try) -> None: ...

    async def gone(self, tried: Try) -> None:
        """The sink wants nothing more. Returns never: the event stays undelivered and comes again."""
        ...

    async def given_up(self, tried: Try, reason: str) -> None:
        """Keeps the event among the dead letters; returns once it is safe there."""
        ...


class Sink:
    """One subscription's sink, for all its events under way. `clock` is real time."""

    def __init__(
        self,
        sender: Sender,
        spec: SubscriptionSpec,
        secrets: Callable[[], Sequence[str]],
        clock: Clock,
        report: Report,
        *,
        allow_private: bool,
        patience: timedelta,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._sender = sender
        self._spec = spec
        self._secrets = secrets
        self._clock = clock
        self._report = report
        self._allow_private = allow_private
        self._patience = patience
        self._backoff = backoff
        self._failures = 0
        self._resume: datetime | None = None
        """Until when nothing is sent at all."""
        self._calls = asyncio.Semaphore(AT_ONCE)

    async def deliver(self, received: Received) -> None:
        """Returns when the event has come to its end."""
        message = message_of(received.event, self._spec.mode)
        attempts = 0
        first: datetime | None = None
        while True:
            await self._turn()
            try:
                began = self._clock.now()
                first = first or began
                attempts += 1
                answer = await self._try(message)
                if not answer.taken:
                    self._note(answer, began)
            finally:
                self._calls.release()
            if answer.taken:
                self._failures, self._resume = 0, None
                await self._report.taken(received)
                return
            tried = Try(received, answer, attempts)
            if answer.gone:
                await self._report.gone(tried)
            if self._clock.now() - first >= self._patience:
                hours = self._patience / _HOUR
                reason = f"the sink did not take it in {attempts} tries over {hours:g} h; the last: {answer.message}"
                await self._report.given_up(tried, reason)
                return
            await self._report.failed(tried)
            await self._clock.sleep(self._pause(attempts, answer))

    async def _try(self, message: Message) -> Answer:
        stamp = int(self._clock.now().timestamp())
        signed = signing.headers(message.id, stamp, message.body, self._secrets())
        return await self._sender.post(
            self._spec.sink, {**message.headers, **signed}, message.body, allow_private=self._allow_private
        )

    async def _turn(self) -> None:
        """Returns when a call may be made, which is counted until it is over."""
        while True:
            while self._resume is not None and self._clock.now() < self._resume:
                await self._clock.sleep_until(self._resume)
            await self._calls.acquire()
            if self._resume is None or self._clock.now() >= self._resume:
                return
            self._calls.release()  # the sink went down while this waited

    def _note(self, answer: Answer, began: datetime) -> None:
        """Events that were under way together count as one failure of the sink."""
        if not answer.sink_is_down or (self._resume is not None and began < self._resume):
            return
        self._failures += 1
        self._resume = self._clock.now() + self._pause(self._failures, answer)

    def _pause(self, failures: int, answer: Answer) -> timedelta:
        return timedelta(seconds=max(self._backoff.pause(failures), answer.retry_after))
