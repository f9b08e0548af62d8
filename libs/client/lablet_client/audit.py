"""The audit: who changed what, as its entries were published."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from lablet_client.transport import Transport
from lablet_common.resources.model import format_time

Entry = Mapping[str, Any]


class Audit:
    """`/audit`, for admins of the tenant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(
        self,
        *,
        principal: str | None = None,
        subject: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> AsyncIterator[Entry]:
        """Entries between two instants of lab time (the last day, unless said otherwise), oldest first, fetched as they
        are asked for. `subject` is `<kind>/<id>` or a kind, `outcome` `done` or `refused`."""
        params = {
            "principal": principal,
            "subject": subject,
            "action": action,
            "outcome": outcome,
            "from": format_time(start) if start else None,
            "to": format_time(end) if end else None,
        }
        cursor: str | None = None
        while True:
            body = (await self._transport.call("GET", "/audit", params={**params, "cursor": cursor})).json()
            for item in body["items"]:
                yield item
            cursor = body.get("nextCursor")
            if not cursor:
                return

    async def get(self, request_id: str) -> Mapping[str, Any]:
        """One entry with `before`, `after` and `changes`. Raises `NotFound`."""
        found: Mapping[str, Any] = (await self._transport.call("GET", f"/audit/{request_id}")).json()
        return found
