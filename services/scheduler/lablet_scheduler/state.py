"""What a pool's owner knows: the calendar and the resources it was built from, kept in step with each other.

Pure: it is fed resources (from caches and from this owner's own commits, whichever comes first) and answers questions. A
value that is not newer than the known one is ignored, so feeding is idempotent and the order of the two sources does not
matter. One task at a time uses it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance
from lablet_common.resources.reservation import Reservation, ReservationPhase
from lablet_common.resources.worker import Worker, WorkerPool
from lablet_scheduler import engine
from lablet_scheduler.views import ENDED_INSTANCE, bookings_of, demand_of, policy_of, worker_view

FindDefinition = Callable[[str, str], Definition | None]
"""(tenant, `name@version`) → the definition, own or public."""


class PoolState:
    """The calendar of one pool and everything on it."""

    def __init__(self, pool: WorkerPool, find_definition: FindDefinition) -> None:
        self.pool = pool
        self._find = find_definition
        self.workers: dict[str, Worker] = {}
        self.reservations: dict[str, Reservation] = {}
        """Those of this pool that are live or still have instances."""
        self.instances: dict[str, Instance] = {}
        self._of_reservation: dict[str, set[str]] = {}
        self.calendar = engine.Calendar([policy_of(pool, None)], [])

    # -- feeding ---------------------------------------------------------------------------------------------------

    def put_pool(self, pool: WorkerPool) -> None:
        if pool.revision > self.pool.revision:
            self.pool = pool
            self._put_policy()

    def _put_policy(self) -> None:
        licence = next((str(worker.spec.license) for worker in self.workers.values()), None)
        self.calendar.put_policy(policy_of(self.pool, licence))

    def put_worker(self, worker: Worker) -> None:
        known = self.workers.get(worker.id)
        if known is not None and known.revision >= worker.revision:
            return
        self.workers[worker.id] = worker
        if len(self.workers) == 1:
            self._put_policy()
        self.calendar.put_worker(worker_view(worker))

    def remove_worker(self, name: str) -> None:
        if self.workers.pop(name, None) is not None:
            self.calendar.remove_worker(name)

    def put_instance(self, instance: Instance, now: datetime) -> None:
        known = self.instances.get(instance.id)
        if known is not None and known.revision >= instance.revision:
            return
        self.instances[instance.id] = instance
        self._of_reservation.setdefault(instance.spec.reservation, set()).add(instance.id)
        self.rebook(instance.spec.reservation, now)

    def remove_instance(self, instance: Instance, now: datetime) -> None:
        self.instances.pop(instance.id, None)
        self._of_reservation.get(instance.spec.reservation, set()).discard(instance.id)
        self.rebook(instance.spec.reservation, now)

    def put_reservation(self, reservation: Reservation, now: datetime) -> None:
        known = self.reservations.get(reservation.id)
        if known is not None and known.revision >= reservation.revision:
            return
        self.reservations[reservation.id] = reservation
        self.rebook(reservation.id, now)

    def remove_reservation(self, reservation_id: str) -> None:
        self.reservations.pop(reservation_id, None)
        self.calendar.release(reservation_id)

    # -- the calendar ----------------------------------------------------------------------------------------------

    def rebook(self, reservation_id: str, now: datetime) -> None:
        """Puts on the calendar what the reservation occupies now, in place of what was there."""
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            return
        self.calendar.release(reservation_id)
        demand = self.demand(reservation)
        bookings = [] if demand is None else bookings_of(reservation, demand, self.instances, now)
        bookings = [booking for booking in bookings if booking.worker in self.workers]
        if bookings:
            self.calendar.book_all(bookings, check=False)  # what is committed is so, whether it still fits or not
        elif reservation.is_final:
            self.reservations.pop(reservation_id, None)

    def demand(self, reservation: Reservation) -> engine.Demand | None:
        """What one seat needs; None when the definition has gone."""
        definition = self.definition(reservation.tenant, reservation.spec.definition)
        return None if definition is None else demand_of(definition, reservation.spec.worker_selector)

    def definition(self, tenant: str, name: str) -> Definition | None:
        return self._find(tenant, name)

    # -- questions -------------------------------------------------------------------------------------------------

    def instances_of(self, reservation_id: str) -> list[Instance]:
        names = self._of_reservation.get(reservation_id, ())
        return sorted((self.instances[name] for name in names), key=lambda instance: instance.spec.seat)

    def waiting(self) -> list[Reservation]:
        """The wait list: by priority, then by the time since which they wait, then by id."""
        found = [r for r in self.reservations.values() if r.status.phase is ReservationPhase.WAITLISTED]
        return sorted(
            found,
            key=lambda r: (-r.spec.priority, r.status.waiting_since or r.metadata.created_at, r.id),
        )

    def overdue(self, now: datetime) -> list[Reservation]:
        """Reservations with a lab that is still there after the slot's end."""
        return [
            r
            for r in self.reservations.values()
            if r.slot is not None
            and now >= r.slot.end
            and any(i.status.phase is not ENDED_INSTANCE for i in self.instances_of(r.id))
        ]

    def forget_ended(self, reservation_ids: Iterable[str]) -> None:
        """Drops instances of reservations that are gone."""
        for reservation_id in reservation_ids:
            for name in self._of_reservation.pop(reservation_id, set()):
                self.instances.pop(name, None)
