"""How much may wait to be decided: beyond that, what is asked is not accepted but sent away, to come back in a moment.

An accepted request is kept and decided, however long that takes. So what is accepted has to be bounded, or whoever asks
faster than an owner decides fills etcd and makes everybody wait longer and longer. Each inbox takes new work up to a
depth; what takes something back or manages the fleet (a cancel, a drain) still gets in up to half as much above it.

The depth is counted in etcd now and then, and what this replica has let in since is added. Not guaranteed: an exact bound
where several replicas let in at the same time; each may go as far as the depth that it has counted allows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lablet_common.requests import Inbox
from lablet_common.resources.request import Request
from lablet_common.store import Store
from lablet_common.telemetry.metrics import SHED

DEEPEST = 2000
"""Undecided requests in one inbox unless the settings say otherwise."""
NEW_WORK = frozenset(
    {
        "io.lablet.reservation.requested.v1",
        "io.lablet.series.requested.v1",
        "io.lablet.reservation.simulate.requested.v1",
        "io.lablet.pool.optimise.requested.v1",
        "io.lablet.definition.publish.requested.v1",
    }
)
"""Intents that only ask for more."""
_FRESH_SECONDS = 0.25
"""A count is taken for true so long, in real seconds, while there is room."""
_FULL_SECONDS = 0.02
"""And so long when there is none: whoever is sent away costs no count of their own."""


class Crowded(Exception):
    """So many wait in that inbox already that this one is not accepted. Nothing was written."""

    def __init__(self, service: str, shard: str, waiting: int) -> None:
        super().__init__(f"{waiting:,} requests wait for the {service} (shard {shard}) already: come back in a moment")
        self.service = service
        self.shard = shard
        self.waiting = waiting


@dataclass(slots=True)
class _Counted:
    depth: int
    at: float


class Admission:
    """Lets requests into the inboxes. `deepest`: undecided ones in an inbox beyond which no new work is let in."""

    def __init__(self, store: Store, deepest: int = DEEPEST, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._deepest = deepest
        self._clock = clock
        self._counted: dict[tuple[str, str], _Counted] = {}

    async def judge(self, requests: Sequence[Request]) -> list[Crowded | None]:
        """For each request, in their order, None where it may be accepted. Raises `StoreUnavailable`."""
        return [await self._judge(request) for request in requests]

    async def _judge(self, request: Request) -> Crowded | None:
        service, shard = request.spec.service, request.spec.shard
        most = self._deepest if request.spec.type in NEW_WORK else self._deepest + self._deepest // 2
        depth = await self._depth(service, shard, most)
        if depth >= most:
            SHED.labels("inbox").inc()
            return Crowded(service, shard, depth)
        self._counted[service, shard].depth += 1
        return None

    async def _depth(self, service: str, shard: str, most: int) -> int:
        known, now = self._counted.get((service, shard)), self._clock()
        if known is not None and now - known.at < (_FRESH_SECONDS if known.depth < most else _FULL_SECONDS):
            return known.depth
        depth = await Inbox(self._store, service, shard).depth()
        self._counted[service, shard] = _Counted(depth, now)
        return depth
