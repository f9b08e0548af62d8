"""Lab time: one clock for every service, which a rehearsal may run faster than the world.

The clock is an anchor in etcd (`/clock`): at real time `real` it was lab time `lab`, and since then `speed` lab seconds
pass each real second. Slots, boots, graces and deadlines are lab time; leases, liveness, network timeouts and backoff
are real time and never go through here. `ManualClock` stands still until a test advances it.

Not guaranteed: that two machines read the same instant; they differ by what their real clocks differ, times the speed.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from pydantic import Field

from lablet_common.resources.kinds import CLOCK_KEY
from lablet_common.resources.model import Instant, Model
from lablet_common.store.api import Compacted, Compare, EventType, OutcomeUnknown, Put, Store, StoreUnavailable, Target

_log = logging.getLogger(__name__)
_LONGEST_NAP = 60.0
"""Real seconds after which a sleeper looks again, so that a corrected real clock is noticed."""
_RETRY_SECONDS = 0.5
_SETTLE_PASSES = 25
"""Passes of the event loop that a manual clock grants to whoever it woke."""


class Clock(Protocol):
    """Lab time, as every service takes it."""

    @property
    def speed(self) -> float:
        """Lab seconds that pass in one real second."""
        ...

    def now(self) -> datetime:
        """The present lab time, in UTC. Never goes back."""
        ...

    def real_seconds(self, lab: timedelta) -> float:
        """How long a span of lab time takes in the world, at the present speed."""
        ...

    async def sleep(self, lab: timedelta) -> None:
        """Waits for a span of lab time, also when the speed changes on the way."""
        ...

    async def sleep_until(self, instant: datetime) -> None:
        """Waits for an instant of lab time; returns at once when it has passed."""
        ...


class ClockOrigin(Model):
    """At real time `real` it was lab time `lab`; since then lab time passes `speed` times as fast."""

    real: Instant
    lab: Instant
    speed: Annotated[float, Field(gt=0, le=100_000)] = 1.0

    def lab_at(self, real: datetime) -> datetime:
        """Lab time at a real instant."""
        return self.lab + (real - self.real) * self.speed


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ScaledClock:
    """Lab time from an anchor. `reanchor` moves the anchor and wakes the sleepers, who then look again."""

    def __init__(self, origin: ClockOrigin, *, real_now: Callable[[], datetime] = _utc_now) -> None:
        self._origin = origin
        self._real_now = real_now
        self._latest = origin.lab_at(real_now())
        self._moved = asyncio.Event()

    @property
    def origin(self) -> ClockOrigin:
        return self._origin

    @property
    def speed(self) -> float:
        return self._origin.speed

    def now(self) -> datetime:
        instant = self._origin.lab_at(self._real_now())
        self._latest = max(self._latest, instant)
        return self._latest

    def real_seconds(self, lab: timedelta) -> float:
        return lab.total_seconds() / self._origin.speed

    async def sleep(self, lab: timedelta) -> None:
        await self.sleep_until(self.now() + lab)

    async def sleep_until(self, instant: datetime) -> None:
        while (left := self.real_seconds(instant - self.now())) > 0:
            moved = self._moved
            try:
                async with asyncio.timeout(min(left, _LONGEST_NAP)):
                    await moved.wait()
            except TimeoutError:
                continue

    def reanchor(self, origin: ClockOrigin) -> None:
        """Takes another anchor. Lab time stands still for a while rather than go back."""
        if origin == self._origin:
            return
        self.now()
        self._origin = origin
        self._moved.set()
        self._moved = asyncio.Event()


class ManualClock:
    """A clock for tests: time passes only by `advance` and `set`, which wake the sleepers in the order of their
    instants and let each do its work before the next one is due."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("a manual clock needs a start with a zone")
        self._now = start.astimezone(UTC)
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    @property
    def speed(self) -> float:
        return 1.0

    @property
    def sleepers(self) -> int:
        """How many wait for a later instant."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def now(self) -> datetime:
        return self._now

    def real_seconds(self, lab: timedelta) -> float:
        return lab.total_seconds()

    async def sleep(self, lab: timedelta) -> None:
        await self.sleep_until(self._now + lab)

    async def sleep_until(self, instant: datetime) -> None:
        if instant <= self._now:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (instant, next(self._order), woken))
        await woken

    async def advance(self, lab: timedelta) -> None:
        """Lets `lab` pass."""
        await self.set(self._now + lab)

    async def set(self, instant: datetime) -> None:
        """Goes on to `instant`, stopping at every sleeper's on the way. Raises `ValueError` for one in the past."""
        if instant < self._now:
            raise ValueError(f"lab time never goes back: it is {self._now}, not {instant}")
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= instant:
            due, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._now = max(self._now, due)
            woken.set_result(None)
            await _settle()
        self._now = instant.astimezone(UTC)
        await _settle()


