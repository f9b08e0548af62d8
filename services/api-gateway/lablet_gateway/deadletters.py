"""The port to the dead letter queue: what was given up on, sending it once more, and clearing up.

A replayed message goes to where it had been published, byte for byte; an event that a webhook's sink did not take goes to
that subscription alone, since everybody else has had it, and only while it is of the letter's tenant: a name is free again
once its subscription is gone, and the letters stay. With that it leaves the queue; when it fails again, there is a new
dead letter. Not guaranteed: that a message is replayed only once (the process may end between sending and removing).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lablet_common.bus.messages import DeadLetter
from lablet_common.events import subjects
from lablet_common.resources.kinds import Service
from lablet_common.resources.subscription import EVERY_TENANT, Subscription
from lablet_gateway.eventlog import EventLogUnavailable

_WEBHOOK = "webhook-"
_REDELIVERY = "subscription"
_PAGE = 200


def webhook_consumer(subscription: str) -> str:
    """The durable consumer of a subscription."""
    return f"{_WEBHOOK}{subscription}"


def subscription_of(letter: DeadLetter) -> str | None:
    """The name of the subscription whose sink did not take it; None for what another consumer gave up on."""
    return letter.consumer.removeprefix(_WEBHOOK) if letter.consumer.startswith(_WEBHOOK) else None


def redelivery_subject(subscription: Subscription) -> str:
    """Where events are put that this very subscription shall be sent once more, and none that has its name later."""
    name = f"{subscription.id}/{subscription.metadata.uid}"
    return subjects.intent_subject(Service.GATEWAY, subjects.NO_POOL, _REDELIVERY, name)


def earlier_redelivery_subject(subscription: Subscription) -> str:
    """Where a gateway of before this subject was that of one subscription alone puts them: what lies there still, or is put
    there while replicas are replaced, has left the queue."""
    return subjects.intent_subject(Service.GATEWAY, subjects.NO_POOL, _REDELIVERY, subscription.id)


def concerns(subscription: Subscription, tenant: object) -> bool:
    """Whether the subscription hears events of the tenant."""
    return subscription.spec.tenant in (EVERY_TENANT, tenant)


def may_hear(subscription: Subscription, letter: DeadLetter) -> bool:
    """Whether the event in the letter is of the subscription's tenant."""
    return concerns(subscription, letter.headers.get("ce-tenant"))


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter at its number in the queue."""

    number: int
    letter: DeadLetter


class DeadLetters(Protocol):
    """Every call raises `EventLogUnavailable` when NATS does not answer."""

    async def list(self, after: int, limit: int, consumer: str | None = None) -> Sequence[Buried]:
        """Oldest first, above the number `after`; of one consumer, or of all."""
        ...

    async def get(self, number: int) -> Buried | None: ...

    async def replay(self, buried: Buried, subject: str) -> None:
        """Publishes the original anew under the subject and removes the letter."""
        ...

    async def remove(self, number: int) -> None:
        """Forgets one. One that is not there is no error."""
        ...

    async def purge(self, consumer: str | None = None) -> int:
        """Forgets those of a consumer, or all; returns how many there were."""
        ...

    async def count(self) -> int:
        """How many there are."""
        ...


async def everything_of(letters: DeadLetters, consumer: str) -> AsyncIterator[Buried]:
    """A consumer's letters, oldest first; those that come while it runs may be left out."""
    after = 0
    while page := await letters.list(after, _PAGE, consumer):
        for buried in page:
            yield buried
        after = page[-1].number


@dataclass
class MemoryDeadLetters:
    """Twin for tests. `replayed` holds where each original went, and the letter."""

    letters: dict[int, DeadLetter] = field(default_factory=dict)
    replayed: list[tuple[str, DeadLetter]] = field(default_factory=list)
    unavailable: bool = False

    def _check(self) -> None:
        if self.unavailable:
            raise EventLogUnavailable("the dead letter queue is switched off")

    async def list(self, after: int, limit: int, consumer: str | None = None) -> Sequence[Buried]:
        self._check()
        return [
            Buried(number, letter)
            for number, letter in sorted(self.letters.items())
            if number > after and consumer in (None, letter.consumer)
        ][:limit]

    async def get(self, number: int) -> Buried | None:
        self._check()
        letter = self.letters.get(number)
        return None if letter is None else Buried(number, letter)

    async def replay(self, buried: Buried, subject: str) -> None:
        self._check()
        self.replayed.append((subject, buried.letter))
        self.letters.pop(buried.number, None)

    async def remove(self, number: int) -> None:
        self._check()
        self.letters.pop(number, None)

    async def purge(self, consumer: str | None = None) -> int:
        self._check()
        gone = [number for number, letter in self.letters.items() if consumer in (None, letter.consumer)]
        for number in gone:
            del self.letters[number]
        return len(gone)

    async def count(self) -> int:
        self._check()
        return len(self.letters)
