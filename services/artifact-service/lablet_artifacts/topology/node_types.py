"""What common node definitions take when the lab file does not say: cores, memory, disk.

The figures are round estimates for planning, written for this project and near what the vendors' minimum requirements
ask for. They claim no exactness: what a lab file says wins over them, and an installation may bring a table of its own
(`read_node_types`) for images that need more, and for node definitions of its own making.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from lablet_artifacts.topology.fields import Fields, is_null
from lablet_artifacts.topology.problems import Problem, Report, TooManyProblems, TopologyError
from lablet_artifacts.topology.tree import Mapping, decode, read_tree


@dataclass(frozen=True, slots=True)
class NodeType:
    """One node definition: `cpus` cores, `ram_mb` MiB, `disk_gb` GB that a running node may fill."""

    cpus: int
    ram_mb: int
    disk_gb: int = 1


UNKNOWN = NodeType(cpus=1, ram_mb=2048, disk_gb=4)
"""Taken for a definition that no table knows. A guess; `Requirements.assumed` says where it was made."""

NODE_TYPES: dict[str, NodeType] = {
    # routers and switches
    "iosv": NodeType(1, 512),
    "iosvl2": NodeType(1, 768),
    "iol-xe": NodeType(1, 768),
    "ioll2-xe": NodeType(1, 768),
    "csr1000v": NodeType(1, 3072, 8),
    "cat8000v": NodeType(1, 4096, 16),
    "cat9000v-q200": NodeType(4, 18432, 16),
    "cat9000v-uadp": NodeType(4, 18432, 16),
    "iosxrv": NodeType(1, 3072, 4),
    "iosxrv9000": NodeType(4, 20480, 48),
    "nxosv": NodeType(1, 3072, 4),
    "nxosv9000": NodeType(2, 10240, 16),
    # SD-WAN
    "cat-sdwan-edge": NodeType(2, 4096, 16),
    "cat-sdwan-validator": NodeType(2, 4096, 16),
    "cat-sdwan-controller": NodeType(2, 4096, 16),
    "cat-sdwan-manager": NodeType(8, 32768, 256),
    # security
    "asav": NodeType(1, 2048, 8),
    "ftdv": NodeType(4, 8192, 50),
    "fmcv": NodeType(4, 32768, 250),
    # hosts
    "alpine": NodeType(1, 512),
    "desktop": NodeType(1, 512, 2),
    "server": NodeType(1, 128),
    "ubuntu": NodeType(1, 2048, 8),
    "coreos": NodeType(1, 2048, 8),
    "wan_emulator": NodeType(1, 512),
    "trex": NodeType(1, 2048, 4),
    # containers
    "chrome": NodeType(1, 1024, 2),
    "firefox": NodeType(1, 1024, 2),
    "dnsmasq": NodeType(1, 64),
    "frr": NodeType(1, 256),
    "net-tools": NodeType(1, 256),
    "nginx": NodeType(1, 64),
    "radius": NodeType(1, 256),
    "syslog": NodeType(1, 64),
    "tacplus": NodeType(1, 64),
    "thousandeyes-ea": NodeType(1, 2048, 8),
    # wires: they run nothing
    "external_connector": NodeType(0, 0, 0),
    "unmanaged_switch": NodeType(0, 0, 0),
}


def read_node_types(data: bytes) -> dict[str, NodeType]:
    """A table from YAML: `<node definition>: {cpus: 2, ram_mb: 4096, disk_gb: 8}`, the last one optional.

    Raises TopologyError with every entry that is wrong.
    """
    root = read_tree(decode(data))
    if not isinstance(root, Mapping):
        raise TopologyError([Problem("a table of node types is expected", "give name: {cpus: …, ram_mb: …}")])
    report = Report()
    types: dict[str, NodeType] = {}
    with suppress(TooManyProblems):  # the report says it all then
        for name, value in root.entries.items():
            if isinstance(value, Mapping):
                types[name] = _entry(Fields(value, name, report))
            else:
                Fields(root, "", report).problem(name, "a node type has cpus and ram_mb", "give {cpus: …, ram_mb: …}")
    if report.problems:
        raise TopologyError(report.sorted())
    return types


def _entry(fields: Fields) -> NodeType:
    sizes = {"cpus": fields.whole("cpus", 0, 128), "ram_mb": fields.whole("ram_mb", 0, 1048576)}
    disk = fields.whole("disk_gb", 0, 4096)
    for name in sizes:
        value = fields.mapping.entries.get(name)
        if value is None or is_null(value):
            fields.problem(name, f"the field {name!r} is missing", f"add {name}")
    if unknown := fields.extra():
        fields.problem("", f"unknown: {', '.join(unknown)}", "give cpus, ram_mb and disk_gb")
    return NodeType(sizes["cpus"] or 0, sizes["ram_mb"] or 0, 1 if disk is None else disk)
