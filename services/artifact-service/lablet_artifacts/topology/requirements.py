"""What one seat of a lab takes: the sum over its nodes, from the file itself and else from the table of node types.

An estimate for planning. A node's `cpu_limit` is not credited, because a limited node still asks for its cores while it
boots. Disks count in full size, as if the node filled them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

from lablet_artifacts.topology.model import Topology
from lablet_artifacts.topology.node_types import NODE_TYPES, UNKNOWN, NodeType

UNCOUNTED: frozenset[str] = frozenset({"external_connector", "unmanaged_switch"})
"""Node definitions that do not count against a CML licence: they run on no machine of their own."""


@dataclass(frozen=True, slots=True)
class Requirements:
    cpu_cores: float
    memory_gb: float
    """GiB, rounded up to the thousandth."""
    storage_gb: float
    node_count: int
    """Nodes that count against the licence."""
    assumed: tuple[str, ...] = ()
    """Node definitions that no table knows and the file gives no size for; `UNKNOWN` was taken. Sorted."""


def infer_requirements(
    topology: Topology,
    node_types: Mapping[str, NodeType] | None = None,
    uncounted: Set[str] = UNCOUNTED,
) -> Requirements:
    """The needs of one seat. `node_types` wins over the shipped table; `uncounted` is the licence rule."""
    table = {**NODE_TYPES, **(node_types or {})}
    cpus = ram = disk = count = 0
    assumed: set[str] = set()
    for node in topology.nodes:
        usual = table.get(node.node_definition)
        if usual is None:
            usual = UNKNOWN
            if node.cpus is None or node.ram_mb is None:
                assumed.add(node.node_definition)
        cpus += usual.cpus if node.cpus is None else node.cpus
        ram += usual.ram_mb if node.ram_mb is None else node.ram_mb
        disk += usual.disk_gb if node.boot_disk_gb is None else node.boot_disk_gb
        disk += node.data_volume_gb or 0
        count += node.node_definition not in uncounted
    return Requirements(
        cpu_cores=float(cpus),
        memory_gb=math.ceil(ram * 1000 / 1024) / 1000,
        storage_gb=float(disk),
        node_count=count,
        assumed=tuple(sorted(assumed)),
    )


def node_definitions(topology: Topology) -> tuple[str, ...]:
    """The node definitions that a worker must offer, sorted."""
    return tuple(sorted({node.node_definition for node in topology.nodes}))


def image_definitions(topology: Topology) -> tuple[str, ...]:
    """The image definitions that the lab asks for by name, sorted."""
    return tuple(sorted({node.image_definition for node in topology.nodes if node.image_definition}))
