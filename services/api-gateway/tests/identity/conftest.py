"""A real OpenID Connect provider on 127.0.0.1: discovery and keys over HTTP, tokens signed with its own keys."""

import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from lablet_gateway.identity.oidc import Oidc
from lablet_gateway.identity.provider import ProviderKeys
from lablet_gateway.settings import OidcSettings

AUDIENCE = "lablet"
_TRUST = ssl.create_default_context()
_RSA = rsa.generate_private_key(65537, 2048)  # slow to make: the second one is another kind


@dataclass
class Provider:
    """What it serves, and what was fetched from it."""

    issuer: str
    keys: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Name → private key and algorithm, as they are published now."""
    extra: list[dict[str, Any]] = field(default_factory=list)
    """Further entries of the key set."""
    named: str | None = None
    """Another issuer that the discovery document names."""
    away: bool = False
    fetched: list[str] = field(default_factory=list)

    def rotate(self, name: str, key: Any = None, algorithm: str = "ES256", *, keep: bool = False) -> None:
        """Publishes a new key, beside the present ones or in their place."""
        fresh = (key or ec.generate_private_key(ec.SECP256R1()), algorithm)
        self.keys = (self.keys if keep else {}) | {name: fresh}

    def token(self, key: str | None = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good, but for what is given; a claim that is None is left out."""
        name = key or next(iter(self.keys))
        secret, algorithm = self.keys[name]
        now = int(time.time())
        body = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "u-17", "iat": now, "exp": now + 300, "roles": ["learner"], **claims,
        }  # fmt: skip
        body = {claim: value for claim, value in body.items() if value is not None}
        return jwt.encode(body, secret, algorithm, headers={"kid": name} if headers is None else headers)

    def jwks(self) -> dict[str, Any]:
        published = []
        for name, (secret, algorithm) in self.keys.items():
            public = jwt.get_algorithm_by_name(algorithm).to_jwk(secret.public_key())
            published.append(json.loads(public) | {"kid": name, "use": "sig", "alg": algorithm})
        return {"keys": published + self.extra}

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        self.fetched.append(path.rpartition("/")[2])
        status = 503 if self.away else 200
        if path == "/keys":
            return status, self.jwks()
        if path == "/.well-known/openid-configuration":
            return status, {"issuer": self.named or self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        return 404, {}


class _Server(ThreadingHTTPServer):
    """Answers for whichever provider is the present test's."""

    provider: Provider
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        status, body = self.server.provider.answer(self.path)
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """Nothing on the tests' output."""


@pytest.fixture(scope="session")
def _server() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def provider(_server: _Server) -> Provider:
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
