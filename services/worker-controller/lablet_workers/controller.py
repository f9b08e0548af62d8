"""The owner of one pool's machines and labs: three reconcilers that look at workers, reservations and instances.

Each key is looked at by one step at a time, keys side by side; news from the caches, the clock and the periodic resync all
say only "look again". What a step writes is fenced and compared. The next step of a key follows at once; polls are only for
what happens elsewhere without telling.
"""

import asyncio
import logging

from lablet_common.process_lab import RUNTIME
from lablet_common.reconcile import Reconciler
from lablet_common.references import follow_living_uses, older_of
from lablet_common.resources.artifact import Artifact, Reference
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, DEFINITION, INSTANCE, POOL, RESERVATION, TEMPLATE, WORKER, Kind
from lablet_common.resources.reservation import Reservation
from lablet_common.resources.worker import Worker
from lablet_common.store.cache import Caches
from lablet_common.tasks import together
from lablet_workers.agents.leases import Presence
from lablet_workers.estate import Estate
from lablet_workers.fleet import Fleet
from lablet_workers.labs import Labs
from lablet_workers.needs import is_live
from lablet_workers.sweeping import keep_swept
from lablet_workers.warm import Warmer

log = logging.getLogger("lablet.workers")


class PoolController:
    """Keeps one pool as its calendar wants it, while it holds the estate's fence."""

    def __init__(self, estate: Estate, presence: Presence | None = None) -> None:
        self.estate = estate
        self.presence = presence
        """Of agents; None: there are none."""
        self.fleet = Fleet(estate, self._wake_worker, presence)
        self.labs = Labs(estate, self._wake_instance, self._wake_reservation)
        self.warmer = Warmer(estate, estate.settings.controller_warm_seconds)
        clock = estate.clock
        self._workers = Reconciler("workers", self.fleet.look_at_worker, clock=clock, concurrency=16)
        self._reservations = Reconciler("reservations", self.labs.look_at_reservation, clock=clock, concurrency=8)
        self._instances = Reconciler("instances", self.labs.look_at_instance, clock=clock, concurrency=32)

    def _wake_worker(self, name: str) -> None:
        self._workers.add(name)

    def _wake_instance(self, name: str) -> None:
        self._instances.add(name)

    def _wake_reservation(self, name: str) -> None:
        self._reservations.add(name)

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, or until the fence no longer stands."""
        caches, fence = self.estate.caches, self.estate.fence
        await caches.reached(fence.create_revision, timeout=60)
        unsubscribe = [
            caches[RESERVATION].subscribe(self._on_reservation),
            caches[INSTANCE].subscribe(self._on_instance),
            caches[WORKER].subscribe(self._on_worker),
            caches[ARTIFACT].subscribe(self._on_artifact),
            older_of(caches).subscribe(self._on_use),
            caches[POOL].subscribe(lambda *_: self.fleet.replan()),
            *([self.presence.subscribe(self._on_agent)] if self.presence is not None else []),
        ]
        log.info("pool taken over", extra={"pool": self.estate.pool, "fence": fence.create_revision})
        self._look_at_everything()
        try:
            await together(
                *(queue.run() for queue in (self._workers, self._reservations, self._instances)),
                self.fleet.keep_planned(),
                keep_swept(self.estate),
                self._resync(),
                self.warmer.run(),
            )
        finally:
            for stop in unsubscribe:
                stop()
            self.fleet.close()
            self.labs.close()
            await self.estate.close()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.estate.settings.resync_seconds)
            await self.fleet.recount()
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        self.fleet.replan()
        for worker in self.estate.caches[WORKER].items():
            if worker.spec.pool == self.estate.pool:
                self._workers.add(worker.id)
        for instance in self.estate.caches[INSTANCE].items():
            if instance.spec.pool == self.estate.pool and not instance.is_final:
                self._instances.add(instance.id)
        for reservation in self.estate.caches[RESERVATION].items():
            if reservation.status.pool == self.estate.pool and not reservation.is_final:
                self._reservations.add(reservation.id)

    # -- news ------------------------------------------------------------------------------------------------------

    def look_at_instance(self, name: str) -> None:
        """Somebody knows something new about its lab."""
        if self.estate.caches[INSTANCE].get(name) is not None:
            self._instances.add(name)

    def _on_agent(self, worker: str) -> None:
        """An agent has come or gone; of other workers, whose leases `pulse` keeps, that is no news."""
        known = self.estate.caches[WORKER].get(worker)
        if known is not None and known.spec.pool == self.estate.pool and known.spec.runtime == RUNTIME:
            self.fleet.replan()
            self._workers.add(worker)

    def _on_reservation(self, old: Reservation | None, new: Reservation | None, _: int) -> None:
        if not any(known.status.pool == self.estate.pool for known in (old, new) if known is not None):
            return
        reservation = new or old
        assert reservation is not None
        self.fleet.rebook(reservation.id)
        self._reservations.add(reservation.id)
        for seat in reservation.status.placement:
            if self.estate.instances.get(seat.instance) is not None:
                self._instances.add(seat.instance)

    def _on_instance(self, old: Instance | None, new: Instance | None, _: int) -> None:
        instance = new or old
        if instance is None or instance.spec.pool != self.estate.pool:
            return
        self._instances.add(instance.id)
        now = self.estate.clock.now()
        if old is None or new is None or is_live(old, now) != is_live(new, now) or new.is_final:
            self.fleet.rebook(instance.spec.reservation)
            self.fleet.replan()
            self._workers.add(instance.spec.worker)

    def _on_worker(self, old: Worker | None, new: Worker | None, _: int) -> None:
        worker = new or old
        if worker is None or worker.spec.pool != self.estate.pool:
            return
        self._workers.add(worker.id)
        if old is None or new is None or old.status.phase != new.status.phase or old.spec != new.spec:
            self.fleet.replan()
            for instance in self.estate.instances_on(worker.id):
                self._instances.add(instance.id)

    def _on_artifact(self, old: Artifact | None, new: Artifact | None, _: int) -> None:
        """Whoever refers to it since now. Hundreds may have left the same content: it is no news to the others."""
        before = set(old.status.references) if old is not None else set()
        for reference in set(new.status.references) - before if new is not None else ():
            self._on_use(reference)

    def _on_use(self, reference: Reference) -> None:
        kind, _slash, name = reference.subject.partition("/")
        if kind == INSTANCE.name and self.estate.caches[INSTANCE].get(name) is not None:
            self._instances.add(name)


def add_indexes(caches: Caches) -> None:
    """What the controllers find by something else than the id."""
    follow_living_uses(caches)
    caches[RESERVATION].add_index("worker", lambda r: [seat.worker for seat in r.status.placement])
    caches[INSTANCE].add_index("worker", lambda i: [i.spec.worker])
    caches[INSTANCE].add_index("unended-worker", lambda i: [] if i.is_final else [i.spec.worker])
    caches[INSTANCE].add_index("unended-pool", lambda i: [] if i.is_final else [i.spec.pool])


CACHED: tuple[Kind, ...] = (RESERVATION, INSTANCE, WORKER, POOL, TEMPLATE, DEFINITION, ARTIFACT)
"""The kinds that a controller needs at hand."""