async def _settle() -> None:
    for _ in range(_SETTLE_PASSES):
        await asyncio.sleep(0)


async def _read(store: Store) -> tuple[ClockOrigin | None, int, int]:
    """The stored anchor, the revision it was put at (0: there is none), and the revision of the reading."""
    page = await store.range(CLOCK_KEY, limit=1)
    found = next((kv for kv in page.items if kv.key == CLOCK_KEY), None)
    if found is None:
        return None, 0, page.revision
    return ClockOrigin.model_validate_json(found.value), found.mod_revision, page.revision


def _real_time() -> ClockOrigin:
    now = _utc_now()
    return ClockOrigin(real=now, lab=now, speed=1.0)


def real_clock() -> ScaledClock:
    """Real time, for what goes by it and is tested with a manual clock."""
    return ScaledClock(_real_time())


async def load_clock(store: Store) -> ScaledClock:
    """The shared clock as it stands in etcd; where none is set, real time. Raises `StoreUnavailable`."""
    origin, _, _ = await _read(store)
    return ScaledClock(origin or _real_time())


async def set_clock(store: Store, *, speed: float, start: datetime | None = None) -> ScaledClock:
    """Sets the speed from now on, and lab time to `start` if one is given (for a first clock any instant will do).

    Raises `ValueError` for a speed that is not above zero and for a start before the present lab time.
    """
    while True:
        before, revision, _ = await _read(store)
        real = _utc_now()
        present = before.lab_at(real) if before else None
        if start is not None and present is not None and start < present:
            raise ValueError(f"lab time never goes back: it is {present.isoformat()}, not {start.isoformat()}")
        origin = ClockOrigin(real=real, lab=start or present or real, speed=speed)
        try:
            done = await store.txn([Compare(CLOCK_KEY, Target.MOD, "=", revision)], [Put(CLOCK_KEY, origin.to_json())])
        except OutcomeUnknown:
            stored, _, _ = await _read(store)
            if stored != origin:
                continue
            return ScaledClock(origin)
        if done.succeeded:
            return ScaledClock(origin)


async def follow_clock(store: Store, clock: ScaledClock) -> None:
    """Keeps `clock` at the shared anchor, for ever. While etcd is away the clock simply runs on."""
    while True:
        try:
            origin, _, revision = await _read(store)
            if origin is not None:
                clock.reanchor(origin)
            async with store.watch(CLOCK_KEY, start_revision=revision + 1) as batches:
                async for batch in batches:
                    for event in batch.events:
                        if event.type is EventType.PUT and event.kv.key == CLOCK_KEY:
                            clock.reanchor(ClockOrigin.model_validate_json(event.kv.value))
        except Compacted:
            continue  # what was missed stands in the key itself
        except StoreUnavailable as error:
            _log.warning("the clock cannot be followed just now", extra={"cause": str(error)})
        await asyncio.sleep(_RETRY_SECONDS)
