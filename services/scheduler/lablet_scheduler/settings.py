"""The scheduler's settings."""

from pydantic import AliasChoices, Field

from lablet_common.settings import CommonSettings


class SchedulerSettings(CommonSettings):
    scheduler_enabled: bool = True
    """False: the process runs but owns no pool (for maintenance)."""
    resync_seconds: float = Field(
        default=30.0, gt=0, validation_alias=AliasChoices("SCHEDULER_RECONCILE_INTERVAL_SECONDS", "resync_seconds")
    )
    """Real seconds between looks at everything, whatever was or was not heard."""
    ownership_lease_ttl_seconds: float = Field(
        default=15.0,
        ge=2.0,
        validation_alias=AliasChoices("SCHEDULER_LEADER_LEASE_TTL_SECONDS", "ownership_lease_ttl_seconds"),
    )
    """Real seconds after which a silent owner loses its pools."""
    scheduler_batch_size: int = Field(default=128, ge=1, le=1000)
    """Requests decided in one pass."""
    scheduler_notice_minutes: float = Field(default=10.0, ge=0)
    """Lab minutes before start and end at which `starting-soon` and `ending-soon` are said."""
    scheduler_suggestion_days: int = Field(default=14, ge=1, le=371)
    """How far ahead the earliest feasible slot is looked for."""
