"""Seeded instances for the quality bench: workers and reservations as plain values, in the order of their requests.

Nothing here knows the engine. Reservations are drawn for one or two working days and kept when a first-fit of its own
finds room for them, so every instance has a solution; the shapes, lengths and rests vary between instances. The same
seed gives the same instance for ever: recorded optima are worthless without it (`fingerprint` guards them).
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

DAY = 24 * 60
BASE = 20_000 * DAY
"""Midnight of the first day, in minutes since 1970."""

SHAPES = ((2, 8, 2), (2, 4, 5), (4, 16, 4), (4, 8, 8), (6, 24, 6), (8, 32, 10))
"""cpu cores, memory in GB, licence nodes of a seat."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One worker. `nodes` is its licence's limit."""

    name: str
    cpu: int
    memory: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reservation: seats of one shape in one slot (minutes)."""

    name: str
    start: int
    end: int
    seats: int
    cpu: int
    memory: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Instance:
    """Workers, their pool's times (minutes) and what is asked of them, first request first."""

    seed: int
    machines: tuple[Machine, ...]
    lead: int
    grace: int
    turnaround: int
    wanted: tuple[Wanted, ...]

    @property
    def bridge(self) -> int:
        """The longest rest through which a worker stays on."""
        return max(self.grace, self.lead)

    def in_order_of_start(self) -> Instance:
        """The same, had the requests come in the order in which their slots begin."""
        return replace(self, wanted=tuple(sorted(self.wanted, key=lambda one: (one.start, one.name))))

    def fingerprint(self) -> str:
        """Changes when anything in the instance does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def small(seed: int) -> Instance:
    """15–24 reservations on 4–5 workers."""
    rng = random.Random(f"small {seed}")
    return _drawn(rng, seed, machines=rng.randint(4, 5), wanted=rng.randint(15, 24), days=rng.choice((1, 1, 2)))


def large(seed: int) -> Instance:
    """40–60 reservations on 6–9 workers."""
    rng = random.Random(f"large {seed}")
    return _drawn(rng, seed, machines=rng.randint(6, 9), wanted=rng.randint(40, 60), days=rng.choice((1, 2, 2)))


def _drawn(rng: random.Random, seed: int, machines: int, wanted: int, days: int) -> Instance:
    sizes = [(16, 64, 40)] * machines
    if rng.random() < 0.4:
        sizes[-1] = (24, 96, 40)
    if rng.random() < 0.3:
        sizes[0] = (8, 32, 20)
    fleet = tuple(Machine(f"w-{i + 1}", *size) for i, size in enumerate(sizes))
    lead, grace, turnaround = rng.choice((10, 20, 30)), rng.choice((0, 30, 45)), rng.choice((0, 10, 15))
    instance = Instance(seed, fleet, lead, grace, turnaround, ())
    kept: list[Wanted] = []
    load: dict[str, list[tuple[Wanted, int]]] = {machine.name: [] for machine in fleet}
    while len(kept) < wanted:
        cpu, memory, nodes = rng.choice(SHAPES)
        length = min(max(round(rng.lognormvariate(0.75, 0.55) * 4), 2), 32) * 15
        day = rng.randrange(days)
        begin = BASE + day * DAY + rng.randint(7 * 4, 21 * 4) * 15
        one = Wanted(
            f"r{len(kept) + 1:03d}", begin, begin + length, rng.choice((1, 1, 1, 2, 2, 3, 4)), cpu, memory, nodes
        )
        if _first_fit(instance, load, one):
            kept.append(one)
    return Instance(seed, fleet, lead, grace, turnaround, tuple(kept))


def _first_fit(instance: Instance, load: dict[str, list[tuple[Wanted, int]]], one: Wanted) -> bool:
    given: list[str] = []
    left = one.seats
    for machine in instance.machines:
        fits = room(machine, load[machine.name], one, instance.turnaround)
        take = min(left, fits)
        given += [machine.name] * take
        left -= take
    if left:
        return False
    for name in dict.fromkeys(given):
        load[name].append((one, given.count(name)))
    return True


def room(machine: Machine, load: list[tuple[Wanted, int]], one: Wanted, turnaround: int) -> int:
    """How many seats of a reservation fit on a machine beside its load."""
    near = [
        (other, n) for other, n in load if other.start < one.end + turnaround and one.start < other.end + turnaround
    ]
    instants = {one.start, *(other.start for other, _ in near if other.start > one.start)}
    most = one.seats
    for at in instants:
        cpu, memory, nodes = machine.cpu, machine.memory, machine.nodes
        for other, n in near:
            if other.start <= at < other.end and at < one.end:
                cpu -= n * other.cpu
                memory -= n * other.memory
            if other.start <= at < other.end + turnaround:
                nodes -= n * other.nodes
        most = min(most, nodes // one.nodes, *((cpu // one.cpu, memory // one.memory) if at < one.end else ()))
    return max(most, 0)
