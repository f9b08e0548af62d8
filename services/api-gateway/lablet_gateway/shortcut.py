"""A shorter way for what is asked most: one resource by its id, a new reservation, events.

FastAPI's routing and its resolving of dependencies are most of what the gateway does for such a read, and much of what it
does for a POST (the figures stand in docs/performance.md). Here the same functions are called without them, behind the same
proof, limits and rights. Whatever is not quite plain (a query, a preference of a read, an unusual id, a body that does not
fit, another method) goes the long way, with its body as it came; a test holds both ways to the same answers.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lablet_common.intents import ReservationCreate
from lablet_common.telemetry.spans import named
from lablet_gateway import faults
from lablet_gateway.api import events, instances, requests, reservations, workers
from lablet_gateway.caller import Caller, authorise
from lablet_gateway.parts import Parts
from lablet_gateway.rights import PREFIX

_PLAIN = re.compile(rf"{PREFIX}/(reservations|instances|workers|requests)/([a-z0-9][a-z0-9-]{{0,127}})")
_PREFER = b"prefer"
Read = Callable[[str, Parts, Caller], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    """What rights and metrics know a route by."""

    path: str
    read: Read


@dataclass(frozen=True, slots=True)
class _Post:
    path: str


_ROUTES = {
    "reservations": _Route(f"{PREFIX}/reservations/{{reservation_id}}", reservations.get_reservation),
    "instances": _Route(f"{PREFIX}/instances/{{instance_id}}", instances.get_instance),
    "workers": _Route(f"{PREFIX}/workers/{{worker}}", workers.get_worker),
    "requests": _Route(f"{PREFIX}/requests/{{request_id}}", requests.get_request),
}


_RESERVE = _Post(f"{PREFIX}/reservations")
_PUBLISH = _Post(f"{PREFIX}/events")
_KEY, _KEY_LONGEST = b"idempotency-key", 255
_JSON = b"application/json"


class Shortcut:
    """Stands between authentication and FastAPI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["query_string"]:
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and (found := _plain(scope)) is not None:
            route, name = found
            await _answer(scope, receive, send, route, lambda caller: route.read(name, _parts(scope), caller))
        elif scope["method"] == "POST" and scope["path"] == _PUBLISH.path:
            request = Request(scope, receive)
            await _answer(
                scope, receive, send, _PUBLISH, lambda caller: events.publish_events(request, _parts(scope), caller)
            )
        elif scope["method"] == "POST" and scope["path"] == _RESERVE.path:
            await self._reserve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _reserve(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = _asked_plainly(scope)
        if named is None:
            await self._app(scope, receive, send)
            return
        try:
            raw = await Request(scope, receive).body()
        except ClientDisconnect:
            return  # nobody is there to be told
        except HTTPException as error:  # too large
            response = await faults.answer(Request(scope), error)
            await response(scope, receive, send)
            return
        try:
            body = ReservationCreate.model_validate(json.loads(raw))
        except (ValueError, RecursionError):  # the long way says what is wrong with it
            await self._app(scope, _again(raw, receive), send)
            return
        key, prefer = named
        await _answer(
            scope, receive, send, _RESERVE,
            lambda caller: reservations.reserve(body, _parts(scope), caller, key, prefer),
        )  # fmt: skip


async def _answer(
    scope: Scope, receive: Receive, send: Send, route: "_Route | _Post", ask: Callable[[Caller], Awaitable[Response]]
) -> None:
    """What the route's function says, or what is said about its error."""
    scope["route"] = route
    named(f"{scope['method']} {route.path}", {"http.route": route.path})
    request = Request(scope)
    try:
        response = await ask(await authorise(request, None))
    except Exception as error:  # noqa: BLE001 - the table of faults knows it, or logs it
        response = await faults.answer(request, error)
    await response(scope, receive, send)


def _parts(scope: Scope) -> Parts:
    parts: Parts = scope["app"].state.parts
    return parts


def _plain(scope: Scope) -> tuple[_Route, str] | None:
    found = _PLAIN.fullmatch(scope["path"])
    if found is None or any(name == _PREFER for name, _ in scope["headers"]):
        return None
    return _ROUTES[found[1]], found[2]


def _asked_plainly(scope: Scope) -> tuple[str | None, str | None] | None:
    """The idempotency key and the preference of a POST of JSON; None where the headers want a second look."""
    key = prefer = kind = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == _KEY:
            if key is not None or not 1 <= len(value) <= _KEY_LONGEST:
                return None
            key = value.decode("latin-1")
        elif name == _PREFER:
            if prefer is not None:
                return None
            prefer = value.decode("latin-1")
    return (key, prefer) if kind == _JSON else None


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, for whoever reads it next."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
