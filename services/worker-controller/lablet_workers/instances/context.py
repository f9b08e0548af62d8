"""What the steps of an instance see and work with, and the few words they share."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lablet_common.clock import Clock
from lablet_common.drains import evicted_at, in_the_way
from lablet_common.objects import ObjectStore
from lablet_common.references import Use
from lablet_common.resources.artifact import ArtifactRole
from lablet_common.resources.definition import Definition
from lablet_common.resources.instance import ArtifactRef, Attempt, Instance, InstancePhase
from lablet_common.resources.model import format_time
from lablet_common.resources.reservation import Reservation, SeatPlacement
from lablet_common.resources.worker import Worker, WorkerPhase
from lablet_workers.instances.room import Neighbour
from lablet_workers.runtimes.port import Runtime


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing to write now; look again after this much lab time."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class Times:
    """Deadlines and intervals, in lab time."""

    poll: timedelta
    instantiation: timedelta
    collect: timedelta
    grade: timedelta
    stop: timedelta
    watch: timedelta = timedelta(minutes=1)
    """Between looks at a lab that runs."""
    restart: timedelta = timedelta(minutes=15)
    """For how long a lab that was stopped inside its slot can be started again."""


@dataclass(slots=True)
class Situation:
    """One instance and what surrounds it at this look."""

    instance: Instance
    reservation: Reservation | None
    worker: Worker | None
    definition: Definition | None
    uses: Sequence[Use]
    """What is stored for this instance."""
    newest_uses: Callable[[], Awaitable[Sequence[Use]]]
    """The same with everything that had been stored when it was called."""
    runtime: Runtime | None
    """Of its worker, while that is up."""
    objects: ObjectStore
    clock: Clock
    by: str
    times: Times
    tries: int
    closed_ports: Callable[[str, dict[str, int]], Awaitable[dict[str, str]]]
    neighbours: Callable[[], Sequence[Neighbour]] = tuple
    """The instances of its worker that have not ended."""
    preparation: timedelta = timedelta(0)
    """Before its slot, in which its lab may already run: what was booked before it has ended by then."""

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def seat(self) -> SeatPlacement | None:
        """Where its reservation wants it."""
        return self.reservation.seat(self.instance.spec.seat) if self.reservation is not None else None

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more: its reservation is cancelled, ended or gone."""
        return self.reservation is None or self.reservation.is_final

    @property
    def worker_lost(self) -> bool:
        """Its worker has failed, or its machine is another one than the one its lab was imported on."""
        worker, lab = self.worker, self.instance.status.lab
        if worker is None or worker.status.phase in (WorkerPhase.FAILED, WorkerPhase.TERMINATING):
            return True
        if lab is None:
            return False
        machine = worker.status.machine
        return machine is None or machine.id != lab.machine or worker.status.phase is WorkerPhase.OFFLINE

    @property
    def worker_runs_nothing(self) -> bool:
        """What it ran there, recorded or not, has ended for certain."""
        worker, lab = self.worker, self.instance.status.lab
        if worker is None or not self.begun:
            return True
        machine = worker.status.machine
        if worker.status.phase is WorkerPhase.OFFLINE or machine is None:
            return True
        if lab is not None and machine.id != lab.machine:
            return True
        return worker.status.lost_at is not None

    @property
    def evicted_at(self) -> datetime | None:
        """When its lab, which has begun, is ended because its worker is being emptied; None: it may stay."""
        attempts = self.instance.status.attempts
        if self.worker is None or not attempts:
            return None
        return evicted_at(self.worker.spec, attempts[-1].began_at, self.instance.spec.end)

    @property
    def kept_out(self) -> str:
        """Why its worker takes no lab in what is left of its slot; empty: it does."""
        if self.worker is None:
            return ""
        spec = self.instance.spec
        span = in_the_way(self.worker.spec, max(spec.start, self.now), spec.end)
        return "" if span is None else f"worker {self.worker.id} is emptied from {format_time(span.frm)}"

    @property
    def being_drained(self) -> bool:
        """Its worker takes nothing again before its drain is over."""
        cordon = self.worker.spec.unschedulable if self.worker is not None else None
        return cordon is not None and cordon.drain and (cordon.until is None or self.now < cordon.until)

    @property
    def begun(self) -> bool:
        """Its present attempt may have left something on its worker."""
        attempts = self.instance.status.attempts
        return bool(attempts) and attempts[-1].ended_at is None

    def files(self, role: ArtifactRole) -> list[ArtifactRef]:
        """What the artifact-service keeps for this attempt in that role."""
        return [
            ArtifactRef.model_validate({"role": role, "name": use.reference.name, "digest": use.artifact.id})
            for use in self.uses
            if use.reference.role == role and use.reference.attempt == self.instance.status.attempt
        ]

    def overdue(self) -> bool:
        deadline = self.instance.status.deadline
        return deadline is not None and self.now >= deadline

    def move(self, to: InstancePhase, reason: str, message: str | None = None, **changes: Any) -> Instance:
        return self.instance.moved(to, at=self.now, by=self.by, reason=reason, message=message, **changes)

    def fail(self, reason: str, message: str) -> Instance:
        """Failed; the attempt ends when its lab is proven gone."""
        deadline = self.now + self.times.stop if self.begun else None
        return self.move(InstancePhase.FAILED, reason, message, deadline=deadline, released=False)

    def ended_attempts(self, reason: str | None = None) -> tuple[Attempt, ...]:
        """The books with the present attempt's end in them."""
        attempts = self.instance.status.attempts
        if not self.begun:
            return attempts
        return (*attempts[:-1], attempts[-1].model_copy(update={"ended_at": self.now, "reason": reason}))
