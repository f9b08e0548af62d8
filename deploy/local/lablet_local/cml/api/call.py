"""One API request and its answer, and the table that maps routes to handlers.

A handler is a plain function of a `Call`: it returns what is to be sent as JSON (`None` is 204), or a `Reply` where
status or form differ, and raises `ApiError` to refuse. It cannot wait: the controller's state changes only between two
handlers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..accounts import Account
from ..bodies import Check
from ..controller import Controller
from ..errors import denied, invalid
from ..labs import find_interface, find_link, find_node
from ..model import Interface, Lab, Link, Node


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status or a media type of its own; `text` is sent as it is."""

    status: int = 200
    value: Any = None
    text: str | None = None
    media: str = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Call:
    """A request that has passed authentication."""

    controller: Controller
    path: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes
    authorization: str
    account: Account | None = None
    client: str = ""

    @property
    def user(self) -> Account:
        """The caller; only on routes that need a session."""
        if self.account is None:
            raise denied()
        return self.account

    def admin(self) -> Account:
        """The caller, who must be an administrator (403)."""
        if not self.user.admin:
            raise denied("Administrator access is required.")
        return self.user

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean of the query."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        if value.lower() in ("true", "1", "yes", "on"):
            return True
        if value.lower() in ("false", "0", "no", "off"):
            return False
        raise invalid(f"query.{name}: true or false is expected, not {value!r}.")

    def body(self, check: Check) -> Any:
        """The JSON body, checked. Raises 400."""
        try:
            value = json.loads(self.raw)
        except ValueError as error:
            raise invalid(f"The body is not JSON: {error}") from None
        check(value, "body")
        return value

    def lab(self, need: str = "lab_view") -> Lab:
        """The lab of the path, if the caller has the permission `need` on it."""
        return self.controller.labs.get(self.path["lab_id"], self.user, need)

    def node(self, need: str = "lab_view", missing: int = 404) -> tuple[Lab, Node]:
        lab = self.lab(need)
        return lab, find_node(lab, self.path["node_id"], missing)

    def interface(self, need: str = "lab_view") -> tuple[Lab, Node, Interface]:
        lab = self.lab(need)
        return lab, *find_interface(lab, self.path["interface_id"])

    def link(self, need: str = "lab_view") -> tuple[Lab, Link]:
        lab = self.lab(need)
        return lab, find_link(lab, self.path["link_id"])

    def touch(self, lab: Lab) -> None:
        lab.modified = self.controller.clock.wall()


Handler = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table. `open` routes need no session and answer during maintenance."""

    method: str
    path: str
    handler: Handler
    open: bool = False


class Table:
    """The routes, in the order in which they are tried."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, method: str, path: str, handler: Handler, *, open_: bool = False) -> None:
        self.entries.append(Entry(method, path, handler, open_))
