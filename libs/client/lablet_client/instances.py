"""Instances: the labs of single seats: look, act, reach their consoles, fetch what they left behind."""

import base64

from lablet_client.collection import Collection
from lablet_client.requests import WAIT, settle
from lablet_common.resources.artifact import ArtifactRole
from lablet_common.resources.instance import Instance
from lablet_common.resources.model import Instant, Model


class Port(Model):
    """Where one named port of the lab answers."""

    name: str
    host: str
    port: int
    protocol: str | None = None


class Access(Model):
    """The way into a seat. Ports answer while it is `usable`; times are lab time."""

    instance: str
    reservation: str
    seat: int
    phase: str
    usable: bool
    start: Instant
    end: Instant
    now: Instant
    host: str | None = None
    ports: tuple[Port, ...] = ()


class InstanceArtifact(Model):
    """A file that belongs to an instance; `Artifacts.download` fetches it by its digest."""

    name: str
    role: ArtifactRole
    digest: str
    bytes: int
    media_type: str
    attempt: int


class NodeOutput(Model):
    """A part of a node's output; `over`: nothing comes after `next`."""

    node: str
    start: int
    next: int
    over: bool
    data: str

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.data)


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

    async def access(self, instance_id: str) -> Access:
        """Where its ports answer: for the seat's own user, the reservation's owner and admins (`NotFound` or `Forbidden`
        for everybody else)."""
        answer = await self._transport.call("GET", f"{self.one(instance_id)}/access")
        return Access.model_validate(answer.json(), extra="ignore")

    async def artifacts(self, instance_id: str) -> tuple[InstanceArtifact, ...]:
        """What was rendered for it, collected and exported from it."""
        body = (await self._transport.call("GET", f"{self.one(instance_id)}/artifacts")).json()
        return tuple(InstanceArtifact.model_validate(item, extra="ignore") for item in body["items"])

    async def output(
        self, instance_id: str, node: str, *, position: int = 0, limit: int = 262_144, wait: int = 0
    ) -> NodeOutput:
        """What a node of a process lab has written, from a position on; waits up to `wait` seconds for something new."""
        params = {"node": node, "position": position, "limit": limit, "wait": wait}
        answer = await self._transport.call("GET", f"{self.one(instance_id)}/output", params=params)
        return NodeOutput.model_validate(answer.json(), extra="ignore")

    async def _act(self, instance_id: str, verb: str, wait: float) -> Instance:
        answer = await self._transport.call("POST", f"{self.one(instance_id)}/{verb}", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(instance_id)
