"""What a pool's owner knows: the calendar and the resources it was built from, kept in step with each other.

Pure: it is fed resources (from caches and from this owner's own commits, whichever comes first) and answers questions. A
value that is not newer than the known one is ignored, so feeding is idempotent and the order of the two sources does not
matter. One task at a time uses it.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.reservation import Reservation, ReservationPhase
from lablet_common.resources.worker import Worker, WorkerPhase, WorkerPool
from lablet_scheduler import engine
from lablet_scheduler.views import bookings_of, demand_of, occupies, policy_of, worker_view
from lablet_scheduler.waiting import WaitList

FindDefinition = Callable[[str, str], Definition | None]
"""(tenant, `name@version`) → the definition, own or public."""

_AT_ONCE = 200
"""Reservations that are taken in before the caller may rest: some milliseconds."""

_REMEMBERED = 4096
"""Demands, each of a definition and of a selector that somebody chose, and so without an end."""

GONE = (WorkerPhase.FAILED, WorkerPhase.TERMINATING)
"""Phases of a worker on which nothing can run."""

AT_RISK = "AtRisk"
"""Condition of a reservation with a seat that cannot stay where it is and has no other place yet."""


class PoolState:
    """The calendar of one pool and everything on it."""

    def __init__(self, pool: WorkerPool, find_definition: FindDefinition) -> None:
        self.pool = pool
        self._find = find_definition
        self.workers: dict[str, Worker] = {}
        self.reservations: dict[str, Reservation] = {}
        """Those of this pool that are live or still have labs."""
        self.instances: dict[str, Instance] = {}
        self.waitlist = WaitList()
        self.at_risk: set[str] = set()
        """Reservations that look for another place for some seat."""
        self.displaced: dict[str, frozenset[tuple[str, int]]] = {}
        """Overrunning reservation → the seats (reservation, number) that lose their room by it."""
        self._revisions: dict[str, int] = {}
        """The newest revision seen of each reservation, also of those that are no longer kept."""
        self._of_reservation: dict[str, set[str]] = {}
        self._demands: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[Definition, engine.Demand]] = {}
        self.complete_by: bool | None = None
        """Whether the fleet counts as complete, where that does not follow from its workers (a what-if)."""
        self.calendar = engine.Calendar([policy_of(pool, None)], [])

    # -- feeding ---------------------------------------------------------------------------------------------------

    def put_pool(self, pool: WorkerPool) -> None:
        if pool.revision > self.pool.revision:
            self.pool = pool
            self._put_policy()

    def _put_policy(self) -> None:
        licence = next((str(worker.spec.license) for worker in self.workers.values()), None)
        self.calendar.put_policy(policy_of(self.pool, licence))

    def put_worker(self, worker: Worker, now: datetime) -> None:
        known = self.workers.get(worker.id)
        if known is not None and known.revision >= worker.revision:
            return
        self.workers[worker.id] = worker
        if len(self.workers) == 1:
            self._put_policy()
        self.calendar.put_worker(worker_view(worker))
        if known is None:
            for reservation in self.placed_on(worker.id):
                self.rebook(reservation.id, now)

    def remove_worker(self, name: str, now: datetime) -> None:
        """Seats that are still placed there lose their booking; to find them another place is healing's task."""
        if self.workers.pop(name, None) is None:
            return
        for reservation in self.placed_on(name):
            self.rebook(reservation.id, now)
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
        names = self._of_reservation.get(instance.spec.reservation, set())
        names.discard(instance.id)
        if not names:
            self._of_reservation.pop(instance.spec.reservation, None)
        self.rebook(instance.spec.reservation, now)

    def put_reservation(self, reservation: Reservation, now: datetime) -> bool:
        """False when it was known already. One that another pool owns is forgotten here."""
        if self._revisions.get(reservation.id, 0) >= reservation.revision:
            return False
        if reservation.status.pool != self.pool.id:
            self._drop(reservation.id)
            return True
        self._know(reservation)
        self.rebook(reservation.id, now)
        return True

    def load(self, reservations: Iterable[Reservation], now: datetime) -> Iterator[None]:
        """Takes in all reservations of this pool at once, where none is known yet. Yields where the caller may rest; has to
        be gone through to the end."""
        facts: list[engine.Booking] = []
        for number, reservation in enumerate(reservations, 1):
            self._know(reservation)
            bookings = self.occupied_by(reservation, now)
            facts += bookings
            if not bookings and reservation.is_final:
                self._drop(reservation.id)
            if number % _AT_ONCE == 0:
                yield
        for _ in self.calendar.load(facts):
            yield

    def _know(self, reservation: Reservation) -> None:
        self._revisions[reservation.id] = reservation.revision
        self.reservations[reservation.id] = reservation
        if reservation.status.phase is ReservationPhase.WAITLISTED:
            self.waitlist.put(reservation)
        else:
            self.waitlist.drop(reservation.id)
        if reservation.holds_capacity and reservation.status.condition(AT_RISK) is not None:
            self.at_risk.add(reservation.id)
        else:
            self.at_risk.discard(reservation.id)

    def remove_reservation(self, reservation_id: str) -> None:
        """It is gone from the store."""
        self._drop(reservation_id)
        self._revisions.pop(reservation_id, None)

    def _drop(self, reservation_id: str) -> None:
        self.reservations.pop(reservation_id, None)
        self.waitlist.drop(reservation_id)
        self.at_risk.discard(reservation_id)
        self.displaced.pop(reservation_id, None)
        self.calendar.release(reservation_id)

    # -- the calendar ----------------------------------------------------------------------------------------------

    def rebook(self, reservation_id: str, now: datetime) -> None:
        """Puts on the calendar what the reservation occupies now, in place of what was there. One that came to nothing
        does not wait either."""
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            self.waitlist.drop(reservation_id)
            self.calendar.release(reservation_id)
            return
        bookings = self.occupied_by(reservation, now)
        if bookings and self.calendar.of(reservation_id) == tuple(sorted(bookings, key=lambda booking: booking.seat)):
            return  # as it is for most that were just granted: they were booked with the decision
        self.calendar.release(reservation_id)
        if bookings:
            self.calendar.book_all(bookings, check=False)  # what is committed is so, whether it still fits or not
        elif reservation.is_final:
            self._drop(reservation_id)

    def occupied_by(self, reservation: Reservation, now: datetime) -> list[engine.Booking]:
        """What it occupies now, by what is known of it and its instances."""
        demand = self.demand(reservation)
        bookings = [] if demand is None else bookings_of(reservation, demand, self.instances, now)
        return [booking for booking in bookings if booking.worker in self.workers]

    def demand(self, reservation: Reservation) -> engine.Demand | None:
        """What one seat needs; None when the definition has gone."""
        definition = self.definition(reservation.tenant, reservation.spec.definition)
        if definition is None:
            return None
        selector = reservation.spec.worker_selector
        key = (reservation.tenant, definition.id, tuple(sorted(selector.items())))
        known = self._demands.get(key)
        if known is None or known[0] is not definition:
            if len(self._demands) >= _REMEMBERED:
                self._demands.clear()
            known = self._demands[key] = definition, demand_of(definition, selector)
        return known[1]

    def definition(self, tenant: str, name: str) -> Definition | None:
        return self._find(tenant, name)

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """All workers that the pool may have exist as records: only then can anything be called impossible."""
        return len(self.workers) >= self.pool.spec.max if self.complete_by is None else self.complete_by

    def revision_of(self, reservation_id: str) -> int:
        """The newest revision seen of a reservation; 0: none."""
        return self._revisions.get(reservation_id, 0)

    @property
    def settles(self) -> bool:
        """Seats may move in quiet moments, to save power."""
        return self.pool.spec.recourse_moves > 0 and self.pool.spec.policy == "pack"

    def instances_of(self, reservation_id: str) -> list[Instance]:
        names = self._of_reservation.get(reservation_id, ())
        return sorted((self.instances[name] for name in names), key=lambda instance: instance.spec.seat)

    def placed_on(self, worker: str) -> list[Reservation]:
        """Reservations with a seat placed on the worker."""
        return [
            reservation
            for reservation in self.reservations.values()
            if any(seat.worker == worker for seat in reservation.status.placement)
        ]

    def has_labs(self, reservation_id: str) -> bool:
        """A lab of it may still be on some worker."""
        return any(occupies(instance) for instance in self.instances_of(reservation_id))

    def overruns(self, reservation: Reservation, now: datetime) -> bool:
        """A lab is still there after the slot's end."""
        return reservation.slot is not None and now >= reservation.slot.end and self.has_labs(reservation.id)

    def troubled(self, reservation: Reservation, now: datetime) -> bool:
        """Some seat of it may have to go elsewhere, or takes room from others: its worker is gone, has failed or is ever
        maintained, its lab has failed, or it stays too long."""
        seats = reservation.status.placement
        workers = [self.workers.get(seat.worker) for seat in seats]
        labs = [self.instances.get(seat.instance) for seat in seats]
        return (
            any(worker is None or worker.status.phase in GONE or worker.spec.maintenance for worker in workers)
            or any(lab is not None and lab.status.phase is InstancePhase.FAILED for lab in labs)
            or self.overruns(reservation, now)
        )

    def kept_waiting(self, now: datetime) -> list[Reservation]:
        """Reservations with a seat on a worker that boots for longer than it should."""
        slow = [worker.id for worker in self.workers.values() if worker.boot_overdue(now)]
        return [reservation for worker in slow for reservation in self.placed_on(worker)]

    def boots_due(self, reservation: Reservation, now: datetime) -> datetime | None:
        """When the next of its booting workers should be ready, if that is still to come."""
        workers = (self.workers.get(seat.worker) for seat in reservation.status.placement)
        due = (worker.boot_due for worker in workers if worker is not None)
        return min((moment for moment in due if moment is not None and moment > now), default=None)

    def displaced_seats(self, reservation_id: str) -> frozenset[int]:
        """Its seats that lose their room by others' overruns."""
        return frozenset(seat for seats in self.displaced.values() for name, seat in seats if name == reservation_id)
