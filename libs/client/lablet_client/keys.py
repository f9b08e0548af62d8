"""API keys: a machine's own way in, made by an admin and shown once."""

from collections.abc import Sequence
from dataclasses import dataclass

from lablet_client.collection import Collection
from lablet_common.resources.key import ApiKey


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its token, which the system does not keep."""

    key: ApiKey
    token: str | None
    """None when the same idempotency key had made it before."""


class Keys(Collection[ApiKey]):
    """`/keys`."""

    path = "/keys"
    model = ApiKey

    async def create(
        self,
        name: str,
        *,
        role: str = "machine",
        scopes: Sequence[str] = (),
        days: int = 90,
        key: str | None = None,
    ) -> NewKey:
        """Makes a key that acts as `key:<name>` for `days` real days, narrowed to `scopes` (empty: all that the role
        may). `key` is the idempotency key. Raises `Invalid` for scopes beyond the role, `Forbidden`."""
        body = {"name": name, "role": role, "scopes": list(scopes), "days": days}
        made = (await self._transport.call("POST", self.path, body=body, key=key)).json()
        return NewKey(self.parse(made["key"]), made.get("token"))

    async def revoke(self, key_id: str, *, reason: str | None = None) -> ApiKey:
        """Ends a key at once. Raises `NotFound`."""
        return self.parse((await self._transport.call("DELETE", self.one(key_id), params={"reason": reason})).json())
