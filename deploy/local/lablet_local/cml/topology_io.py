"""Topology documents: from the YAML of schema 0.0.1 to 0.3.0 into a `Lab`, and back to YAML or the API's JSON.

The document is checked as strictly as the real import does (unknown fields are refused, with the few leftovers of old
schemas removed first); then every element gets a UUID4 of its own while the keys of the document (`n0`, `i1`, `l2`) are
kept for the next export. Configurations and tags come out as they went in. Comments do not survive: this is the
controller's view of a lab, the keeper of the original text is whoever imported it.
"""

from __future__ import annotations

from typing import Any

import yaml

from . import shapes
from .clock import Clock
from .definitions import IMAGES
from .errors import invalid
from .model import Interface, Lab, Link, Node, make_node, new_id

Json = dict[str, Any]
_OLD = ("0.0.", "0.1.")
_WISHES = (
    "x",
    "y",
    "ram",
    "cpus",
    "cpu_limit",
    "data_volume",
    "boot_disk_size",
    "image_definition",
    "hide_links",
    "parameters",
)
_LEFTOVERS = ("timestamp", "owner", "node_staging", "autostart")


class _Dumper(yaml.CSafeDumper):
    """Writes multi-line strings as blocks, as the real export does."""


def _write_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _write_text)


def parse(text: str) -> Any:
    """The document behind a YAML (or JSON) text. Raises 400 with the place of the fault."""
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise invalid(f"Not a YAML document: {' '.join(str(error).split())[:300]}") from None


def _modernised(document: Any) -> Json:
    """A copy of the document without what only old schemas have. Raises 400 unless it is an object."""
    if not isinstance(document, dict):
        raise invalid("A topology is expected: an object with lab, nodes and links.")
    fresh = dict(document)
    if "lab" not in fresh and "lab_title" in fresh:
        fresh["lab"] = {
            "version": "0.0.1",
            "title": fresh.pop("lab_title"),
            "description": fresh.pop("lab_description", ""),
            "notes": fresh.pop("lab_notes", ""),
        }
    if isinstance(fresh.get("lab"), dict):
        fresh["lab"] = {k: v for k, v in fresh["lab"].items() if k not in _LEFTOVERS}
        version = str(fresh["lab"].get("version", ""))
        if version.startswith(_OLD) and isinstance(fresh.get("nodes"), list):
            fresh["nodes"] = [_old_node(node) for node in fresh["nodes"]]
    for optional in ("annotations", "smart_annotations"):
        if fresh.get(optional, []) is None:
            del fresh[optional]
    return fresh


def _old_node(node: Any) -> Any:
    """Old schemas wrote 0 for "the definition's default"."""
    if not isinstance(node, dict):
        return node
    flat = {**node, **node.pop("data")} if isinstance(node.get("data"), dict) else dict(node)
    for name in ("ram", "cpus", "cpu_limit"):
        if flat.get(name) == 0:
            flat[name] = None
    return flat


def build(document: Any, owner: str, clock: Clock, title: str | None = None) -> tuple[Lab, list[str]]:
    """The lab of a document and the warnings. `title` wins over the document's. Raises 400; nothing is kept then."""
    fresh = _modernised(document)
    shapes.TOPOLOGY(fresh, "topology")
    head = fresh["lab"]
    now = clock.wall()
    lab = Lab(
        title=title or head.get("title") or f"Lab at {now:%a %H:%M %p}",
        owner=owner,
        created=now,
        modified=now,
        description=head.get("description", ""),
        notes=head.get("notes", ""),
        version=head["version"],
    )
    warnings: list[str] = []
    nodes = {}
    for wanted in fresh["nodes"]:
        if wanted["id"] in nodes:
            raise invalid(f"Node id {wanted['id']} is used twice.")
        nodes[wanted["id"]] = node = _node(wanted, warnings)
        lab.nodes[node.id] = node
    _links(lab, fresh["links"], nodes)
    lab.annotations = [{"id": new_id(), **annotation} for annotation in fresh.get("annotations", [])]
    lab.smart_annotations = [{"id": new_id(), **annotation} for annotation in fresh.get("smart_annotations", [])]
    return lab, warnings


def _node(wanted: Json, warnings: list[str]) -> Node:
    wishes = {name: wanted[name] for name in _WISHES if name in wanted}
    wishes["tags"] = list(wanted.get("tags", []))
    node = make_node(wanted["id"], wanted["node_definition"], wanted["label"], wishes, wanted.get("configuration"))
    if node is None:
        raise invalid(f"Node definition not found: {wanted['node_definition']} (node {wanted['label']}).")
    image = wishes.get("image_definition")
    if image and image not in IMAGES:
        warnings.append(f"Image definition {image} of node {node.label} is not installed; the default is used.")
    for each in wanted.get("interfaces", []):
        label = each.get("label") or _interface_label(node, each)
        interface = Interface(label, each["type"], each.get("slot"), each.get("mac_address"))
        key = str(each["id"])
        if key in node.interfaces:
            raise invalid(f"Interface id {key} is used twice in node {node.label}.")
        node.interfaces[key] = interface
    return node


def _interface_label(node: Node, wanted: Json) -> str:
    names = node.definition.interface_names
    slot = wanted.get("slot") or 0
    if wanted["type"] == "loopback":
        return "Loopback0"
    return names[slot] if slot < len(names) else f"port{slot}"


