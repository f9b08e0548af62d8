"""Node and image definitions: read only, the table is part of the program."""

from __future__ import annotations

from typing import Any

import yaml

from .. import definition_views as shown
from ..definitions import IMAGES, NODE_TYPES, NodeType
from ..errors import missing
from .call import Call, Reply, Table


def _known(call: Call) -> NodeType:
    key = call.path["def_id"]
    if key not in NODE_TYPES:
        raise missing("Node definition", key)
    return NODE_TYPES[key]


def _in_form(call: Call, value: Any) -> Any:
    """JSON where asked for with `json=true`, else the YAML that the client's download expects."""
    if call.flag("json"):
        return value
    return Reply(text=yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False), media="text/yaml; charset=utf-8")


def node_definitions(_call: Call) -> Any:
    return [shown.full(row) for row in NODE_TYPES.values()]


def simplified(_call: Call) -> Any:
    return [shown.simplified(row) for row in NODE_TYPES.values()]


def node_definition(call: Call) -> Any:
    return _in_form(call, shown.full(_known(call)))


def images_of(call: Call) -> Any:
    row = _known(call)
    return [shown.image(name, row) for name in row.images]


def images(_call: Call) -> Any:
    return [shown.image(name, row) for name, row in IMAGES.items()]


def image(call: Call) -> Any:
    name = call.path["def_id"]
    if name not in IMAGES:
        raise missing("Image definition", name)
    return _in_form(call, shown.image(name, IMAGES[name]))


def register(table: Table) -> None:
    """Adds this room's routes."""
    table.add("GET", "/node_definitions", node_definitions)
    table.add("GET", "/simplified_node_definitions", simplified)
    table.add("GET", "/node_definitions/{def_id}", node_definition)
    table.add("GET", "/node_definitions/{def_id}/image_definitions", images_of)
    table.add("GET", "/image_definitions", images)
    table.add("GET", "/image_definitions/{def_id}", image)
    table.add("GET", "/list_image_definition_drop_folder", lambda _: [])
