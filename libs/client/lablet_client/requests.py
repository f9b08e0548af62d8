"""Requests: what was asked for, and what became of it.

Whoever changes something gets an accepted Request at once and its outcome a little later. `Requests.settled` waits for
the outcome and raises it when it is a refusal.
"""

import asyncio
import time
from typing import Any

from lablet_client.errors import TimedOut, refusal
from lablet_client.transport import Answer, Transport
from lablet_common.resources.request import Request, RequestPhase

WAIT = 10.0
"""Seconds for which changes wait for their outcome unless told otherwise."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Requests:
    """`/requests`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, request_id: str) -> Request:
        """The request as it stands. Raises `NotFound`."""
        answer = await self._transport.call("GET", f"/requests/{request_id}")
        return Request.model_validate(answer.json(), extra="ignore")

    async def settled(self, request_id: str, timeout: float = WAIT) -> Request:
        """The decided request. Raises `TimedOut` (with the request) after `timeout` seconds, and what the decision
        refused as the exception that a refused call would have raised."""
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            request = await self.get(request_id)
            if request.status.phase is RequestPhase.REFUSED:
                raise refused(request)
            if request.status.phase is RequestPhase.DECIDED:
                return request
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"request {request_id} is not decided after {timeout:g} s", request)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def refused(request: Request) -> Exception:
    """The exception for a refused request."""
    problem = request.status.problem
    if problem is None:
        return refusal(409, {"title": "Refused", "detail": request.status.message or request.status.reason or ""})
    body: dict[str, Any] = problem.to_dict()
    body |= body.pop("extensions", {})
    return refusal(problem.status, body)


async def settle(transport: Transport, answer: Answer, wait: float) -> Request | None:
    """Waits until what `answer` accepted is decided; None when the answer itself was already the outcome, or nobody
    wants to wait."""
    if answer.status != 202:
        return None
    request_id = request_id_of(answer)
    if request_id is None or wait <= 0:
        return None
    return await Requests(transport).settled(request_id, wait)


def request_id_of(answer: Answer) -> str | None:
    """The request that an accepting answer opened."""
    body = answer.json()
    if isinstance(body, dict):
        if body.get("kind") == "Request":
            return str(body["metadata"]["id"])
        if isinstance(body.get("request"), str):
            return str(body["request"])
    location = answer.location or ""
    return location.rsplit("/", 1)[-1] if "/requests/" in location else None
