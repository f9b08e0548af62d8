"""Quotas: what a tenant and each of its owners may have open, and what they have."""

from collections.abc import Callable

from lablet_client.transport import Transport
from lablet_common.quotas import Quota, QuotaState


class Quotas:
    """`/quotas`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, tenant: str) -> QuotaState:
        """The limits and what is open; a tenant without limits has none."""
        answer = await self._transport.call("GET", f"/quotas/{tenant}")
        return QuotaState.model_validate(answer.json(), extra="ignore")

    async def set(self, tenant: str, change: Callable[[Quota], Quota]) -> QuotaState:
        """Replaces the limits by what `change` makes of the present ones. Raises `Stale` when somebody else was faster."""
        answer = await self._transport.call("GET", f"/quotas/{tenant}")
        present = QuotaState.model_validate(answer.json(), extra="ignore").limits
        headers = {"If-Match": answer.headers["etag"]}
        done = await self._transport.call("PUT", f"/quotas/{tenant}", body=change(present).to_dict(), headers=headers)
        return QuotaState.model_validate(done.json(), extra="ignore")
