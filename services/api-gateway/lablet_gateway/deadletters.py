"""The port to the dead letter queue: what was given up on, and sending it once more.

A replayed message goes to where it had been published, byte for byte; it stays in the queue until the queue's age takes
it. Not guaranteed: that it fares better this time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lablet_common.bus.messages import DeadLetter
from lablet_gateway.eventlog import EventLogUnavailable


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter at its number in the queue."""

    number: int
    letter: DeadLetter


class DeadLetters(Protocol):
    """Every call raises `EventLogUnavailable` when NATS does not answer."""

    async def list(self, after: int, limit: int) -> Sequence[Buried]:
        """Oldest first, above the number `after`."""
        ...

    async def get(self, number: int) -> Buried | None: ...

    async def replay(self, letter: DeadLetter) -> None:
        """Publishes the original anew."""
        ...


@dataclass
class MemoryDeadLetters:
    """Twin for tests."""

    letters: dict[int, DeadLetter] = field(default_factory=dict)
    replayed: list[DeadLetter] = field(default_factory=list)
    unavailable: bool = False

    def _check(self) -> None:
        if self.unavailable:
            raise EventLogUnavailable("the dead letter queue is switched off")

    async def list(self, after: int, limit: int) -> Sequence[Buried]:
        self._check()
        return [Buried(number, letter) for number, letter in sorted(self.letters.items()) if number > after][:limit]

    async def get(self, number: int) -> Buried | None:
        self._check()
        letter = self.letters.get(number)
        return None if letter is None else Buried(number, letter)

    async def replay(self, letter: DeadLetter) -> None:
        self._check()
        self.replayed.append(letter)
