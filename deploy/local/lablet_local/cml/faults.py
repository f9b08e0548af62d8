"""Switches that make the controller misbehave, set from a file at the start or at `/sim/faults` while it runs.

Each switch is off by default and stays as set until it is changed, apart from the counters (`failRequests`,
`resetConnections`), which run down to zero. Labels are matched as shell patterns (`r*`) against a node's label.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from .bodies import Check, boolean, choice, integer, listing, number, record, text
from .errors import invalid

Json = dict[str, Any]


def _expression(value: Any, where: str) -> None:
    text(0, 256)(value, where)
    try:
        re.compile(value)
    except re.error as error:
        raise invalid(f"{where}: no regular expression ({error}).") from None


_labels = listing(text(1, 128))
_SHAPE: dict[str, Check] = {
    "slowBoot": number(0.01, 10_000),
    "stuckQueued": _labels,
    "disconnected": _labels,
    "deafConsoles": _labels,
    "neverConverge": boolean,
    "registration": choice(("ok", "conflict", "failed", "slow")),
    "authorization": choice(("ok", "never", "out-of-compliance")),
    "deregistration": choice(("ok", "unreachable", "conflict")),
    "failRequests": integer(0, 1_000_000),
    "failStatus": integer(400, 599),
    "failPath": _expression,
    "resetConnections": integer(0, 1_000_000),
    "notReady": boolean,
}
_CHECK = record(_SHAPE)


@dataclass(slots=True)
class Faults:
    """The switches. Field names are the JSON names of `/sim/faults`."""

    slowBoot: float = 1.0  # noqa: N815 - the name on the wire
    """Factor on every node's boot time."""
    stuckQueued: list[str] = field(default_factory=list)  # noqa: N815
    """Nodes that never leave QUEUED."""
    disconnected: list[str] = field(default_factory=list)
    """Nodes whose compute host is lost: DISCONNECTED instead of running, consoles closed."""
    deafConsoles: list[str] = field(default_factory=list)  # noqa: N815
    """Nodes that boot but whose ports never answer."""
    neverConverge: bool = False  # noqa: N815
    """`check_if_converged` answers false for ever."""
    registration: str = "ok"
    """`conflict` 409 · `failed` accepted, then FAILED · `slow` accepted, never COMPLETED."""
    authorization: str = "ok"
    """`never` stays in EVAL_MODE · `out-of-compliance`."""
    deregistration: str = "ok"
    """`unreachable` 202 · `conflict` 409."""
    failRequests: int = 0  # noqa: N815
    """The next N API requests whose path matches `failPath` answer `failStatus`."""
    failStatus: int = 500  # noqa: N815
    failPath: str = ""  # noqa: N815
    resetConnections: int = 0  # noqa: N815
    """The next N API requests (also filtered by `failPath`) end in a connection reset."""
    notReady: bool = False  # noqa: N815
    """`system_information.ready` is false, as without any compute host."""

    def as_json(self) -> Json:
        return asdict(self)

    def change(self, wanted: Any) -> None:
        """Sets the named switches, leaves the others. Raises `ApiError` 400 for an unknown one, changing nothing."""
        _CHECK(wanted, "faults")
        for name, value in wanted.items():
            setattr(self, name, value)

    def clear(self) -> None:
        """All switches off."""
        healthy = Faults()
        for each in fields(self):
            setattr(self, each.name, getattr(healthy, each.name))

    def verdict(self, path: str) -> str | int | None:
        """What to do to this request: "reset", a status to answer, or None; counts it off."""
        if not (self.resetConnections or self.failRequests) or not re.search(self.failPath, path):
            return None
        if self.resetConnections:
            self.resetConnections -= 1
            return "reset"
        self.failRequests -= 1
        return self.failStatus


def hits(patterns: list[str], label: str) -> bool:
    """True when one of the shell patterns matches the label."""
    return any(fnmatchcase(label, pattern) for pattern in patterns)
