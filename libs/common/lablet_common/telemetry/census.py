"""How many resources there are, by phase and pool: counted every few seconds from a cache, by whoever owns the pool.

Only the owner of a pool counts it, so that replicas can be summed. What no longer exists is taken away, so a phase that
empties disappears instead of standing still.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from prometheus_client import Gauge

from lablet_common.events.derive import pool_of
from lablet_common.resources.model import Resource

PAUSE_SECONDS = 5.0
Resources = Iterable[Resource[Any, Any]]


def count(gauge: Gauge, resources: Resources, pools: Collection[str]) -> None:
    """Sets the gauge (labels phase and pool) to what there is in `pools`."""
    pairs = ((str(resource.status.phase), pool_of(resource)) for resource in resources)
    found = Counter(pair for pair in pairs if pair[1] in pools)
    gauge.clear()
    for (phase, pool), number in found.items():
        gauge.labels(phase, pool).set(number)


async def keep_census(owned: Callable[[], Collection[str]], *counted: tuple[Gauge, Callable[[], Resources]]) -> None:
    """Counts for ever what lies in the pools that are `owned`."""
    while True:
        pools = frozenset(owned())
        for gauge, resources in counted:
            count(gauge, resources(), pools)
        await asyncio.sleep(PAUSE_SECONDS)
