"""The gateway's settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from lablet_common.settings import CommonSettings, Settings
from lablet_gateway.identity import Role
from lablet_gateway.identity.provider import is_private_enough

SIGNATURES = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""What a token may be signed with: algorithms whose verifying key is public."""


class OidcSettings(Settings):
    """The identity provider. Without an issuer there is none."""

    model_config = SettingsConfigDict(env_prefix="OIDC_")

    issuer: str = ""
    """Exactly as the provider writes it in its tokens and in its discovery document."""
    audience: str = ""
    """What the token must be meant for; several, separated by commas: one of them. Needed with an issuer."""
    roles_claim: str = "roles"
    """Where the roles stand; dots lead deeper (`realm_access.roles`)."""
    roles: str = ""
    """Names that the provider uses for roles: `lab-admins=admin,teachers=instructor`. The roles' own names always count,
    unless some are given."""
    tenant_claim: str = ""
    """Where the tenant stands. Without it everybody belongs to the tenant `default`."""
    name_claim: str = "sub"
    """Who it is, as rosters and reservations name them. Take one that is never given to somebody else."""
    algorithms: str = "RS256,PS256,ES256,ES384,EdDSA"
    clock_skew_seconds: float = Field(default=60.0, ge=0, le=600)
    """Real seconds by which the provider's clock may differ."""
    keys_seconds: float = Field(default=600.0, ge=10)
    """Real seconds after which the provider's keys are fetched again."""
    ca_cert: Path | None = None
    """PEM file of the authority that signed the provider's certificate."""
    console_client_id: str = ""
    """The public client under which the provider knows the console (authorization code with PKCE, no secret). Without it
    people sign in there with a token."""
    console_scopes: str = "openid"
    """What the console asks the provider for; some give refresh tokens for `offline_access` only."""

    @property
    def audiences(self) -> list[str]:
        return _parts(self.audience)

    @property
    def allowed_algorithms(self) -> frozenset[str]:
        return frozenset(_parts(self.algorithms))

    @property
    def roles_by_name(self) -> Mapping[str, Role]:
        """The provider's word for each role."""
        if not self.roles:
            return {str(role): role for role in Role}
        pairs = (part.partition("=") for part in _parts(self.roles))
        return {name.strip(): Role(role.strip()) for name, _, role in pairs}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.issuer:
            if self.console_client_id:
                raise ValueError("OIDC_CONSOLE_CLIENT_ID is set, and OIDC_ISSUER is not: whose client is it?")
            return self
        if not is_private_enough(self.issuer):
            raise ValueError(f"OIDC_ISSUER is {self.issuer!r}: it has to be an https address")
        if not self.audiences:
            raise ValueError("OIDC_AUDIENCE is missing: without it any token of the provider would be taken")
        for algorithm in self.allowed_algorithms - SIGNATURES:
            raise ValueError(f"OIDC_ALGORITHMS has {algorithm!r}; possible are {', '.join(sorted(SIGNATURES))}")
        for part in _parts(self.roles):
            name, separator, role = part.partition("=")
            if not separator or not name.strip() or role.strip() not in set(Role):
                raise ValueError(f"OIDC_ROLES has {part!r}; write NAME=ROLE with one of {', '.join(Role)}")
        return self


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class GatewaySettings(CommonSettings):
    oidc: OidcSettings = Field(default_factory=OidcSettings)
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8000
    api_tokens_file: Path | None = None
    """JSON list of `{name, role, tenant, sha256}`; read again when it changes. Without it every token is refused."""
    gateway_max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Largest request body; uploads of lab files have a limit of their own."""
    gateway_max_upload_bytes: int = Field(default=11 * 1024 * 1024, ge=1024)
    """Largest body of POST /definitions: a lab file of 10 MiB, with what a form puts around it."""
    gateway_rate_limit: float = Field(default=300.0, ge=0)
    """Calls a second that one caller may make of one replica, in the long run; 0: as many as they like."""
    gateway_rate_burst: int = Field(default=600, ge=1)
    """Calls that a caller who has rested may make at once."""
    gateway_max_underway: int = Field(default=500, ge=2)
    """Calls under way at the same time on this replica, from the proof of who asks until the answer begins; more are
    answered 503 at once, and a caller who has half of them 429. Who waits for a decision or hears events is not counted."""
    gateway_max_waiting: int = Field(default=5000, ge=1)
    """Calls that wait for etcd at the same time; more are answered 503 at once, until it is quicker."""
    gateway_max_undecided: int = Field(default=2000, ge=1)
    """Requests that may wait in one inbox (a service's, for one pool) to be decided; beyond that new work is answered 503
    at once, and what takes back or manages (a cancel, a drain) beyond half as many again."""
    gateway_max_wait_seconds: float = Field(default=30.0, ge=0)
    """Longest `Prefer: wait` that is honoured (real seconds)."""
    gateway_drain_seconds: float = Field(default=0.0, ge=0, le=300)
    """Real seconds for which it goes on serving, not ready, once it was asked to stop: as long as the proxy in front of it
    needs to notice."""
    gateway_heartbeat_seconds: float = Field(default=15.0, gt=0)
    """Real seconds of silence after which an event stream gets a comment."""
    gateway_max_streams: int = Field(default=1000, ge=1)
    """Event streams open at the same time on this replica; more are answered 429."""
    gateway_stream_patience_seconds: float = Field(default=30.0, gt=0)
    """Real seconds after which an event stream whose client does not read is ended."""
    gateway_stream_buffer: int = Field(default=2_000, ge=10)
    """Latest events kept in memory for all streams; who falls further behind is served from JetStream."""
    gateway_request_retention_hours: float = Field(default=24.0, gt=0)
    """Real hours that a decided request is kept, and its idempotency key with it."""
    gateway_history_minutes: float = Field(default=15.0, gt=0)
    """Real minutes of etcd's history that are always kept for lists that are being paged."""
    trace_store_url: str | None = None
    """Where recent spans can be asked for (`GET /traces/<id>`); without it there is no trace to show."""
    events_accept_unknown: bool = False
    """Ignore unknown event types instead of refusing them."""
    secrets_key_file: Path | None = None
    """Key file for secrets stored in etcd (see .env.example). Without it no subscription can be made."""
    webhook_allow_private: bool = False
    """Sinks of subscriptions may have private and loopback addresses."""
    webhook_ca_cert: Path | None = None
    """PEM file of authorities that sinks' certificates may be signed by, beside those that the system trusts."""
    webhook_patience_hours: float = Field(default=24.0, gt=0, le=48)
    """Real hours, from the first try, after which an event that its sink does not take becomes a dead letter."""
    cloudevents_sink_url: str | None = None
    """Every event of every tenant is sent there: the preset subscription `cloudevents-sink`. None: there is none."""
    cloudevents_sink_secret: SecretStr | None = None
    """Signs what is sent there (`whsec_…`, Standard Webhooks); None: unsigned."""
