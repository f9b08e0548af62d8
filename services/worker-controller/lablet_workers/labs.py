"""The labs of a pool: instances made when their slot comes near, and one step of one of them at a time."""

import logging
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

from lablet_common.objects import ObjectStoreUnavailable
from lablet_common.reconcile import Again
from lablet_common.references import Use, uses_of
from lablet_common.resources.instance import Instance, InstancePhase, InstanceSpec, InstanceStatus
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, RESERVATION
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import Reservation, ReservationPhase, SeatPlacement, SeatState, Slot
from lablet_common.resources.worker import WorkerPhase
from lablet_common.store import Conflict, Transaction
from lablet_common.store.changes import create_in, unchanged_in
from lablet_common.telemetry.metrics import INSTANTIATION, PUNCTUALITY
from lablet_common.telemetry.spans import Phases
from lablet_workers.estate import Estate
from lablet_workers.instances.context import Again as LookAgain
from lablet_workers.instances.context import Situation, Times
from lablet_workers.instances.pauses import Pauses, circumstances
from lablet_workers.instances.room import Neighbour
from lablet_workers.instances.steps import step as instance_step
from lablet_workers.probe import closed_ports
from lablet_workers.runtimes.port import RuntimeFault

log = logging.getLogger("lablet.workers")

_PLACED = (ReservationPhase.SCHEDULED, ReservationPhase.ACTIVE)
_BY_ITSELF = (InstancePhase.GRADING, InstancePhase.STOPPING)
"""Phases that end as they do whatever becomes of the reservation."""
_UP = (WorkerPhase.READY, WorkerPhase.DRAINING, WorkerPhase.FAILED, WorkerPhase.TERMINATING)
_SEATS_AT_ONCE = 50
"""Instances made in one transaction."""


