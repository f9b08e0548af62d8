"""Definitions: publish a lab file, find it again, take it out of use.

An id is `name@version`; a name alone means the newest version that is not deprecated.
"""

import json
from collections.abc import Mapping
from typing import Any

from lablet_client.collection import Collection
from lablet_client.requests import WAIT, settle
from lablet_common.resources.definition import Definition


class Definitions(Collection[Definition]):
    """`/definitions`."""

    path = "/definitions"
    model = Definition

    def one(self, resource_id: str) -> str:
        name, _, version = resource_id.partition("@")
        return f"{self.path}/{name}/versions/{version}" if version else f"{self.path}/{name}"

    async def publish(
        self,
        topology: bytes | str,
        *,
        name: str,
        version: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        wait: float = WAIT,
        key: str | None = None,
    ) -> Definition:
        """Publishes a CML topology file. Without `version` it becomes the next patch version, or stays the present one
        when nothing changed. `overrides` are fields of the definition's spec (camelCase) that win over what is inferred
        from the file. Raises `Invalid` naming the line at fault, `TimedOut` when undecided after `wait` seconds."""
        content = topology.encode() if isinstance(topology, str) else topology
        params = {"name": name, "version": version}
        if overrides:
            files = {
                "topology": (f"{name}.yaml", content, "application/yaml"),
                "definition": ("definition.json", json.dumps(dict(overrides)).encode(), "application/json"),
            }
            answer = await self._transport.call("POST", self.path, params=params, files=files, wait=wait, key=key)
        else:
            answer = await self._transport.call(
                "POST", self.path, params=params, content=content, media_type="application/yaml", wait=wait, key=key
            )
        document = answer.json()
        if isinstance(document, dict) and document.get("kind") == "Definition":
            return self.parse(document)
        request = await settle(self._transport, answer, wait)
        subject = request.status.resource if request is not None else None
        return await self.get(subject.partition("/")[2] if subject else name)

    async def topology(self, definition_id: str) -> bytes:
        """The file, byte by byte as it was published."""
        definition = definition_id if "@" in definition_id else (await self.get(definition_id)).id
        answer = await self._transport.call("GET", f"{self.one(definition)}/topology", headers={"Accept": "*/*"})
        return answer.content

    async def approve(self, definition_id: str, *, wait: float = WAIT) -> Definition:
        """Lets agents run one version (`name@version`); for operators."""
        answer = await self._transport.call("POST", f"{self.one(definition_id)}/approve", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(definition_id)

    async def deprecate(self, definition_id: str, *, wait: float = WAIT) -> Definition:
        """Takes one version (`name@version`) out of use for new bookings."""
        answer = await self._transport.call("POST", f"{self.one(definition_id)}/deprecate", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(definition_id)

    async def archive(self, definition_id: str, *, wait: float = WAIT) -> Definition:
        """Ends one version (`name@version`) for good. Raises `Conflict` while a reservation needs it."""
        answer = await self._transport.call("POST", f"{self.one(definition_id)}/archive", wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(definition_id)
