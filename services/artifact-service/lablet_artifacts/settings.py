"""The artifact-service's settings."""

from pydantic import Field

from lablet_common.settings import CommonSettings


class ArtifactSettings(CommonSettings):
    artifact_render_concurrency: int = Field(default=4, ge=1)
    """Lab files rendered at the same time, each in a thread of its own."""
    artifact_topology_cache: int = Field(default=64, ge=1)
    """Lab files kept in memory."""
