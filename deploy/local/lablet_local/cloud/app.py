"""The cloud's HTTP API. Errors are `{"code", "message"}`; codes: NotFound 404, Unauthorized 401, InvalidRequest 400,
IdempotencyMismatch 409, NotReady 409 (not in this state), Throttled 429, InsufficientCapacity 503.

`POST /machines {clientToken, name, tags, instanceType, image, userData}` → 201 (200 when the token was used before) ·
`GET /machines[?tag=key=value…][&terminated=true]` → `{items}` · `GET /machines/{id or name}` ·
`POST /machines/{id}/start|stop` → 202 · `DELETE /machines/{id}` → 202 · `POST /machines/{id}/kill[?signal=9]` (a test's
axe) · `PUT /scenario` · `GET /witness` → `{machines: [{…machine, facts: […]}]}` · `GET /healthz` (no token).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lablet_local.cloud.records import Machine, State
from lablet_local.cloud.region import LaunchOrder, Refused, Region
from lablet_local.cloud.scenario import ScenarioError, parse_scenario

Json = dict[str, Any]
_ORDER_FIELDS = frozenset({"clientToken", "name", "tags", "instanceType", "image", "userData"})


def build_app(region: Region, token: str, front: int | None = None) -> Starlette:
    """The API over one region; every call but `/healthz` needs the bearer token. `front`: see `Machine.public`."""
    calls = _Calls(region, front)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await region.open()
        try:
            yield
        finally:
            await region.close()

    def guarded(call: Callable[[Request], Awaitable[Response]], *, may_throttle: bool = True) -> Any:
        async def handler(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return _error(401, "Unauthorized", "send the cloud's token as `Authorization: Bearer …`")
            if may_throttle and region.scenario.throttled():
                return _error(429, "Throttled", "too many calls; try again later", {"Retry-After": "1"})
            try:
                return await call(request)
            except Refused as refusal:
                return _error(refusal.status, refusal.code, str(refusal))
            except ScenarioError as error:
                return _error(400, "InvalidRequest", str(error))

        return handler

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok", "machines": len(region.machines)})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/machines", guarded(calls.launch), methods=["POST"]),
            Route("/machines", guarded(calls.list), methods=["GET"]),
            Route("/machines/{id}", guarded(calls.get), methods=["GET"]),
            Route("/machines/{id}", guarded(calls.terminate), methods=["DELETE"]),
            Route("/machines/{id}/start", guarded(calls.start), methods=["POST"]),
            Route("/machines/{id}/stop", guarded(calls.stop), methods=["POST"]),
            Route("/machines/{id}/kill", guarded(calls.kill, may_throttle=False), methods=["POST"]),
            Route("/scenario", guarded(calls.scenario, may_throttle=False), methods=["PUT"]),
            Route("/witness", guarded(calls.witness, may_throttle=False), methods=["GET"]),
        ],
        lifespan=lifespan,
    )


class _Calls:
    def __init__(self, region: Region, front: int | None) -> None:
        self._region = region
        self._front = front

    def _told(self, machine: Machine) -> Json:
        return machine.public(self._front)

    async def launch(self, request: Request) -> Response:
        machine, created = self._region.launch(_order(await _body(request)))
        return JSONResponse(self._told(machine), status_code=201 if created else 200)

    async def list(self, request: Request) -> Response:
        wanted = request.query_params.getlist("tag")
        terminated = request.query_params.get("terminated") == "true"
        machines = [m for m in self._region.machines if terminated or m.state is not State.TERMINATED]
        return JSONResponse({"items": [self._told(m) for m in machines if all(_tagged(m, tag) for tag in wanted)]})

    async def get(self, request: Request) -> Response:
        return JSONResponse(self._told(self._region.require(request.path_params["id"])))

    async def start(self, request: Request) -> Response:
        return JSONResponse(self._told(self._region.start(request.path_params["id"])), status_code=202)

    async def stop(self, request: Request) -> Response:
        return JSONResponse(self._told(self._region.stop(request.path_params["id"])), status_code=202)

    async def terminate(self, request: Request) -> Response:
        return JSONResponse(self._told(self._region.terminate(request.path_params["id"])), status_code=202)

    async def kill(self, request: Request) -> Response:
        text = request.query_params.get("signal", "9")
        if not text.isdigit():
            raise Refused(400, "InvalidRequest", f"signal must be a number, not {text!r}")
        return JSONResponse(self._told(self._region.signal(request.path_params["id"], int(text))), status_code=202)

    async def scenario(self, request: Request) -> Response:
        self._region.scenario = parse_scenario(await _body(request))
        return Response(status_code=204)

    async def witness(self, _: Request) -> Response:
        machines = self._region.machines
        facts = await asyncio.to_thread(lambda: [_facts(self._region, machine) for machine in machines])
        told = [{**self._told(machine), "facts": known} for machine, known in zip(machines, facts, strict=True)]
        return JSONResponse({"machines": told})


def _facts(region: Region, machine: Machine) -> list[Json]:
    path = region.witness_path(machine)
    if not path.exists():
        return []
    facts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            facts.append(json.loads(line))
        except ValueError:  # the line that a SIGKILL cut short
            continue
    return facts


def _tagged(machine: Machine, wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in machine.tags and (not separator or machine.tags[key] == value)


async def _body(request: Request) -> Json:
    try:
        body = await request.json()
    except ValueError as error:
        raise Refused(400, "InvalidRequest", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "InvalidRequest", "the body must be a JSON object")
    return body


def _order(body: Json) -> LaunchOrder:
    unknown = sorted(set(body) - _ORDER_FIELDS)
    if unknown:
        raise Refused(400, "InvalidRequest", f"unknown field {unknown[0]!r}")
    for name in ("clientToken", "name", "instanceType"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refused(400, "InvalidRequest", f"{name} is needed, as text")
    tags = body.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise Refused(400, "InvalidRequest", "tags must be an object of texts")
    return LaunchOrder(
        client_token=body["clientToken"],
        name=body["name"],
        instance_type=body["instanceType"],
        image=str(body.get("image") or ""),
        user_data=str(body.get("userData") or ""),
        tags=tags,
    )


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status, headers=headers)
