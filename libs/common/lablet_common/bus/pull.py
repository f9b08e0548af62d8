"""One pull subscription, from a fresh inbox until it has become worthless.

Requests are kept open for as many messages as there is room for, each with a heartbeat. When neither message nor
heartbeat comes, or the server says that consumer, stream or leader are gone, the subscription ends and says why;
whoever runs it builds another. So nobody waits for a pull that the server has forgotten (after a reconnect, for one).

Our own, and neither nats-py's `fetch` nor FastStream's pull subscriber: both wait for a batch as a whole, so that one slow
message holds up the rest, and neither notices a request that was lost.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from lablet_common.tasks import heeding_cancellation

HEARTBEAT_SECONDS = 1.0
_SILENCE_SECONDS = 2.5
"""Neither message nor heartbeat for so long: the request is lost."""
_EXPIRES_SECONDS = 30.0
_PARTING_SECONDS = 1.0
_NO_LIMIT = 0
_ACK = "$JS.ACK."
_log = logging.getLogger(__name__)
_HARMLESS_CONFLICTS = ("batch completed", "exceeded maxwaiting", "exceeded maxrequest")


class Pull:
    """Pulls from one durable consumer. `room` says how many more messages may be taken in; `take` gets each of them."""

    def __init__(
        self, client: Client, stream: str, consumer: str, *, room: Callable[[], int], take: Callable[[Msg], None]
    ) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._room = room
        self._take = take
        self._asked = 0
        self._heard = 0.0
        self._wake = asyncio.Event()
        self._ended: str | None = None

    def end(self, reason: str) -> None:
        """Makes `run` return."""
        if self._ended is None:
            self._ended = reason
        self._wake.set()

    def look(self) -> None:
        """There may be room again."""
        self._wake.set()

    async def run(self) -> str:
        """Pulls until something is wrong; returns what. Raises what the client raises when it is not connected."""
        inbox = self._client.new_inbox()
        # What may lie in the client's queue is bounded by what we ask for.
        subscription = await self._client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=_NO_LIMIT, pending_bytes_limit=_NO_LIMIT
        )
        try:
            while self._ended is None:
                await self._ask(inbox)
                self._wake.clear()
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    if self._asked and time.monotonic() - self._heard > _SILENCE_SECONDS:
                        return "silence"
            return self._ended
        finally:
            await self._part(subscription)

    async def _part(self, subscription: Subscription) -> None:
        """Takes what the server has sent by now: for the server it is delivered, and nobody else would get it before its
        patience ends. Nothing of the subscription is left, whatever becomes of that."""
        try:
            if self._client.is_connected:
                with heeding_cancellation():
                    async with asyncio.timeout(_PARTING_SECONDS):
                        await subscription.drain()  # type: ignore[no-untyped-call]
        except (nats.errors.Error, TimeoutError) as error:
            _log.info("what was on its way is not waited for", extra={"subject": self._subject, "cause": repr(error)})
        finally:
            # While the connection is away, the client would subscribe it anew when that is back, and so it would after an
            # attempt to drain that failed, of which it can be told by nothing public.
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
            subscription._stop_processing()
            self._client._remove_sub(subscription._id)

    async def _ask(self, inbox: str) -> None:
        """Asks for more once half of what there is room for is not asked for."""
        room = self._room() - self._asked
        if room <= 0 or room < self._asked:
            return
        request = {
            "batch": room,
            "expires": int(_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
        }
        if not self._asked:
            self._heard = time.monotonic()
        self._asked += room
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=inbox)

    async def _on_message(self, message: Msg) -> None:
        self._heard = time.monotonic()
        if message.reply.startswith(_ACK):
            self._asked = max(0, self._asked - 1)
            self._take(message)
            self._wake.set()
            return
        headers = message.headers or {}
        status, said = headers.get("Status", ""), headers.get("Description", "")
        match status:
            case "100":
                return
            case "408" | "404":
                self._forget(headers)
            case "409" if said.lower().startswith(_HARMLESS_CONFLICTS):
                self._forget(headers)
            case _:
                self.end(f"{status} {said}".strip() or "an answer without a status")
        self._wake.set()

    def _forget(self, headers: dict[str, str]) -> None:
        """A request ended with part of it unfulfilled."""
        unfulfilled = headers.get("Nats-Pending-Messages", "")
        self._asked = max(0, self._asked - int(unfulfilled)) if unfulfilled.isdecimal() else 0
