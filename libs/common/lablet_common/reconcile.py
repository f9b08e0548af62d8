"""Level-triggered work: a queue of keys, and a reconciler that steps each toward what is wanted.

A key stands in the queue once, however often it is added. While it is being stepped it is not stepped again; what is
added meanwhile comes after. So one slow object holds up nobody but itself, and two events about an object are one look.
A failed step is tried again with growing pauses; `Conflict` means only that somebody was faster.

Pauses after failures are real time. `Again` and `add_at` wait for lab time, through the clock.
"""

import asyncio
import heapq
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

from lablet_common.clock import Clock
from lablet_common.ownership import NotOwner
from lablet_common.store.api import StoreUnavailable
from lablet_common.store.transaction import Conflict
from lablet_common.tasks import together
from lablet_common.telemetry.metrics import STEP_FAILURES

K = TypeVar("K", bound=Hashable)
_JITTER = 0.2
_FEW = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses in real seconds: `initial`, then twice as long each time up to `maximum`, each off by up to a fifth so that
    what failed together does not come back together."""

    initial: float = 0.2
    maximum: float = 30.0

    def pause(self, failures: int) -> float:
        """After the given number of failures in a row (1 is the first)."""
        steady = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 32))
        return steady * random.uniform(1 - _JITTER, 1 + _JITTER)


@dataclass(frozen=True, slots=True)
class Again:
    """A step's wish to be called again: after real seconds, or at an instant of lab time."""

    after_seconds: float = 0.0
    instant: datetime | None = None

    @classmethod
    def at(cls, instant: datetime) -> Self:
        """When lab time has reached `instant`."""
        return cls(instant=instant)


