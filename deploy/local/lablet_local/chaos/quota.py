"""etcd's disk quota: filled up for real by somebody who is not Lablet, and emptied again; and the alarm that it raises then.

Room is made as an operator makes it: delete, compact, defragment every member, disarm (etcd.io, "Maintenance: space quota").
"""

import base64
from collections.abc import Sequence

import httpx

from lablet_local.chaos.chronicle import Chronicle

QUOTA_BYTES = 48 * 1024 * 1024
"""Several times what a seed writes."""
_FIRST, _BEHIND = "/filler/", "/filler0"
_VALUE = base64.b64encode(bytes(1024 * 1024)).decode()
_MOST = 2 * QUOTA_BYTES // (1024 * 1024)
_NO_SPACE = "NOSPACE"
_TIMEOUT_SECONDS = 5.0
_CATCH_UP_SECONDS = 3.0


class Quota:
    """Of the etcd whose members answer at `endpoints`, begun with `QUOTA_BYTES`."""

    def __init__(self, endpoints: Sequence[str], chronicle: Chronicle) -> None:
        self._endpoints = tuple(endpoints)
        self._chronicle = chronicle

    async def fill(self) -> None:
        """Writes until etcd refuses. Raises `httpx.HTTPError`, `TimeoutError` where there is no end to it."""
        async with _etcd(self._endpoints[0]) as http:
            for number in range(_MOST):
                body = {"key": _b64(f"{_FIRST}{number}"), "value": _VALUE}
                answer = await http.post("/v3/kv/put", json=body)
                if answer.is_error:
                    if "space exceeded" in answer.text:
                        return
                    answer.raise_for_status()
        raise TimeoutError(f"{_MOST} MiB did not fill a quota of {QUOTA_BYTES} bytes")

    async def make_room(self) -> None:
        """Raises `httpx.HTTPError`, `TimeoutError` where it has to be done again."""
        async with _etcd(self._endpoints[0]) as http:
            body = {"key": _b64(_FIRST), "range_end": _b64(_BEHIND)}
            (await http.post("/v3/kv/deleterange", json=body)).raise_for_status()
        full = await alarmed(self._endpoints[0])
        await self.compact(await self._chronicle.catch_up(_CATCH_UP_SECONDS, full=full))
        for endpoint in self._endpoints:
            async with _etcd(endpoint) as http:
                (await http.post("/v3/maintenance/defragment", json={})).raise_for_status()
        await alarm(self._endpoints[0], raised=False)

    async def compact(self, revision: int) -> None:
        """Forgets everything before a revision, and says so when its room is free. That it has been done is no error."""
        async with _etcd(self._endpoints[0]) as http:
            answer = await http.post("/v3/kv/compaction", json={"revision": str(revision), "physical": True})
            if answer.is_error and "has been compacted" not in answer.text:
                answer.raise_for_status()


async def head(endpoint: str) -> int:
    """The present revision. Raises `httpx.HTTPError`."""
    async with _etcd(endpoint) as http:
        answer = await http.post("/v3/kv/range", json={"key": "AA==", "limit": "1"})
        return int(answer.raise_for_status().json()["header"]["revision"])


async def alarmed(endpoint: str) -> bool:
    """Whether etcd says that it is full. Raises `httpx.HTTPError`."""
    async with _etcd(endpoint) as http:
        answer = await http.post("/v3/maintenance/alarm", json={"action": "GET"})
        return bool(answer.raise_for_status().json().get("alarms"))


async def alarm(endpoint: str, *, raised: bool) -> None:
    """Raises the alarm of a full quota for the member at `endpoint`, or clears every member's. Raises `httpx.HTTPError`."""
    async with _etcd(endpoint) as http:
        if raised:
            status = (await http.post("/v3/maintenance/status", json={})).raise_for_status().json()
            members = [status["header"]["member_id"]]
        else:
            answer = await http.post("/v3/maintenance/alarm", json={"action": "GET"})
            members = [one["memberID"] for one in answer.raise_for_status().json().get("alarms", ())]
        for member in members:
            body = {"action": "ACTIVATE" if raised else "DEACTIVATE", "memberID": member, "alarm": _NO_SPACE}
            (await http.post("/v3/maintenance/alarm", json=body)).raise_for_status()


def _etcd(endpoint: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{endpoint}", timeout=_TIMEOUT_SECONDS, trust_env=False)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
