"""Planners without a calendar of power: first-fit, best-fit, one worker per class; and what no planner can go below.

They book seat by seat in the order of the requests and look at capacity alone, on machines in lists, so that they can
also take on a log of months. Power is counted as everywhere: boot, holds, rests that are bridged.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .instances import Instance, Machine, Wanted


@dataclass(slots=True)
class Shelf:
    """One machine and what is on it, by start."""

    machine: Machine
    load: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """Start, end, cpu, memory, nodes of each seat."""
    longest: int = 0

    def near(self, start: int, end: int) -> list[tuple[int, int, int, int, int]]:
        """The seats that overlap a span."""
        first = bisect_left(self.load, (start - self.longest,))
        last = bisect_left(self.load, (end,))
        return [one for one in self.load[first:last] if one[1] > start]

    def peak(self, start: int, end: int, rest: int) -> tuple[int, int, int]:
        """The most cpu, memory and nodes in use in a slot (nodes with the turnaround on both sides)."""
        near = self.near(start - rest, end + rest)
        cpu = memory = nodes = 0
        for at in {start, *(one[0] for one in near if one[0] > start)}:
            running = [one for one in near if one[0] <= at < one[1] and at < end]
            cpu = max(cpu, sum(one[2] for one in running))
            memory = max(memory, sum(one[3] for one in running))
            nodes = max(nodes, sum(one[4] for one in near if one[0] <= at < one[1] + rest))
        return cpu, memory, nodes

    def fits(self, one: Wanted, rest: int) -> tuple[int, int, int] | None:
        """The peak beside a seat; None when it does not fit."""
        peak = self.peak(one.start, one.end, rest)
        have = (self.machine.cpu, self.machine.memory, self.machine.nodes)
        need = (one.cpu, one.memory, one.nodes)
        return peak if all(p + n <= h for p, n, h in zip(peak, need, have, strict=True)) else None

    def put(self, one: Wanted) -> None:
        insort(self.load, (one.start, one.end, one.cpu, one.memory, one.nodes))
        self.longest = max(self.longest, one.end - one.start)


def first_fit(instance: Instance) -> tuple[int, int]:
    """Worker-on minutes and refused seats when the first worker with room is taken."""
    return _fitted(instance, best=False)


def best_fit(instance: Instance) -> tuple[int, int]:
    """The same when the fullest worker with room (by cpu, in the slot) is taken."""
    return _fitted(instance, best=True)


def _fitted(instance: Instance, *, best: bool) -> tuple[int, int]:
    shelves = [Shelf(machine) for machine in instance.machines]
    refused = 0
    for one in instance.wanted:
        for _ in range(one.seats):
            chosen: tuple[float, Shelf] | None = None
            for shelf in shelves:
                peak = shelf.fits(one, instance.turnaround)
                if peak is None:
                    continue
                full = peak[0] / shelf.machine.cpu
                if chosen is None or full > chosen[0]:
                    chosen = (full, shelf)
                if not best:
                    break
            if chosen is None:
                refused += 1
            else:
                chosen[1].put(one)
    return sum(power(((s, e) for s, e, *_ in shelf.load), instance) for shelf in shelves), refused


def per_class(instance: Instance) -> int:
    """Worker-on minutes when every reservation gets workers of its own (as many as its seats need, on for its slot)."""
    machine = max(instance.machines, key=lambda one: one.cpu)
    total = 0
    for one in instance.wanted:
        each = min(machine.cpu // one.cpu, machine.memory // one.memory, machine.nodes // one.nodes)
        total += -(-one.seats // each) * (instance.lead + one.end + instance.turnaround - one.start)
    return total


def power(needs: Iterable[tuple[int, int]], instance: Instance) -> int:
    """Minutes that one worker is on for its slots."""
    total, until = 0, None
    for start, end in sorted((start, end + instance.turnaround) for start, end in needs):
        if until is None or start - until > instance.bridge:
            total += instance.lead + end - start
            until = end
        elif end > until:
            total += end - until
            until = end
    return total


def lower_bound(instance: Instance) -> float:
    """Minutes that no planner can save: at each instant the most that a dimension asks of the largest worker, rounded
    up (nodes with their turnaround), integrated over time; and one boot, as somebody has to begin."""
    largest = [max(getattr(one, name) for one in instance.machines) for name in ("cpu", "memory", "nodes")]
    changes: list[tuple[int, int, int, int]] = []
    for one in instance.wanted:
        cpu, memory, nodes = one.seats * one.cpu, one.seats * one.memory, one.seats * one.nodes
        changes += [(one.start, cpu, memory, nodes), (one.end, -cpu, -memory, 0)]
        changes.append((one.end + instance.turnaround, 0, 0, -nodes))
    changes.sort()
    used: Sequence[int] = (0, 0, 0)
    total, last = 0, 0
    for at, *delta in changes:
        total += max(-(-u // most) for u, most in zip(used, largest, strict=True)) * (at - last)
        used = [u + d for u, d in zip(used, delta, strict=True)]
        last = at
    return total + (instance.lead if changes else 0)
