"""What goes wrong in the simulated cloud, as data with a seed: the same seed and order of calls give the same faults.

A scenario comes from a JSON file at the start or from `PUT /scenario` while the cloud runs. Fields (all optional):
`seed`, `capacity {instanceType: machines}` (`*` for all types together), `bootMinutes` (overrides the usual),
`slowBoot {probability, factor}`, `failBoot {probability}` (ends `stopped`, reason `boot failed`), `throttle
{probability}` (a call answers 429), `lose [{machine: name, afterMinutes}]` (counted in lab minutes from `running`),
`failMachines [name, …]` (never boot).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


class ScenarioError(ValueError):
    """A scenario that cannot be read; names the field."""


@dataclass(slots=True)
class Scenario:
    """The faults in force, and the one source of chance that draws them."""

    seed: int = 0
    capacity: dict[str, int] = field(default_factory=dict)
    boot_minutes: float | None = None
    slow_boot_probability: float = 0.0
    slow_boot_factor: float = 1.0
    fail_boot_probability: float = 0.0
    throttle_probability: float = 0.0
    lose: dict[str, float] = field(default_factory=dict)
    fail_machines: frozenset[str] = frozenset()
    chance: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def boot_fails(self, name: str) -> bool:
        return name in self.fail_machines or self._happens(self.fail_boot_probability)

    def boot_factor(self) -> float:
        return self.slow_boot_factor if self._happens(self.slow_boot_probability) else 1.0

    def throttled(self) -> bool:
        return self._happens(self.throttle_probability)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.chance.random() < probability

    def room_for(self, instance_type: str, running: list[str]) -> bool:
        """Whether one more machine of the type fits beside the running ones (their types)."""
        own, total = self.capacity.get(instance_type), self.capacity.get("*")
        return (own is None or running.count(instance_type) < own) and (total is None or len(running) < total)


_FIELDS = ("seed", "capacity", "bootMinutes", "slowBoot", "failBoot", "throttle", "lose", "failMachines")


def parse_scenario(body: Json) -> Scenario:
    """Reads a scenario. Raises `ScenarioError` naming the field at fault."""
    unknown = sorted(set(body) - set(_FIELDS))
    if unknown:
        raise ScenarioError(f"unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    try:
        return Scenario(
            seed=int(body.get("seed", 0)),
            capacity={str(kind): int(limit) for kind, limit in body.get("capacity", {}).items()},
            boot_minutes=None if body.get("bootMinutes") is None else float(body["bootMinutes"]),
            slow_boot_probability=_probability(body, "slowBoot"),
            slow_boot_factor=float(body.get("slowBoot", {}).get("factor", 3.0)),
            fail_boot_probability=_probability(body, "failBoot"),
            throttle_probability=_probability(body, "throttle"),
            lose={str(one["machine"]): float(one["afterMinutes"]) for one in body.get("lose", [])},
            fail_machines=frozenset(str(name) for name in body.get("failMachines", [])),
        )
    except ScenarioError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ScenarioError(f"a value has the wrong form ({type(error).__name__}: {error})") from error


def _probability(body: Json, name: str) -> float:
    value = float(body.get(name, {}).get("probability", 0.0))
    if not 0.0 <= value <= 1.0:
        raise ScenarioError(f"{name}.probability must be between 0 and 1, not {value:g}")
    return value
