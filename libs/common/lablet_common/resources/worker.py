"""WorkerTemplate, WorkerPool and Worker: the fleet, as shapes, groups and logical machines.

A pool's workers exist as cheap records, switched off, up to the pool's `max`; reservations are placed on them, and the
calendar alone says when a machine must be up.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lablet_common.resources.definition import LicenseKind
from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Labels, Minute, Model, Name, Resource, Status

Minutes = Annotated[int, Field(ge=0, le=527_040)]
"""Of somebody's choice: up to a year, and so never beyond the calendar."""

MOST_LEAD_MINUTES = 24 * 60
"""That each of boot, reserve, preparation, turnaround and grace may take: the calendar looks no further around a day."""


class Capacity(Model):
    """What a worker offers to labs."""

    cpu_cores: Annotated[float, Field(gt=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    storage_gb: Annotated[float, Field(gt=0)]


class PortRange(Model):
    """TCP ports that labs may be given, both ends included."""

    start: Annotated[int, Field(ge=1, le=65535)] = 2000
    end: Annotated[int, Field(ge=1, le=65535)] = 9999

    @model_validator(mode="after")
    def _ordered(self) -> "PortRange":
        if self.end < self.start:
            raise ValueError(f"the port range ends at {self.end}, before it begins at {self.start}")
        return self


class TemplateSpec(Model):
    """The shape of a worker (source: the worker template file)."""

    description: str = ""
    provider: Literal["simulated", "ec2", "static", "agent"] = "simulated"
    """`agent`: hosts that join by themselves; nobody here switches them on or off."""
    instance_type: str
    capacity: Capacity
    license: LicenseKind
    max_nodes: Annotated[int, Field(ge=0)]
    """Nodes that the licence allows to run at the same time."""
    runtime_version: str = "2.9.0"
    node_definitions: tuple[str, ...] = ()
    """Node definitions its image brings; empty means: not known, refuse nothing."""
    image_pattern: str = ""
    regions: tuple[str, ...] = ()
    port_range: PortRange = PortRange()
    drain_timeout_minutes: Minutes = 240
    boot_minutes: Minutes = 20
    cost_per_hour_usd: Annotated[float, Field(ge=0)] = 0
    tags: Labels = {}


class SimplePhase(StrEnum):
    """Kinds that are just there."""

    ACTIVE = "Active"


class SimpleStatus(Status):
    phase: SimplePhase = SimplePhase.ACTIVE


class WorkerTemplate(Resource[TemplateSpec, SimpleStatus]):
    machine = table("WorkerTemplate", SimplePhase.ACTIVE, {SimplePhase.ACTIVE: set()})
    kind: Literal["WorkerTemplate"] = "WorkerTemplate"


class PoolSpec(Model):
    """A group of like workers: the unit of sharding. Durations are lab time."""

    template: Name
    min: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Workers kept on at all times."""
    max: Annotated[int, Field(ge=0, le=10_000)]
    """Logical workers that exist."""
    warm: Annotated[int, Field(ge=0)] = 0
    """Idle workers kept on beyond what the calendar needs."""
    scale_down_grace_minutes: Minutes = 30
    """Gaps between needs up to this long are kept on."""
    cooldown_minutes: Minutes = 0
    """A worker that has come up is kept on for this long at least, needed or not."""
    preparation_minutes: Minutes = 5
    """Between a worker that is Ready and the first slot on it: import, start and probe."""
    boot_reserve_minutes: Minutes | None = None
    """How much earlier still a worker is powered on, so that a boot may take longer than its template says, or fail and
    be followed by another; None: as long as the template's boot."""
    turnaround_minutes: Minutes = 2
    """Between two slots on the same licence seats and ports of a worker."""
    allowed_licenses: int | None = None
    """Workers of this pool that may hold a licence at the same time; None: as many as there are."""
    policy: Literal["pack", "spread"] = "pack"
    recourse_moves: Annotated[int, Field(ge=0, le=20)] = 2
    """Seats not yet started that may move to other workers, for the same slots, after each reservation that comes or goes,
    where that saves power; 0: none. In a pool that spreads none moves."""
    region: str = ""

    def reserve_of(self, boot_minutes: int) -> int:
        """Minutes between the template's boot and the preparation."""
        return boot_minutes if self.boot_reserve_minutes is None else self.boot_reserve_minutes

    def lead_of(self, boot_minutes: int) -> int:
        """Minutes from power-on to the start of a slot."""
        return boot_minutes + self.reserve_of(boot_minutes) + self.preparation_minutes


class Rollout(Model):
    """New machines for all workers of a pool, a few at a time."""

    at: Instant
    by: str
    max_unavailable: Annotated[int, Field(ge=1)] = 1
    deadline_minutes: int | None = None
    message: str = ""
    waiting: tuple[Name, ...] = ()
    """Workers whose turn has not come yet."""
    finished_at: Instant | None = None


class PoolStatus(Status):
    phase: SimplePhase = SimplePhase.ACTIVE
    rollout: Rollout | None = None


class WorkerPool(Resource[PoolSpec, PoolStatus]):
    machine = table("WorkerPool", SimplePhase.ACTIVE, {SimplePhase.ACTIVE: set()})
    kind: Literal["WorkerPool"] = "WorkerPool"


class Cordon(Model):
    """Why nothing new is placed on a worker, whatever its phase."""

    reason: str
    by: str
    until: Instant | None = None
    drain: bool = False
    """It came with a drain and goes with it."""
    earlier: "Cordon | None" = None
    """Somebody's own cordon that the drain found: it stands again when the drain is cancelled."""


class Maintenance(Model):
    """A span in which nothing may run."""

    frm: Minute = Field(alias="from")
    to: Minute
    reason: str = ""
    deadline: Instant | None = None
    """When labs that still run, and whose slot goes on, are ended; None: never."""


class Replacement(Model):
    """The worker gets a new machine as soon as it is empty. Until then nothing new begins on it."""

    at: Instant
    by: str


class WorkerSpec(Model):
    pool: Name
    template: Name
    capacity: Capacity
    max_nodes: int
    license: LicenseKind
    port_range: PortRange = PortRange()
    runtime: str = "cml"
    """What runs labs on it: `cml`, or `process` on an agent's host."""
    runtime_version: str = ""
    node_definitions: tuple[str, ...] = ()
    boot_minutes: int = 20
    unschedulable: Cordon | None = None
    maintenance: tuple[Maintenance, ...] = ()
    replacing: Replacement | None = None


class WorkerPhase(StrEnum):
    OFFLINE = "Offline"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    LICENSING = "Licensing"
    READY = "Ready"
    DRAINING = "Draining"
    STOPPING = "Stopping"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class Machine(Model):
    """The provider's machine behind a logical worker."""

    id: str
    launched_at: Instant
    provider_state: str = ""


class Scaling(Model):
    """The latest decision about power and the rule that made it; written only when one of them changes."""

    direction: Literal["up", "down", "held"]
    state: Literal["decided", "completed"] = "decided"
    rule: str
    message: str = ""
    at: Instant


class License(Model):
    """What is known of the licence on the running machine. The token itself is never stored."""

    status: str
    node_quota: int | None = None


class LicenseSeen(License):
    """What was known of it last; it outlives the machine that told it."""

    seen_at: Instant


class WorkerStatus(Status):
    phase: WorkerPhase
    address: str | None = None
    """Base URL of the runtime's API."""
    host: str | None = None
    """Host on which labs' ports answer."""
    machine: Machine | None = None
    version: str | None = None
    """Of the runtime, as the running machine reports it."""
    license: License | None = None
    last_license: LicenseSeen | None = None
    """Of this or an earlier machine, while the worker is off too: the licence is the pool's, and the next machine will hardly
    be allowed more. Forgotten with a replacement, by which an operator has everything found out anew."""
    scaling: Scaling | None = None
    credentials: str | None = None
    """The runtime's login, encrypted."""
    deadline: Instant | None = None
    """By when the present phase must end; a missed one is a reason to fail."""
    launches: int = 0
    """Machines asked for so far; part of the launch token, so that one try gives one machine and the next another."""
    failures: int = 0
    """Failures in a row; ends when it is Ready."""
    retry_at: Instant | None = None
    """Not to be powered on before, after it has failed."""
    lost_at: Instant | None = None
    """When a failed machine was confirmed to run nothing any more."""


_BOOTING = frozenset({WorkerPhase.PROVISIONING, WorkerPhase.STARTING, WorkerPhase.LICENSING})
_LIVE = frozenset(
    {
        WorkerPhase.PROVISIONING,
        WorkerPhase.STARTING,
        WorkerPhase.LICENSING,
        WorkerPhase.READY,
        WorkerPhase.DRAINING,
        WorkerPhase.STOPPING,
    }
)


class Worker(Resource[WorkerSpec, WorkerStatus]):
    """`Ready` means: the host is up, the runtime answers and its licence is in compliance."""

    machine = table(
        "Worker",
        WorkerPhase.OFFLINE,
        {
            WorkerPhase.OFFLINE: {WorkerPhase.PROVISIONING, WorkerPhase.FAILED},
            WorkerPhase.PROVISIONING: {WorkerPhase.STARTING, WorkerPhase.DRAINING, WorkerPhase.FAILED},
            WorkerPhase.STARTING: {WorkerPhase.LICENSING, WorkerPhase.DRAINING, WorkerPhase.FAILED},
            WorkerPhase.LICENSING: {WorkerPhase.READY, WorkerPhase.DRAINING, WorkerPhase.FAILED},
            WorkerPhase.READY: {WorkerPhase.DRAINING, WorkerPhase.FAILED},
            WorkerPhase.DRAINING: {WorkerPhase.READY, WorkerPhase.STOPPING, WorkerPhase.FAILED},
            WorkerPhase.STOPPING: {WorkerPhase.OFFLINE, WorkerPhase.FAILED},
            WorkerPhase.FAILED: {WorkerPhase.TERMINATING},
            WorkerPhase.TERMINATING: {WorkerPhase.OFFLINE, WorkerPhase.FAILED},
        },
    )
    kind: Literal["Worker"] = "Worker"

    def public(self) -> Self:
        """Without its login, although that is encrypted."""
        if self.status.credentials is None:
            return self
        return self.model_copy(update={"status": self.status.model_copy(update={"credentials": None})})

    @property
    def nodes(self) -> int:
        """Nodes that may run on it at the same time: what its shape says, or less where its licence allows less: the one on
        its running machine, or what was known last."""
        known = self.status.license or self.status.last_license
        quota = known.node_quota if known is not None else None
        return min(self.spec.max_nodes, quota) if quota else self.spec.max_nodes

    @property
    def is_on(self) -> bool:
        """A machine of it is (or may be) running."""
        return self.status.phase in _LIVE

    @property
    def is_booting(self) -> bool:
        """It has been powered on and is not Ready yet."""
        return self.status.phase in _BOOTING

    @property
    def boot_due(self) -> datetime | None:
        """When its boot will have taken as long as its template says; None: it is not booting, or needs no time to."""
        if not self.is_booting or not self.spec.boot_minutes:
            return None
        began = next((move.at for move in reversed(self.status.history) if move.to == WorkerPhase.PROVISIONING), None)
        return None if began is None else began + timedelta(minutes=self.spec.boot_minutes)

    def boot_overdue(self, now: datetime) -> bool:
        """It boots, and should be ready by now."""
        return self.boot_due is not None and now >= self.boot_due
