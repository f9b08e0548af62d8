"""The port to the published events: a numbered log that can be read from any place on.

Numbers are JetStream's; they mean something only together with the stream's `epoch`, which changes when the stream is
made anew. `MemoryEventLog` is the twin for tests. Not guaranteed: that the log begins at the beginning (it is kept for a
time and up to a size), nor that an event stands in it once (a bridge may publish again).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lablet_common.events import CloudEvent, kind_and_id


class EventLogUnavailable(Exception):
    """NATS does not answer: what was published cannot be read just now."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One event at its number."""

    number: int
    event: CloudEvent


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which numbers can be read: `first` to `last`; an empty log has `first` above `last`."""

    epoch: str
    first: int
    last: int


Handler = Callable[[Logged], Awaitable[None]]


class EventLog(Protocol):
    """Every call raises `EventLogUnavailable` when NATS does not answer."""

    async def bounds(self) -> Bounds: ...

    async def follow(self, after: int, handler: Handler) -> None:
        """Everything above `after` and then what comes, in order, for ever; goes on by itself after an outage. When the
        stream was made anew, its numbers begin at 1 again."""
        ...

    async def read(self, after: int, limit: int) -> Sequence[Logged]:
        """Up to `limit` events above `after`; none when that is the end."""
        ...

    async def of_kind(self, tenant: str, kind: str, after: int, limit: int) -> Sequence[Logged]:
        """Up to `limit` events above `after` of one kind of a tenant's resources; none when that is the end."""
        ...

    async def story(self, tenant: str, kind: str, resource_id: str, limit: int) -> Sequence[Logged]:
        """What was published about one resource, oldest first."""
        ...


class MemoryEventLog:
    """Twin for tests. `unavailable = True` makes every call fail; `recreate` empties it under a new epoch."""

    def __init__(self) -> None:
        self.events: list[Logged] = []
        self.unavailable = False
        self._generation = 1
        self._last = 0
        self._arrived = asyncio.Event()

    def _check(self) -> None:
        if self.unavailable:
            raise EventLogUnavailable("the event log is switched off")

    def append(self, *events: CloudEvent) -> None:
        for event in events:
            self._last += 1
            self.events.append(Logged(self._last, event))
        self._arrived.set()
        self._arrived = asyncio.Event()

    def recreate(self) -> None:
        self.events.clear()
        self._generation += 1
        self._last = 0

    def forget(self, up_to: int) -> None:
        """Drops the oldest, as the stream's limits do."""
        self.events = [logged for logged in self.events if logged.number > up_to]

    async def bounds(self) -> Bounds:
        self._check()
        first = self.events[0].number if self.events else self._last + 1
        return Bounds(f"m{self._generation}", first, self._last)

    async def follow(self, after: int, handler: Handler) -> None:
        generation = self._generation
        while True:
            arrived = self._arrived
            if self._generation != generation:
                generation, after = self._generation, 0
            if self._last <= after:
                await arrived.wait()
                continue
            for logged in [logged for logged in self.events if logged.number > after]:
                await handler(logged)
                after = logged.number

    async def read(self, after: int, limit: int) -> Sequence[Logged]:
        self._check()
        return [logged for logged in self.events if logged.number > after][:limit]

    async def of_kind(self, tenant: str, kind: str, after: int, limit: int) -> Sequence[Logged]:
        self._check()
        return [
            logged
            for logged in self.events
            if logged.number > after
            and kind_and_id(logged.event)[0] == kind
            and logged.event.get_extension("tenant") == tenant
        ][:limit]

    async def story(self, tenant: str, kind: str, resource_id: str, limit: int) -> Sequence[Logged]:
        self._check()
        return [
            logged
            for logged in self.events
            if kind_and_id(logged.event) == (kind, resource_id) and logged.event.get_extension("tenant") == tenant
        ][:limit]
