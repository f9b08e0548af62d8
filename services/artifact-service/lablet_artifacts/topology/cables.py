"""The links of a lab file: each end at an interface that is there, each interface used once.

A link to a node that is itself faulty is no second fault: of such a node only the label is known here.
"""

from __future__ import annotations

from lablet_artifacts.topology.fields import Fields, flat
from lablet_artifacts.topology.model import Link


def read_links(top: Fields, interfaces: dict[str, set[str]], labels: dict[str, str]) -> list[Link]:
    """The sound links of a file; the others are reported. `interfaces`: node id → interface ids, of the sound nodes;
    `labels`: node id → label, of all nodes."""
    links: list[Link] = []
    ids: dict[str, int] = {}
    used: dict[tuple[str, str], str] = {}
    for path, mapping in top.mappings("links", required=True):
        fields = Fields(flat(mapping), path, top.report)
        link_id = fields.text("id", least=1, most=64, required=True)
        ends = [_end(fields, number, interfaces, labels) for number in (0, 1)]
        label = fields.text("label", most=128)
        if link_id is None:
            continue
        if link_id in ids:
            fields.problem(
                "id", f"the link id {link_id!r} is used twice, first in line {ids[link_id]}", "rename one link"
            )
        ids.setdefault(link_id, mapping.line)
        first, second = ends
        if first is None or second is None:
            continue
        for end in (first, second):
            if end in used:
                fields.problem(
                    "",
                    f"interface {end[1]!r} of node {labels.get(end[0], end[0])!r} already has link {used[end]!r}",
                    "connect each interface once",
                )
            used[end] = link_id
        links.append(Link(link_id, *first, *second, label))
    return links


def _end(
    fields: Fields, number: int, interfaces: dict[str, set[str]], labels: dict[str, str]
) -> tuple[str, str] | None:
    """Node id and interface id of one end, when both are there."""
    entries = fields.mapping.entries
    old_node, old_interface = (f"{what}_{'ab'[number]}" for what in ("node", "interface"))
    node_field = old_node if old_node in entries else f"n{number + 1}"
    interface_field = old_interface if old_interface in entries else f"i{number + 1}"
    node = fields.text(node_field, least=1, most=64, required=True)
    interface = fields.text(interface_field, least=1, most=64, required=True)
    if node is None or interface is None:
        return None
    if node not in labels:
        fields.problem(node_field, f"there is no node with the id {node!r}", "name the id of a node")
        return None
    if node in interfaces and interface not in interfaces[node]:
        there = ", ".join(sorted(interfaces[node])[:8]) or "none"
        fields.problem(
            interface_field,
            f"node {labels[node]!r} has no interface with the id {interface!r}",
            f"it has: {there}",
        )
        return None
    return node, interface
