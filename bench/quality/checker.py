"""Counts what a set of placements costs and whether it is allowed, minute by minute, without any code of the engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .instances import Instance

Assignment = Mapping[str, list[str]]
"""Reservation → the worker of each of its seats."""


class Unsound(AssertionError):
    """The placements break a limit."""


def cost(instance: Instance, assignment: Assignment) -> int:
    """Worker-on minutes, boots included. Raises Unsound when a seat is missing or a worker over-committed."""
    needed: dict[str, set[int]] = {machine.name: set() for machine in instance.machines}
    used: dict[str, dict[int, list[int]]] = {name: defaultdict(lambda: [0, 0, 0]) for name in needed}
    for one in instance.wanted:
        workers = assignment.get(one.name, [])
        if len(workers) != one.seats:
            raise Unsound(f"seed {instance.seed}: {one.name} has {len(workers)} of {one.seats} seats")
        for worker in workers:
            for minute in range(one.start, one.end + instance.turnaround):
                needed[worker].add(minute)
                now = used[worker][minute]
                now[2] += one.nodes
                if minute < one.end:
                    now[0] += one.cpu
                    now[1] += one.memory
    for machine in instance.machines:
        for minute, (cpu, memory, nodes) in used[machine.name].items():
            if cpu > machine.cpu or memory > machine.memory or nodes > machine.nodes:
                raise Unsound(f"seed {instance.seed}: {machine.name} over-committed in minute {minute}")
    return sum(_on_minutes(instance, minutes) for minutes in needed.values())


def _on_minutes(instance: Instance, needed: set[int]) -> int:
    total = 0
    last: int | None = None
    for minute in sorted(needed):
        rest = None if last is None else minute - last - 1
        if rest is None or rest > instance.bridge:
            total += instance.lead
        else:
            total += rest
        total += 1
        last = minute
    return total
