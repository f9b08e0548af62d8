"""The gateway's settings."""

from pathlib import Path

from pydantic import Field

from lablet_common.settings import CommonSettings


class GatewaySettings(CommonSettings):
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8000
    api_tokens_file: Path | None = None
    """JSON list of `{name, role, tenant, sha256}`; read again when it changes. Without it every token is refused."""
    gateway_max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Largest request body; uploads of lab files have a limit of their own."""
    gateway_max_upload_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest body of POST /definitions."""
    gateway_max_wait_seconds: float = Field(default=30.0, ge=0)
    """Longest `Prefer: wait` that is honoured (real seconds)."""
    gateway_heartbeat_seconds: float = Field(default=15.0, gt=0)
    """Real seconds of silence after which an event stream gets a comment."""
    gateway_max_streams: int = Field(default=1000, ge=1)
    """Event streams open at the same time on this replica; more are answered 429."""
    gateway_stream_buffer: int = Field(default=5_000, ge=10)
    """Latest events kept in memory for all streams; who falls further behind is served from JetStream."""
    gateway_request_retention_hours: float = Field(default=24.0, gt=0)
    """Real hours that a decided request is kept, and its idempotency key with it."""
    gateway_history_minutes: float = Field(default=15.0, gt=0)
    """Real minutes of etcd's history that are always kept for lists that are being paged."""
    events_accept_unknown: bool = False
    """Ignore unknown event types instead of refusing them."""
