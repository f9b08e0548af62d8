"""The simulated cloud of the local mesh, by its HTTP API."""

from collections.abc import Mapping
from typing import Any

import httpx

from lablet_common.telemetry.spans import calling
from lablet_workers.calls import called
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    NotReady,
    ProviderError,
    ProviderUnavailable,
    Throttled,
    Unauthorized,
)

_ERRORS: Mapping[str, type[ProviderError]] = {
    "NotFound": NotFound,
    "Unauthorized": Unauthorized,
    "Throttled": Throttled,
    "NotReady": NotReady,
    "InsufficientCapacity": InsufficientCapacity,
}
_STATES = {"shutting-down": MachineState.TERMINATING}


class SimulatedProvider:
    """A `Provider` on `url`, with the cloud's bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
            trust_env=False,
        )

    permanent = False

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        body = {
            "clientToken": order.client_token,
            "name": order.name,
            "instanceType": order.instance_type,
            "image": order.image,
            "userData": order.user_data,
            "tags": dict(order.tags or {}),
        }
        return _machine(await self._call("POST", "/machines", json=body))

    async def describe(self, machine_id: str) -> MachineInfo:
        return _machine(await self._call("GET", f"/machines/{machine_id}"))

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:
        answer = await self._call("GET", "/machines", params={"tag": [f"{k}={v}" for k, v in tags.items()]})
        return [_machine(item) for item in answer["items"]]

    async def start(self, machine_id: str) -> MachineInfo:
        return _machine(await self._call("POST", f"/machines/{machine_id}/start"))

    async def stop(self, machine_id: str) -> MachineInfo:
        return _machine(await self._call("POST", f"/machines/{machine_id}/stop"))

    async def terminate(self, machine_id: str) -> None:
        try:
            await self._call("DELETE", f"/machines/{machine_id}")
        except NotFound:
            return

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        try:
            if method == "GET":
                response = await called(self._http, method, path, **more)
            else:
                with calling(f"{method} provider", {"http.request.method": method, "url.path": path}):
                    response = await called(self._http, method, path, **more)
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"the simulated cloud does not answer {method} {path}: {error!r}") from error
        if response.is_success:
            return response.json() if response.content else None
        try:
            problem = response.json()
            code, message = str(problem["code"]), str(problem["message"])
        except (ValueError, KeyError, TypeError):
            code, message = str(response.status_code), response.text[:200]
        kind = _ERRORS.get(code, ProviderUnavailable if response.status_code >= 500 else ProviderError)
        raise kind(f"{method} {path}: {message}")


def _machine(item: Mapping[str, Any]) -> MachineInfo:
    state = str(item["state"])
    return MachineInfo(
        id=item["id"],
        name=item["name"],
        state=_STATES.get(state) or MachineState(state),
        url=item.get("url"),
        host=item.get("host"),
        reason=item.get("reason", ""),
        tags=item.get("tags"),
    )
