"""Labs, nodes, interfaces and links as the API shows them."""

from __future__ import annotations

import hashlib
from typing import Any

from .accounts import Account, Accounts
from .console import PORT_TAG
from .labs import permissions
from .model import ACTIVE, BOOTED, STARTED, Interface, Lab, Link, Node

Json = dict[str, Any]


def lab(one: Lab, account: Account, accounts: Accounts) -> Json:
    """LabResponse."""
    owner = next((each for each in accounts.all() if each.id == one.owner), None)
    return {
        "id": one.id,
        "created": one.created.isoformat(),
        "modified": one.modified.isoformat(),
        "lab_title": one.title,
        "lab_description": one.description,
        "lab_notes": one.notes,
        "owner": one.owner,
        "owner_username": owner.username if owner else "",
        "owner_fullname": owner.details.get("fullname", "") if owner else "",
        "state": one.state,
        "node_count": len(one.nodes),
        "link_count": len(one.links),
        "groups": one.groups,
        "effective_permissions": list(permissions(one, account)),
    }


def _consoles(node: Node) -> list[Json]:
    if not node.definition.has_console or node.state not in (STARTED, BOOTED):
        return []
    return [{"console_key": node.console_key, "label": "Console", "device_number": 0}]


def _vnc(node: Node) -> str | None:
    shown = node.definition.vnc or any(tag.startswith("vnc:") and PORT_TAG.fullmatch(tag) for tag in node.tags)
    return node.vnc_key if shown and node.state in (STARTED, BOOTED) else None


def vnc_key(node: Node) -> str | None:
    """The key of the node's screen, while there is one."""
    return _vnc(node)


def node(
    one: Node, lab_id: str, host: str, pool: str | None, *, operational: bool = False, configurations: bool = True
) -> Json:
    """Node. `host` is the compute host's id, `pool` the resource pool of the lab's owner."""
    wishes = one.wishes
    compute = host if one.state in ACTIVE else None
    shown: Json = {
        "id": one.id,
        "lab_id": lab_id,
        "label": one.label,
        "x": int(wishes.get("x", 0)),
        "y": int(wishes.get("y", 0)),
        "node_definition": one.definition.id,
        "image_definition": wishes.get("image_definition"),
        **{name: wishes.get(name) for name in ("ram", "cpus", "cpu_limit", "data_volume", "boot_disk_size")},
        "hide_links": wishes.get("hide_links", False),
        "parameters": wishes.get("parameters") or {},
        "tags": one.tags,
        "configuration": one.configuration,
        "state": one.state,
        "boot_progress": one.progress,
        "compute_id": compute,
        "pinned_compute_id": one.pinned_compute,
        "resource_pool": pool,
        "vnc_key": _vnc(one),
        "iol_app_id": None,
        "serial_consoles": _consoles(one),
    }
    if not configurations:
        del shown["configuration"]
    if operational:
        shown["operational"] = {
            "boot_disk_size": wishes.get("boot_disk_size"),
            "cpu_limit": wishes.get("cpu_limit") or (100 if one.definition.has_console else None),
            "cpus": one.cpus,
            "data_volume": wishes.get("data_volume"),
            "ram": one.ram or None,
            "compute_id": compute,
            "image_definition": wishes.get("image_definition") or one.definition.default_image,
            "vnc_key": _vnc(one),
            "resource_pool": pool,
            "iol_app_id": None,
            "serial_consoles": _consoles(one),
        }
    return shown


def mac_address(interface: Interface) -> str:
    """The address asked for, else one made from the interface's id: the same on each read."""
    if interface.mac:
        return interface.mac
    digest = hashlib.sha256(interface.id.encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def interface(one: Interface, owner: Node, inside: Lab, *, operational: bool = False) -> Json:
    """InterfaceResponse."""
    state = owner.interface_state(one)
    shown: Json = {
        "id": one.id,
        "lab_id": inside.id,
        "node": owner.id,
        "label": one.label,
        "type": one.type,
        "slot": one.slot,
        "mac_address": one.mac,
        "is_connected": inside.connected(one),
        "state": state,
    }
    if operational:
        runs = owner.state in (STARTED, BOOTED)
        name = f"tap{one.id[:8]}" if runs and one.type == "physical" else None
        shown["operational"] = {
            "mac_address": mac_address(one) if runs else None,
            "src_udp_port": None,
            "dst_udp_port": None,
            "device_name": name,
        }
    return shown


def link(one: Link, inside: Lab) -> Json:
    """Link."""
    return {
        "id": one.id,
        "lab_id": inside.id,
        "label": one.label,
        "state": inside.link_state(one),
        "interface_a": one.a,
        "interface_b": one.b,
        "node_a": one.node_a,
        "node_b": one.node_b,
        "link_capture_key": "",
    }


def element_states(one: Lab) -> Json:
    """LabElementStateResponse: the cheapest look at a whole lab."""
    return {
        "nodes": {key: each.state for key, each in one.nodes.items()},
        "links": {key: one.link_state(each) for key, each in one.links.items()},
        "interfaces": {
            key: each.interface_state(port) for each in one.nodes.values() for key, port in each.interfaces.items()
        },
    }


def addresses(one: Node) -> Json:
    """What the controller has learned of a running node's addresses: here, what its configuration says."""
    found: Json = {}
    if one.state == BOOTED and one.running is not None:
        configured = one.running.addresses()
        for port in one.interfaces.values():
            if port.type == "physical" and port.label in configured:
                entry = {"id": port.id, "label": port.label, "ip4": [configured[port.label]], "ip6": []}
                found[mac_address(port)] = entry
    return {"name": one.label, "interfaces": found}
