"""A broker in memory, for tests of what publishes: slow, failing, away, killed without the last of what it acknowledged."""

import asyncio
from collections import Counter

from lablet_common.bus.connection import BusUnavailable
from lablet_common.cursor import Latest, Present
from lablet_common.events import Outgoing, sequence_of


class Broker:
    """Takes events; can fail, be slow, be killed and forget the last of them, and counts what is in flight."""

    def __init__(self) -> None:
        self.events: list[Outgoing] = []
        """What lies in its stream, in order. A repeat of what is there is not stored again."""
        self.sent: list[Outgoing] = []
        """What was stored in any stream, in order."""
        self.before = 0
        """Messages that were purged: the number of the first one is one more."""
        self.epoch = "first"
        self.session = 0
        self.away = False
        self.forgets = True
        self.window = 10**9
        """Of so many messages it knows that they come again."""
        self.in_flight: Counter[str] = Counter()
        self.most_at_once = 0
        self.most_per_resource = 0
        self.failing: set[str] = set()
        self.tries: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.open.set()

    def kill(self, forgotten: int) -> None:
        """Comes back without its last messages."""
        del self.events[len(self.events) - forgotten :]
        self.session += 1

    def purge(self) -> None:
        self.before += len(self.events)
        self.events.clear()

    async def present(self) -> Present:
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("the broker is away")
        return Present(self.epoch, self.before + 1, self.forgets)

    async def last(self, subject: str) -> Latest:
        found = [
            Latest(number, sequence_of(one.event))
            for number, one in enumerate(self.events, self.before + 1)
            if one.subject == subject
        ]
        return found[-1] if found else Latest()

    async def publish(self, outgoing: Outgoing, *, session: int | None = None) -> int:
        if session != self.session or self.away:
            raise BusUnavailable("the broker is away")
        subject = outgoing.event.get_subject() or ""
        self.tries[subject] += 1
        self.in_flight[subject] += 1
        self.most_per_resource = max(self.most_per_resource, self.in_flight[subject])
        self.most_at_once = max(self.most_at_once, sum(self.in_flight.values()))
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if subject in self.failing or "*" in self.failing:
                raise ConnectionError("the broker is away")
            if outgoing.subject.startswith("lablet.intent."):
                self.sent.append(outgoing)
                return 0
            known = [one.msg_id for one in self.events]
            if outgoing.msg_id not in known[max(0, len(known) - self.window) :]:
                self.events.append(outgoing)
                self.sent.append(outgoing)
                return self.before + len(self.events)
            return self.before + 1 + known.index(outgoing.msg_id)
        finally:
            self.in_flight[subject] -= 1

    @property
    def ids(self) -> list[str]:
        return [o.event.get_id() for o in self.events]

    @property
    def facts(self) -> list[tuple[str, str]]:
        return [(o.event.get_subject() or "", o.event.get_type().split(".")[-2]) for o in self.events]
