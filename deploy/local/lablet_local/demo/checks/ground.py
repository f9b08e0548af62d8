"""What the simulators saw, in their own logs: each lab once and where it was placed, and no worker beyond its means."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from typing import Any

from lablet_local.demo.books import DIMENSIONS, Json, below, capacities, demands, is_agent, was
from lablet_local.demo.checks.check import Check, Harm
from lablet_local.demo.evidence import Evidence

_SOURCE = "simulators"
_DUST = 1e-6
_LOST, _OFF = "machine.lost", "machine.off"
_GONE = "terminated"
_LEFT = "nothing was left over: no lab, no running machine"


@dataclass(slots=True)
class Run:
    """A lab that ran on a machine, in real time (unix seconds)."""

    title: str
    worker: str
    begin: float
    end: float | None = None
    cut_off: bool = False
    """It ended with its machine, or that life of it; nobody stopped the lab."""


@dataclass(slots=True)
class Ground:
    """The witness logs read once."""

    runs: list[Run] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What is still there."""
    crowded: list[str] = field(default_factory=list)
    """Machines with more nodes than their licence, or a port open twice."""
    starts: int = 0


def checks(evidence: Evidence) -> list[Check]:
    seen = read(evidence)
    return [
        _where_placed(evidence, seen),
        _on_hosts(evidence),
        *never_doubled(evidence, seen),
    ]


def never_doubled(evidence: Evidence, seen: Ground) -> list[Check]:
    """What holds whatever happens to the mesh: nothing twice, nothing left over, nothing beyond its means."""
    return [*by_machines_alone(evidence, seen), _within_capacity(evidence, seen)]


def by_machines_alone(evidence: Evidence, seen: Ground) -> list[Check]:
    """What the simulators' logs say without the books: also of labs whose instances have been archived."""
    crowded = "no machine ran more nodes than its licence, or opened a port twice"
    return [
        _never_twice_at_a_time(seen),
        Check(_SOURCE, _LEFT, len(evidence.machines), tuple(seen.left), Harm.DOUBLED),
        Check(_SOURCE, crowded, seen.starts, tuple(seen.crowded), Harm.OVERCOMMITTED),
    ]


def read(evidence: Evidence) -> Ground:
    """Walks each machine's log in its order. A machine that says itself which labs are on its disk (`labs`, their titles) is
    believed: where labs outlive that it is stopped and started, its log alone would lose sight of them."""
    ground = Ground()
    for machine in evidence.machines:
        _walk(machine, ground)
    return ground


def facts_of(machine: dict[str, Any]) -> list[dict[str, Any]]:
    """A machine's log in its order; a simulator that was killed could not write its end, which the cloud saw: unasked
    (`machine.lost`), or while it was going off anyway (`machine.off`; its labs are as they were)."""
    ends = [
        {"fact": _LOST if move["reason"] else _OFF, "at": datetime.fromisoformat(move["at"]).timestamp()}
        for move in machine.get("history", ())
        if move["state"] in ("stopped", _GONE)
    ]
    return sorted([*machine["facts"], *ends], key=lambda fact: float(fact["at"]))


def _walk(machine: dict[str, Any], ground: Ground) -> None:
    worker = str(machine["name"])
    quota = 0
    nodes: set[tuple[str, str]] = set()
    ports: dict[int, tuple[str, str]] = {}
    labs: dict[str, str] = {}
    running: dict[str, Run] = {}
    for fact in facts_of(machine):
        kind, lab, node = fact["fact"], str(fact.get("lab", "")), (str(fact.get("lab", "")), str(fact.get("node", "")))
        if kind == "licence.registered":
            quota = int(fact.get("quota") or 0)
        elif kind in (
            "controller.started",
            "controller.stopped",
            _LOST,
            _OFF,
        ):  # what ran in an earlier life has ended with it
            if kind not in ("controller.stopped", _OFF):
                labs.clear()  # they were in its memory only
            for run in running.values():
                run.end, run.cut_off = float(fact["at"]), True
            running.clear()
            nodes.clear()
            ports.clear()
        elif kind == "lab.imported":
            labs[lab] = str(fact["title"])
        elif kind == "lab.deleted":
            labs.pop(lab, None)
        elif kind == "lab.started":
            ground.starts += 1
            running[lab] = Run(str(fact["title"]), worker, float(fact["at"]))
            ground.runs.append(running[lab])
        elif kind == "lab.stopped" and lab in running:
            running.pop(lab).end = float(fact["at"])
        elif kind == "node.started":
            nodes.add(node)
            if len(nodes) > quota:
                ground.crowded.append(f"{worker} ran {len(nodes)} nodes on a licence for {quota}")
        elif kind == "node.booted":
            for port in fact.get("ports", ()):
                if port in ports and ports[port] != node:
                    ground.crowded.append(f"{worker} had port {port} open twice")
                ports[port] = node
        elif kind == "node.stopped":
            nodes.discard(node)
            ports = {port: owner for port, owner in ports.items() if owner != node}
    if machine.get("state") != _GONE:  # with its disk; nothing else ends the labs of a worker that nobody can reach
        ground.left += [f"lab {title} on {worker}" for title in machine.get("labs", labs.values())]
    if machine.get("state") not in ("stopped", _GONE):
        ground.left.append(f"machine {worker} is {machine.get('state')}")


