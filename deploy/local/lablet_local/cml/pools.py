"""Resource pools: limits that an administrator puts on what a group of users may run at one time.

A node belongs to the pool of its lab's owner. Licences, memory (MB) and CPUs are enforced at each start; disk space is
shown only, as the API says. Templates give no inheritance here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .accounts import Accounts
from .errors import conflict, invalid, missing
from .model import Lab, Node, new_id

Json = dict[str, Any]
_LIMITS = ("licenses", "ram", "cpus", "disk_space", "external_connectors")


class Pools:
    """All resource pools of the controller."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._pools: dict[str, Json] = {}

    def all(self) -> list[Json]:
        return [self.describe(key) for key in self._pools]

    def create(self, wanted: Json) -> Json:
        """Adds a pool and puts the named users into it."""
        key = new_id()
        users = [self._accounts.by_id(user) for user in wanted.get("users", [])]
        kept = {name: wanted.get(name) for name in (*_LIMITS, "label", "description", "template")}
        self._pools[key] = kept
        for user in users:
            user.details["resource_pool"] = key
        return self.describe(key)

    def change(self, key: str, wanted: Json) -> Json:
        self._known(key).update(wanted)
        return self.describe(key)

    def delete(self, key: str) -> None:
        """Removes a pool; 409 while users are in it."""
        self._known(key)
        if self._users(key):
            raise conflict("The resource pool has users.")
        del self._pools[key]

    def describe(self, key: str) -> Json:
        known = self._known(key)
        connectors = known["external_connectors"] or []
        description = known["description"] or ""
        return {
            **known,
            "external_connectors": connectors,
            "description": description,
            "id": key,
            "users": self._users(key),
            "user_pools": [],
        }

    def usage(self, key: str, labs: Iterable[Lab]) -> Json:
        """Limits and what is taken of them; CPUs in hundredths of a CPU."""
        known = self._known(key)
        limit = {name: known[name] for name in _LIMITS}
        limit["external_connectors"] = known["external_connectors"] or []
        limit["cpus"] = None if known["cpus"] is None else 100 * known["cpus"]
        active = self._active(key, labs)
        used = {
            "licenses": len(active),
            "ram": sum(node.ram for node in active),
            "cpus": 100 * sum(node.cpus for node in active),
            "disk_space": 0,
            "external_connectors": [],
        }
        shown = {"id": key, "label": known["label"], "description": known["description"] or ""}
        return {**shown, "limit": limit, "usage": used}

    def admit(self, lab: Lab, wanted: list[Node], labs: Iterable[Lab]) -> None:
        """Raises 400 when the pool of the lab's owner has no room for `wanted`."""
        key = self._accounts.by_id(lab.owner).pool
        known = self._pools.get(key or "")
        if key is None or known is None:
            return
        both = [*self._active(key, labs), *(node for node in wanted if node.definition.has_console)]
        for name, taken in (
            ("licenses", len(both)),
            ("ram", sum(node.ram for node in both)),
            ("cpus", sum(node.cpus for node in both)),
        ):
            limit = known[name]
            if limit is not None and taken > limit:
                raise invalid(f"Resource pool {known['label']}: limit of {name} exceeded ({taken} of {limit}).")

    def _active(self, key: str, labs: Iterable[Lab]) -> list[Node]:
        users = set(self._users(key))
        return [
            node
            for lab in labs
            if lab.owner in users
            for node in lab.nodes.values()
            if node.active and node.definition.has_console
        ]

    def _users(self, key: str) -> list[str]:
        return [account.id for account in self._accounts.all() if account.pool == key]

    def _known(self, key: str) -> Json:
        if key not in self._pools:
            raise missing("Resource pool", key)
        return self._pools[key]
