"""Follows the whole store while the morning runs: every commit with the real time at which it was seen.

It feeds the live view and tells when things happened; etcd itself keeps no times. What it saw is not trusted for the
verdict: `evidence` reads the history again, through another client.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lablet_common.store.api import EventType, Store

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """One key's change. `value` is None for a deletion."""

    revision: int
    key: str
    value: Json | str | None
    seen_at: float
    """Real time, unix seconds."""


@dataclass(slots=True)
class Recorder:
    """All keys as they stand now, and all commits since the beginning."""

    commits: list[Commit] = field(default_factory=list)
    present: dict[str, Json | str] = field(default_factory=dict)
    revision: int = 0
    _listeners: list[Callable[[Commit], None]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, callback: Callable[[Commit], None]) -> None:
        """Calls `callback` with each commit from now on; it must not block."""
        self._listeners.append(callback)

    async def follow(self, store: Store) -> None:
        """From the first revision on, for ever. Raises `Compacted` where the beginning has been forgotten."""
        async with store.watch("/", start_revision=1) as batches:
            async for batch in batches:
                now = time.time()
                for event in batch.events:
                    deleted = event.type is EventType.DELETE
                    self._take(
                        Commit(event.kv.mod_revision, event.kv.key, None if deleted else value_of(event.kv.value), now)
                    )
                self.revision = max(self.revision, batch.revision)
                if batch.events:
                    self._news.set()
                    self._news = asyncio.Event()

    async def news(self) -> None:
        """Waits for the next commit."""
        await self._news.wait()

    def _take(self, commit: Commit) -> None:
        self.commits.append(commit)
        if commit.value is None:
            self.present.pop(commit.key, None)
        else:
            self.present[commit.key] = commit.value
        for callback in self._listeners:
            callback(commit)

    def of(self, prefix: str) -> list[Json]:
        """The present resources below a prefix, in key order."""
        return [
            value for key, value in sorted(self.present.items()) if key.startswith(prefix) and isinstance(value, dict)
        ]


def value_of(raw: bytes) -> Json | str:
    """A stored value: a document, or else its text."""
    text = raw.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text
