"""Subscriptions: webhooks of the tenant's events."""

from collections.abc import Mapping, Sequence
from typing import Any

from lablet_client.collection import Collection
from lablet_client.errors import Stale
from lablet_common.resources.subscription import (
    Mode,
    Subscription,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionSecret,
)

_TRIES = 5


class Subscriptions(Collection[Subscription]):
    """`/subscriptions`."""

    path = "/subscriptions"
    model = Subscription

    async def create(
        self,
        name: str,
        sink: str,
        *,
        types: Sequence[str] = (),
        subjects: Sequence[str] = (),
        label_selector: str = "",
        mode: Mode = "structured",
        labels: Mapping[str, str] | None = None,
    ) -> SubscriptionSecret:
        """The subscription and its signing secret, which is told this once. Raises `Conflict` for a name that is taken,
        `Invalid` for a sink that may not be called."""
        body = SubscriptionCreate(
            name=name,
            sink=sink,
            types=tuple(types),
            subjects=tuple(subjects),
            label_selector=label_selector,
            mode=mode,
            labels=dict(labels or {}),
        )
        return self._secret(await self._transport.call("POST", self.path, body=body.to_dict()))

    async def change(self, name: str, change: SubscriptionChange) -> Subscription:
        """The subscription with this change, whatever has happened to it meanwhile."""
        for left in reversed(range(_TRIES)):
            present = await self.get(name)
            headers = {"If-Match": f'"{present.metadata.resource_version}"'}
            try:
                answer = await self._transport.call(
                    "PATCH", self.one(name), body=change.to_dict(), headers=headers, media_type="application/json"
                )
            except Stale:
                if not left:
                    raise
            else:
                return self.parse(answer.json())
        raise AssertionError("unreachable")

    async def delete(self, name: str) -> None:
        """Ends it. Raises `NotFound`."""
        await self._transport.call("DELETE", self.one(name))

    async def rotate_secret(self, name: str) -> SubscriptionSecret:
        """A new signing secret; for a day, events carry a signature by the old one too."""
        return self._secret(await self._transport.call("POST", f"{self.one(name)}/rotate-secret"))

    async def redeliver(self, name: str) -> int:
        """Sends its dead letters once more; how many they were."""
        answer = await self._transport.call("POST", f"{self.one(name)}/redeliver")
        return int(answer.json()["redelivered"])

    def _secret(self, answer: Any) -> SubscriptionSecret:
        return SubscriptionSecret.model_validate(answer.json(), extra="ignore")
