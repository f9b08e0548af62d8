"""Bearer tokens of an OpenID Connect provider: JWTs whose signature, issuer, audience and times are checked, and whose
claims say the role and the tenant.

Only algorithms with a public key count, and only the one that the provider's key is for: `none` and the HMAC family are
refused whatever the token says. Roles and tenant are found in the claims that the settings name; a claim may lie deeper
(`realm_access.roles`). Of several roles the first of admin, operator, instructor, machine, learner counts. Who has none
is known, but may do nothing.

What has been proven is remembered until the token expires or the provider takes its key away, so that a signature is
checked once. A provider's session that ends earlier is not seen: keep the life of access tokens short.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from lablet_common.resources.model import NAME_PATTERN
from lablet_common.strangers import is_deep
from lablet_gateway.identity import INGRESS, NoRole, Principal, Role, TokenRefused
from lablet_gateway.identity.keys import OWNER_PREFIX
from lablet_gateway.identity.provider import ProviderKeys
from lablet_gateway.settings import OidcSettings

_REMEMBERED = 4096
_MAX_NAME = 128
_RANK = (Role.ADMIN, Role.OPERATOR, Role.INSTRUCTOR, Role.MACHINE, Role.LEARNER)
_TYPES: Mapping[str, str] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES: Mapping[str, tuple[str, ...]] = {
    "ES256": ("P-256",),
    "ES384": ("P-384",),
    "ES512": ("P-521",),
    "EdDSA": ("Ed25519", "Ed448"),
}
_REQUIRED = ["exp", "iss", "aud", "sub"]


@dataclass(frozen=True, slots=True)
class _Proven:
    principal: Principal
    key: Mapping[str, Any]
    key_id: str | None
    expires: float


class Oidc:
    """The verifier for one provider. Tokens that are no JWT are not known here."""

    def __init__(self, settings: OidcSettings, keys: ProviderKeys) -> None:
        self._settings = settings
        self._keys = keys
        self._proven: OrderedDict[bytes, _Proven] = OrderedDict()

    async def verify(self, token: str) -> Principal | None:
        digest = hashlib.sha256(token.encode()).digest()
        known = self._proven.get(digest)
        if known is not None:
            if time.time() < known.expires and await self._keys.find(known.key_id) == known.key:
                return known.principal
            self._proven.pop(digest, None)  # another call with the same token may have been quicker
        header, claims = peek(token)
        if header is None or claims is None:
            return None
        proven = await self._prove(token, header, claims)
        self._proven[digest] = proven
        if len(self._proven) > _REMEMBERED:
            self._proven.popitem(last=False)
        return proven.principal

    async def _prove(self, token: str, header: Mapping[str, Any], peeked: Mapping[str, Any]) -> _Proven:
        settings = self._settings
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in settings.allowed_algorithms:
            raise TokenRefused(f"the token is signed with {algorithm!r}; taken are {settings.algorithms}")
        if peeked.get("iss") != settings.issuer:  # before a stranger's key is looked for
            raise TokenRefused(f"the token comes from {_words(peeked.get('iss'))}; trusted is {settings.issuer}")
        key_id = header.get("kid")
        key = await self._keys.find(key_id if isinstance(key_id, str) else None)
        if key is None:
            raise TokenRefused("the token is signed with a key that the identity provider does not have (any more)")
        if not _fits(key, algorithm):
            raise TokenRefused(f"the token is signed with {algorithm}, which its key is not for")
        try:
            claims = jwt.decode(
                token,
                jwt.PyJWK.from_dict(dict(key), algorithm),
                algorithms=[algorithm],
                audience=settings.audiences,
                issuer=settings.issuer,
                leeway=settings.clock_skew_seconds,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("the token has expired: get a new one from the identity provider") from error
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError) as error:
            raise TokenRefused("the token is not valid yet: compare the clocks") from error
        except jwt.InvalidAudienceError as error:
            raise TokenRefused(
                f"the token is not meant for this system: its audience is not {settings.audience}"
            ) from error
        except jwt.MissingRequiredClaimError as error:
            raise TokenRefused(f"the token has no claim {error.claim}") from error
        except jwt.PyJWTError as error:
            raise TokenRefused(f"the token cannot be trusted: {type(error).__name__}") from error
        principal = principal_of(claims, settings)
        return _Proven(principal, key, key_id, float(claims["exp"]) + settings.clock_skew_seconds)


def principal_of(claims: Mapping[str, Any], settings: OidcSettings) -> Principal:
    """Whom proven claims speak of. Raises `NoRole`, saying which claim is missing or what it holds."""
    name = _claim(claims, settings.name_claim)
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
        raise NoRole(f"the token's claim {settings.name_claim} is no name of 1 to {_MAX_NAME} characters")
    if name.startswith(OWNER_PREFIX):
        raise NoRole(f"the token's claim {settings.name_claim} begins with {OWNER_PREFIX}, as only API keys' names do")
    if name == INGRESS:
        raise NoRole(f"the token's claim {settings.name_claim} is {INGRESS}, as only what comes over NATS is called")
    held = {settings.roles_by_name.get(word) for word in _listed(_claim(claims, settings.roles_claim))}
    role = next((role for role in _RANK if role in held), None)
    if role is None:
        known = ", ".join(sorted(settings.roles_by_name))
        raise NoRole(f"the token has no role here: its claim {settings.roles_claim} holds none of {known}")
    tenant: Any = "default"
    if settings.tenant_claim:
        tenant = _claim(claims, settings.tenant_claim)
        if isinstance(tenant, list) and len(tenant) == 1:
            tenant = tenant[0]
        if not isinstance(tenant, str) or not re.fullmatch(NAME_PATTERN, tenant):
            raise NoRole(f"the token's claim {settings.tenant_claim} names no tenant")
    return Principal(name, Role(role), tenant)


def peek(token: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Header and claims of a JWT, unproven; two None for what is no JWT."""
    if token.count(".") != 2:
        return None, None
    try:
        header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None, None
    return (None, None) if is_deep(header) or is_deep(claims) else (header, claims)


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether the key is meant for the algorithm: its type, its curve, and what it says itself."""
    if key.get("kty") != _TYPES.get(algorithm[:2]) or key.get("alg", algorithm) != algorithm:
        return False
    return algorithm not in _CURVES or key.get("crv") in _CURVES[algorithm]


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that very name, else what lies at the path with dots."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def _listed(value: Any) -> Sequence[str]:
    """A list of names, or names with spaces or commas between them."""
    if isinstance(value, str):
        return [word for word in re.split(r"[\s,]+", value) if word]
    if isinstance(value, list):
        return [word for word in value if isinstance(word, str)]
    return ()


def _words(value: Any) -> str:
    return repr(value)[:120] if value else "nobody"
