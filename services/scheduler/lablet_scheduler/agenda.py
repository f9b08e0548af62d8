"""What a pool's owner knows and what it has yet to look at: the calendar, kept in step with the caches, and the agenda that
news and the clock fill.

News comes from the caches at any moment, but is taken in only between decisions, so that nothing moves under one that is
being made. Everything is looked at in rounds: when the calendar has been built and every so often, a few reservations at
a time, so that who asks meanwhile is not kept waiting by tens of thousands that are as they were.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from lablet_common.clock import Clock
from lablet_common.ownership import NotOwner
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, POOL, RESERVATION, SERIES, WORKER, Kind
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.series import Series
from lablet_common.resources.worker import Worker, WorkerPhase, WorkerPool
from lablet_common.store.cache import Caches
from lablet_scheduler.looks import Looks
from lablet_scheduler.state import FindDefinition, PoolState
from lablet_scheduler.stirs import Stirs
from lablet_scheduler.views import occupies

_AT_ONCE = 25
"""Reservations of a round that are looked at in one pass: about a millisecond, which whoever asks meanwhile has to wait."""
_BUILT_AT_ONCE = 200
"""Reservations that are looked at without a rest while the calendar is built, when nobody can be answered yet."""


def urgency(reservation: Reservation) -> tuple[float, int, str]:
    """The soonest slot first, then the highest priority."""
    start = reservation.slot.start.timestamp() if reservation.slot is not None else 0.0
    return start, -reservation.spec.priority, reservation.id


class Agenda:
    """Of one pool. `wake` is called when there is something new on it."""

    def __init__(
        self,
        pool: str,
        caches: Caches,
        find_definition: FindDefinition,
        clock: Clock,
        wake: Callable[[], None],
        resync_seconds: float,
    ) -> None:
        self.pool = pool
        self.dirty: set[str] = set()
        """Reservations to look at."""
        self.series: set[str] = set()
        """Series to look at."""
        self.looks = Looks()
        """When the clock alone gives a reason to look."""
        self.freed = True
        """Room may have come free since the wait list was tried."""
        self.rest: deque[str] = deque()
        """Reservations that the present round has yet to look at."""
        self.stirs = Stirs()
        """Where seats have come and gone since the last quiet moment."""
        self.resync_at = 0.0
        """When everything is looked at again, by the machine's monotonic clock."""
        self._caches = caches
        self._find_definition = find_definition
        self._clock = clock
        self._wake = wake
        self._resync_seconds = resync_seconds
        self._news: deque[Callable[[], None]] = deque()
        self._state: PoolState | None = None

    @property
    def state(self) -> PoolState:
        assert self._state is not None, "the calendar has not been built yet"
        return self._state

    @property
    def heard(self) -> bool:
        """There is news that is not known yet."""
        return bool(self._news)

    @property
    def stirred(self) -> bool:
        """There is something to look at now."""
        return bool(self.dirty) or bool(self.rest) or bool(self.series) or self.freed

    async def build(self) -> None:
        """The calendar from scratch, from the caches; news that comes meanwhile is kept for later. Rests where it takes
        long. Raises `NotOwner` when the pool is gone."""
        pool = self._caches[POOL].get(self.pool)
        if pool is None:
            raise NotOwner(f"there is no pool {self.pool} any more")
        state = PoolState(pool, self._find_definition)
        self._news.clear()
        now = self._clock.now()
        for worker in self._caches[WORKER].items():
            if worker.spec.pool == self.pool:
                state.put_worker(worker, now)
        for instance in self._caches[INSTANCE].items():
            if instance.spec.pool == self.pool:
                state.put_instance(instance, now)
        mine = [
            reservation for reservation in self._caches[RESERVATION].items() if reservation.status.pool == self.pool
        ]
        for _ in state.load(mine, now):
            await asyncio.sleep(0)
        self._state = state
        self.looks.clear()
        self.dirty.clear()
        self.series.clear()
        self.look_at_everything()
        self.rest = deque(sorted(state.reservations, key=lambda name: urgency(state.reservations[name])))
        for number, reservation in enumerate(list(state.reservations.values()), 1):
            if state.troubled(reservation, now):
                self.dirty.add(reservation.id)  # who has lost a place comes before those who wait or ask for one
            if number % _BUILT_AT_ONCE == 0:
                await asyncio.sleep(0)

    def look_at_everything(self) -> None:
        """A new round. Only the first is in the order of urgency: in the later ones news has told what is urgent."""
        self.resync_at = time.monotonic() + self._resync_seconds
        self.rest = deque(self.state.reservations)
        self.series.update(series.id for series in self._caches[SERIES].items() if self._owns(series))
        self.freed = True

    def due(self) -> list[Reservation]:
        """The reservations to look at now, the soonest slots first: all that news and the clock have touched, and the next
        ones of the round."""
        names, self.dirty = self.dirty, set()
        for _ in range(min(_AT_ONCE, len(self.rest))):
            names.add(self.rest.popleft())
        known = self.state.reservations
        for name in names - known.keys():
            self.looks.drop(name)
        return sorted((known[name] for name in names & known.keys()), key=urgency)

    def take_news(self) -> None:
        """Everything that was heard becomes known, and what the clock has brought is put on the agenda."""
        while self._news:
            self._news.popleft()()
        now = self._clock.now()
        for name in self.looks.due(now):
            (self.series if name.startswith("ser-") else self.dirty).add(name)
        if self.freed:
            self.dirty |= self.state.at_risk

    def listen(self) -> list[Callable[[], None]]:
        """From now on news comes in; returns what ends that."""
        listeners: tuple[tuple[Kind, Callable[..., None]], ...] = (
            (RESERVATION, self._on_reservation),
            (INSTANCE, self._on_instance),
            (WORKER, self._on_worker),
            (POOL, self._on_pool),
            (SERIES, self._on_series),
        )
        return [self._caches[kind].subscribe(listener) for kind, listener in listeners]

    def _owns(self, series: Series) -> bool:
        """Its first pool, or where that is gone, the next of its list that there is."""
        pools, owner = self._caches[POOL], series.status.pool
        if owner == self.pool or owner is None or pools.get(owner) is not None:
            return owner == self.pool
        return next((name for name in series.spec.template.pools if pools.get(name) is not None), None) == self.pool

    def _tell(self, news: Callable[[], None]) -> None:
        self._news.append(news)
        self._wake()

    def _on_reservation(self, old: Reservation | None, new: Reservation | None, _: int) -> None:
        if self.pool not in {known.status.pool for known in (old, new) if known is not None}:
            return

        def take() -> None:
            if new is not None:
                if self.state.put_reservation(new, self._clock.now()):
                    self.dirty.add(new.id)
                    self.freed = True  # another owner has put it onto the wait list here
            elif old is not None:
                self.state.remove_reservation(old.id)

        self._tell(take)

    def _on_instance(self, old: Instance | None, new: Instance | None, _: int) -> None:
        instance = new or old
        if instance is None or instance.spec.pool != self.pool:
            return

        def take() -> None:
            if new is None:
                self.state.remove_instance(instance, self._clock.now())
            else:
                self.state.put_instance(new, self._clock.now())
            self.freed = self.freed or new is None or not occupies(new)
            self.dirty.add(instance.spec.reservation)

        self._tell(take)

    def _on_worker(self, old: Worker | None, new: Worker | None, _: int) -> None:
        worker = new or old
        if worker is None or worker.spec.pool != self.pool:
            return

        def take() -> None:
            touched = old is None or new is None or old.status.phase != new.status.phase or old.spec != new.spec
            if touched:
                self.freed = True
                self.dirty.update(reservation.id for reservation in self.state.placed_on(worker.id))
            if new is None:
                self.state.remove_worker(worker.id, self._clock.now())
            else:
                self.state.put_worker(new, self._clock.now())
            if touched and new is not None and new.status.phase is WorkerPhase.READY:
                # seats whose workers boot for too long may come here
                self.dirty.update(reservation.id for reservation in self.state.kept_waiting(self._clock.now()))

        self._tell(take)

    def _on_pool(self, _: WorkerPool | None, new: WorkerPool | None, __: int) -> None:
        if new is not None and new.id == self.pool:

            def take() -> None:
                self.state.put_pool(new)
                self.freed = True

            self._tell(take)

    def _on_series(self, _: Series | None, new: Series | None, __: int) -> None:
        if new is not None and self._owns(new):
            self._tell(lambda: self.series.add(new.id))
