"""Definition: an immutable, versioned lab topology and what it needs to run."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Name, Resource, Status


class LicenseKind(StrEnum):
    """Licence kinds a worker may hold. Membership is explicit: no kind stands in for another."""

    PERSONAL = "PERSONAL"
    ENTERPRISE = "ENTERPRISE"
    EVALUATION = "EVALUATION"


class Requirements(Model):
    """What one seat of the lab takes while it runs."""

    cpu_cores: Annotated[float, Field(ge=0, le=4096)]
    memory_gb: Annotated[float, Field(ge=0, le=65536)]
    storage_gb: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    node_count: Annotated[int, Field(ge=0, le=10_000)]
    """Nodes that count against the worker's licence."""


class NamedPort(Model):
    """A port that each seat gets on its worker, by name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9_.-]{0,63}$")]
    protocol: str = "tcp"


class TopologyRef(Model):
    """Where the lab file is: content-addressed in the object store."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the file, hexadecimal."""
    bytes: int
    format: Literal["cml", "process"] = "cml"
    """A CML topology, or the manifest of a process lab."""


class RuntimeNeeds(Model):
    """Which runtime may host the lab. Versions are compared as versions; both ends are inclusive."""

    name: str = "cml"
    min_version: str | None = None
    max_version: str | None = None
    node_definitions: tuple[str, ...] = ()


class CollectKind(StrEnum):
    CONFIGURATIONS = "configurations"
    CONSOLES = "consoles"
    """What the consoles have shown, where the runtime keeps that."""
    EXPORT = "export"


FROM_RUNNING = frozenset({CollectKind.CONFIGURATIONS, CollectKind.CONSOLES})
"""What only a running lab can give."""


class DefinitionSpec(Model):
    name: Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: str = ""
    description: str = ""
    topology: TopologyRef
    requirements: Requirements
    ports: tuple[NamedPort, ...] = ()
    licenses: tuple[LicenseKind, ...] = (LicenseKind.PERSONAL, LicenseKind.ENTERPRISE, LicenseKind.EVALUATION)
    runtime: RuntimeNeeds = RuntimeNeeds()
    max_duration_minutes: Annotated[int, Field(ge=1, le=527_040)] = 1440
    warm_depth: Annotated[int, Field(ge=0)] = 0
    collect: tuple[CollectKind, ...] = (CollectKind.CONFIGURATIONS, CollectKind.CONSOLES, CollectKind.EXPORT)
    until_completed: bool = False
    """A lab of it ends when its processes have ended, and brings their exit code. Said by its manifest."""
    grade: bool = False
    """Wait in Grading for an assessment system's event before the lab is stopped."""


class DefinitionPhase(StrEnum):
    PUBLISHED = "Published"
    DEPRECATED = "Deprecated"
    ARCHIVED = "Archived"


class Approval(Model):
    """An operator's word that agents may run it."""

    by: str
    at: Instant


class DefinitionStatus(Status):
    phase: DefinitionPhase
    approved: Approval | None = None
    """None: no agent runs it. CML labs need none: they run inside their worker's own machines."""


class Definition(Resource[DefinitionSpec, DefinitionStatus]):
    """`metadata.id` is `name@version`; unique within the tenant."""

    @property
    def may_run(self) -> bool:
        """Agents run processes on their host: only what an operator approved."""
        return self.spec.runtime.name != "process" or self.status.approved is not None

    machine = table(
        "Definition",
        DefinitionPhase.PUBLISHED,
        {
            DefinitionPhase.PUBLISHED: {DefinitionPhase.DEPRECATED, DefinitionPhase.ARCHIVED},
            DefinitionPhase.DEPRECATED: {DefinitionPhase.PUBLISHED, DefinitionPhase.ARCHIVED},
            DefinitionPhase.ARCHIVED: set(),
        },
    )
    kind: Literal["Definition"] = "Definition"
