"""Instance: one seat's lab on one worker, from Pending to Terminated."""

from enum import StrEnum
from typing import Literal

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Name, Resource, Status


class InstanceSpec(Model):
    reservation: str
    seat: int
    definition: str
    pool: Name
    worker: str
    ports: dict[str, int] = {}
    start: Instant
    end: Instant


class NodeState(Model):
    label: str
    state: str


class LabRef(Model):
    """The lab on the worker's runtime."""

    id: str
    worker: str
    machine: str = ""
    """The provider's machine it was imported on: when that one is gone, so is the lab."""


class Score(Model):
    """What the assessment system said."""

    passed: bool
    points: float | None = None
    maximum: float | None = None


class Attempt(Model):
    """One try to run the lab."""

    worker: str
    began_at: Instant
    ended_at: Instant | None = None
    reason: str | None = None


class ArtifactRef(Model):
    """An object that belongs to this instance."""

    role: Literal["rendered", "collected", "exported", "report"]
    name: str
    digest: str


class Staged(Model):
    """Files put into staging for the artifact-service: `manifest` is the key of a JSON list of them."""

    manifest: str
    attempt: int
    role: Literal["collected", "exported"]


class InstancePhase(StrEnum):
    PENDING = "Pending"
    INSTANTIATING = "Instantiating"
    RUNNING = "Running"
    COLLECTING = "Collecting"
    GRADING = "Grading"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    EXPORTED = "Exported"
    TERMINATED = "Terminated"
    FAILED = "Failed"


SLOT_ENDED = "SlotEnded"
"""Reason of the move by which a lab's end begins because its slot is over."""


class InstanceStatus(Status):
    phase: InstancePhase
    lab: LabRef | None = None
    host: str | None = None
    """Where its ports answer."""
    nodes: tuple[NodeState, ...] = ()
    score: Score | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    attempt: int = 1
    """Number of the present attempt; equals the seat placement's attempt once a move has been taken up."""
    staged: Staged | None = None
    deadline: Instant | None = None
    """By when the present phase must end."""
    exit_code: int | None = None
    """Of a lab that ended by itself: 0, or the first of its nodes' that is not."""
    ran: bool = False
    """It was Running at least once."""
    released: bool = False
    """A failed instance whose lab is proven gone from its worker: only then may the seat run elsewhere."""
    evicted: bool = False
    """Its worker is being emptied: its lab is collected and ended there before its slot is, and may run elsewhere."""
    restart: bool = False
    """Stopped inside its slot and asked to run again: its lab is being started."""
    restarts: int = 0
    """How often its lab was started again because it had stopped or vanished by itself, on this worker."""
    tries: int = 0
    """Failed tries of the present phase on this worker."""


_P = InstancePhase


class Instance(Resource[InstanceSpec, InstanceStatus]):
    """`Running` means: every named port accepts a connection."""

    machine = table(
        "Instance",
        InstancePhase.PENDING,
        {
            _P.PENDING: {_P.INSTANTIATING, _P.STOPPING, _P.FAILED},
            _P.INSTANTIATING: {_P.RUNNING, _P.STOPPING, _P.FAILED},
            _P.RUNNING: {_P.COLLECTING, _P.STOPPING, _P.FAILED},
            _P.COLLECTING: {_P.GRADING, _P.RUNNING, _P.STOPPING, _P.FAILED},
            _P.GRADING: {_P.STOPPING, _P.FAILED},
            _P.STOPPING: {_P.STOPPED, _P.FAILED},
            _P.STOPPED: {_P.RUNNING, _P.EXPORTED, _P.FAILED},
            _P.EXPORTED: {_P.TERMINATED, _P.FAILED},
            _P.FAILED: {_P.TERMINATED, _P.PENDING},
            _P.TERMINATED: set(),
        },
    )
    kind: Literal["Instance"] = "Instance"

    @property
    def slot_ended(self) -> bool:
        """Its end has begun because its slot was over; a longer slot comes too late for it."""
        return any(move.reason == SLOT_ENDED for move in self.status.history)


INSTANCE_PREFIX = "ins-"


def instance_id(reservation_id: str, seat: int) -> str:
    """`ins-<reservation>-<seat>`: the same for every attempt."""
    return f"{INSTANCE_PREFIX}{reservation_id.removeprefix('rsv-')}-{seat}"
