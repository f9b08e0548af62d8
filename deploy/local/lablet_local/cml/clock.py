"""Lab time: every delay of the simulator passes through here, so that a morning can be a minute and a test an instant.

`ScaledClock` runs `speed` lab seconds in one real second on the running event loop; `ManualClock` stands still until it
is advanced. Time stamps shown to people (`wall`) are real UTC in both, never scaled. No promise of exactness: a busy
event loop delays an action, it never drops or doubles one.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Protocol


class Timer(Protocol):
    """A planned action."""

    def cancel(self) -> None:
        """Forgets the action; harmless when it has already run."""
        ...


class Clock(Protocol):
    """Lab time in seconds since the controller was switched on."""

    def now(self) -> float:
        """Lab seconds since the start."""
        ...

    def wall(self) -> datetime:
        """The real time, in UTC."""
        ...

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Runs `action` once, `delay` lab seconds from now."""
        ...


class ScaledClock:
    """Lab time on the running event loop, `speed` times as fast as real time."""

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self._speed = speed
        self._start = time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self._start) * self._speed

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay / self._speed, action)


class _Planned:
    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class ManualClock:
    """Lab time that moves only by `advance`; actions run in the order of their time, then of their planning."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = count()
        self._plan: list[tuple[float, int, _Planned]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(1_800_000_000 + self._now, UTC)

    def later(self, delay: float, action: Callable[[], None]) -> Timer:
        planned = _Planned(action)
        heapq.heappush(self._plan, (self._now + max(0.0, delay), next(self._order), planned))
        return planned

    def advance(self, seconds: float) -> None:
        """Moves time on by `seconds`, running whatever comes due on the way, also what those actions plan."""
        until = self._now + seconds
        while self._plan and self._plan[0][0] <= until:
            self._now, _, planned = heapq.heappop(self._plan)
            if planned.action is not None:
                planned.action()
        self._now = until
