"""A shorter way for what is asked most: one resource by its id.

FastAPI's routing and its resolving of dependencies are most of what the gateway does for such a read (the figures stand
in docs/performance.md). Here the same functions are called without them, behind the same proof, limits and rights.
Whatever is not quite plain (a query, a preference, an unusual id, another method) goes the long way; a test holds both
ways to the same answers.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lablet_gateway import faults
from lablet_gateway.api import instances, requests, reservations, workers
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


_ROUTES = {
    "reservations": _Route(f"{PREFIX}/reservations/{{reservation_id}}", reservations.get_reservation),
    "instances": _Route(f"{PREFIX}/instances/{{instance_id}}", instances.get_instance),
    "workers": _Route(f"{PREFIX}/workers/{{worker}}", workers.get_worker),
    "requests": _Route(f"{PREFIX}/requests/{{request_id}}", requests.get_request),
}


class Shortcut:
    """Stands between authentication and FastAPI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _plain(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        route, name = found
        scope["route"] = route
        request = Request(scope)
        try:
            caller = await authorise(request, None)
            response = await route.read(name, scope["app"].state.parts, caller)
        except Exception as error:  # noqa: BLE001 - the table of faults knows it, or logs it
            response = await faults.answer(request, error)
        await response(scope, receive, send)


def _plain(scope: Scope) -> tuple[_Route, str] | None:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
        return None
    found = _PLAIN.fullmatch(scope["path"])
    if found is None or any(name == _PREFER for name, _ in scope["headers"]):
        return None
    return _ROUTES[found[1]], found[2]
