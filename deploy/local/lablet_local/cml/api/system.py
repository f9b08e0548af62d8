"""Sessions, the system's own state, compute hosts, maintenance, connectors, diagnostics, telemetry."""

from __future__ import annotations

from typing import Any

from .. import shapes
from ..controller import VERSION
from ..definitions import NODE_TYPES
from ..errors import conflict, denied, invalid, missing
from ..model import BOOTED, QUEUED, STARTED, new_id
from .call import Call, Reply, Table

Json = dict[str, Any]
_CONNECTORS = (("NAT", "virbr0", "NAT"), ("System Bridge", "bridge0", "BRIDGE"))
_MOVES = {
    "UNREGISTERED": {"REGISTERED"},
    "REGISTERED": {"UNREGISTERED", "ONLINE", "READY"},
    "ONLINE": {"REGISTERED", "READY"},
    "READY": {"REGISTERED", "ONLINE"},
}


def _login(call: Call) -> tuple[Any, str]:
    wanted = call.body(shapes.AUTHENTICATE)
    account, token = call.controller.accounts.login(wanted["username"], wanted["password"])
    if call.controller.maintenance and not account.admin:
        raise denied("The system is in maintenance mode.")
    return account, token


def authenticate(call: Call) -> str:
    return _login(call)[1]


def auth_extended(call: Call) -> Json:
    account, token = _login(call)
    return {"username": account.username, "id": account.id, "token": token, "admin": account.admin}


def logout(call: Call) -> bool:
    if call.flag("clear_all_sessions"):
        call.controller.accounts.end_sessions(call.user)
    call.controller.accounts.logout(call.authorization)
    return True


def information(call: Call) -> Json:
    return {"version": VERSION, "ready": call.controller.ready, "allow_ssh_pubkey_auth": False, "oui": None}


def health(call: Call) -> Json:
    controller = call.controller
    return {
        "valid": controller.ready,
        "computes": {controller.host.id: controller.host.health()},
        "is_licensed": controller.licence.licensed,
        "is_enterprise": controller.licence.product == "CML_Enterprise",
        "controller": dict.fromkeys(("core_connected", "nodes_loaded", "images_loaded", "valid"), True),
    }


def statistics(call: Call) -> Json:
    controller = call.controller
    return controller.host.stats(controller.active(), len(controller.nodes()))


def _compute(call: Call) -> Json:
    controller = call.controller
    return controller.host.describe(controller.active(), len(controller.nodes()))


def _known_compute(call: Call) -> None:
    if call.path["compute_id"] != call.controller.host.id:
        raise missing("Compute host", call.path["compute_id"])


def compute_hosts(call: Call) -> list[Json]:
    return [_compute(call)]


def compute_host(call: Call) -> Json:
    _known_compute(call)
    return _compute(call)


def change_compute_host(call: Call) -> Json:
    call.admin()
    _known_compute(call)
    wanted = call.body(shapes.COMPUTE_HOST)["admission_state"]
    host = call.controller.host
    if wanted != host.admission and wanted not in _MOVES[host.admission]:
        raise conflict(f"The compute host cannot go from {host.admission} to {wanted}.")
    if wanted in ("REGISTERED", "UNREGISTERED") and call.controller.active():
        raise conflict("The compute host runs nodes.")
    host.admission = wanted
    return _compute(call)


def delete_compute_host(call: Call) -> None:
    call.admin()
    _known_compute(call)
    raise conflict("The controller's own compute host cannot be removed.")


def compute_configuration(_call: Call) -> Json:
    return {"admission_state": "READY"}


def maintenance(call: Call) -> Json:
    return {
        "maintenance_mode": call.controller.maintenance,
        "notice": call.controller.notice,
        "resolved_notice": None,
    }


def change_maintenance(call: Call) -> Json:
    call.admin()
    wanted = call.body(shapes.MAINTENANCE)
    if wanted.get("notice") is not None:
        raise invalid(f"Notice not found: {wanted['notice']}")
    call.controller.maintenance = wanted.get("maintenance_mode", call.controller.maintenance)
    return maintenance(call)


def _connector(call: Call, label: str, device: str, forwarding: str) -> Json:
    key = call.controller.connector_ids.setdefault(device, new_id())
    common = {"label": label, "protected": False, "snooped": True}
    operational = {
        **common,
        "forwarding": forwarding,
        "interface": device,
        "mtu": 1500,
        "exists": True,
        "enabled": True,
    }
    operational |= {"stp": False, "ip_networks": []}
    return {
        **common,
        "id": key,
        "device_name": device,
        "tags": [forwarding],
        "allowed": True,
        "operational": operational,
    }


def connectors(call: Call) -> list[Json]:
    return [_connector(call, *each) for each in _CONNECTORS]


def connector(call: Call) -> Json:
    for each in connectors(call):
        if each["id"] == call.path["connector_id"]:
            return each
    raise missing("External connector", call.path["connector_id"])


