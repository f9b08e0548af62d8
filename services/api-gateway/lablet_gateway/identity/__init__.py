"""Who is asking: principals, roles, and the port to whatever proves them.

The local mesh proves by a token file (`token_file`); an OIDC verifier is another implementation of the same port.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    INSTRUCTOR = "instructor"
    LEARNER = "learner"
    MACHINE = "machine"
    """A system beside Lablet (LMS, CI, grader): its tenant's bookings and labs, never the fleet."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven caller: who, in which role, of which tenant."""

    name: str
    role: Role
    tenant: str


class TokenVerifier(Protocol):
    """Turns a bearer token into the principal it belongs to."""

    async def verify(self, token: str) -> Principal | None:
        """None for a token that proves nothing (unknown, expired, revoked)."""
        ...
