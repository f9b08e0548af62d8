"""Templates and pools from a file, made where they do not exist yet: a seed never overwrites an edit.

The file has `templates:` in the documented format and, optionally, `pools:`. A field at fault is named with its place.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lablet_common.resources.definition import LicenseKind
from lablet_common.resources.model import Labels, Metadata, Name
from lablet_common.resources.worker import (
    Capacity,
    PoolSpec,
    PoolStatus,
    PortRange,
    SimpleStatus,
    TemplateSpec,
    WorkerPool,
    WorkerTemplate,
)


class SeedError(Exception):
    """The file cannot be used; the message names the place and the remedy."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Capacity(_Part):
    cpu_cores: float
    memory_gb: float
    storage_gb: float


class _Range(_Part):
    start: int = 2000
    end: int = 9999


class _Template(_Part):
    name: Name
    description: str = ""
    provider: str = "ec2"
    instance_type: str
    capacity: _Capacity
    license_type: LicenseKind
    max_nodes: int
    runtime_version: str = "2.9.0"
    ami_pattern: str = ""
    regions: tuple[str, ...] = ()
    port_range: _Range = _Range()
    drain_timeout_hours: float = 4
    startup_time_minutes: int = 20
    cost_per_hour_usd: float = 0
    tags: Labels = {}

    def spec(self) -> TemplateSpec:
        return TemplateSpec.model_validate(
            {
                "description": self.description,
                "provider": self.provider,
                "instance_type": self.instance_type,
                "capacity": Capacity(**self.capacity.model_dump()),
                "license": self.license_type,
                "max_nodes": self.max_nodes,
                "runtime_version": self.runtime_version,
                "image_pattern": self.ami_pattern,
                "regions": self.regions,
                "port_range": PortRange(**self.port_range.model_dump()),
                "drain_timeout_minutes": round(self.drain_timeout_hours * 60),
                "boot_minutes": self.startup_time_minutes,
                "cost_per_hour_usd": self.cost_per_hour_usd,
                "tags": self.tags,
            }
        )


class _Pool(_Part):
    name: Name
    template: Name
    min: int = 0
    max: int
    warm: int = 0
    scale_down_grace_minutes: int = 30
    cooldown_minutes: int = 0
    preparation_minutes: int = 5
    boot_reserve_minutes: int | None = None
    turnaround_minutes: int = 2
    allowed_licenses: int | None = None
    policy: str = "pack"
    recourse_moves: int = 2
    region: str = ""


class _File(_Part):
    templates: Annotated[tuple[_Template, ...], Field(default=())]
    pools: tuple[_Pool, ...] = ()


def read_seeds(path: Path, now: datetime) -> tuple[list[WorkerTemplate], list[WorkerPool]]:
    """The file's templates and pools as resources. Raises `SeedError`."""
    try:
        document: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SeedError(f"{path} (WORKER_TEMPLATES_CONFIG_PATH) cannot be read: {error.strerror}") from error
    except YAMLError as error:
        raise SeedError(f"{path} is not YAML: {error}") from error
    try:
        parsed = _File.model_validate(document or {})
        templates = [
            WorkerTemplate(metadata=_metadata(one.name, now), spec=one.spec(), status=SimpleStatus()).observed(
                "created"
            )
            for one in parsed.templates
        ]
        pools = [
            WorkerPool(
                metadata=_metadata(one.name, now),
                spec=PoolSpec.model_validate(one.model_dump(exclude={"name"})),
                status=PoolStatus(),
            ).observed("created")
            for one in parsed.pools
        ]
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SeedError(f"{path}: {places}") from error
    return templates, pools


def _metadata(name: str, now: datetime) -> Metadata:
    return Metadata(id=name, uid=str(uuid4()), created_at=now)
