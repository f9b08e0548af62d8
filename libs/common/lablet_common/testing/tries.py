"""What a user of a NATS server may do, by trying: for tests of rights."""

import asyncio
import re
from typing import Self

import nats
from nats.aio.client import Client

from lablet_common.bus.permissions import inbox_prefix

LAST = "lablet.nobody-may"
_REFUSAL = re.compile(r'permissions violation for (?:publish|subscription) to "([^"]+)"')
_ANSWER_SECONDS = 10.0


class Tries:
    """One user's client, and what the server refused it. The server answers in the order of what it was sent, so that all
    tries are answered once the last one is, which is refused to everybody."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._user = user
        self._password = password
        self._client: Client | None = None
        self._refused: set[str] = set()
        self._answered = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(
            self._url,
            user=self._user,
            password=self._password,
            inbox_prefix=inbox_prefix(self._user),
            error_cb=self._note,
            allow_reconnect=False,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._client is not None
        await self._client.close()

    async def _note(self, error: Exception) -> None:
        found = _REFUSAL.search(str(error).lower())
        assert found, error
        self._refused.add(found.group(1))
        if found.group(1) == LAST:
            self._answered.set()

    async def _last(self) -> None:
        assert self._client is not None
        self._answered.clear()
        await self._client.publish(LAST, b"")
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._answered.wait()

    async def publish(self, *subjects: str) -> set[str]:
        """Those of the subjects that were refused."""
        assert self._client is not None
        self._refused = set()
        for subject in subjects:
            await self._client.publish(subject, b"{}")
        await self._last()
        return {subject for subject in subjects if subject.lower() in self._refused}

    async def subscribe(self, *patterns: str, queue: str = "") -> set[str]:
        assert self._client is not None
        self._refused = set()
        heard = [await self._client.subscribe(pattern, queue=queue) for pattern in patterns]
        await self._last()
        for one in heard:
            await one.unsubscribe()
        return {pattern for pattern in patterns if pattern.lower() in self._refused}
