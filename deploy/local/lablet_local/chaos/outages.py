"""Faults beside the plan, of the simulated cloud's own process: it says nothing for a while, or a whole region is lost. Pure.

A killed cloud takes its machines with it, as their simulators are bound to it, and finds them stopped and lost when it is
started again (see `cloud.region`): every worker that was on is gone at once, with its labs. That leaves little else to be
seen for seconds, so it comes once, and in some of the seeds. What its records do not do: outlive a power cut.

Drawn from a stream of their own, as `links` are.
"""

import random

from lablet_local.chaos.schedule import CLOUD, FIRST_SECONDS, Fault, Kind

_PAUSED = 0.4
"""Of the seeds; machines run on meanwhile."""
_PAUSE_SECONDS = (2.0, 6.0)
_LOST = 0.2
"""Of the seeds."""
_LOST_AT = (0.4, 0.75)
"""Of the time: there are labs by then, and time is left to heal them."""


def plan_outages(seed: int, seconds: float) -> list[Fault]:
    """Faults for `seconds`, in the order of their time."""
    rng = random.Random(f"the cloud of {seed}")
    faults = []
    if rng.random() < _PAUSED:
        at = rng.uniform(FIRST_SECONDS, max(FIRST_SECONDS, seconds))
        faults.append(Fault(at, Kind.PAUSE, CLOUD, round(rng.uniform(*_PAUSE_SECONDS), 2)))
    if rng.random() < _LOST:
        faults.append(Fault(seconds * rng.uniform(*_LOST_AT), Kind.KILL, CLOUD))
    return sorted(faults, key=lambda fault: fault.at)