class WorkQueue(Generic[K]):
    """Keys in the order in which they were first added, each once, none handed out twice at the same time."""

    def __init__(self) -> None:
        self._queue: deque[K] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._getters: deque[asyncio.Future[None]] = deque()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """Keys that wait for a step, those that are being stepped left out."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Wants the key looked at, now or, if it is being looked at, once more."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        self._idle.clear()
        if key not in self._working:
            self._offer(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Adds the key after real seconds. Of several such wishes for a key, the earliest is kept."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known is not None and not known.cancelled():
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def get(self) -> K:
        """The next key, which stays with the caller until `done`."""
        while not self._queue:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # it was called and cannot come: another one must
                raise
        key = self._queue.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Ends the caller's turn; a key that was added meanwhile is handed out again."""
        self._working.discard(key)
        if key in self._waiting:
            self._offer(key)
        elif not self._waiting and not self._working:
            self._idle.set()

    async def drained(self) -> None:
        """Waits until nothing waits and nothing is being worked on; timers may still bring something later."""
        await self._idle.wait()

    def close(self) -> None:
        """Forgets the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _offer(self, key: K) -> None:
        self._queue.append(key)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


class _Alarms(Generic[K]):
    """Keys to be added at instants of lab time: each at one, the earliest that was wished for. Every look at a key wishes
    for another; if the wishes of looks that had other causes stood beside it, they would all go on for ever."""

    def __init__(self) -> None:
        self._of: dict[K, datetime] = {}
        self._keys: dict[datetime, dict[K, None]] = {}
        self._instants: list[datetime] = []
        """A heap of the instants of `_keys`, and of some that have been taken back."""
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._instants)

    def add(self, key: K, instant: datetime) -> None:
        known = self._of.get(key)
        if known is not None:
            if known <= instant:
                return
            self._take_back(key, known)
        self._of[key] = instant
        keys = self._keys.get(instant)
        if keys is None:
            keys = self._keys[instant] = {}
            heapq.heappush(self._instants, instant)
            if self._instants[0] == instant:
                self._earlier.set()
        keys[key] = None

    def _take_back(self, key: K, instant: datetime) -> None:
        keys = self._keys[instant]
        del keys[key]
        if not keys:
            del self._keys[instant]
            if len(self._instants) > 2 * len(self._keys) + _FEW:
                self._instants = sorted(self._keys)

    async def ring_for_ever(self, clock: Callable[[], Clock], add: Callable[[K], None]) -> None:
        """Adds the keys whose instants have come, in their order."""
        while True:
            self._earlier.clear()
            while self._instants and self._instants[0] <= clock().now():
                for key in self._keys.pop(heapq.heappop(self._instants), ()):
                    del self._of[key]
                    add(key)
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._earlier.wait())]
            if self._instants:
                waits.append(asyncio.ensure_future(clock().sleep_until(self._instants[0])))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()


class Reconciler(Generic[K]):
    """Steps keys, up to `concurrency` at a time and each key by itself. `clock` is needed for `Again.at` and `add_at`."""

    def __init__(
        self,
        name: str,
        step: Callable[[K], Awaitable[Again | None]],
        *,
        clock: Clock | None = None,
        concurrency: int = 16,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[K] = WorkQueue()
        self._step = step
        self._clock = clock
        self._concurrency = concurrency
        self._backoff = backoff or Backoff()
        self._failures: dict[K, int] = {}
        self._alarms: _Alarms[K] = _Alarms()
        self._log = logging.getLogger(f"{__name__}.{name}")

    def add(self, key: K) -> None:
        """Wants the key looked at."""
        self.queue.add(key)

    def add_at(self, key: K, instant: datetime, clock: Clock | None = None) -> None:
        """Wants the key looked at when lab time reaches `instant`; of several such wishes for a key, the earliest is kept.
        Raises `TypeError` without a clock."""
        if self._clock is None:
            self._clock = clock
        if clock is not None and clock is not self._lab_clock():
            raise TypeError(f"the reconciler {self.name} goes by another clock")
        self._lab_clock()
        self._alarms.add(key, instant)

    def _lab_clock(self) -> Clock:
        if self._clock is None:
            raise TypeError(f"the reconciler {self.name} was given no clock to wait by")
        return self._clock

    def failures(self, key: K) -> int:
        """Failed steps of the key in a row."""
        return self._failures.get(key, 0)

    async def drained(self) -> None:
        """Waits until no key waits or is being stepped (those that pause after a failure are not counted)."""
        await self.queue.drained()

    async def run(self) -> None:
        """Steps for ever. A step's failure never ends it, but for `NotOwner`: then nothing here may be stepped any more."""
        try:
            alarms = self._alarms.ring_for_ever(self._lab_clock, self.queue.add)
            await together(alarms, *(self._work() for _ in range(self._concurrency)))
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._step_once(key)
            finally:
                self.queue.done(key)
            await asyncio.sleep(0)  # most steps wait for nothing, and a look at everything brings all keys at once

    async def _step_once(self, key: K) -> None:
        began = time.monotonic()
        try:
            again = await self._step(key)
        except NotOwner:
            raise
        except Conflict as error:
            self._log.debug("somebody was faster", extra={"key": str(key), "cause": str(error)})
            self._retry(key)
        except StoreUnavailable as error:
            STEP_FAILURES.labels(self.name).inc()
            self._log.warning("a step did not reach etcd", extra={"key": str(key), "cause": str(error)})
            self._retry(key)
        except Exception:  # noqa: BLE001 - one object's failure must not stop the others; logged, counted, retried
            STEP_FAILURES.labels(self.name).inc()
            self._log.exception(
                "a step failed and will be tried again",
                extra={"key": str(key), "failures": self.failures(key) + 1, "seconds": time.monotonic() - began},
            )
            self._retry(key)
        else:
            self._failures.pop(key, None)
            if again is None:
                return
            if again.instant is None:
                self.queue.add_after(key, again.after_seconds)
            else:
                self.add_at(key, again.instant)

    def _retry(self, key: K) -> None:
        failures = self._failures[key] = self.failures(key) + 1
        self.queue.add_after(key, self._backoff.pause(failures))
