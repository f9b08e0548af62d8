"""Artifacts and dead letters: the bytes that labs leave behind, and the messages that nobody could handle."""

from collections.abc import Mapping, Sequence
from typing import Any

from lablet_client.transport import Transport


class Artifacts:
    """`/artifacts`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def download(self, digest: str) -> bytes:
        """The object with this SHA-256."""
        return (await self._transport.call("GET", f"/artifacts/{digest}", headers={"Accept": "*/*"})).content


class DeadLetters:
    """`/dead-letters`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """What could not be handled: the message, the reason, the attempts."""
        items: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            body = (await self._transport.call("GET", "/dead-letters", params={"cursor": cursor})).json()
            items += body["items"]
            cursor = body.get("nextCursor")
            if not cursor:
                return items

    async def get(self, letter: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (await self._transport.call("GET", f"/dead-letters/{letter}")).json()
        return found

    async def replay(self, letter: str) -> Mapping[str, Any]:
        """Sends it to its consumer again."""
        found = (await self._transport.call("POST", f"/dead-letters/{letter}/replay")).json()
        return found if isinstance(found, dict) else {}
