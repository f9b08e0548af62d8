"""Around every request: a request id, security headers, the duration metric, proof of who asks, a limit to what is sent.

Plain ASGI, so that event streams pass through unbuffered. Proof comes before anything of the body is read: whoever
cannot show a token learns nothing about what would have been wrong with their request.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from functools import partial
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lablet_common.resources.kinds import Service
from lablet_common.store import StoreError
from lablet_common.telemetry.metrics import API_REQUEST
from lablet_common.telemetry.spans import noted
from lablet_gateway import faults, problems
from lablet_gateway.faults import problem_response, tellable
from lablet_gateway.gathering import Overloaded
from lablet_gateway.identity import NoRole, Principal, ProviderUnavailable, TokenRefused, TokenVerifier
from lablet_gateway.rights import PREFIX, SCHEMAS, SIGN_IN

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_BODY_SECONDS = 30.0
"""Real seconds that a body may take, and as many more as what has come of it takes at the slowest rate."""
_SLOWEST = 4 * 1024
"""Bytes a second: a class that shares a slow line, or a phone's, sends its lab files too."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER, _UNMATCHED = "other", "unmatched"
_REQUEST, _POLICY, _CACHING = b"x-request-id", b"content-security-policy", b"cache-control"
_OURS = frozenset({_REQUEST, *(name for name, _ in _SECURITY)})
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_DOCS = "/api/docs"
_DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src https://cdn.jsdelivr.net; "
    "img-src data: https://fastapi.tiangolo.com; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The page that draws the API's description loads its program from where FastAPI says, and nothing else."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lablet"'}
_INVALID = {"WWW-Authenticate": 'Bearer realm="lablet", error="invalid_token"'}


def header(scope: Scope, name: bytes) -> str:
    """The first header of that name (in lower case); empty where there is none."""
    for known, value in scope["headers"]:
        if known == name:
            return bytes(value).decode("latin-1")
    return ""


def _annotated(headers: Iterable[tuple[bytes, bytes]], request_id: str, policy: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that every answer has; a policy and what caches may do are the route's to say."""
    kept = [(name, value) for name, value in headers if name not in _OURS]
    names = {name for name, _ in kept}
    if _POLICY not in names:
        kept.append((_POLICY, policy.encode()))
    if _CACHING not in names:
        kept.append((_CACHING, b"no-store"))
    return [*kept, (_REQUEST, request_id.encode()), *_SECURITY]


class RequestContext:
    """Request id (taken over when the caller sends a sound one), headers and metric. A call that the server cancels, as it
    stops and will wait no longer, is answered 503: whoever asks again, with the same idempotency key, reaches another. What
    nobody further inside answers (a defect, a dependency that is away while the caller is proven) is answered here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = header(scope, b"x-request-id")
        request_id = wanted if _REQUEST_ID.fullmatch(wanted) else uuid4().hex
        scope["lablet.request_id"] = request_id
        if (path := tellable(scope["path"])) != scope["path"]:
            noted({"url.path": path})
        began = time.perf_counter()
        status, answered = 500, False

        async def annotate(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                policy = _DOCS_POLICY if scope["path"] == _DOCS else _API_POLICY
                message["headers"] = _annotated(message["headers"], request_id, policy)
            await send(message)

        try:
            await self._app(scope, receive, annotate)
        except asyncio.CancelledError:
            if answered:
                raise
            refused = problems.unavailable(Service.GATEWAY, "this replica of the gateway stops: ask again")
            await problem_response(refused.problem, Request(scope), refused.headers)(scope, receive, annotate)
        except Exception as error:
            if answered:
                raise
            response = await faults.answer(Request(scope), error)
            await response(scope, receive, annotate)
        finally:
            API_REQUEST.labels(*_series(scope, status)).observe(time.perf_counter() - began)


def _series(scope: Scope, status: int) -> tuple[str, str, str]:
    """Method, route and status as the metric names them: whatever strangers send, there are only so many. A method that the
    address does not take, or that HTTP hardly knows, is `other`."""
    method = scope["method"] if scope["method"] in _METHODS and status != 405 else _OTHER
    return method, getattr(scope.get("route"), "path", _UNMATCHED), str(status)


class Authentication:
    """Everything below the API's prefix needs a bearer token that proves somebody."""

    def __init__(self, app: ASGIApp, verifier: TokenVerifier) -> None:
        self._app = app
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(f"{PREFIX}/") or path == SIGN_IN or path.startswith(SCHEMAS):
            await self._app(scope, receive, send)
            return
        try:
            token = _token_in(header(scope, b"authorization"))
            principal = await self._prove(token)
        except problems.Refused as refused:
            await problem_response(refused.problem, Request(scope), refused.headers)(scope, receive, send)
            return
        scope["lablet.principal"] = principal
        scope["lablet.stands"] = partial(self._stands, token, principal)
        await self._app(scope, receive, send)

    async def _stands(self, token: str, principal: Principal) -> bool:
        """Whether the token still proves the same; also where nobody can say that just now."""
        try:
            return await self._verifier.verify(token) == principal
        except TokenRefused as error:
            _log.info("a token has ended while it was in use", extra={"principal": principal.name, "cause": str(error)})
            return False
        except (ProviderUnavailable, StoreError, Overloaded) as error:
            _log.info("a token cannot be looked at just now", extra={"principal": principal.name, "cause": str(error)})
            return True

    async def _prove(self, token: str) -> Principal:
        """Raises 401, 403 for somebody without a role, and 503 when whoever knows them is away."""
        try:
            principal = await self._verifier.verify(token)
        except NoRole as error:
            raise problems.FORBIDDEN(str(error)) from error
        except TokenRefused as error:
            raise problems.UNAUTHENTICATED(str(error), headers=_INVALID) from error
        except ProviderUnavailable as error:
            raise problems.unavailable("oidc", str(error)) from error
        if principal is None:
            raise problems.UNAUTHENTICATED("the token is unknown or has expired", headers=_INVALID)
        return principal


def _token_in(authorization: str) -> str:
    """Raises 401 where there is none."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise problems.UNAUTHENTICATED("send a token: Authorization: Bearer …", headers=_CHALLENGE)
    return token


class BodyLimit:
    """Refuses bodies that are larger than their address takes: by the announced length, else when too much has come. And
    those that do not come: half a minute is given, and more only for what has come, or a few slow connections would hold all
    the places of calls that are under way."""

    def __init__(self, app: ASGIApp, limit: int, larger: Mapping[tuple[str, str], int]) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get((scope["method"], scope["path"]), self._limit)
        announced = header(scope, b"content-length")
        if announced.isdecimal() and int(announced) > limit:
            refused = problems.TOO_LARGE(f"the body has {announced} bytes; the most is {limit}")
            await problem_response(refused.problem, Request(scope))(scope, receive, send)
            return
        taken, whole, began = 0, scope["method"] == "GET", time.monotonic()

        async def counted() -> Message:
            nonlocal taken, whole
            if whole:  # what comes now is that the caller goes away
                return await receive()
            ends = began + _BODY_SECONDS + taken / _SLOWEST
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408) from None
            whole = not message.get("more_body", False)
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > limit:
                    raise HTTPException(413)  # the one exception that FastAPI lets through while it reads a body
            return message

        await self._app(scope, counted, send)
