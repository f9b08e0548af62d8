"""The controller's labs: who may see and change which, and what is added to or taken from them by hand."""

from __future__ import annotations

from typing import Any

from .accounts import Account
from .clock import Clock
from .errors import denied, invalid, missing
from .model import Interface, Lab, Link, Node, make_node, new_id
from .shapes import PERMISSIONS

Json = dict[str, Any]


class Labs:
    """All labs, by id, in the order of their making."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._labs: dict[str, Lab] = {}

    def all(self) -> list[Lab]:
        return list(self._labs.values())

    def add(self, lab: Lab) -> None:
        self._labs[lab.id] = lab
        lab.record(self._clock.wall(), "ADD", "LAB", lab.id, {"title": lab.title}, {})

    def visible(self, account: Account, *, everything: bool = False) -> list[Lab]:
        """The user's own labs and those shared with it; for an administrator with `everything`, all."""
        return [
            lab
            for lab in self._labs.values()
            if lab.owner == account.id or (everything and account.admin) or _shared(lab, account)
        ]

    def get(self, key: str, account: Account, need: str = "lab_view") -> Lab:
        """The lab; 404 when there is none that the user may see, 403 when `need` is missing."""
        lab = self._labs.get(key)
        if lab is None or not (allowed := permissions(lab, account)):
            raise missing("Lab", key)
        if need not in allowed:
            raise denied(f"The permission {need} on this lab is missing.")
        return lab

    def remove(self, lab: Lab) -> None:
        """Deletes a lab; 400 unless it is stopped and wiped."""
        if any(node.active for node in lab.nodes.values()) or lab.state == "STARTED":
            raise invalid("Lab must be stopped and wiped before it can be deleted: nodes are running.")
        if lab.state != "DEFINED_ON_CORE":
            raise invalid("Lab must be wiped before it can be deleted.")
        del self._labs[lab.id]


def permissions(lab: Lab, account: Account) -> tuple[str, ...]:
    """What the user may do with the lab; a stronger permission includes the weaker ones."""
    if account.admin or lab.owner == account.id:
        return PERMISSIONS
    granted = _shared(lab, account)
    strongest = min((PERMISSIONS.index(name) for name in granted), default=len(PERMISSIONS))
    return PERMISSIONS[strongest:]


def _shared(lab: Lab, account: Account) -> list[str]:
    return [
        permission
        for association in lab.associations["users"]
        if association["id"] == account.id
        for permission in association["permissions"]
    ]


def find_node(lab: Lab, key: str, status_of_missing: int = 404) -> Node:
    """The node; a missing one is 404, but 400 where the real controller says so."""
    node = lab.nodes.get(key)
    if node is None:
        raise invalid(f"Node not found: {key}") if status_of_missing == 400 else missing("Node", key)
    return node


def find_interface(lab: Lab, key: str) -> tuple[Node, Interface]:
    found = lab.interface(key)
    if found is None:
        raise missing("Interface", key)
    return found


def find_link(lab: Lab, key: str) -> Link:
    if key not in lab.links:
        raise missing("Link", key)
    return lab.links[key]


def add_node(lab: Lab, wanted: Json, clock: Clock, *, populate: bool) -> Node:
    """Adds a node, with its definition's usual interfaces if `populate`. Raises 400 for an unknown definition."""
    wishes = {k: v for k, v in wanted.items() if k not in ("label", "node_definition", "configuration")}
    key = lab.free_key("n", {node.key for node in lab.nodes.values()})
    node = make_node(key, wanted["node_definition"], wanted["label"], wishes, wanted.get("configuration"))
    if node is None:
        raise invalid(f"Node definition not found: {wanted['node_definition']}")
    if node.configuration is None and node.definition.has_console:
        node.configuration = f"hostname {node.label}"
    lab.nodes[node.id] = node
    if populate:
        if node.definition.loopback:
            _plug(node, Interface("Loopback0", "loopback", None))
        for slot in range(node.definition.default_ports):
            _plug(node, Interface(node.definition.interface_names[slot], "physical", slot))
    _annotate(lab)
    lab.record(clock.wall(), "ADD", "NODE", node.id, {"label": node.label}, {})
    lab.modified = clock.wall()
    return node


