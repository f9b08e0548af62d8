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


class Chronicle:
    """`run` until cancelled; `changes` grows, in the order of revisions. It reads from one member, and from the next when
    that one goes."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = itertools.cycle(endpoints)
        self.changes: list[Change] = []
        self.revision = 0
        self.gap = False

    async def run(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError, TimeoutError, json.JSONDecodeError):
                await self._follow()
            await asyncio.sleep(0.1)

    async def _follow(self) -> None:
        wanted: dict[str, Any] = {
            "key": _b64(f"{_PREFIX}/"),
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
                    self.gap = True
                    self.revision = int(result["compact_revision"]) - 1
                    return
                for change in changes_in(result):
                    self.changes.append(change)
                    self.revision = change.revision


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
