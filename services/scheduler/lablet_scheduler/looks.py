"""When the clock alone gives a reason to look at something: one moment for each name, the soonest first.

Asked before every pass, so asking must not cost more the more there is to come. A moment that was changed or taken back
stays in the heap until it comes up and is passed over then.
"""

import heapq
from datetime import datetime


class Looks:
    def __init__(self) -> None:
        self._at: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []

    def plan(self, name: str, at: datetime) -> None:
        """In place of whatever was planned for the name."""
        if self._at.get(name) != at:
            self._at[name] = at
            heapq.heappush(self._heap, (at, name))
            if len(self._heap) > 2 * len(self._at) + 100:
                self._heap = [(at, name) for name, at in self._at.items()]
                heapq.heapify(self._heap)

    def drop(self, name: str) -> None:
        self._at.pop(name, None)

    def clear(self) -> None:
        self._at.clear()
        self._heap.clear()

    @property
    def soonest(self) -> datetime | None:
        while self._heap:
            at, name = self._heap[0]
            if self._at.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def due(self, now: datetime) -> list[str]:
        """The names whose moment has come; they are no longer planned."""
        names: list[str] = []
        while (soonest := self.soonest) is not None and soonest <= now:
            _, name = heapq.heappop(self._heap)
            del self._at[name]
            names.append(name)
        return names

    def __len__(self) -> int:
        return len(self._at)
