"""A lease that is kept alive, and that its holder gives up by its own clock before etcd would take it away.

Two tasks, so that neither can hold up the other: one renews at a third of the TTL, one watches the deadline. The deadline
counts from the moment *before* a renewal was sent, because etcd may have begun to count any time after that. Whoever acts
under the lease stops when `lost` is set, and asks `alive` before each step that must not be late: a task that ran while
the loop was blocked may run before the watching one gets its turn.

Not guaranteed: that nobody else holds what the lease guarded while this holder still believes in it. A process may be
stopped between the question and the write. Only a fencing comparison in the transaction keeps a stalled holder from
writing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from lablet_common.store.api import LeaseLost, Store, StoreError, StoreUnavailable

_log = logging.getLogger(__name__)
_RENEWALS_PER_TTL = 3
_RETRIES_PER_TTL = 15
_LOOKS_PER_TTL = 30
_LONGEST_LOOK = 0.25
_MARGIN_SHARE = 0.2
_LAG_WORTH_A_WARNING = 0.1
"""Share of the TTL that the event loop may be late before it is said in the log."""


class LeaseKeeper:
    """Holds one lease while inside `async with`, and revokes it at the end. Entering raises `StoreUnavailable`.

    `ttl_seconds` is real time; `clock` is monotonic, in seconds (None: the machine's); `margin_seconds` (a fifth of the TTL
    if None) is how long before the deadline the lease counts as lost. `sleep` belongs to `clock`: tests replace both.
    """

    def __init__(
        self,
        store: Store,
        ttl_seconds: float,
        clock: Callable[[], float] | None = None,
        *,
        margin_seconds: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        margin = ttl_seconds * _MARGIN_SHARE if margin_seconds is None else margin_seconds
        if not 0 < margin < ttl_seconds:
            raise ValueError(f"a lease of {ttl_seconds} s cannot be given up {margin} s before its end")
        self.lease = 0
        """The lease's id; 0 before it was granted."""
        self.revoked = False
        """Whether it is known to be gone from etcd, after leaving. Where not, it may hold its keys for its TTL, and once more
        after each change of etcd's leader."""
        self.lost = asyncio.Event()
        """Set once and for ever when the lease may no longer be relied on."""
        self.lag_seconds = 0.0
        """How late the event loop woke the watching task the last time."""
        self.worst_lag_seconds = 0.0
        self._store = store
        self._ttl = ttl_seconds
        self._margin = margin
        self._clock = clock or time.monotonic
        self._sleep = sleep
        self._deadline = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive_until(self) -> float:
        """The instant, by `clock`, up to which the lease may be relied on: etcd ends it a margin later at the earliest."""
        return self._deadline - self._margin

    @property
    def alive(self) -> bool:
        """Whether the lease may be relied on at this instant; finds out by the clock, not by a task that may be late."""
        if not self.lost.is_set() and self._clock() >= self.alive_until:
            self._give_up("the local clock has passed its deadline")
        return not self.lost.is_set()

    def check(self) -> None:
        """Raises `LeaseLost` when the lease may no longer be relied on."""
        if not self.alive:
            raise LeaseLost(f"lease {self.lease:x} is no longer held")

    async def __aenter__(self) -> Self:
        asked = self._clock()
        self.lease = await self._store.lease_grant(self._ttl)
        self._deadline = asked + self._ttl
        self._tasks = [
            asyncio.create_task(self._renew_for_ever(), name=f"renew lease {self.lease:x}"),
            asyncio.create_task(self._watch_deadline(), name=f"watch lease {self.lease:x}"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self.lost.set()
        try:
            async with asyncio.timeout(self._ttl / _RENEWALS_PER_TTL):
                await self._store.lease_revoke(self.lease)
                self.revoked = True
        except (StoreError, TimeoutError) as failure:
            _log.warning("the lease was not revoked; it runs out by itself", extra={"cause": repr(failure)})
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _give_up(self, reason: str) -> None:
        if not self.lost.is_set():
            _log.warning("the lease is lost", extra={"lease": f"{self.lease:x}", "reason": reason})
            self.lost.set()

    async def _renew_for_ever(self) -> None:
        pause = self._ttl / _RENEWALS_PER_TTL
        while not self.lost.is_set():
            await self._sleep(pause)
            asked = self._clock()
            try:
                left = await self._renew_once()
            except LeaseLost as end:
                self._give_up(str(end))
            except StoreError as trouble:
                _log.warning("the lease could not be renewed", extra={"cause": str(trouble)})
                pause = self._ttl / _RETRIES_PER_TTL
            else:
                self._deadline = max(self._deadline, asked + min(left, self._ttl))
                pause = self._ttl / _RENEWALS_PER_TTL

    async def _renew_once(self) -> float:
        """One renewal, given up after a third of the TTL: the next attempt may find an endpoint that answers."""
        renewal = asyncio.ensure_future(self._store.lease_keep_alive(self.lease))
        patience = asyncio.ensure_future(self._sleep(self._ttl / _RENEWALS_PER_TTL))
        try:
            await asyncio.wait({renewal, patience}, return_when=asyncio.FIRST_COMPLETED)
            if not renewal.done():
                raise StoreUnavailable("the renewal got no answer in time")
            return renewal.result()
        finally:
            renewal.cancel()
            patience.cancel()
            del renewal  # it may hold the error that is being raised, which holds this frame

    async def _watch_deadline(self) -> None:
        while self.alive:
            wanted = min(self._ttl / _LOOKS_PER_TTL, _LONGEST_LOOK, max(self.alive_until - self._clock(), 0.0))
            before = self._clock()
            await self._sleep(wanted)
            self.lag_seconds = max(self._clock() - before - wanted, 0.0)
            self.worst_lag_seconds = max(self.worst_lag_seconds, self.lag_seconds)
            if self.lag_seconds > self._ttl * _LAG_WORTH_A_WARNING:
                _log.warning("the event loop was blocked", extra={"seconds": round(self.lag_seconds, 3)})
