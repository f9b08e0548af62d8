"""What becomes of one message: handled, tried again later, or given up on.

The same for the real bus and its twin: both ask `handle` and carry out its verdict. Attempts are finite; the pauses
between them grow. A message that is no event never gets better and is given up on at once.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lablet_common.bus.messages import DeadLetter, Received
from lablet_common.bus.seen import Seen
from lablet_common.bus.tracing import processing
from lablet_common.events.binding import InvalidEvent
from lablet_common.tasks import is_cancelled
from lablet_common.telemetry.metrics import EVENT_HANDLING

HAND_BACKS = 10
"""Deliveries beyond its attempts that a message may have seen: whoever ends in order hands back what waits, and a connection
that is lost costs a delivery, too. Past them it is taken for what kills whoever takes it."""

Handler = Callable[[Received], Awaitable[None]]
Buried = Callable[[DeadLetter], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which pauses a message is tried. Real seconds."""

    pauses: tuple[float, ...] = (0.5, 2.0, 8.0, 30.0, 120.0)
    """After the first failure, the second, …; one attempt more than pauses."""
    timeout: float = 60.0
    """A handler that takes longer has failed."""

    @property
    def attempts(self) -> int:
        return len(self.pauses) + 1


@dataclass(frozen=True, slots=True)
class Done:
    """Acknowledge it."""


@dataclass(frozen=True, slots=True)
class Again:
    """Deliver it once more after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Write a dead letter, then terminate it."""

    reason: str


Verdict = Done | Again | GiveUp


async def handle(
    message: Received | InvalidEvent,
    handler: Handler,
    *,
    consumer: str,
    policy: RetryPolicy,
    seen: Seen | None,
    deliveries: int,
) -> Verdict:
    """Runs the handler once. Never raises, except when it is cancelled."""
    if isinstance(message, InvalidEvent):
        return GiveUp(f"not a valid event: {message}")
    if deliveries > policy.attempts + HAND_BACKS:
        return GiveUp(f"delivered {deliveries} times without an outcome: whoever took it did not live to say why")
    if seen is not None and not seen.is_new(message.event):
        return Done()
    began = time.perf_counter()
    try:
        async with asyncio.timeout(policy.timeout):
            with processing(message, consumer):
                await handler(message)
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        return _failed(
            RuntimeError(f"the handler was cancelled from within: {error}"), message, consumer, policy, deliveries
        )
    except Exception as error:  # noqa: BLE001 - the handler is foreign; whatever it raises is one failed attempt
        return _failed(error, message, consumer, policy, deliveries)
    finally:
        EVENT_HANDLING.labels(consumer).observe(time.perf_counter() - began)
    if seen is not None:
        seen.note(message.event)
    return Done()


def _failed(error: Exception, message: Received, consumer: str, policy: RetryPolicy, deliveries: int) -> Verdict:
    known = {
        "consumer": consumer,
        "event_type": message.event.get_type(),
        "event_subject": message.event.get_subject(),
        "attempt": deliveries,
    }
    if isinstance(error, InvalidEvent) or deliveries >= policy.attempts:
        _log.error("a message is given up on", extra=known, exc_info=error)
        return GiveUp(f"{type(error).__name__}: {error}")
    pause = policy.pauses[deliveries - 1]
    _log.warning("a message could not be handled and comes again", extra=known | {"pause": pause}, exc_info=error)
    return Again(pause)
