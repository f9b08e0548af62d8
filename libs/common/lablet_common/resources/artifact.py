"""Artifact: a content-addressed object in the object store, and who refers to it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Resource, Status

ArtifactRole = Literal["topology", "rendered", "collected", "exported", "report"]


class ArtifactSpec(Model):
    digest: str
    """SHA-256, hexadecimal; also the last part of the object's key."""
    bytes: int
    media_type: str = "application/octet-stream"


class Reference(Model):
    """A resource that uses the object, under a name of its own."""

    subject: str
    """`instance/ins-…` or `definition/name@version`."""
    role: ArtifactRole
    name: str
    attempt: int = 0
    at: Instant | None = None
    """When it was made, from which its retention counts; none in artifacts of earlier releases. It is the same reference
    whenever it was made."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._what() == other._what()

    def __hash__(self) -> int:
        return hash(self._what())

    def _what(self) -> tuple[str, str, str, int]:
        return self.subject, self.role, self.name, self.attempt


class ArtifactPhase(StrEnum):
    STORED = "Stored"
    DELETING = "Deleting"


class ArtifactStatus(Status):
    phase: ArtifactPhase
    references: tuple[Reference, ...] = ()
    """Its latest uses, the newest last."""
    older_references: int = 0
    """How many uses there are beyond those: each stands under a key of its own (`lablet_common.references`)."""
    verified_at: Instant | None = None


class Artifact(Resource[ArtifactSpec, ArtifactStatus]):
    """`metadata.id` is the digest; unique within the tenant."""

    machine = table(
        "Artifact",
        ArtifactPhase.STORED,
        {ArtifactPhase.STORED: {ArtifactPhase.DELETING}, ArtifactPhase.DELETING: set()},
    )
    kind: Literal["Artifact"] = "Artifact"
    schema_version: Annotated[int, Field(ge=1, strict=True)] = 2
    """2: not all references need stand in the artifact. Who knows only 1 would delete content that is still referred to.
    What was written as 1 (an event, the answer of an older gateway) means here what it meant there."""

    @property
    def is_referred_to(self) -> bool:
        return bool(self.status.references or self.status.older_references)


def object_key(tenant: str, digest: str) -> str:
    """Where a stored object lies in the bucket."""
    return f"objects/{tenant}/{digest[:2]}/{digest}"


def manifest_key(tenant: str, instance: str, attempt: int, role: str) -> str:
    """Where the list of what an attempt has left in staging lies."""
    return staging_key(tenant, instance, str(attempt), role, "manifest.json")


STAGING = "staging"


def staging_key(*parts: str) -> str:
    """Where uploads and collected files wait to be verified."""
    return "/".join((STAGING, *parts))