def telemetry(call: Call) -> Json:
    return {"opt_in": call.controller.telemetry, "show_modal": call.controller.telemetry is None}


def change_telemetry(call: Call) -> Json:
    call.admin()
    call.controller.telemetry = call.body(shapes.TELEMETRY)["opt_in"]
    return telemetry(call)


def _lab_diagnostics(call: Call) -> Json:
    labs = {}
    for lab in call.controller.labs.all():
        nodes = {}
        for key, node in lab.nodes.items():
            times = {name: int(node.since.get(name, 0)) for name in (QUEUED, STARTED, BOOTED)}
            nodes[key] = {"label": node.label, "state": node.state, "state_times": times}
        links = {k: {"state": lab.link_state(v), "interface_a": v.a, "interface_b": v.b} for k, v in lab.links.items()}
        interfaces = {
            key: {"label": port.label, "slot": port.slot or 0, "state": node.interface_state(port), "node": node.id}
            for node in lab.nodes.values()
            for key, port in node.interfaces.items()
        }
        labs[lab.id] = {
            "created": lab.created.isoformat(),
            "allocated": lab.state == STARTED,
            "nodes": nodes,
            "links": links,
            "interfaces": interfaces,
        }
    return labs


def _launch_queue(call: Call) -> list[Json]:
    queue = []
    for lab in call.controller.labs.all():
        for node in lab.nodes.values():
            if node.state == QUEUED:
                wishes = {k: v for k, v in node.wishes.items() if k not in ("tags", "hide_links")}
                queue.append(
                    {**wishes, "id": node.id, "lab_id": lab.id, "label": node.label, "tags": node.tags}
                    | {"node_definition": node.definition.id, "cpus": node.cpus, "ram": node.ram or None}
                )
    return queue


def _licensing_diagnostics(call: Call) -> Json:
    controller = call.controller
    own = {lab.id for lab in controller.labs.all() if lab.owner == call.user.id}
    mine = [node for lab in controller.labs.all() if lab.id in own for node in lab.nodes.values() if node.active]
    return {
        "quota": controller.licence.quota,
        "started": controller.counted(),
        "user_quota": None,
        "user_started": controller.host.counted(mine),
    }


def _startup(call: Call) -> Json:
    names = (
        "licensing_loaded",
        "core_driver_connected",
        "node_definitions_loaded",
        "lld_connected",
        "lld_synced",
        "system_ready",
    )
    return dict.fromkeys(names, call.controller.ready)


def diagnostics(call: Call) -> Any:
    """One category; `computes` and `all` are not simulated (501)."""
    category = call.path["category"]
    controller = call.controller
    if category == "labs":
        return _lab_diagnostics(call)
    if category == "lab_events":
        return {lab.id: lab.events for lab in controller.labs.all()}
    if category == "node_launch_queue":
        return _launch_queue(call)
    if category == "licensing":
        return _licensing_diagnostics(call)
    if category == "services":
        return {"dispatcher": True, "termws": True}
    if category == "startup_scheduler":
        return _startup(call)
    if category == "node_definitions":
        return [{"id": key, "images": list(row.images)} for key, row in NODE_TYPES.items()]
    if category == "user_list":
        return [account.as_json([]) for account in controller.accounts.all()]
    if category in ("computes", "all"):
        return Reply(501, {"code": 501, "description": f"Diagnostics of {category} are not simulated."})
    raise invalid(f"Unknown diagnostics category: {category}.")


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("POST", "/authenticate", authenticate, open_=True)
    table.add("POST", "/auth_extended", auth_extended, open_=True)
    table.add("GET", "/authok", lambda _: "OK")
    table.add("DELETE", "/logout", logout)
    table.add("GET", "/system_information", information, open_=True)
    table.add("GET", "/system_health", health)
    table.add("GET", "/system_stats", statistics)
    table.add("GET", "/system/compute_hosts", compute_hosts)
    table.add("GET", "/system/compute_hosts/configuration", compute_configuration)
    table.add("GET", "/system/compute_hosts/{compute_id}", compute_host)
    table.add("PATCH", "/system/compute_hosts/{compute_id}", change_compute_host)
    table.add("DELETE", "/system/compute_hosts/{compute_id}", delete_compute_host)
    table.add("GET", "/system/maintenance_mode", maintenance, open_=True)
    table.add("PATCH", "/system/maintenance_mode", change_maintenance)
    table.add("GET", "/system/notices", lambda _: [])
    table.add("GET", "/system/external_connectors", connectors)
    table.add("GET", "/system/external_connectors/{connector_id}", connector)
    table.add("GET", "/web_session_timeout", lambda _: 3600)
    table.add("GET", "/telemetry", telemetry)
    table.add("PUT", "/telemetry", change_telemetry)
    table.add("GET", "/telemetry/events", lambda _: [])
    table.add("GET", "/diagnostics/{category}", diagnostics)
