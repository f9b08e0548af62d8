"""The compute host behind the controller: what it has, what is taken, and whether one more start fits.

Memory is never over-committed; virtual CPUs are, up to a factor, as hypervisors do. Figures are bytes where the real
controller gives bytes. Load is computed from what runs, not measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import ApiError, invalid
from .model import BOOTED, Lab, Node, new_id

Json = dict[str, Any]
MIB = 1024 * 1024
GIB = 1024 * MIB
_OWN_MEMORY = 4 * GIB
_OWN_DISK = 24 * GIB
_NODE_DISK = 2 * GIB


@dataclass(slots=True)
class Host:
    """The one compute host. Memory and disk in bytes; `free_of_charge` are definitions that need no node licence."""

    hostname: str = "cml-controller"
    address: str = "127.0.0.1"
    cpus: int = 48
    memory: int = 202_422_902_784
    disk: int = 266_206_101_504
    overcommit: float = 4.0
    free_of_charge: frozenset[str] = frozenset({"external_connector", "unmanaged_switch"})
    id: str = field(default_factory=new_id)
    admission: str = "READY"

    def counted(self, nodes: Iterable[Node]) -> int:
        """How many of the nodes count against the licence."""
        return sum(1 for node in nodes if node.definition.id not in self.free_of_charge)

    def admit(self, active: list[Node], wanted: list[Node], quota: int) -> None:
        """Raises 400, naming what is short, unless all of `wanted` can run beside `active`."""
        running, asked = self.counted(active), self.counted(wanted)
        if running + asked > quota:
            raise invalid(f"Node license limit exceeded: {asked} nodes requested, {running} running, {quota} allowed.")
        memory = sum(node.ram for node in active) * MIB
        need = sum(node.ram for node in wanted) * MIB
        free = self.memory - _OWN_MEMORY - memory
        if need > free:
            raise invalid(
                f"Insufficient memory: {need // MIB} MiB requested, {max(0, free) // MIB} MiB free on {self.hostname}."
            )
        cpus = sum(node.cpus for node in active)
        more = sum(node.cpus for node in wanted)
        if cpus + more > self.cpus * self.overcommit:
            raise invalid(
                f"Insufficient CPUs: {more} requested, {cpus} of {self.cpus * self.overcommit:g} virtual CPUs in use."
            )
        if wanted and self.admission != "READY":
            raise ApiError(400, f"No compute host can start nodes: {self.hostname} is {self.admission}.")

    def stats(self, active: list[Node], defined: int) -> Json:
        """The answer of GET /system_stats."""
        taken = sum(node.ram for node in active) * MIB + _OWN_MEMORY
        used_disk = _OWN_DISK + defined * _NODE_DISK
        cpus = sum(node.cpus for node in active)
        percent = round(min(100.0, 1.5 + 35.0 * cpus / self.cpus), 2)
        load = round(self.cpus * percent / 100, 2)
        memory = {"used": taken, "free": max(0, self.memory - taken), "total": self.memory}
        disk = {"used": used_disk, "free": max(0, self.disk - used_disk), "total": self.disk}
        domain = {
            "total_nodes": defined,
            "total_orphans": 0,
            "running_nodes": len(active),
            "running_orphans": 0,
            "allocated_cpus": cpus,
            "allocated_memory": sum(node.ram for node in active),
        }
        cpu = {
            "count": self.cpus,
            "percent": percent,
            "model": "Simulated CPU @ 3.10GHz",
            "predicted": 0,
            "load": [load, load, load],
        }
        host = {
            "hostname": self.hostname,
            "is_controller": True,
            "stats": {"cpu": cpu, "memory": memory, "disk": disk, "dominfo": domain},
        }
        return {
            "computes": {self.id: host},
            "all": {"cpu": {"count": self.cpus, "percent": percent}, "memory": memory, "disk": disk},
            "controller": {"disk": disk},
        }

    def health(self) -> Json:
        """This host's part of GET /system_health."""
        fine = (
            "kvm_vmx_enabled",
            "enough_cpus",
            "lld_connected",
            "lld_synced",
            "libvirt",
            "fabric",
            "device_mux",
            "refplat_images_available",
            "docker_shim",
            "valid",
        )
        return {
            **dict.fromkeys(fine, True),
            "admission_state": self.admission,
            "is_controller": True,
            "hostname": self.hostname,
        }

    def describe(self, active: list[Node], defined: int) -> Json:
        """One item of GET /system/compute_hosts."""
        counts = {"total_nodes": defined, "total_orphans": 0, "running_nodes": len(active), "running_orphans": 0}
        return {
            "id": self.id,
            "server_address": self.address,
            "hostname": self.hostname,
            "is_simulator": True,
            "is_connector": True,
            "admission_state": self.admission,
            "nodes": [node.id for node in active],
            "node_counts": counts,
            "is_connected": True,
            "is_synced": True,
        }


def simulation_stats(lab: Lab, now: float) -> Json:
    """The answer of GET /labs/{id}/simulation_stats, as maps by id: that is what real controllers send."""

    def running(node: Node) -> float:
        return now - node.since.get(BOOTED, now)

    nodes = {}
    for node in lab.nodes.values():
        if node.state == BOOTED and node.definition.has_console:
            seconds = running(node)
            nodes[node.id] = {
                "cpu_usage": round(2.0 + 3.0 * (len(node.label) % 5), 2),
                "block0_rd_bytes": 64 * MIB + int(seconds) * 1024,
                "block0_wr_bytes": 4 * MIB + int(seconds) * 512,
            }
    links = {}
    for link in lab.links.values():
        if lab.link_state(link) == "STARTED":
            packets = int(min(running(lab.nodes[link.node_a]), running(lab.nodes[link.node_b])))
            links[link.id] = {
                "readbytes": packets * 96,
                "readpackets": packets,
                "writebytes": packets * 96,
                "writepackets": packets,
                "drops": 0,
            }
    return {"nodes": nodes, "links": links}
