"""A real OpenID Connect provider on 127.0.0.1, and verifiers for it."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from lablet_common.testing.issuer import AUDIENCE, Provider, Server, serving
from lablet_gateway.identity.oidc import Oidc
from lablet_gateway.identity.provider import ProviderKeys
from lablet_gateway.settings import OidcSettings

_TRUST = ssl.create_default_context()
_RSA = rsa.generate_private_key(65537, 2048)  # slow to make: the second one is another kind


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def provider(_server: Server) -> Provider:
    _server.provider = Provider(f"http://127.0.0.1:{_server.server_port}")
    _server.provider.rotate("first", _RSA, "RS256")
    return _server.provider


@dataclass
class Wall:
    """The clock by which keys are kept; moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def oidc(provider: Provider, wall: Wall) -> AsyncIterator[Callable[..., Oidc]]:
    """`oidc(tenant_claim="org", …)`: the verifier for the provider, with further settings."""
    opened: list[ProviderKeys] = []

    def make(**settings: Any) -> Oidc:
        wanted = OidcSettings(**({"issuer": provider.issuer, "audience": AUDIENCE} | settings))
        keys = ProviderKeys(
            wanted.issuer, httpx.AsyncClient(verify=_TRUST), keep_seconds=wanted.keys_seconds, monotonic=wall
        )
        opened.append(keys)
        return Oidc(wanted, keys)

    yield make
    for keys in opened:
        await keys.close()


@pytest.fixture
def ed25519_key() -> Any:
    return ed25519.Ed25519PrivateKey.generate()
