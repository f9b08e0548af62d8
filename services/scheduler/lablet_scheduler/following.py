"""Everything that deciding rests on, behind one watch and at one revision: the resources, and beside them what waits in the
inboxes, the pools' gates, the tenants' limits and ledgers.

Not guaranteed: freshness. Each transaction compares what it was decided from.
"""

from lablet_common.inbox import FollowedInboxes
from lablet_common.quotas import LEDGERS, QUOTAS
from lablet_common.resources.kinds import (
    DEFINITION,
    GATES,
    INSTANCE,
    POOL,
    REQUEST,
    RESERVATION,
    SERIES,
    WORKER,
    Service,
)
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.store.mirror import Keys


class Following(Caches):
    """What the owners of pools on one replica share."""

    def __init__(self, store: Store, *, resync_seconds: float = 300.0) -> None:
        self.inboxes = FollowedInboxes(store, Service.SCHEDULER)
        self.gates = Keys()
        self.quotas = Keys()
        self.ledgers = Keys()
        super().__init__(
            store,
            (RESERVATION, INSTANCE, WORKER, POOL, DEFINITION, SERIES),
            beside={
                self.inboxes.prefix: self.inboxes,
                GATES: self.gates,
                QUOTAS: self.quotas,
                LEDGERS: self.ledgers,
            },
            resync_seconds=resync_seconds,
        )
        self.overhear(REQUEST.prefix, self.inboxes.hear)
