"""`/livez`, `/readyz` and `/metrics` on an internal port.

Live means: the event loop turns. Ready means: start-up is done and every required dependency answers; one that is not
required (work goes on without it, later) is named as degraded and does not make the service unready.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lablet_common.telemetry.metrics import REGISTRY

CHECK_SECONDS = 2.0
"""A check that takes longer has failed."""


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one dependency: raises what is wrong with it."""

    name: str
    look: Callable[[], Awaitable[None]]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    checks: dict[str, str]
    """Name → `ok`, `degraded: …` or `failed: …`."""


class Health:
    """The checks of one process."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self.started = False
        """Set once start-up is done; before that nothing is ready."""

    def add(self, name: str, look: Callable[[], Awaitable[None]], *, required: bool = True) -> None:
        self._checks.append(Check(name, look, required))

    async def readiness(self) -> Readiness:
        """All checks, side by side."""
        checks = tuple(self._checks)  # one may be added while we look
        failures = await asyncio.gather(*(_look(check) for check in checks))
        results = {}
        ready = self.started
        for check, failure in zip(checks, failures, strict=True):
            if failure is None:
                results[check.name] = "ok"
            else:
                results[check.name] = f"{'failed' if check.required else 'degraded'}: {failure}"
                ready = ready and not check.required
        if not self.started:
            results["start"] = "failed: still starting"
        return Readiness(ready, results)

    def app(self) -> Starlette:
        async def livez(_: Request) -> Response:
            return JSONResponse({"status": "live"})

        async def readyz(_: Request) -> Response:
            state = await self.readiness()
            body = {"status": "ready" if state.ready else "unready", "checks": state.checks}
            return JSONResponse(body, status_code=200 if state.ready else 503)

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

        return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


async def _look(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check.look()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a check raises is its finding, and is reported as such
        return f"{type(error).__name__}: {error}"
    return None


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server inside a process that handles signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def health_server(health: Health, host: str, port: int) -> EmbeddedServer:
    """The server of the internal port; run it with `await server.serve()`."""
    config = uvicorn.Config(health.app(), host=host, port=port, log_level="warning", access_log=False, lifespan="off")
    return EmbeddedServer(config)