def _where_placed(evidence: Evidence, seen: Ground) -> Check:
    instances = below(evidence, "/instances/")
    reservations = {one["metadata"]["id"]: one for one in below(evidence, "/reservations/").values()}
    hosts = _hosts(evidence)
    broken = []
    compared = 0
    for name, instance in instances.items():
        if instance["spec"]["worker"] in hosts:
            continue
        runs = [run for run in seen.runs if run.title == name]
        if not was(instance, "Running"):
            reservation = reservations.get(instance["spec"]["reservation"])
            if reservation is not None and was(reservation, "Active"):
                broken.append(f"{name} never ran")
            continue
        compared += 1
        attempts = int(instance["status"].get("attempt", 1))
        if not runs:
            broken.append(f"{name} is said to have run, and no simulator saw it")
        elif attempts == 1 and len(runs) != 1:
            broken.append(f"{name} was started {len(runs)} times")
        elif runs[-1].worker != instance["spec"]["worker"]:
            broken.append(f"{name} ran on {runs[-1].worker}, not on {instance['spec']['worker']}")
    known = set(instances)
    broken += [f"{run.title} ran on {run.worker} and nobody booked it" for run in seen.runs if run.title not in known]
    return Check(
        _SOURCE, "each seat's lab ran exactly once, on the worker where it was placed", compared, tuple(broken)
    )


def _hosts(evidence: Evidence) -> set[str]:
    return {name for name, worker in below(evidence, "/workers/").items() if is_agent(worker)}


def _on_hosts(evidence: Evidence) -> Check:
    """By this machine's list of processes, whatever agents and mesh say."""
    hosts = _hosts(evidence)
    broken = [f"{one.instance} is still there on {one.agent}" for one in evidence.left]
    compared = 0
    for name, instance in below(evidence, "/instances/").items():
        if instance["spec"]["worker"] not in hosts:
            continue
        compared += 1
        found = [one for one in evidence.ran if one.instance == name]
        if not was(instance, "Running"):
            broken.append(f"{name} never ran")
        elif [one.agent for one in found] != [instance["spec"]["worker"]]:
            broken.append(f"{name} was found on {[one.agent for one in found]}, not on {instance['spec']['worker']}")
        elif not found[0].processes:
            broken.append(f"{name} had no process")
    claim = "each single booking ran as processes of its agent's host, and nothing of it is left"
    return Check("processes", claim, compared, tuple(broken))


def _never_twice_at_a_time(seen: Ground) -> Check:
    broken = [
        f"{one.title} on {one.worker} and {other.worker}"
        for one, other in combinations(seen.runs, 2)
        if one.title == other.title and _overlap(one, other)
    ]
    return Check(_SOURCE, "no lab ran in two places at a time", len(seen.runs), tuple(broken), Harm.DOUBLED)


def _overlap(one: Run, other: Run) -> bool:
    return (other.end is None or one.begin < other.end) and (one.end is None or other.begin < one.end)


def _within_capacity(evidence: Evidence, seen: Ground) -> Check:
    needs, offered = demands(evidence), capacities(evidence)
    definition = {name: one["spec"]["definition"] for name, one in below(evidence, "/instances/").items()}
    broken = []
    for run in seen.runs:
        together = [
            needs[definition[other.title]]
            for other in seen.runs
            if other.worker == run.worker
            and other.begin <= run.begin
            and (other.end is None or run.begin < other.end)
            and other.title in definition
        ]
        broken += [f"{run.worker}: {what}" for what in _beyond(together, offered.get(run.worker, {}))]
    claim = "labs that ran together never needed more than their worker has"
    return Check(_SOURCE, claim, len(seen.runs), tuple(broken), Harm.OVERCOMMITTED)


def _beyond(together: list[Json], offered: dict[str, float]) -> Iterator[str]:
    for dimension in DIMENSIONS:
        taken = sum(float(one.get(dimension, 0)) for one in together)
        if taken > offered.get(dimension, 0.0) + _DUST:
            yield f"{dimension} {taken:g} of {offered.get(dimension, 0.0):g}"
