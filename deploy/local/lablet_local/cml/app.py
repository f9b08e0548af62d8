"""The HTTP border: bytes in, a `Call` to the right handler, bytes out; boot, faults, sessions and errors on the way.

One ASGI application on Starlette's request and response types. Every refusal is ``{"code", "description"}``. What a
handler does is done before its answer is sent; an error inside a handler is logged and answers 500 like a fault of the
real controller would.
"""

from __future__ import annotations

import json
import logging
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .api import catalogue, elements, labs, licensing, side, system, unsupported, users
from .api.call import Call, Entry, Reply, Table
from .api.routing import Routes
from .controller import Controller
from .errors import ApiError, denied

BASE = "/api/v0"
SIDE = "/sim"
LARGEST_BODY = 16 * 1024 * 1024
_NAMES = {404: "Not Found", 405: "Method Not Allowed"}
_log = logging.getLogger(__name__)


def _routes(*rooms: Any) -> Routes:
    table = Table()
    for room in rooms:
        room.register(table)
    return Routes(table.entries)


def api_entries() -> list[Entry]:
    """Every route below /api/v0 that is simulated."""
    table = Table()
    for room in (system, licensing, users, labs, elements, catalogue):
        room.register(table)
    return table.entries


class App:
    """The ASGI application of one controller."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._api = _routes(system, licensing, users, labs, elements, catalogue, unsupported)
        self._side = _routes(side)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith(f"{BASE}/"):
            verdict = self.controller.faults.verdict(path)
            if verdict == "reset" and _reset(send):
                return
            if verdict is not None:
                status = verdict if isinstance(verdict, int) else 500
                await _refusal(ApiError(status, "Injected fault."))(scope, receive, send)
                return
        response = await self._respond(Request(scope, receive), path)
        await response(scope, receive, send)

    async def _respond(self, request: Request, path: str) -> Response:
        try:
            raw = await _body(request)
            if path.startswith(f"{SIDE}/"):
                _require_neighbour(request)
                return self._handle(request, self._side, path.removeprefix(SIDE), raw, session=False)
            if not path.startswith(f"{BASE}/"):
                return _refusal(ApiError(404, _NAMES[404]))
            if self.controller.behind_proxy:
                return Response("<html><h1>502 Bad Gateway</h1></html>", 502, media_type="text/html")
            return self._handle(request, self._api, path.removeprefix(BASE), raw, session=True)
        except ApiError as error:
            return _refusal(error)
        except Exception:  # noqa: BLE001 - whatever goes wrong in a handler is this request's 500, and logged
            _log.exception("%s %s failed", request.method, path)
            return _refusal(ApiError(500, "Internal server error."))

    def _handle(self, request: Request, routes: Routes, path: str, raw: bytes, *, session: bool) -> Response:
        found = routes.find(request.method, path)
        controller = self.controller
        authorization = request.headers.get("authorization", "")
        account = None
        if isinstance(found, int):
            if session:
                controller.accounts.whose(authorization)
            raise ApiError(found, _NAMES[found])
        entry, parameters = found
        if session and not entry.open:
            account = controller.accounts.whose(authorization)
            if controller.maintenance and not account.admin:
                raise denied("The system is in maintenance mode.")
        query: QueryParams = request.query_params
        return _answer(entry.handler(Call(controller, parameters, query, raw, authorization, account)))


def _answer(value: Any) -> Response:
    reply = value if isinstance(value, Reply) else Reply(204 if value is None else 200, value)
    if reply.text is not None:
        return Response(reply.text, reply.status, media_type=reply.media)
    if reply.value is None and reply.status in (202, 204):
        return Response(status_code=reply.status)
    body = json.dumps(reply.value, separators=(",", ":"), ensure_ascii=False)
    return Response(body, reply.status, media_type="application/json")


def _refusal(error: ApiError) -> Response:
    body = json.dumps({"code": error.status, "description": error.description})
    return Response(body, error.status, media_type="application/json")


async def _body(request: Request) -> bytes:
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > LARGEST_BODY:
            raise ApiError(413, f"The body is larger than {LARGEST_BODY} bytes.")
    return bytes(parts)


def _require_neighbour(request: Request) -> None:
    """Only callers on this machine: a loopback address, or the address that the controller itself has."""
    caller = request.client.host if request.client else ""
    try:
        near = ip_address(caller).is_loopback
    except ValueError:
        near = False
    server = request.scope.get("server")
    if not near and not (server and server[0] == caller):
        raise denied("The simulation is steered from its own machine only.")


def _reset(send: Send) -> bool:
    """Cuts the connection without an answer. ASGI has no word for it; uvicorn's `send` belongs to the connection."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        return False
    transport.abort()
    return True
