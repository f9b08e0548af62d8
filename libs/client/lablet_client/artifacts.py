"""Artifacts and dead letters: the bytes that labs leave behind, and the messages that nobody could handle."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from lablet_client.errors import LabletError
from lablet_client.paging import Page, walk
from lablet_client.requests import WAIT, settle
from lablet_client.transport import Transport
from lablet_common.resources.artifact import Artifact, ArtifactRole
from lablet_common.resources.model import Instant, Model


class Damaged(LabletError):
    """What was downloaded is not what its digest says."""


class Link(Model):
    """A way to the object that needs no token, until `expires_at` (real time)."""

    url: str
    expires_at: Instant
    digest: str
    """What is fetched should have this SHA-256: nobody has checked it on the way."""
    bytes: int
    media_type: str


class Artifacts:
    """`/artifacts`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, fields: str | None = None, page_size: int | None = None) -> AsyncIterator[Artifact]:
        """The tenant's stored objects with who refers to them, fetched as they are asked for and all of one revision.
        Raises `Gone` when that revision is compacted away meanwhile."""

        async def fetch(cursor: str | None) -> Page[Artifact]:
            params = {"fieldSelector": fields, "limit": page_size, "cursor": cursor}
            body = (await self._transport.call("GET", "/artifacts", params=params)).json()
            items = tuple(Artifact.model_validate(item, extra="ignore") for item in body["items"])
            return Page(items, int(body.get("resourceVersion") or 0), body.get("nextCursor"))

        return walk(fetch)

    async def download(self, digest: str, *, instance: str | None = None) -> bytes:
        """The object with this SHA-256, checked on arrival. `instance`: the seat that has left it, for learners whose seat is
        in the archive. Raises `NotFound`, `Damaged`."""
        params, headers = {"instance": instance}, {"Accept": "*/*"}
        data = (await self._transport.call("GET", f"/artifacts/{digest}", params=params, headers=headers)).content
        if hashlib.sha256(data).hexdigest() != digest:
            raise Damaged(f"what came for {digest} has another digest: download it again")
        return data

    async def link(self, digest: str, *, minutes: int = 15, instance: str | None = None) -> Link:
        """A presigned link of the object store; `instance` as for `download`. Raises `NotFound`."""
        params = {"minutes": minutes, "instance": instance}
        answer = await self._transport.call("GET", f"/artifacts/{digest}/link", params=params)
        return Link.model_validate(answer.json(), extra="ignore")

    async def delete(self, digest: str, *, role: ArtifactRole | None = None, wait: float = WAIT) -> None:
        """Deletes the object with all that refers to it (in `role`). Raises `Conflict` naming what still needs it."""
        answer = await self._transport.call("DELETE", f"/artifacts/{digest}", params={"role": role}, wait=wait)
        await settle(self._transport, answer, wait)

    async def delete_of(self, instance_id: str, *, role: ArtifactRole | None = None, wait: float = WAIT) -> None:
        """Deletes what an instance that has ended left behind. Raises `Conflict` before its end."""
        path = f"/instances/{instance_id}/artifacts"
        answer = await self._transport.call("DELETE", path, params={"role": role}, wait=wait)
        await settle(self._transport, answer, wait)


class DeadLetters:
    """`/dead-letters`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, consumer: str | None = None) -> Sequence[Mapping[str, Any]]:
        """What could not be handled, by all consumers or this one: the message, the reason, the attempts."""
        items: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            body = (
                await self._transport.call("GET", "/dead-letters", params={"cursor": cursor, "consumer": consumer})
            ).json()
            items += body["items"]
            cursor = body.get("nextCursor")
            if not cursor:
                return items

    async def get(self, letter: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (await self._transport.call("GET", f"/dead-letters/{letter}")).json()
        return found

    async def replay(self, letter: str) -> Mapping[str, Any]:
        """Sends it to its consumer again, and takes it out of the queue."""
        found = (await self._transport.call("POST", f"/dead-letters/{letter}/replay")).json()
        return found if isinstance(found, dict) else {}

    async def forget(self, letter: str) -> None:
        """Deletes it for good."""
        await self._transport.call("DELETE", f"/dead-letters/{letter}")

    async def purge(self, consumer: str | None = None) -> int:
        """Deletes all of them, or those of a consumer, for good; how many they were."""
        answer = await self._transport.call("DELETE", "/dead-letters", params={"consumer": consumer})
        return int(answer.json()["purged"])
