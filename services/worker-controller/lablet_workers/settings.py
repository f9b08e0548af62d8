"""The worker-controller's settings. Minutes are lab time, seconds are real time."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr

from lablet_common.settings import CommonSettings, Settings


class CmlSettings(Settings):
    """Login of a fresh image and what licenses it."""

    model_config = Settings.model_config | {"env_prefix": "CML_"}

    username: str = "admin"
    password: SecretStr | None = None
    """The image's default password; it is changed at the first start."""
    ca_cert: Path | None = None
    license_token: SecretStr | None = None


class CloudSettings(Settings):
    """The simulated cloud."""

    model_config = Settings.model_config | {"env_prefix": "CLOUD_"}

    url: str = "http://localhost:9100"
    token: SecretStr | None = None


class WorkerControllerSettings(CommonSettings):
    controller_enabled: bool = True
    resync_seconds: float = Field(
        default=30.0, gt=0, validation_alias=AliasChoices("CONTROLLER_RECONCILE_INTERVAL_SECONDS", "resync_seconds")
    )
    """Between looks at everything, whatever was or was not heard."""
    controller_scale_down_grace_period_minutes: int | None = Field(default=None, ge=0)
    """Wins over the pools' own grace where it is set."""
    controller_probe_seconds: float = Field(default=2.0, gt=0)
    """Between looks at a worker that is up."""
    controller_poll_minutes: float = Field(default=0.5, gt=0)
    """Between looks at something under way; never below 0.1 s nor above 2 s of real time."""
    controller_unknown_minutes: float = Field(default=15.0, gt=0)
    """After which a worker whose runtime does not answer has failed."""
    controller_instantiation_minutes: float = Field(default=60.0, gt=0)
    """From the worker being ready to every port answering."""
    controller_collect_minutes: float = Field(default=30.0, gt=0)
    controller_grade_minutes: float = Field(default=60.0, gt=0)
    controller_stop_minutes: float = Field(default=30.0, gt=0)
    controller_tries: int = Field(default=3, ge=1)
    """Failed tries of a lab's start on one worker before its instance has failed."""
    controller_port_seconds: float = Field(default=2.0, gt=0)
    """How long a port may take to accept a connection."""
    worker_templates_config_path: Path = Path("config/worker-templates.yaml")
    secrets_key_file: Path | None = None

    cml: CmlSettings = Field(default_factory=CmlSettings)
    cloud: CloudSettings = Field(default_factory=CloudSettings)
