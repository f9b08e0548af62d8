"""Who is asking: principals, roles, and the port to whatever proves them.

The local mesh proves by a token file (`token_file`), an organisation by its identity provider (`oidc`), machines by API
keys (`keys`); `chain` asks one after the other.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

INGRESS = "ingress"
"""As whom a tenant's systems act that send events over NATS: owner of what they book. Nobody else is called so."""


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    INSTRUCTOR = "instructor"
    LEARNER = "learner"
    MACHINE = "machine"
    """A system beside Lablet (LMS, CI, grader): its tenant's bookings and labs, never the fleet."""
    HOST = "host"
    """An agent's host: registers as the worker of its own name, and nothing else."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven caller: who, in which role, of which tenant."""

    name: str
    role: Role
    tenant: str
    scopes: frozenset[str] | None = None
    """What an API key is narrowed to (`rights.key_scope`); None: all that the role may."""
    key: str | None = None
    """Id of the API key that proved it."""


class TokenRefused(Exception):
    """A token whose form was recognised and which proves nothing; the message says why, and never holds the token."""


class NoRole(TokenRefused):
    """Somebody was proven who has no place here: no role, or no tenant, in the claims."""


class ProviderUnavailable(Exception):
    """Whoever could say whether the token is good does not answer."""


class TokenVerifier(Protocol):
    """Turns a bearer token into the principal it belongs to."""

    async def verify(self, token: str) -> Principal | None:
        """None for a token that this verifier does not know. Raises `TokenRefused` for one that it knows to be bad, and
        `ProviderUnavailable`."""
        ...
