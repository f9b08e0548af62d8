"""One call to the gateway: token, idempotency key, retries, and answers turned into values or exceptions.

It knows HTTP and nothing of labs. It does not guarantee that a call whose answer never came had no effect; the key that
stays the same over all tries makes sure that it has at most one.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from lablet_client.connection import Connection
from lablet_client.errors import Unreachable, refusal
from lablet_client.retry import RETRIED_STATUS, Retry, retry_after
from lablet_common.version import __version__

API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a call that was not refused."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str = ""
    """Of the system that was asked."""

    def json(self) -> Any:
        """Raises `Unreachable` where something else than Lablet has answered."""
        try:
            return json.loads(self.content) if self.content else None
        except ValueError as error:
            raise Unreachable(self.url, "what answers there is not Lablet's API") from error

    @property
    def location(self) -> str | None:
        return self.headers.get("location")


class Transport:
    """Calls below `/api/v1`. `http` replaces the network, for tests; `sleep` and `clock` replace time."""

    def __init__(
        self,
        connection: Connection,
        *,
        retry: Retry | None = None,
        timeout: float = 30.0,
        http: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self._retry = retry or Retry()
        self._sleep = sleep
        self._clock = clock
        self._timeout = timeout
        headers = {"User-Agent": f"lablet/{__version__}", "Accept": "application/json"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        self._http = httpx.AsyncClient(
            base_url=connection.url, headers=headers, timeout=timeout, transport=http, trust_env=http is None
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content: bytes | None = None,
        media_type: str | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        wait: float | None = None,
    ) -> Answer:
        """Sends `body` (JSON), `content` as it is, or `files` as multipart (name → file name, bytes, media type).
        `key` is the idempotency key (one is made up for every change that has none), `wait` the seconds to wait for a
        decision. Raises `Refused` and its kinds, `Unreachable`."""
        send = dict(headers or {})
        if method != "GET":
            send["Idempotency-Key"] = key or str(uuid.uuid4())
        if wait is not None and wait > 0:
            send["Prefer"] = f"wait={wait:g}"
        if body is not None:
            content, media_type = json.dumps(body).encode(), media_type or "application/json"
        if media_type is not None:
            send["Content-Type"] = media_type
        query = {name: value for name, value in (params or {}).items() if value is not None}
        response = await self._tried(method, path, query, content, files, send, wait or 0.0)
        if response.is_error:
            raise refusal(response.status_code, problem_of(response.status_code, response.headers, response.content))
        self._no_other_place(response)
        return Answer(response.status_code, response.headers, response.content, self.connection.url)

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer that is read while it comes; one try. Raises as `call` does."""
        query = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(30.0, read=60.0)
        try:
            async with self._http.stream("GET", _url(path), params=query, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    content = await response.aread()
                    raise refusal(response.status_code, problem_of(response.status_code, response.headers, content))
                self._no_other_place(response)
                yield response
        except httpx.TransportError as error:
            raise Unreachable(self.connection.url, _reason(error)) from error

    def _no_other_place(self, response: httpx.Response) -> None:
        """Lablet sends nobody elsewhere; a proxy does: to TLS, or to where people sign in. Raises `Unreachable`."""
        if not response.is_success:
            place = response.headers.get("location", "another address")
            raise Unreachable(self.connection.url, f"whoever answers there sends callers to {place}")

    async def _tried(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        content: bytes | None,
        files: Mapping[str, tuple[str, bytes, str]] | None,
        headers: Mapping[str, str],
        wait: float,
    ) -> httpx.Response:
        began = self._clock()
        attempt = 0
        while True:
            attempt += 1
            response: httpx.Response | None = None
            failure: httpx.TransportError | None = None
            try:
                response = await self._http.request(
                    method,
                    _url(path),
                    params=query,
                    content=content,
                    files=files,
                    headers=headers,
                    timeout=self._timeout + wait,
                )
            except httpx.TransportError as error:
                failure = error
            if response is not None and response.status_code not in RETRIED_STATUS:
                return response
            asked = retry_after(response.headers.get("retry-after")) if response is not None else None
            pause = self._retry.pause(attempt, self._clock() - began, asked)
            if pause is None:
                if response is not None:
                    return response
                assert failure is not None
                raise Unreachable(self.connection.url, _reason(failure)) from failure
            await self._sleep(pause)


def problem_of(status: int, headers: Mapping[str, str], content: bytes) -> Mapping[str, Any]:
    """The problem details of an error answer; made up from the status where something else came (a proxy's page)."""
    if "json" in headers.get("content-type", ""):
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
    if "html" in headers.get("content-type", ""):
        text = f"HTTP {status} with a page: this is not Lablet's API, but another service or a proxy in front of it"
    else:
        text = content[:200].decode(errors="replace").strip()
    return {"type": "about:blank", "title": f"HTTP {status}", "status": status, "detail": text}


def _url(path: str) -> str:
    return path if path.startswith(API) else f"{API}{path}"


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
