"""What etcd commits, written down as it happens by a client of its own (etcd's JSON gateway), so that a later compaction
takes nothing away. When etcd is killed it goes on from the next revision; `gap` tells whether something was forgotten in
between."""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import httpx

from lablet_local.demo.evidence import Change, changes_in

_PREFIX = "/lablet"
_MARK = "/lablet-mark"
"""Written to find out how far the chronicle has come; it stands before everything else of the range that is followed."""


class Chronicle:
    """`run` until cancelled; `changes` grows, in the order of revisions. It reads from one member, and from the next when
    that one goes. `gap`: what was compacted before it was read, in words."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = itertools.cycle(endpoints)
        self._written_to = endpoints[0]
        self.changes: list[Change] = []
        self.revision = 0
        self.gap = ""
        self._marked = 0
        self._grown = asyncio.Condition()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError, TimeoutError, json.JSONDecodeError):
                await self._follow()
            await asyncio.sleep(0.1)

    async def catch_up(self, within: float, *, full: bool = False) -> int:
        """Returns when everything that was committed before this call has been written down: its revision. `full`: etcd
        takes no writes but deletions just now; there must have been a call before. Raises `TimeoutError` after `within`
        seconds, `httpx.HTTPError` where etcd does not write."""
        async with asyncio.timeout(within):
            body = {"key": _b64(_MARK)}
            deed = "deleterange" if full else "put"
            async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
                answer = await http.post(f"http://{self._written_to}/v3/kv/{deed}", json=body)
            told = answer.raise_for_status().json()
            if not full or int(told.get("deleted", 0)):  # else the mark was deleted by an earlier try
                self._marked = int(told["header"]["revision"])
            revision = self._marked
            async with self._grown:
                await self._grown.wait_for(lambda: self.revision >= revision)
        return revision

    async def _follow(self) -> None:
        wanted: dict[str, Any] = {
            "key": _b64(_MARK),
            "range_end": _b64(f"{_PREFIX}0"),
            "start_revision": str(self.revision + 1),
        }
        limits = httpx.Timeout(5, read=None)
        async with (
            httpx.AsyncClient(trust_env=False, timeout=limits) as http,
            http.stream("POST", f"http://{next(self._endpoints)}/v3/watch", json={"create_request": wanted}) as answer,
        ):
            async for line in answer.aiter_lines():
                result = json.loads(line).get("result") or {}
                if int(result.get("compact_revision", 0)):
                    oldest = int(result["compact_revision"])
                    self.gap = f"revisions {self.revision + 1} to {oldest - 1} were compacted before they were noted"
                    self.revision = oldest - 1
                    break
                for change in changes_in(result):
                    if change.key != _MARK.removeprefix(_PREFIX):
                        self.changes.append(change)
                    self.revision = change.revision
                async with self._grown:
                    self._grown.notify_all()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
