"""Whether a worker has room for one more lab just now. Pure.

The calendar has made sure that whatever is booked fits; but a lab that is being taken down still holds its nodes, memory
and ports into the preparation of the next. So the next waits for it, and among those that wait the earlier slot goes first.
Not guaranteed: that the runtime agrees; what nobody here knows of (a lab started by hand) makes it refuse all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lablet_common.resources.definition import Requirements
from lablet_common.resources.instance import Instance, InstancePhase
from lablet_common.resources.worker import Worker

_DUST = 1e-6


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another instance of the same worker, and what its lab takes; None where its definition is not known."""

    instance: Instance
    needs: Requirements | None


def holds(instance: Instance) -> bool:
    """Its lab is, or may be, on its worker."""
    status = instance.status
    if status.phase in (InstancePhase.PENDING, InstancePhase.TERMINATED) or status.released:
        return False
    return status.lab is not None or status.phase is InstancePhase.INSTANTIATING


def in_the_way(
    instance: Instance, needs: Requirements | None, worker: Worker, others: Iterable[Neighbour], due: datetime
) -> str:
    """What the lab would have to share with others and cannot: `nodes`, `memory`, `cpu`, `storage`, a port; empty when it
    may start. Those that wait too and have an earlier slot that begins before `due` are counted as if they were there."""
    mine = (instance.spec.start, instance.id)
    present = [
        other
        for other in others
        if other.instance.id != instance.id
        and (
            holds(other.instance)
            or (
                other.instance.status.phase is InstancePhase.PENDING
                and (other.instance.spec.start, other.instance.id) < mine
                and other.instance.spec.start <= due
            )
        )
    ]
    taken = {port for other in present for port in other.instance.spec.ports.values()}
    for name, port in instance.spec.ports.items():
        if port in taken:
            return f"port {port} ({name})"
    if needs is None:
        return ""
    all_of_them = [needs, *(other.needs for other in present if other.needs is not None)]
    if sum(one.node_count for one in all_of_them) > worker.nodes:
        return "nodes"
    for word, offered, wanted in (
        ("memory", worker.spec.capacity.memory_gb, sum(one.memory_gb for one in all_of_them)),
        ("cpu", worker.spec.capacity.cpu_cores, sum(one.cpu_cores for one in all_of_them)),
        ("storage", worker.spec.capacity.storage_gb, sum(one.storage_gb for one in all_of_them)),
    ):
        if wanted > offered + _DUST:
            return word
    return ""
