"""Nodes, interfaces and links of a lab, and the keys of their consoles."""

from __future__ import annotations

from typing import Any

from .. import labs, shapes, views
from ..errors import invalid, missing
from ..model import BOOTED, STARTED, Lab, Node
from .call import Call, Table

Json = dict[str, Any]


def _shown(call: Call, lab: Lab, node: Node) -> Json:
    return views.node(
        node,
        lab.id,
        call.controller.host.id,
        call.controller.accounts.by_id(lab.owner).pool,
        operational=call.flag("operational"),
        configurations=not call.flag("exclude_configurations"),
    )


def nodes(call: Call) -> list[Any]:
    lab = call.lab()
    if not call.flag("data"):
        return list(lab.nodes)
    return [_shown(call, lab, node) for node in lab.nodes.values()]


def all_nodes(call: Call) -> list[Json]:
    visible = call.controller.labs.visible(call.user, everything=True)
    return [_shown(call, lab, node) for lab in visible for node in lab.nodes.values()]


def create_node(call: Call) -> Json:
    lab = call.lab("lab_edit")
    wanted = call.body(shapes.NODE_CREATE)
    return {"id": labs.add_node(lab, wanted, call.controller.clock, populate=call.flag("populate_interfaces")).id}


def node(call: Call) -> Json:
    lab, found = call.node(missing=400)
    return _shown(call, lab, found)


def change_node(call: Call) -> str:
    lab, found = call.node("lab_edit")
    labs.change_node(lab, found, call.body(shapes.NODE_UPDATE), call.controller.clock)
    return found.id


def delete_node(call: Call) -> None:
    lab, found = call.node("lab_edit")
    labs.remove_node(lab, found, call.controller.clock)


def node_state(call: Call) -> Json:
    _, found = call.node()
    return {"state": found.state, "progress": found.progress}


def start_node(call: Call) -> None:
    lab, found = call.node("lab_exec")
    call.controller.start(lab, [found])


def stop_node(call: Call) -> None:
    lab, found = call.node("lab_exec")
    call.controller.launcher.stop(lab, [found])


def wipe_node(call: Call) -> None:
    lab, found = call.node("lab_exec")
    call.controller.launcher.wipe(lab, [found])


def extract(call: Call) -> Json:
    lab, found = call.node("lab_exec")
    call.controller.launcher.extract(lab, found)
    return {"message": "Configuration extracted."}


def node_converged(call: Call) -> bool:
    _, found = call.node()
    return call.controller.launcher.converged([found])


def node_addresses(call: Call) -> Json:
    return views.addresses(call.node()[1])


def console_key(call: Call) -> str:
    _, found = call.node("lab_exec")
    if call.query.get("line", "0") != "0" or not found.definition.has_console or found.state not in (STARTED, BOOTED):
        raise missing("Console of node", found.id)
    return found.console_key


def vnc_key(call: Call) -> str:
    _, found = call.node("lab_exec")
    key = views.vnc_key(found)
    if key is None:
        raise missing("VNC console of node", found.id)
    return key


def console_log(call: Call) -> str:
    _, found = call.node("lab_exec")
    if call.path["console_id"] != "0" or not found.definition.has_console:
        raise missing("Console of node", found.id)
    text: str = call.controller.console_log(found)
    lines = call.query.get("lines")
    if lines is not None and (not lines.isdigit() or lines == "0"):
        raise invalid("query.lines: a whole number above 0 is expected.")
    return "\n".join(text.splitlines()[-int(lines) :]) if lines else text


def _running(call: Call) -> list[tuple[Lab, Node]]:
    visible = call.controller.labs.visible(call.user, everything=call.flag("show_all"))
    return [
        (lab, each)
        for lab in visible
        for each in lab.nodes.values()
        if each.state in (STARTED, BOOTED) and each.definition.has_console
    ]


def console_keys(call: Call) -> Json:
    host = call.controller.host.id
    return {
        each.console_key: {
            "node_id": each.id,
            "compute_id": host,
            "lab_id": lab.id,
            "label": each.label,
            "driver": each.definition.driver.upper(),
            "line": 0,
        }
        for lab, each in _running(call)
    }


def vnc_keys(call: Call) -> Json:
    host = call.controller.host
    return {
        key: {
            "node_id": each.id,
            "compute_id": host.id,
            "lab_id": lab.id,
            "label": each.label,
            "compute_address": host.address,
        }
        for lab, each in _running(call)
        if (key := views.vnc_key(each)) is not None
    }


def node_interfaces(call: Call) -> list[Any]:
    lab, found = call.node()
    if not call.flag("data"):
        return list(found.interfaces)
    operational = call.flag("operational")
    return [views.interface(each, found, lab, operational=operational) for each in found.interfaces.values()]


def lab_interfaces(call: Call) -> list[Any]:
    """All interfaces of the lab: outside the 2.9 specification, but the official client asks for it."""
    lab = call.lab()
    return [
        views.interface(each, found, lab, operational=call.flag("operational"))
        for found in lab.nodes.values()
        for each in found.interfaces.values()
    ]


