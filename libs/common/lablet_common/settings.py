"""Settings: environment variables with the names of the contract, each documented in `.env.example`.

Every secret may also be given as a file, by the same name with `_FILE` behind it, so that it never has to stand in an
environment or on a command line. A bad value is a start-up error that names the variable; so is a file of certificates that
cannot be read or holds none.
"""

import os
import socket
import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `<VARIABLE>_FILE` for every secret field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if field.annotation not in (SecretStr, SecretStr | None):
            return None, field_name, False
        variable = f"{self.config.get('env_prefix', '')}{field_name}_FILE".upper()
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            raise ValueError(f"{variable} names {path}, which cannot be read: {error.strerror}") from error

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values


class Settings(BaseSettings):
    """A group of settings with one prefix. Values given in code win over the environment, that over files."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, env_file=None)

    @field_validator("ca_cert", "webhook_ca_cert", check_fields=False)
    @classmethod
    def _holds_authorities(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        variable = f"{cls.model_config.get('env_prefix', '')}{info.field_name}".upper()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise ValueError(f"{variable} names {path}, which holds no certificate in PEM form") from error
        except OSError as error:
            raise ValueError(f"{variable} names {path}, which cannot be read: {error.strerror}") from error
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings names them
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


class EtcdSettings(Settings):
    """How to reach etcd. `endpoints` (comma list of host:port) wins over host and port."""

    model_config = SettingsConfigDict(env_prefix="ETCD_")

    host: str = "localhost"
    port: int = 2379
    endpoints: str = ""
    prefix: str = "/lablet"
    timeout: float = Field(default=10.0, gt=0)
    """Seconds until a call gives up."""
    username: str | None = None
    password: SecretStr | None = None
    ca_cert: Path | None = None
    cert_cert: Path | None = None
    cert_key: Path | None = None
    commit_log: Path | None = None
    """For fault runs: a file that gets a line for each write that was confirmed, with its revision and the ownership it
    rested on."""

    @model_validator(mode="after")
    def _shows_a_certificate(self) -> Self:
        if self.cert_cert is None and self.cert_key is None:
            return self
        if self.cert_cert is None or self.cert_key is None:
            raise ValueError("a client's certificate takes both: ETCD_CERT_CERT and ETCD_CERT_KEY")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(self.cert_cert, self.cert_key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"ETCD_CERT_CERT and ETCD_CERT_KEY name {self.cert_cert} and {self.cert_key}, which are no certificate and "
                f"its key, in PEM form and without a password: {error.strerror or error}"
            ) from error
        return self

    @property
    def addresses(self) -> list[str]:
        """`host:port` of every endpoint."""
        listed = [part.strip() for part in self.endpoints.split(",") if part.strip()]
        return listed or [f"{self.host}:{self.port}"]


class NatsSettings(Settings):
    model_config = SettingsConfigDict(env_prefix="NATS_")

    url: str = "nats://localhost:4222"
    """One or more, comma-separated."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Servers that keep each message: 3 in a cluster of three, so that one may be lost."""
    user: str | None = None
    password: SecretStr | None = None
    creds: Path | None = None
    ca_cert: Path | None = None

    @property
    def shown(self) -> str:
        """The servers as logs, checks and answers may tell them: without the name and password that a URL can hold."""
        return ",".join(_without_login(part.strip()) for part in self.url.split(",") if part.strip())


def _without_login(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class StorageSettings(Settings):
    """The S3 object store."""

    model_config = SettingsConfigDict(env_prefix="ARTIFACT_STORAGE_")

    endpoint: str = "http://localhost:9000"
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    bucket: str = "lablet-artifacts"
    region: str = "us-east-1"
    use_ssl: bool = False
    """Only read where the endpoint is given without a scheme."""
    ca_cert: Path | None = None
    """PEM file of the authority that signed the object store's certificate; None: the authorities that botocore brings."""

    @property
    def url(self) -> str:
        if "://" in self.endpoint:
            return self.endpoint
        return f"{'https' if self.use_ssl else 'http'}://{self.endpoint}"


class TelemetrySettings(Settings):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] | None = None
    """None: console on a terminal, else json."""
    otel_exporter_otlp_endpoint: str | None = None
    """OTLP/HTTP; None: no spans are made."""
    otel_traces_sampler: Literal[
        "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"  # fmt: skip
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1)
    """Of the samplers with a ratio: the part of stories that is kept."""

    @property
    def sampled(self) -> float:
        """The part of stories that is kept; what belongs to one follows it, whichever sampler is named."""
        if self.otel_traces_sampler.endswith("always_off"):
            return 0.0
        return 1.0 if self.otel_traces_sampler.endswith("always_on") else self.otel_traces_sampler_arg


class CommonSettings(Settings):
    """What every service reads."""

    replica_id: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Stable name of this replica among its like."""
    health_host: str = "127.0.0.1"
    health_port: int = 0
    """Internal port for /livez, /readyz and /metrics; 0: none."""
    cloudevents_source: str = "/lablet"
    """Prefix of the `source` of every event."""
    ownership_lease_ttl_seconds: float = Field(default=15.0, ge=2.0)
    """Real seconds after which a silent owner loses its shards."""
    resync_seconds: float = Field(default=30.0, gt=0)
    """Real seconds between looks at everything, whatever was or was not heard."""
    scheduler_lead_time_minutes: float = Field(default=35.0, ge=0)
    """Lab minutes before the slot at which its instances are made."""

    etcd: EtcdSettings = Field(default_factory=EtcdSettings)
    nats: NatsSettings = Field(default_factory=NatsSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