class Labs:
    """Brings labs up and down. `look_at_reservation` and `look_at_instance` are what queues call for each; `wake` and
    `wake_reservation` put one into its queue."""

    def __init__(self, estate: Estate, wake: Callable[[str], None], wake_reservation: Callable[[str], None]) -> None:
        self._estate = estate
        self._wake = wake
        self._wake_reservation = wake_reservation
        self._phases = Phases()
        self._pauses = Pauses()
        self._known_times: tuple[float, Times] | None = None
        """By the speed of lab time."""

    def close(self) -> None:
        """The term is over: what is under way is somebody else's now."""
        self._phases.leave_all()

    async def look_at_reservation(self, name: str) -> Again | None:
        reservation = self._estate.caches[RESERVATION].get(name)
        if (
            reservation is None
            or reservation.status.pool != self._estate.pool
            or reservation.status.phase not in _PLACED
        ):
            return None
        slot, now = reservation.slot, self._estate.clock.now()
        if slot is None or now >= slot.end:
            return None
        due = slot.start - timedelta(minutes=self._estate.settings.scheduler_lead_time_minutes)
        if now < due:
            return Again.at(due)
        seats = [
            seat
            for seat in reservation.status.placement
            if seat.state is SeatState.PLACED and self._estate.instances.get(seat.instance) is None
        ]
        for at in range(0, len(seats), _SEATS_AT_ONCE):
            await self._make_instances(reservation, slot, seats[at : at + _SEATS_AT_ONCE])
        return None

    async def _make_instances(self, reservation: Reservation, slot: Slot, seats: list[SeatPlacement]) -> None:
        """In one transaction that compares the reservation as it was read and the absence of each instance."""
        txn = Transaction()
        self._estate.fence.guard(txn)
        unchanged_in(txn, reservation)
        for seat in seats:
            create_in(txn, self._new_instance(reservation, slot, seat))
        try:
            await txn.commit(self._estate.store)
        except Conflict as conflict:
            await self._estate.still_owner(conflict)
            self._wake_reservation(reservation.id)

    def _new_instance(self, reservation: Reservation, slot: Slot, seat: SeatPlacement) -> Instance:
        meta = reservation.metadata
        user = next((entry.user for entry in reservation.spec.roster if entry.seat == seat.seat), meta.owner)
        return Instance(
            metadata=Metadata(
                id=seat.instance,
                uid=str(uuid4()),
                tenant=meta.tenant,
                owner=user,
                labels=meta.labels,
                created_at=self._estate.clock.now(),
                finalizers=("archive",),
                correlation_id=meta.correlation_id,
                trace_parent=meta.trace_parent,
            ),
            spec=InstanceSpec(
                reservation=reservation.id,
                seat=seat.seat,
                definition=reservation.spec.definition,
                pool=self._estate.pool,
                worker=seat.worker,
                ports=seat.ports,
                start=slot.start,
                end=slot.end,
            ),
            status=InstanceStatus(phase=InstancePhase.PENDING, attempt=seat.attempt),
        ).observed("pending")

    async def look_at_instance(self, name: str) -> Again | None:
        instance = self._estate.instances.get(name)
        if instance is None or instance.is_final or instance.spec.pool != self._estate.pool:
            self._pauses.forget(name)
            self._phases.leave(f"instance/{name}")
            return None
        situation = self.situation(instance)
        asked = circumstances(instance, situation.reservation)
        pause = self._pauses.until(name, self._estate.clock.now(), asked)
        if pause is not None:
            return Again.at(pause)
        try:
            with self._phases.within(*_told(instance)):
                outcome = await instance_step(situation)
        except (RuntimeFault, ObjectStoreUnavailable) as error:
            # the phase's deadline leads on if this does not end
            log.warning("an instance's step failed", extra={"instance": name, "cause": str(error)})
            return Again.at(self._pause(instance, asked))
        if outcome is None or isinstance(outcome, LookAgain) or outcome.status.tries <= instance.status.tries:
            self._pauses.forget(name)
        else:
            self._pause(instance, asked)
        if outcome is None:
            return None
        if isinstance(outcome, LookAgain):
            return self._estate.again(outcome.after)
        try:
            committed = await self._estate.instances.commit(outcome, also=_resting_on(situation, outcome))
        except Conflict as conflict:
            await self._estate.still_owner(conflict)
            return self._estate.again(timedelta(0))
        self._tell_of_instance(instance, committed)
        self._wake(name)
        return None

    def _pause(self, instance: Instance, asked: Hashable) -> datetime:
        """Until when an instance whose step has failed is left alone."""
        estate = self._estate
        return self._pauses.failed(instance.id, estate.clock.now(), estate.poll, asked, instance.spec.end)

    def situation(self, instance: Instance) -> Situation:
        """Everything that a step looks at, as it is known now."""
        pool = self._estate.pool_record
        worker = self._estate.workers.get(instance.spec.worker)
        reachable = worker is not None and worker.status.phase in _UP
        return Situation(
            instance=instance,
            reservation=self._estate.caches[RESERVATION].get(instance.spec.reservation),
            worker=worker,
            definition=self._estate.definition_of(instance),
            uses=self._uses_of(instance),
            newest_uses=partial(self._newest_uses_of, instance),
            runtime=self._estate.runtime_of(worker) if worker is not None and reachable else None,
            objects=self._estate.objects,
            clock=self._estate.clock,
            by=self._estate.source,
            times=self._times(),
            tries=self._estate.settings.controller_tries,
            closed_ports=self._closed_ports,
            neighbours=lambda: [self._neighbour(other) for other in self._estate.instances_on(instance.spec.worker)],
            preparation=timedelta(minutes=pool.spec.preparation_minutes if pool is not None else 0),
        )

    def _uses_of(self, instance: Instance) -> list[Use]:
        return uses_of(self._estate.caches, f"{INSTANCE.name}/{instance.id}")

    async def _newest_uses_of(self, instance: Instance) -> list[Use]:
        """Raises `StoreUnavailable`, and `TimeoutError` where the caches do not catch up."""
        now = await self._estate.store.range(ARTIFACT.prefix, limit=1, keys_only=True)
        await self._estate.caches.reached(now.revision)
        return self._uses_of(instance)

    def _times(self) -> Times:
        """Made anew where lab time passes at another speed."""
        settings, speed = self._estate.settings, self._estate.clock.speed
        if self._known_times is None or self._known_times[0] != speed:
            times = Times(
                poll=self._estate.poll,
                instantiation=timedelta(minutes=settings.controller_instantiation_minutes),
                collect=timedelta(minutes=settings.controller_collect_minutes),
                grade=timedelta(minutes=settings.controller_grade_minutes),
                stop=timedelta(minutes=settings.controller_stop_minutes),
                watch=timedelta(seconds=settings.controller_watch_seconds * speed),
                restart=timedelta(minutes=settings.controller_restart_minutes),
            )
            self._known_times = speed, times
        return self._known_times[1]

    def _neighbour(self, other: Instance) -> Neighbour:
        definition = self._estate.definition_of(other)
        return Neighbour(other, definition.spec.requirements if definition is not None else None)

    async def _closed_ports(self, host: str, ports: dict[str, int]) -> dict[str, str]:
        return await closed_ports(host, ports, self._estate.settings.controller_port_seconds)

    def _tell_of_instance(self, before: Instance, after: Instance) -> None:
        if before.status.phase is after.status.phase:
            return
        failed = after.status.phase is InstancePhase.FAILED
        self._phases.leave(f"instance/{after.id}", after.status.reason, failed=failed)
        log.info(
            "instance moved",
            extra={
                "instance": after.id,
                "phase": str(after.phase),
                "reason": after.status.reason,
                "reservation": after.spec.reservation,
                "worker": after.spec.worker,
                "pool": self._estate.pool,
                "trace_parent": after.metadata.trace_parent,
            },
        )
        if after.status.phase is InstancePhase.RUNNING and not before.status.ran:
            now = self._estate.clock.now()
            PUNCTUALITY.observe((now - after.spec.start).total_seconds())
            INSTANTIATION.observe((now - after.metadata.created_at).total_seconds())


def _told(instance: Instance) -> tuple[str, str, list[str | None], dict[str, str]]:
    """What a span says of the phase that an instance is in."""
    words = {
        "lablet.instance.id": instance.id,
        "lablet.reservation.id": instance.spec.reservation,
        "lablet.worker.id": instance.spec.worker,
    }
    return f"instance/{instance.id}", str(instance.phase), [instance.metadata.trace_parent], words


def _resting_on(situation: Situation, outcome: Instance) -> Transaction:
    """What the step was decided from and another service owns: a lab is started, ended or moved only for its reservation
    as it was read."""
    txn = Transaction()
    before = situation.instance
    decided = before.status.phase not in _BY_ITSELF and before.status.phase is not outcome.status.phase
    if situation.reservation is not None and (decided or before.spec != outcome.spec):
        unchanged_in(txn, situation.reservation)
    return txn
