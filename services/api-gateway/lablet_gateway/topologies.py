"""A lab file's shape, for whoever draws it or looks into a pod: nodes where the author put them, and the links between.

Pure but for `read`, which parses off the event loop. Configurations stay in the file.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lablet_common.objects import get_content
from lablet_common.resources.model import Model
from lablet_gateway import problems
from lablet_gateway.parts import Parts

_ENDS = (("n1", "n2"), ("node_a", "node_b"))
"""Older files call a link's ends differently."""


class GraphNode(Model):
    id: str
    label: str
    definition: str
    """Its node definition."""
    x: float = 0
    y: float = 0


class GraphLink(Model):
    """Between two nodes, by their ids."""

    label: str = ""
    a: str
    b: str


class Graph(Model):
    """Positions are the author's; x grows to the right, y down."""

    title: str = ""
    nodes: tuple[GraphNode, ...] = ()
    links: tuple[GraphLink, ...] = ()


async def read(parts: Parts, tenant: str, digest: str) -> Mapping[str, Any]:
    """The parsed file. Raises 502 for one that cannot be read."""
    text = await get_content(parts.objects, tenant, digest)
    try:
        return await asyncio.to_thread(parsed, text)
    except YAMLError as error:
        raise problems.CORRUPT(f"the lab file {digest} cannot be read") from error


def graph_of(topology: Mapping[str, Any]) -> Graph:
    """Nodes and links of a parsed lab file; what lacks a position stands at the origin."""
    lab = topology.get("lab")
    return Graph(
        title=str(lab.get("title", "")) if isinstance(lab, Mapping) else "",
        nodes=tuple(
            GraphNode(
                id=str(node.get("id", "")),
                label=str(node.get("label", "")),
                definition=str(node.get("node_definition", "")),
                x=_number(node.get("x")),
                y=_number(node.get("y")),
            )
            for node in topology.get("nodes") or ()
        ),
        links=tuple(_links(topology)),
    )


def _links(topology: Mapping[str, Any]) -> Iterator[GraphLink]:
    for link in topology.get("links") or ():
        for one, other in _ENDS:
            if one in link and other in link:
                yield GraphLink(label=str(link.get("label") or ""), a=str(link[one]), b=str(link[other]))
                break


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def parsed(text: bytes) -> Mapping[str, Any]:
    """The file as a mapping; an empty one for what is none. Raises `YAMLError`."""
    found = YAML(typ="safe").load(text)
    return found if isinstance(found, dict) else {}
