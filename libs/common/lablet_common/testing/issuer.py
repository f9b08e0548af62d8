"""A real OpenID Connect provider on 127.0.0.1: discovery and keys over HTTP, tokens signed with its own keys, and the
authorization code flow with PKCE for one public client, with a page on which people say who they are.

Codes and refresh tokens count once. A refresh token that comes a second time ends the session that it belongs to, as
providers do that rotate them. Not here: passwords, consent, dynamic registration.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

AUDIENCE = "lablet"
CLIENT = "lablet-console"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    media_type: str = "application/json"
    location: str = ""


@dataclass
class _Session:
    """Somebody who has signed in, until it is ended."""

    person: str
    nonce: str
    ended: bool = False


@dataclass
class _Code:
    session: _Session
    redirect: str
    challenge: str


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
    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Who can sign in, with the claims of their access tokens."""
    redirects: set[str] = field(default_factory=set)
    """Addresses of the client to which people may be sent back."""
    life_seconds: int = 300
    """Of an access token."""
    renewals: int = 0
    _codes: dict[str, _Code] = field(default_factory=dict)
    _refresh: dict[str, _Session] = field(default_factory=dict)
    _spent: dict[str, _Session] = field(default_factory=dict)

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

    def end_sessions(self) -> None:
        """Nobody gets fresh tokens any more without signing in."""
        for session in self._refresh.values():
            session.ended = True

    def jwks(self) -> dict[str, Any]:
        published = []
        for name, (secret, algorithm) in self.keys.items():
            public = jwt.get_algorithm_by_name(algorithm).to_jwk(secret.public_key())
            published.append(json.loads(public) | {"kid": name, "use": "sig", "alg": algorithm})
        return {"keys": published + self.extra}

    def answer(self, method: str, target: str, form: Mapping[str, str]) -> Answer:
        path, asked = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        self.fetched.append(path.rpartition("/")[2])
        if self.away:
            return _json(503, {})
        match method, path:
            case "GET", "/keys":
                return _json(200, self.jwks())
            case "GET", "/.well-known/openid-configuration":
                return _json(200, self._discovery())
            case "GET", "/authorize":
                return self._authorize(asked)
            case "POST", "/token":
                return self._token(form)
            case "POST", "/revoke":
                if (session := self._refresh.get(form.get("token", ""))) is not None:
                    session.ended = True
                return _json(200, {})
            case "GET", "/logout":
                back = asked.get("post_logout_redirect_uri", "")
                return Answer(302, location=back) if back in self.redirects else _json(400, {})
        return _json(404, {})

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.named or self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _authorize(self, asked: Mapping[str, str]) -> Answer:
        """The page on which somebody says who they are; then the way back. A stranger is told here, never sent on."""
        redirect = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT or redirect not in self.redirects:
            return _json(400, {"error": "invalid_client"})

        def back(**said: str) -> Answer:
            return Answer(302, location=f"{redirect}?{urlencode(said | {'state': asked['state'], 'iss': self.issuer})}")

        challenge = asked.get("code_challenge", "")
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256" or not challenge:
            return back(error="invalid_request", error_description="code and S256 are needed")
        person = asked.get("person")
        if person is None:
            return Answer(200, _page(asked, self.people), "text/html; charset=utf-8")
        if person not in self.people:
            return back(error="access_denied", error_description="nobody has signed in")
        code = secrets.token_urlsafe(24)
        self._codes[code] = _Code(_Session(person, asked.get("nonce", "")), redirect, challenge)
        return back(code=code)

    def _token(self, form: Mapping[str, str]) -> Answer:
        if form.get("client_id") != CLIENT:
            return _json(401, {"error": "invalid_client"})
        if form.get("grant_type") == "refresh_token":
            shown = form.get("refresh_token", "")
            session = self._refresh.pop(shown, None)
            if session is None and shown in self._spent:
                self._spent[shown].ended = True
            if session is None or session.ended:
                return _json(400, {"error": "invalid_grant", "error_description": "the session has ended"})
            self._spent[shown] = session
            self.renewals += 1
            return self._tokens(session)
        code = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            code is None
            or form.get("redirect_uri") != code.redirect
            or base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge
        ):
            return _json(400, {"error": "invalid_grant", "error_description": "the code is not yours"})
        return self._tokens(code.session)

    def _tokens(self, session: _Session) -> Answer:
        exp = int(time.time()) + self.life_seconds
        refresh = secrets.token_urlsafe(24)
        self._refresh[refresh] = session
        told = {
            "token_type": "Bearer",
            "access_token": self.token(
                sub=session.person, exp=exp, jti=secrets.token_hex(4), **self.people[session.person]
            ),
            "id_token": self.token(sub=session.person, aud=CLIENT, nonce=session.nonce, roles=None),
            "refresh_token": refresh,
            "expires_in": self.life_seconds,
        }
        return _json(200, told)


def _json(status: int, body: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(body).encode())


def _page(asked: Mapping[str, str], people: Mapping[str, Any]) -> bytes:
    kept = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items()
    )
    buttons = "".join(f'<button name="person" value="{escape(name)}">{escape(name)}</button>' for name in people)
    return (
        f'<!doctype html><title>Who are you?</title><h1>Who are you?</h1><form action="/authorize">{kept}{buttons}'
        '<button name="person" value="">Nobody</button></form>'
    ).encode()


class Server(ThreadingHTTPServer):
    """Answers for the provider that is set now."""

    provider: Provider
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer("GET", {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self._answer("POST", dict(parse_qsl(body)))

    def _answer(self, method: str, form: Mapping[str, str]) -> None:
        assert isinstance(self.server, Server)
        answer = self.server.provider.answer(method, self.path, form)
        self.send_response(answer.status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.body:
            self.send_header("Content-Type", answer.media_type)
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the tests' output."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server whose `provider` is one without people, with one key; whoever likes puts another in its place."""
    server = Server(("127.0.0.1", 0), _Handler)
    server.provider = Provider(f"http://127.0.0.1:{server.server_port}")
    server.provider.rotate("first")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
