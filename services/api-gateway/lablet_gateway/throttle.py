"""How many calls one caller may make: a bucket of tokens for each name, filled at a steady rate.

Counted is the proven caller and not the token, so that fetching new tokens buys nothing, and per replica, so that no call
costs a look at anything shared: with n replicas behind a balancer a caller gets up to n times as much. Calls that are
refused here have cost a proof and nothing else. Whoever has rested has the whole burst again.

Not guaranteed: that the rate holds for each of more callers than are remembered. Then those who were nearest to a whole burst
have it again.
"""

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from lablet_common.telemetry.metrics import SHED
from lablet_gateway import problems
from lablet_gateway.faults import problem_response
from lablet_gateway.identity import Principal

_REMEMBERED = 10_000
"""Callers."""
_AT_ONCE = 10
"""One in so many goes when there are too many, so that not every new caller costs a look at all of them."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """The callers' buckets. `rate` is in calls a second, `burst` calls at once; `clock` tells real seconds."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, tenant: str, name: str) -> float:
        """Takes one call; 0.0 when it may go on, else the seconds until the next one may."""
        now = self._clock()
        bucket = self._buckets.get((tenant, name))
        if bucket is None:
            if len(self._buckets) >= _REMEMBERED:
                self._forget(now)
            bucket = self._buckets[tenant, name] = _Bucket(float(self._burst), now)
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / self._rate

    def _forget(self, now: float) -> None:
        """Drops the buckets that are full again: a new one would be the same. Where too few have rested, the fullest beside
        them, whose callers gain least."""
        tokens = {name: bucket.tokens + (now - bucket.at) * self._rate for name, bucket in self._buckets.items()}
        full = sum(held >= self._burst for held in tokens.values())
        for name in heapq.nlargest(max(full, _REMEMBERED // _AT_ONCE), tokens, key=tokens.__getitem__):
            del self._buckets[name]

    def __len__(self) -> int:
        return len(self._buckets)


class RateLimit:
    """Answers 429 with `Retry-After` to a caller whose bucket is empty. Stands behind the proof of who asks."""

    def __init__(self, app: ASGIApp, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal: Principal | None = scope.get("lablet.principal")
        wait = self._buckets.take(principal.tenant, principal.name) if principal is not None else 0.0
        if not wait:
            await self._app(scope, receive, send)
            return
        assert principal is not None
        SHED.labels("rate").inc()
        refused = problems.TOO_MANY(
            f"{principal.name} calls more often than this system takes: come back in {wait:.1f} s, or ask for several "
            "things in one batch",
            headers={"Retry-After": str(max(1, math.ceil(wait)))},
        )
        await problem_response(refused.problem, Request(scope), refused.headers)(scope, receive, send)
