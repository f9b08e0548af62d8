"""Instances: the labs of single seats: look, act, reach their consoles, fetch what they left behind."""

from typing import Any

from lablet_client.collection import Collection
from lablet_client.requests import WAIT, settle
from lablet_common.resources.artifact import Artifact
from lablet_common.resources.instance import Instance
from lablet_common.resources.model import Model


class Endpoint(Model):
    """One port of a seat, as it can be reached."""

    name: str
    host: str | None = None
    port: int
    protocol: str = "tcp"
    url: str | None = None


class Instances(Collection[Instance]):
    """`/instances`."""

    path = "/instances"
    model = Instance

    async def start(self, instance_id: str, *, wait: float = WAIT) -> Instance:
        """Starts a stopped lab again, inside its slot."""
        return await self._act(instance_id, "start", wait)

    async def stop(self, instance_id: str, *, wait: float = WAIT) -> Instance:
        """Ends the lab before its slot ends; what it left is collected and exported."""
        return await self._act(instance_id, "stop", wait)

    async def collect(self, instance_id: str, *, wait: float = WAIT) -> Instance:
        """Collects the configurations now; the lab runs on."""
        return await self._act(instance_id, "collect", wait)

    async def retry(self, instance_id: str, *, wait: float = WAIT) -> Instance:
        """Tries a failed seat once more."""
        return await self._act(instance_id, "retry", wait)

    async def access(self, instance_id: str) -> dict[str, Any]:
        """Where its ports answer, as the server tells it. Raises `Forbidden` for everybody but the seat's own user."""
        answer: dict[str, Any] = (await self._transport.call("GET", f"{self.one(instance_id)}/access")).json()
        return answer

    async def artifacts(self, instance_id: str) -> tuple[Artifact, ...]:
        """What was rendered for it, collected and exported from it."""
        body = (await self._transport.call("GET", f"{self.one(instance_id)}/artifacts")).json()
        return tuple(Artifact.model_validate(item, extra="ignore") for item in body["items"])

    async def _act(self, instance_id: str, verb: str, wait: float) -> Instance:
        answer = await self._transport.call("POST", f"{self.one(instance_id)}/{verb}", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(instance_id)
