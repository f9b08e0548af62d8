"""What every side is asked: whole hosts, each for one slot of two hours, in one order.

Slots begin every three hours over four weeks, so that none touches the next and no side's rule about borders or cleaning
matters. What stands before is the same on each side; it is spread so that a host never has two at a time. What is then
asked leaves the choice to the side, or names `host` where the side leaves it to its caller.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

SLOTS = 28 * 8
EVERY = timedelta(hours=3)
LENGTH = timedelta(hours=2)
AHEAD = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Ask:
    """One host for one slot."""

    name: str
    start: str
    """UTC, `YYYY-MM-DDTHH:MM`."""
    end: str
    host: int
    """For what stands before, and where the caller names the host."""


@dataclass(frozen=True, slots=True)
class Workload:
    hosts: int
    before: tuple[Ask, ...]
    asked: tuple[Ask, ...]
    budget: float
    """Seconds after which a side asks no more: the slowest would take an hour."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        read = json.loads(text)
        return cls(
            read["hosts"],
            tuple(Ask(**one) for one in read["before"]),
            tuple(Ask(**one) for one in read["asked"]),
            read["budget"],
        )


def workload(hosts: int, before: int, asked: int, budget: float, *, seed: int = 1) -> Workload:
    """Raises `ValueError` when a slot would need more hosts than there are."""
    rng = random.Random(seed)
    first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + AHEAD
    taken = [0] * SLOTS
    made = []
    for number in range(before + asked):
        slot = rng.randrange(SLOTS)
        if taken[slot] == hosts:
            raise ValueError(f"slot {slot} needs more than {hosts} hosts")
        start = first + slot * EVERY
        host = (slot * 37 + taken[slot]) % hosts
        taken[slot] += 1
        made.append(Ask(f"r{number:05d}", f"{start:%Y-%m-%dT%H:%M}", f"{start + LENGTH:%Y-%m-%dT%H:%M}", host))
    return Workload(hosts, tuple(made[:before]), tuple(made[before:]), budget)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side did of the workload. A side that refuses something says how much."""

    done: int
    seconds: float
    refused: int = 0

    @property
    def per_second(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def one_after_the_other(work: Workload, make: Callable[[Ask], bool]) -> Figures:
    """Asks in order until the budget is spent; `make` says whether it was granted."""
    done = refused = 0
    began = time.perf_counter()
    for ask in work.asked:
        if make(ask):
            done += 1
        else:
            refused += 1
        if time.perf_counter() - began > work.budget:
            break
    return Figures(done, time.perf_counter() - began, refused)
