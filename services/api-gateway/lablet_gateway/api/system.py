"""About the system itself: who am I, which version, what time is it, what was used; and whether this replica is well."""

from typing import Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from lablet_common.resources.model import Instant, Model
from lablet_common.version import __version__
from lablet_gateway import mesh
from lablet_gateway.answers import model_response, refusals
from lablet_gateway.caller import WithCaller
from lablet_gateway.identity import Role
from lablet_gateway.mesh import MeshState
from lablet_gateway.parts import WithParts
from lablet_gateway.rights import PREFIX

router = APIRouter(prefix=PREFIX, tags=["system"])
health = APIRouter(tags=["health"])


class Whoami(Model):
    name: str
    role: Role
    tenant: str


class SignInProvider(Model):
    """The identity provider that the console sends people to, as a public client."""

    issuer: str
    client_id: str
    scopes: str


class SignIn(Model):
    """The ways to sign in besides a token."""

    oidc: SignInProvider | None = None


class Version(Model):
    version: str
    api: str = "v1"


class ClockView(Model):
    """Lab time, which every slot is in; `speed` lab seconds pass in a real one."""

    now: Instant
    speed: float


class Live(Model):
    status: Literal["live"] = "live"


class Ready(Model):
    status: Literal["ready", "unready"]
    checks: dict[str, str]
    """Dependency → `ok`, `degraded: …` or `failed: …`."""


@router.get("/whoami", response_model=Whoami, responses=refusals())
async def whoami(caller: WithCaller) -> Response:
    """The principal that the token proves."""
    return model_response(Whoami(name=caller.name, role=caller.principal.role, tenant=caller.tenant))


@router.get("/sign-in", response_model=SignIn)
async def sign_in(parts: WithParts) -> Response:
    """How people may sign in; needs no token, and holds nothing secret."""
    oidc = parts.settings.oidc
    if not oidc.console_client_id:
        return model_response(SignIn())
    known = SignInProvider(issuer=oidc.issuer, client_id=oidc.console_client_id, scopes=oidc.console_scopes)
    return model_response(SignIn(oidc=known))


@router.get("/version", response_model=Version, responses=refusals())
async def version(_: WithCaller) -> Response:
    """Of the gateway."""
    return model_response(Version(version=__version__))


@router.get("/clock", response_model=ClockView, responses=refusals())
async def clock(parts: WithParts, _: WithCaller) -> Response:
    """The present lab time."""
    return model_response(ClockView(now=parts.clock.now(), speed=parts.clock.speed))


@router.get("/mesh", response_model=MeshState, responses=refusals())
async def get_mesh(parts: WithParts, _: WithCaller) -> Response:
    """Replicas alive, owners of shards, what waits in inboxes, how far the bridges are."""
    return model_response(await mesh.read(parts))


@health.get("/livez", response_model=Live)
async def livez() -> Response:
    """The process turns."""
    return model_response(Live())


@health.get("/readyz", response_model=Ready, responses={503: {"model": Ready, "description": "Not ready"}})
async def readyz(parts: WithParts) -> Response:
    """Every required dependency answers; one that work can go on without for a while is called degraded."""
    state = await parts.health.readiness()
    body = Ready(status="ready" if state.ready else "unready", checks=state.checks)
    return JSONResponse(body.to_dict(), 200 if state.ready else 503)