def create_interface(call: Call) -> Any:
    lab = call.lab("lab_edit")
    wanted = call.body(shapes.INTERFACE_CREATE)
    owner = labs.find_node(lab, wanted["node"])
    added = labs.add_interfaces(lab, owner, wanted.get("slot"), wanted.get("mac_address"), call.controller.clock)
    shown = [views.interface(each, owner, lab) for each in added]
    return shown[0] if len(shown) == 1 else shown


def interface(call: Call) -> Json:
    lab, owner, found = call.interface()
    return views.interface(found, owner, lab, operational=call.flag("operational"))


def change_interface(call: Call) -> Json:
    lab, owner, found = call.interface("lab_edit")
    wanted = call.body(shapes.INTERFACE_UPDATE)
    if owner.active and "mac_address" in wanted:
        raise invalid(f"Cannot change the MAC address while node {owner.label} is {owner.state}.")
    found.mac = wanted.get("mac_address", found.mac)
    call.touch(lab)
    return views.interface(found, owner, lab)


def delete_interface(call: Call) -> None:
    lab, owner, found = call.interface("lab_edit")
    labs.remove_interface(lab, owner, found, call.controller.clock)


def interface_state(call: Call) -> Json:
    _, owner, found = call.interface()
    return {"label": found.label, "state": owner.interface_state(found)}


def start_interface(call: Call) -> None:
    _, _, found = call.interface("lab_exec")
    found.down = False


def stop_interface(call: Call) -> None:
    _, _, found = call.interface("lab_exec")
    found.down = True


def links(call: Call) -> list[Any]:
    lab = call.lab()
    return [views.link(each, lab) for each in lab.links.values()] if call.flag("data") else list(lab.links)


def create_link(call: Call) -> Json:
    lab = call.lab("lab_edit")
    wanted = call.body(shapes.LINK_CREATE)
    return {"id": labs.add_link(lab, wanted["src_int"], wanted["dst_int"], call.controller.clock).id}


def link(call: Call) -> Json:
    lab, found = call.link()
    return views.link(found, lab)


def delete_link(call: Call) -> None:
    lab, found = call.link("lab_edit")
    labs.remove_link(lab, found, call.controller.clock)


def start_link(call: Call) -> None:
    call.link("lab_exec")[1].down = False


def stop_link(call: Call) -> None:
    call.link("lab_exec")[1].down = True


def condition(call: Call) -> Json:
    """The link's condition; `operational` says what is in force on a running link."""
    lab, found = call.link()
    shown = dict(found.conditioning)
    if call.flag("operational") and shown.get("enabled", True) and lab.link_state(found) == STARTED:
        shown["operational"] = {name: value for name, value in found.conditioning.items() if name != "enabled"}
    return shown


def change_condition(call: Call) -> Json:
    lab, found = call.link("lab_edit")
    found.conditioning |= call.body(shapes.LINK_CONDITION)
    call.touch(lab)
    return condition(call)


def delete_condition(call: Call) -> None:
    call.link("lab_edit")[1].conditioning.clear()


def register(table: Table) -> None:
    """Adds this room's routes."""
    lab = "/labs/{lab_id}"
    table.add("GET", "/nodes", all_nodes)
    table.add("GET", "/keys/console", console_keys)
    table.add("GET", "/keys/vnc", vnc_keys)
    table.add("GET", f"{lab}/nodes", nodes)
    table.add("POST", f"{lab}/nodes", create_node)
    one = f"{lab}/nodes/{{node_id}}"
    table.add("GET", one, node)
    table.add("PATCH", one, change_node)
    table.add("DELETE", one, delete_node)
    table.add("GET", f"{one}/state", node_state)
    table.add("PUT", f"{one}/state/start", start_node)
    table.add("PUT", f"{one}/state/stop", stop_node)
    table.add("PUT", f"{one}/wipe_disks", wipe_node)
    table.add("PUT", f"{one}/extract_configuration", extract)
    table.add("GET", f"{one}/check_if_converged", node_converged)
    table.add("GET", f"{one}/layer3_addresses", node_addresses)
    table.add("GET", f"{one}/keys/console", console_key)
    table.add("GET", f"{one}/keys/vnc", vnc_key)
    table.add("GET", f"{one}/consoles/{{console_id}}/log", console_log)
    table.add("GET", f"{one}/interfaces", node_interfaces)
    table.add("GET", f"{lab}/interfaces", lab_interfaces)
    table.add("POST", f"{lab}/interfaces", create_interface)
    port = f"{lab}/interfaces/{{interface_id}}"
    table.add("GET", port, interface)
    table.add("PATCH", port, change_interface)
    table.add("DELETE", port, delete_interface)
    table.add("GET", f"{port}/state", interface_state)
    table.add("PUT", f"{port}/state/start", start_interface)
    table.add("PUT", f"{port}/state/stop", stop_interface)
    table.add("GET", f"{lab}/links", links)
    table.add("POST", f"{lab}/links", create_link)
    wire = f"{lab}/links/{{link_id}}"
    table.add("GET", wire, link)
    table.add("DELETE", wire, delete_link)
    table.add("PUT", f"{wire}/state/start", start_link)
    table.add("PUT", f"{wire}/state/stop", stop_link)
    table.add("GET", f"{wire}/check_if_converged", lambda call: call.link() is not None)
    table.add("GET", f"{wire}/condition", condition)
    table.add("PATCH", f"{wire}/condition", change_condition)
    table.add("DELETE", f"{wire}/condition", delete_condition)
