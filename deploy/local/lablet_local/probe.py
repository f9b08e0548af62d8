"""Looks at a running server by HTTP: is it ready, and if not, what does it lack?"""

from collections.abc import Callable

import httpx

from lablet_local.supervisor import Look

_SECONDS = 3.0


def new_client() -> httpx.AsyncClient:
    """A client for looks; it knows no proxy."""
    return httpx.AsyncClient(timeout=_SECONDS, trust_env=False)


def http_look(client: httpx.AsyncClient, url: str, judge: Callable[[httpx.Response], str | None]) -> Look:
    """A look that asks `url` and lets `judge` say what is missing."""

    async def look() -> str | None:
        try:
            return judge(await client.get(url))
        except httpx.TransportError as error:
            return f"no answer at {url} ({type(error).__name__})"

    return look


def answers(_: httpx.Response) -> str | None:
    """Any answer will do (a server that asks for a login is up)."""
    return None


def is_ok(response: httpx.Response) -> str | None:
    return None if response.status_code == 200 else f"{response.url} answers {response.status_code}"


def etcd_healthy(response: httpx.Response) -> str | None:
    """etcd's `/health` says `true` once there is a leader."""
    if response.status_code == 200 and response.json().get("health") == "true":
        return None
    return f"not healthy: {response.text.strip()[:200]}"


def service_ready(response: httpx.Response) -> str | None:
    """A service's `/readyz`, with the checks that fail."""
    if response.status_code == 200:
        return None
    try:
        checks = response.json()["checks"]
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answers {response.status_code}"
    return ", ".join(f"{name} {state}" for name, state in checks.items() if state != "ok") or "unready"
