"""The artifact-service's settings."""

from pathlib import Path

from pydantic import Field

from lablet_common.settings import CommonSettings


class ArtifactSettings(CommonSettings):
    artifact_render_concurrency: int = Field(default=4, ge=1)
    """Lab files rendered at the same time, each in a thread of its own."""
    artifact_node_types_path: Path | None = None
    """YAML table of what node definitions take on this installation's workers; wins over the shipped one."""
    artifact_topology_cache: int = Field(default=64, ge=1)
    """Lab files kept in memory, of which several together have at most 32 MiB."""
    archive_after_hours: float = Field(default=24.0, gt=0)
    """Lab hours between a reservation's or instance's last move and its leaving etcd for the archive."""
    archive_look_seconds: float = Field(default=300.0, gt=0)
    """Real seconds between looks for what is to be archived or swept."""
    artifact_retention_days: float = Field(default=90.0, gt=0)
    """Lab days that collected work, exports and reports are kept."""
    artifact_sweep_grace_minutes: float = Field(default=60.0, gt=0)
    """Real minutes that what nobody refers to is left alone."""