def change_node(lab: Lab, node: Node, wanted: Json, clock: Clock) -> None:
    """Changes a node. Raises 400 for what a node that is not wiped cannot change."""
    fixed = {"ram", "cpus", "cpu_limit", "data_volume", "boot_disk_size", "image_definition", "configuration"}
    if node.active and (wrong := sorted(fixed & wanted.keys())):
        raise invalid(f"Cannot change {', '.join(wrong)} while node {node.label} is {node.state}.")
    if node.active and "tags" in wanted and wanted["tags"] != node.tags:
        raise invalid(f"Cannot change the tags of node {node.label} while it is {node.state}.")
    node.label = wanted.get("label", node.label)
    node.configuration = wanted.get("configuration", node.configuration)
    node.pinned_compute = wanted.get("pinned_compute_id", node.pinned_compute)
    node.wishes |= {k: v for k, v in wanted.items() if k not in ("label", "configuration", "pinned_compute_id")}
    if "tags" in wanted:
        _annotate(lab)
    lab.record(clock.wall(), "CHANGE", "NODE", node.id, {"label": node.label}, {})
    lab.modified = clock.wall()


def remove_node(lab: Lab, node: Node, clock: Clock) -> None:
    """Deletes a node and its links; 400 unless it is stopped and wiped."""
    if node.state != "DEFINED_ON_CORE":
        raise invalid(f"Node {node.label} must be stopped and wiped before it can be deleted; it is {node.state}.")
    lab.links = {key: link for key, link in lab.links.items() if node.id not in (link.node_a, link.node_b)}
    del lab.nodes[node.id]
    _annotate(lab)
    lab.record(clock.wall(), "REMOVE", "NODE", node.id, {}, {"label": node.label})
    lab.modified = clock.wall()


def add_interfaces(lab: Lab, node: Node, slot: int | None, mac: str | None, clock: Clock) -> list[Interface]:
    """Adds the interface of this slot and all missing ones below it; without a slot, the next."""
    if node.active:
        raise invalid(f"Cannot add interfaces while node {node.label} is {node.state}.")
    taken = {interface.slot for interface in node.interfaces.values() if interface.type == "physical"}
    if slot is None:
        slot = max((each for each in taken if each is not None), default=-1) + 1
    if slot in taken:
        raise invalid(f"Node {node.label} has an interface in slot {slot} already.")
    names = node.definition.interface_names
    if slot >= len(names):
        raise invalid(f"Node {node.label} has no slot {slot}; its last is {len(names) - 1}.")
    added = []
    for number in range(slot + 1):
        if number not in taken:
            wanted_mac = mac if number == slot else None
            added.append(_plug(node, Interface(names[number], "physical", number, wanted_mac)))
    for interface in added:
        lab.record(clock.wall(), "ADD", "INTERFACE", interface.id, {"label": interface.label}, {})
    lab.modified = clock.wall()
    return added


def remove_interface(lab: Lab, node: Node, interface: Interface, clock: Clock) -> None:
    if node.active:
        raise invalid(f"Cannot remove interfaces while node {node.label} is {node.state}.")
    lab.links = {key: link for key, link in lab.links.items() if interface.id not in (link.a, link.b)}
    del node.interfaces[interface.id]
    lab.record(clock.wall(), "REMOVE", "INTERFACE", interface.id, {}, {"label": interface.label})
    lab.modified = clock.wall()


def add_link(lab: Lab, first: str, second: str, clock: Clock) -> Link:
    """Connects two free interfaces of two nodes. Raises 400 when one is taken."""
    node_a, a = find_interface(lab, first)
    node_b, b = find_interface(lab, second)
    if a is b:
        raise invalid("An interface cannot be connected to itself.")
    for node, interface in ((node_a, a), (node_b, b)):
        if lab.connected(interface):
            raise invalid(f"Interface {interface.label} of node {node.label} is already connected.")
        if interface.type != "physical":
            raise invalid(f"Interface {interface.label} of node {node.label} is not physical.")
    label = f"{node_a.label}-{a.label}<->{node_b.label}-{b.label}"[:128]
    key = lab.free_key("l", {link.key for link in lab.links.values()})
    link = Link(key, a.id, b.id, node_a.id, node_b.id, label)
    lab.links[link.id] = link
    lab.record(clock.wall(), "ADD", "LINK", link.id, {"label": label}, {})
    lab.modified = clock.wall()
    return link


def remove_link(lab: Lab, link: Link, clock: Clock) -> None:
    del lab.links[link.id]
    lab.record(clock.wall(), "REMOVE", "LINK", link.id, {}, {"label": link.label})
    lab.modified = clock.wall()


def _annotate(lab: Lab) -> None:
    """Keeps one smart annotation for each tag that a node has, as the controller does when tags change."""
    tags = list(dict.fromkeys(tag for node in lab.nodes.values() for tag in node.tags if tag))
    kept = [each for each in lab.smart_annotations if each.get("tag") in tags]
    known = {each.get("tag") for each in kept}
    new = [{"id": new_id(), "tag": tag, "label": tag, "is_on": False} for tag in tags if tag not in known]
    lab.smart_annotations = kept + new


def _plug(node: Node, interface: Interface) -> Interface:
    node.interfaces[interface.id] = interface
    return interface
