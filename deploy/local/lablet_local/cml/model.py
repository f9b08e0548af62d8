"""What a lab is made of: labs, nodes, interfaces and links, with the states that are computed from them.

Mutable on purpose, owned by the controller's one event loop, written by `labs`, `nodes` and `console` only. A node's
state is stored; the states of interfaces, links and labs are derived from it on each read, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from .clock import Timer
from .definitions import NODE_TYPES, NodeType

Json = dict[str, Any]

DEFINED, STOPPED, STARTED = "DEFINED_ON_CORE", "STOPPED", "STARTED"
QUEUED, BOOTED, DISCONNECTED = "QUEUED", "BOOTED", "DISCONNECTED"
ACTIVE = frozenset({QUEUED, STARTED, BOOTED, DISCONNECTED})
_PROGRESS = {STARTED: "Booting", BOOTED: "Booted"}
KEPT_EVENTS = 2000


def new_id() -> str:
    """A UUID4 as the API writes it."""
    return str(uuid4())


@dataclass(slots=True)
class Interface:
    """One interface. `down` is the user's stop of this interface alone; `mac` is what was asked for, if anything."""

    label: str
    type: str
    slot: int | None
    mac: str | None = None
    id: str = field(default_factory=new_id)
    assigned_mac: str | None = None
    down: bool = False


@dataclass(slots=True)
class Node:
    """One node with its wishes (as imported or set) and its run: state, timers, configuration in memory and on disk."""

    key: str
    """The id inside the topology document, such as `n0`."""
    definition: NodeType
    label: str
    wishes: Json
    """x, y, ram, cpus, cpu_limit, data_volume, boot_disk_size, image_definition, hide_links, parameters, tags."""
    configuration: Any
    id: str = field(default_factory=new_id)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    pinned_compute: str | None = None
    state: str = DEFINED
    stopping: bool = False
    timer: Timer | None = None
    since: dict[str, float] = field(default_factory=dict)
    """Lab time at which each state was entered in this run."""
    running: Any = None
    """The `ios.RunningConfig` of a started node."""
    startup: str | None = None
    """What `write memory` left on the node's disk; gone with a wipe."""
    console_key: str = field(default_factory=new_id)
    vnc_key: str = field(default_factory=new_id)
    complaint: str | None = None
    """Why the node stays QUEUED, once reported."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def progress(self) -> str:
        return _PROGRESS.get(self.state, "Not running")

    @property
    def tags(self) -> list[str]:
        tags: list[str] = self.wishes.get("tags") or []
        return tags

    @property
    def ram(self) -> int:
        """MiB that the node takes while it is active."""
        return int(self.wishes.get("ram") or self.definition.ram)

    @property
    def cpus(self) -> int:
        """Virtual CPUs that the node takes while it is active."""
        return int(self.wishes.get("cpus") or self.definition.cpus)

    def interface_state(self, interface: Interface) -> str:
        if self.state in (STARTED, BOOTED, DISCONNECTED):
            return STOPPED if interface.down else STARTED
        return STOPPED if self.state == STOPPED else DEFINED


@dataclass(slots=True)
class Link:
    """A wire between interface `a` of `node_a` and interface `b` of `node_b` (ids)."""

    key: str
    a: str
    b: str
    node_a: str
    node_b: str
    label: str
    conditioning: Json = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    down: bool = False


@dataclass(slots=True)
class Lab:
    """One lab. `empty_state` is its state as long as it has no nodes."""

    title: str
    owner: str
    created: datetime
    modified: datetime
    description: str = ""
    notes: str = ""
    version: str = "0.3.0"
    id: str = field(default_factory=new_id)
    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    annotations: list[Json] = field(default_factory=list)
    smart_annotations: list[Json] = field(default_factory=list)
    groups: list[Json] = field(default_factory=list)
    associations: dict[str, list[Json]] = field(default_factory=lambda: {"groups": [], "users": []})
    connectors: dict[str, str | None] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    empty_state: str = DEFINED
    announced: bool = False
    """Whether the witness has been told that the lab runs."""

    @property
    def state(self) -> str:
        if not self.nodes:
            return self.empty_state
        states = {node.state for node in self.nodes.values()}
        if states & ACTIVE:
            return STARTED
        return DEFINED if states == {DEFINED} else STOPPED

    def interface(self, key: str) -> tuple[Node, Interface] | None:
        for node in self.nodes.values():
            if key in node.interfaces:
                return node, node.interfaces[key]
        return None

    def link_state(self, link: Link) -> str:
        states = []
        for node_id, interface_id in ((link.node_a, link.a), (link.node_b, link.b)):
            node = self.nodes[node_id]
            states.append(node.interface_state(node.interfaces[interface_id]))
        if DEFINED in states:
            return DEFINED
        return STOPPED if link.down or STOPPED in states else STARTED

    def connected(self, interface: Interface) -> bool:
        return any(interface.id in (link.a, link.b) for link in self.links.values())

    def free_key(self, letter: str, taken: set[str]) -> str:
        """The next topology id of this letter, such as `n7`."""
        number = len(taken)
        while f"{letter}{number}" in taken:
            number += 1
        return f"{letter}{number}"

    def record(self, at: datetime, event: str, element: str, key: str, data: Json, previous: Json) -> None:
        """Adds a lab event; the oldest are dropped beyond `KEPT_EVENTS`."""
        self.events.append(
            {
                "lab_id": self.id,
                "event": event,
                "element_type": element,
                "element_id": key,
                "data": data,
                "previous": previous,
                "timestamp": at.isoformat(),
            }
        )
        del self.events[:-KEPT_EVENTS]


def make_node(
    key: str, definition_id: str, label: str, wishes: Json, configuration: Any, known: dict[str, NodeType] = NODE_TYPES
) -> Node | None:
    """A node, or None when the controller has no such definition."""
    definition = known.get(definition_id)
    return None if definition is None else Node(key, definition, label, wishes, configuration)
