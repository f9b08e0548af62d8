"""ApiKey: a machine's own way in, narrower than a person's, that ends by itself and can be taken away."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Name, Resource, Status


class KeySpec(Model):
    name: Name
    """What it is for; it acts as `key:<name>`."""
    role: Literal["admin", "operator", "instructor", "learner", "machine", "host"] = "machine"
    scopes: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """What it is narrowed to, such as `reservations:write`; empty: all that the role may."""
    expires_at: Instant
    """Real time."""
    sha256: str | None = None
    """Of the secret, hexadecimal; it never leaves the store."""


class KeyPhase(StrEnum):
    ACTIVE = "Active"
    REVOKED = "Revoked"


class KeyStatus(Status):
    phase: KeyPhase = KeyPhase.ACTIVE
    ended_at: Instant | None = None
    """When it was revoked, real time."""
    last_used_at: Instant | None = None
    """Real time, to the hour; filled in on read, never stored here."""


class ApiKey(Resource[KeySpec, KeyStatus]):
    machine = table("Key", KeyPhase.ACTIVE, {KeyPhase.ACTIVE: {KeyPhase.REVOKED}, KeyPhase.REVOKED: set()})
    kind: Literal["Key"] = "Key"

    def public(self) -> Self:
        return self.model_copy(update={"spec": self.spec.model_copy(update={"sha256": None})})
