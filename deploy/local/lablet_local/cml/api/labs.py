"""Labs as wholes: list, make, import, change, start, stop, wipe, delete, look at, download."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from .. import shapes, topology_io, views
from ..capacity import simulation_stats
from ..errors import conflict, invalid, missing
from ..model import Lab, new_id
from .call import Call, Reply, Table

Json = dict[str, Any]


def _shown(call: Call, lab: Lab) -> Json:
    return views.lab(lab, call.user, call.controller.accounts)


def labs(call: Call) -> list[str]:
    return [lab.id for lab in call.controller.labs.visible(call.user, everything=call.flag("show_all"))]


def create(call: Call) -> Json:
    wanted = call.body(shapes.LAB) if call.raw else {}
    now = call.controller.clock.wall()
    lab = Lab(wanted.get("title") or f"Lab at {now:%a %H:%M %p}", call.user.id, now, now)
    _apply(call, lab, wanted)
    call.controller.add(lab)
    return _shown(call, lab)


def _apply(call: Call, lab: Lab, wanted: Json) -> None:
    if "owner" in wanted and wanted["owner"] != lab.owner:
        call.admin()
        lab.owner = call.controller.accounts.by_id(wanted["owner"]).id
    lab.title = wanted.get("title", lab.title)
    lab.description = wanted.get("description", lab.description)
    lab.notes = wanted.get("notes", lab.notes)
    lab.groups = wanted.get("groups", lab.groups)
    lab.associations = {**lab.associations, **wanted.get("associations", {})}
    call.touch(lab)


def import_lab(call: Call) -> Json:
    title = call.query.get("title")
    if title is not None and not 1 <= len(title) <= 64:
        raise invalid("query.title: 1 to 64 characters are allowed.")
    try:
        text = call.raw.decode()
    except UnicodeDecodeError:
        raise invalid("The topology is not UTF-8.") from None
    lab, warnings = call.controller.import_lab(topology_io.parse(text), call.user, title)
    return {"id": lab.id, "warnings": warnings}


def get(call: Call) -> Json:
    return _shown(call, call.lab())


def change(call: Call) -> Json:
    lab = call.lab("lab_edit")
    _apply(call, lab, call.body(shapes.LAB))
    return _shown(call, lab)


def delete(call: Call) -> None:
    call.controller.delete(call.lab("lab_admin"))


def start(call: Call) -> None:
    lab = call.lab("lab_exec")
    call.controller.start(lab, list(lab.nodes.values()))


def stop(call: Call) -> None:
    lab = call.lab("lab_exec")
    call.controller.launcher.stop(lab, lab.nodes.values())


def wipe(call: Call) -> None:
    lab = call.lab("lab_exec")
    call.controller.wipe(lab, list(lab.nodes.values()))


def converged(call: Call) -> bool:
    return call.controller.launcher.converged(call.lab().nodes.values())


def statistics(call: Call) -> Json:
    return simulation_stats(call.lab(), call.controller.clock.now())


def topology(call: Call) -> Json:
    return topology_io.as_json(call.lab(), configurations=not call.flag("exclude_configurations"))


def download(call: Call) -> Reply:
    return Reply(text=topology_io.export(call.lab()), media="text/yaml; charset=utf-8")


def bootstrap(call: Call) -> None:
    """Gives every node without configuration a first one."""
    _bootstrap(call, call.lab("lab_edit"))


def build_configurations(call: Call) -> None:
    """The older form of `bootstrap`, with the lab in the query."""
    _bootstrap(call, call.controller.labs.get(call.query.get("lab_id", ""), call.user, "lab_edit"))


def _bootstrap(call: Call, lab: Lab) -> None:
    for node in lab.nodes.values():
        if not node.configuration and node.definition.has_console and not node.active:
            node.configuration = f"hostname {node.label}"
    call.touch(lab)


def addresses(call: Call) -> Json:
    lab = call.lab()
    if lab.state != "STARTED":
        return {}
    return {node.id: views.addresses(node) for node in lab.nodes.values() if node.definition.has_console}


def tile(call: Call) -> Json:
    lab = call.lab()
    document = topology_io.as_json(lab, configurations=False)
    host, pool = call.controller.host.id, call.controller.accounts.by_id(lab.owner).pool
    document["nodes"] = [views.node(each, lab.id, host, pool, configurations=False) for each in lab.nodes.values()]
    document["links"] = [views.link(each, lab) for each in lab.links.values()]
    del document["lab"]
    return {**_shown(call, lab), "topology": document}


def change_associations(call: Call) -> Json:
    lab = call.lab("lab_admin")
    lab.associations = {**lab.associations, **call.body(shapes.LAB_ASSOCIATIONS)}
    return lab.associations


def change_groups(call: Call) -> Any:
    lab = call.lab("lab_admin")
    lab.groups = call.body(shapes.LAB_GROUPS)
    return lab.groups


def mappings(call: Call) -> list[Json]:
    lab = call.lab()
    return [
        {"key": key, "device_name": device, "label": key, "tags": [], "allowed": True}
        for key, device in lab.connectors.items()
    ]


def change_mappings(call: Call) -> list[Json]:
    lab = call.lab("lab_edit")
    for wanted in call.body(shapes.CONNECTOR_MAPPINGS):
        if wanted["device_name"] is not None:
            lab.connectors[wanted["key"]] = wanted["device_name"]
        elif any(node.active and node.definition.id == "external_connector" for node in lab.nodes.values()):
            raise conflict(f"Connector mapping {wanted['key']} is in use.")
        else:
            lab.connectors.pop(wanted["key"], None)
    return mappings(call)


def pools(call: Call) -> list[str]:
    pool = call.controller.accounts.by_id(call.lab().owner).pool
    return [pool] if pool else []


def find_by_label(call: Call) -> str | None:
    label = unquote(call.path["search_query"])
    return next((node.id for node in call.lab().nodes.values() if node.label == label), None)


def find_by_tag(call: Call) -> list[str]:
    tag = unquote(call.path["search_query"])
    return [node.id for node in call.lab().nodes.values() if tag in node.tags]


def testbed(call: Call) -> Reply:
    """A pyATS testbed with every node of the lab that has a console."""
    lab = call.lab()
    devices = "".join(
        f"  {node.label}:\n    os: {node.definition.os}\n    type: {node.definition.nature}\n"
        f"    platform: {node.definition.id}\n    connections: {{}}\n"
        for node in lab.nodes.values()
        if node.definition.has_console
    )
    return Reply(text=f"testbed:\n  name: {lab.id}\ndevices:\n{devices or '  {}'}\n", media="text/yaml; charset=utf-8")


def list_annotations(call: Call) -> list[Json]:
    return [topology_io.shown_annotation(each) for each in call.lab().annotations]


def _annotation(call: Call, kept: list[Json], key: str) -> Json:
    for each in kept:
        if each["id"] == call.path[key]:
            return each
    raise missing("Annotation", call.path[key])


def create_annotation(call: Call) -> Json:
    lab = call.lab("lab_edit")
    lab.annotations.append(made := {"id": new_id(), **call.body(shapes.ANNOTATION)})
    return topology_io.shown_annotation(made)


def annotation(call: Call) -> Json:
    return topology_io.shown_annotation(_annotation(call, call.lab().annotations, "annotation_id"))


def change_annotation(call: Call) -> Json:
    found = _annotation(call, call.lab("lab_edit").annotations, "annotation_id")
    found |= call.body(shapes.ANNOTATION)
    return topology_io.shown_annotation(found)


def delete_annotation(call: Call) -> None:
    lab = call.lab("lab_edit")
    lab.annotations.remove(_annotation(call, lab.annotations, "annotation_id"))


def smart_annotation(call: Call) -> Json:
    return _annotation(call, call.lab().smart_annotations, "smart_annotation_id")


def change_smart_annotation(call: Call) -> Json:
    found = _annotation(call, call.lab("lab_edit").smart_annotations, "smart_annotation_id")
    found |= call.body(shapes.SMART_ANNOTATION)
    return found


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("GET", "/labs", labs)
    table.add("POST", "/labs", create)
    table.add("POST", "/import", import_lab)
    table.add("GET", "/build_configurations", build_configurations)
    one = "/labs/{lab_id}"
    table.add("GET", one, get)
    table.add("PATCH", one, change)
    table.add("DELETE", one, delete)
    table.add("GET", f"{one}/state", lambda call: call.lab().state)
    table.add("PUT", f"{one}/start", start)
    table.add("PUT", f"{one}/stop", stop)
    table.add("PUT", f"{one}/wipe", wipe)
    table.add("GET", f"{one}/check_if_converged", converged)
    table.add("GET", f"{one}/lab_element_state", lambda call: views.element_states(call.lab()))
    table.add("GET", f"{one}/simulation_stats", statistics)
    table.add("GET", f"{one}/topology", topology)
    table.add("GET", f"{one}/download", download)
    table.add("GET", f"{one}/events", lambda call: call.lab().events)
    table.add("PUT", f"{one}/bootstrap", bootstrap)
    table.add("GET", f"{one}/layer3_addresses", addresses)
    table.add("GET", f"{one}/tile", tile)
    table.add("GET", f"{one}/associations", lambda call: call.lab().associations)
    table.add("PATCH", f"{one}/associations", change_associations)
    table.add("GET", f"{one}/groups", lambda call: call.lab().groups)
    table.add("PUT", f"{one}/groups", change_groups)
    table.add("GET", f"{one}/connector_mappings", mappings)
    table.add("PATCH", f"{one}/connector_mappings", change_mappings)
    table.add("GET", f"{one}/resource_pools", pools)
    table.add("GET", f"{one}/find/node/label/{{search_query}}", find_by_label)
    table.add("GET", f"{one}/find_all/node/tag/{{search_query}}", find_by_tag)
    table.add("GET", f"{one}/pyats_testbed", testbed)
    table.add("GET", f"{one}/annotations", list_annotations)
    table.add("POST", f"{one}/annotations", create_annotation)
    table.add("GET", f"{one}/annotations/{{annotation_id}}", annotation)
    table.add("PATCH", f"{one}/annotations/{{annotation_id}}", change_annotation)
    table.add("DELETE", f"{one}/annotations/{{annotation_id}}", delete_annotation)
    table.add("GET", f"{one}/smart_annotations", lambda call: call.lab().smart_annotations)
    table.add("GET", f"{one}/smart_annotations/{{smart_annotation_id}}", smart_annotation)
    table.add("PATCH", f"{one}/smart_annotations/{{smart_annotation_id}}", change_smart_annotation)