def _links(lab: Lab, wanted: list[Json], nodes: dict[str, Node]) -> None:
    """Makes the links, then re-keys all interfaces by their own ids."""
    taken: set[str] = set()
    for each in wanted:
        ends = []
        for node_key, interface_key in ((each["n1"], each["i1"]), (each["n2"], each["i2"])):
            node = nodes.get(node_key)
            interface = node.interfaces.get(interface_key) if node else None
            if node is None or interface is None:
                raise invalid(f"Link {each['id']} names node {node_key}, interface {interface_key}: no such interface.")
            if interface.id in taken:
                raise invalid(f"Link {each['id']}: interface {interface.label} of {node.label} is already connected.")
            taken.add(interface.id)
            ends.append((node, interface))
        (node_a, a), (node_b, b) = ends
        label = each.get("label") or f"{node_a.label}-{a.label}<->{node_b.label}-{b.label}"[:128]
        link = Link(each["id"], a.id, b.id, node_a.id, node_b.id, label, dict(each.get("conditioning", {})))
        lab.links[link.id] = link
    for node in nodes.values():
        node.interfaces = {interface.id: interface for interface in node.interfaces.values()}


def _exported_node(node: Node, *, configurations: bool = True) -> Json:
    wishes = node.wishes
    shown: Json = {
        "boot_disk_size": wishes.get("boot_disk_size"),
        "configuration": node.configuration if configurations else None,
        "cpu_limit": wishes.get("cpu_limit"),
        "cpus": wishes.get("cpus"),
        "data_volume": wishes.get("data_volume"),
        "hide_links": wishes.get("hide_links", False),
        "id": node.key,
        "image_definition": wishes.get("image_definition"),
        "label": node.label,
        "node_definition": node.definition.id,
        "parameters": wishes.get("parameters") or {},
        "ram": wishes.get("ram"),
        "tags": node.tags,
        "x": int(wishes.get("x", 0)),
        "y": int(wishes.get("y", 0)),
    }
    if not configurations:
        del shown["configuration"]
    return shown


def export(lab: Lab) -> str:
    """The lab as YAML of schema 0.3.0, as GET /labs/{id}/download gives it."""
    keys: dict[str, str] = {}
    nodes = []
    for node in lab.nodes.values():
        shown = _exported_node(node)
        shown["interfaces"] = []
        for number, interface in enumerate(node.interfaces.values()):
            keys[interface.id] = f"i{number}"
            entry: Json = {"id": f"i{number}", "label": interface.label, "type": interface.type}
            if interface.slot is not None:
                entry["slot"] = interface.slot
            if interface.mac:
                entry["mac_address"] = interface.mac
            shown["interfaces"].append(entry)
        nodes.append(shown)
    links = [
        {
            "id": link.key,
            "n1": lab.nodes[link.node_a].key,
            "n2": lab.nodes[link.node_b].key,
            "i1": keys[link.a],
            "i2": keys[link.b],
            "conditioning": link.conditioning,
            "label": link.label,
        }
        for link in lab.links.values()
    ]
    document = {
        "annotations": [_without_id(each) for each in lab.annotations],
        "smart_annotations": [_without_id(each) for each in lab.smart_annotations],
        "nodes": nodes,
        "links": links,
        "lab": {"description": lab.description, "notes": lab.notes, "title": lab.title, "version": "0.3.0"},
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


def _without_id(annotation: Json) -> Json:
    return {name: value for name, value in annotation.items() if name != "id"}


def as_json(lab: Lab, *, configurations: bool = True) -> Json:
    """The lab as GET /labs/{id}/topology gives it: with the controller's ids."""
    nodes = []
    for node in lab.nodes.values():
        shown = _exported_node(node, configurations=configurations)
        shown["id"] = node.id
        shown["interfaces"] = [_topology_interface(node, interface) for interface in node.interfaces.values()]
        nodes.append(shown)
    links = [
        {
            "id": link.id,
            "lab_id": lab.id,
            "label": link.label,
            "state": lab.link_state(link),
            "interface_a": link.a,
            "interface_b": link.b,
            "node_a": link.node_a,
            "node_b": link.node_b,
            "link_capture_key": "",
            "conditioning": link.conditioning,
        }
        for link in lab.links.values()
    ]
    return {
        "lab": {
            "version": "0.3.0",
            "title": lab.title,
            "description": lab.description,
            "notes": lab.notes,
            "owner": lab.owner,
        },
        "nodes": nodes,
        "links": links,
        "annotations": [shown_annotation(each) for each in lab.annotations],
        "smart_annotations": lab.smart_annotations,
    }


def _topology_interface(node: Node, interface: Interface) -> Json:
    shown: Json = {
        "id": interface.id,
        "type": interface.type,
        "node": node.id,
        "label": interface.label,
        "mac_address": interface.mac,
    }
    if interface.slot is not None:
        shown["slot"] = interface.slot
    return shown


_ANNOTATION_DEFAULTS: Json = {
    "border_color": "#808080FF",
    "border_style": "",
    "color": "#FFFFFFFF",
    "thickness": 1,
    "x1": 0,
    "y1": 0,
    "z_index": 0,
}
_BY_TYPE: dict[str, Json] = {
    "text": {
        "rotation": 0,
        "text_bold": False,
        "text_content": "",
        "text_font": "monospace",
        "text_italic": False,
        "text_size": 12,
        "text_unit": "pt",
    },
    "rectangle": {"rotation": 0, "x2": 100, "y2": 100, "border_radius": 0},
    "ellipse": {"rotation": 0, "x2": 100, "y2": 100},
    "line": {"x2": 100, "y2": 100, "line_start": None, "line_end": None},
}


def shown_annotation(annotation: Json) -> Json:
    """An annotation with every field that its type has."""
    known = {**_ANNOTATION_DEFAULTS, **_BY_TYPE[annotation["type"]]}
    return known | {k: v for k, v in annotation.items() if k in known or k in ("id", "type")}
