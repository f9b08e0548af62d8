"""The worker-controller's settings. Minutes are lab time, seconds are real time."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr

from lablet_common.settings import CommonSettings, Settings


class CmlSettings(Settings):
    """Login of a fresh image and what licenses it."""

    model_config = Settings.model_config | {"env_prefix": "CML_"}

    username: str = "admin"
    password: SecretStr | None = None
    """The image's default password; it is changed at the first start."""
    ca_cert: Path | None = None
    tls_name: str = ""
    """The name in the workers' certificates, where it is not the address that they are called by; without it the address."""
    license_token: SecretStr | None = None


class CloudSettings(Settings):
    """The simulated cloud."""

    model_config = Settings.model_config | {"env_prefix": "CLOUD_"}

    url: str = "http://localhost:9100"
    token: SecretStr | None = None


class Ec2Settings(Settings):
    """How machines are launched in EC2. Subnets and security groups belong to a region: a plain value counts in the
    default region (`AWS_REGION`), `eu-west-1=subnet-2` in the one that it names; several are separated by commas."""

    model_config = Settings.model_config | {"env_prefix": "EC2_", "populate_by_name": True}

    region: str = Field(default="", validation_alias=AliasChoices("AWS_REGION"))
    """Of pools that name none."""
    subnet_id: str = ""
    security_group_ids: str = ""
    key_name: str = ""
    instance_profile: str = ""
    """Name or ARN."""
    image_owners: str = "self"
    """Whose images may be chosen by name: account ids, `self`, `amazon`, `aws-marketplace`. Never anybody's."""
    user_data_file: Path | None = None
    """Handed to each new machine as it is, at most 16 KB; read at each launch."""
    address: Literal["private", "public"] = "private"
    """Which of a machine's addresses its runtime and its labs are reached at."""
    endpoint_url: str | None = None
    page_size: int = Field(default=200, ge=5, le=1000)

    @property
    def owners(self) -> list[str]:
        return _listed(self.image_owners) or ["self"]

    def subnets(self, region: str) -> list[str]:
        return self._in(region, self.subnet_id)

    def security_groups(self, region: str) -> list[str]:
        return self._in(region, self.security_group_ids)

    def _in(self, region: str, text: str) -> list[str]:
        pairs = [entry.rpartition("=")[::2] for entry in _listed(text)]
        return [value for named, value in pairs if named == region or (not named and region == self.region)]

    def user_data(self) -> str:
        """Raises `OSError`."""
        return self.user_data_file.read_text(encoding="utf-8") if self.user_data_file is not None else ""


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class WorkerControllerSettings(CommonSettings):
    controller_enabled: bool = True
    resync_seconds: float = Field(
        default=30.0, gt=0, validation_alias=AliasChoices("CONTROLLER_RECONCILE_INTERVAL_SECONDS", "resync_seconds")
    )
    """Between looks at everything, whatever was or was not heard."""
    controller_scale_down_grace_period_minutes: int | None = Field(default=None, ge=0)
    """Wins over the pools' own grace where it is set."""
    controller_sweep_minutes: float = Field(default=5.0, gt=0)
    """Between looks for machines and labs that nobody accounts for."""
    controller_orphan_minutes: float = Field(default=15.0, gt=0)
    """For how long one must have been seen as nobody's before it is ended."""
    controller_probe_seconds: float = Field(default=2.0, gt=0)
    """Between looks at a worker that is up."""
    controller_probe_lease_seconds: float = Field(default=15.0, ge=2)
    """Real seconds for which an answered probe keeps a worker's lease: a worker that does not answer is not called Unknown
    before nobody has had an answer of it for so long."""
    controller_load_seconds: float = Field(default=15.0, gt=0)
    """Real seconds between looks at what a worker's machine uses (processors, memory, disk, running nodes)."""
    controller_poll_minutes: float = Field(default=0.5, gt=0)
    """Between looks at something under way; never below 0.1 s nor above 2 s of real time."""
    controller_unknown_minutes: float = Field(default=15.0, gt=0)
    """After which a worker whose runtime does not answer has failed."""
    controller_instantiation_minutes: float = Field(default=60.0, gt=0)
    """From the worker being ready to every port answering."""
    controller_collect_minutes: float = Field(default=30.0, gt=0)
    controller_grade_minutes: float = Field(default=60.0, gt=0)
    controller_stop_minutes: float = Field(default=30.0, gt=0)
    controller_license_minutes: float = Field(default=5.0, gt=0)
    """Between looks at the licence of a worker that is up."""
    controller_restart_minutes: float = Field(default=15.0, ge=0)
    """For how long a lab that was stopped on request inside its slot is kept for a start."""
    controller_watch_seconds: float = Field(default=30.0, gt=0)
    """Between looks at a lab that runs."""
    controller_warm_seconds: float = Field(default=15.0, gt=0)
    """Real seconds between looks at the labs that wait on a pool's workers (`warmDepth` of their definitions)."""
    controller_tries: int = Field(default=3, ge=1)
    """Failed tries of a lab's start on one worker before its instance has failed."""
    controller_port_seconds: float = Field(default=2.0, gt=0)
    """How long a port may take to accept a connection."""
    agent_lease_seconds: float = Field(default=45.0, ge=4)
    """Real seconds for which a heartbeat lets an agent run labs. An agent that is cut off stops its labs within that time,
    and not before it they are run elsewhere; a mesh that is away for less is not noticed by them."""
    worker_templates_config_path: Path = Path("config/worker-templates.yaml")
    secrets_key_file: Path | None = None

    cml: CmlSettings = Field(default_factory=CmlSettings)
    cloud: CloudSettings = Field(default_factory=CloudSettings)
    ec2: Ec2Settings = Field(default_factory=Ec2Settings)
    static_hosts_file: Path | None = None
    """Hosts of pools whose template's provider is `static`; read again when it changes."""
