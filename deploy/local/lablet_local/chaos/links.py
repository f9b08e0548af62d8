"""Faults beside the plan, of the connections that it leaves alone: between the worker-controller and the simulated cloud
and workers, between agents and their servers, and between clients and gateways. Pure.

They are drawn from streams of their own, derived from the same seed, so that what `schedule.plan` draws for a seed stays
as it was before they came, and so does what came first of them.
"""

import random
from collections.abc import Sequence

from lablet_common.resources.kinds import Service
from lablet_local.chaos.schedule import A_MACHINE, AN_AGENT, CLIENTS, CLOUD, FIRST_SECONDS, MACHINES, Fault, Kind

_PAUSE_SECONDS = (2.0, 5.0)
"""Between two of them: a third as many as of the plan."""
_KINDS = {Kind.CUT: 2, Kind.SWALLOW: 1, Kind.DELAY: 1}
_LOST = 0.25
"""Of the seeds: one worker is away for so long that it is given up, while its labs run on."""
_LOST_AT = (7.0, 11.0)
"""When the first labs run."""
_LOST_SECONDS = (22.0, 26.0)
"""Its lease (15 s), and until an Unknown worker has failed (15 lab minutes)."""
NATS, GATEWAY = "nats", "gateway"
_OF_AGENTS = (NATS, NATS, GATEWAY)
"""They call the gateway only when they register."""
_DOOR_PAUSE_SECONDS = (1.5, 4.0)
"""From the end of one to the next."""
_OF_DOORS = {Kind.CUT: 2, Kind.SWALLOW: 2, Kind.DELAY: 1}


def plan_links(
    seed: int, seconds: float, replicas: Sequence[str], *, agents: Sequence[str] = (), agent_ttl: float = 0.0
) -> list[Fault]:
    """Faults for `seconds`, in the order of their time. `replicas` are the services' processes, `agent_ttl` the seconds for
    which an agent's labs may run without a word from the mesh: half of the cuts from NATS are longer."""
    rng = random.Random(f"links of {seed}")  # its hash is the same in every process
    callers = [Service.WORKERS, *(name for name in replicas if name.rpartition("-")[0] == Service.WORKERS)]
    reached = [CLOUD, MACHINES, A_MACHINE, *(_OF_AGENTS if agents else ())]
    faults = []
    if rng.random() < _LOST:
        lost = Fault(rng.uniform(*_LOST_AT), Kind.CUT, f"{Service.WORKERS}→{A_MACHINE}", _between(rng, *_LOST_SECONDS))
        faults.append(lost)
    at = FIRST_SECONDS + rng.uniform(0.0, _PAUSE_SECONDS[1])
    while at < seconds:
        kind = rng.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
        to = rng.choice(reached)
        caller = rng.choice([AN_AGENT, *agents] if to in _OF_AGENTS else callers)
        silence = agent_ttl if to == NATS and kind is Kind.CUT and rng.random() < 0.5 else 0.0
        faults.append(Fault(at, kind, f"{caller}→{to}", _span(rng, kind, silence)))
        at += rng.uniform(*_PAUSE_SECONDS)
    return sorted(faults, key=lambda fault: fault.at)


def plan_doors(seed: int, seconds: float, replicas: Sequence[str]) -> list[Fault]:
    """Faults for `seconds` between all clients and one replica of the gateway (of the services' processes `replicas`), in the
    order of their time. One ends before the next begins: there is always a door at which only the mesh may fail."""
    rng = random.Random(f"doors of {seed}")
    gateways = [name for name in replicas if name.rpartition("-")[0] == Service.GATEWAY]
    faults: list[Fault] = []
    at = FIRST_SECONDS + rng.uniform(0.0, _DOOR_PAUSE_SECONDS[1])
    while gateways and at < seconds:
        kind = rng.choices(list(_OF_DOORS), weights=list(_OF_DOORS.values()))[0]
        faults.append(Fault(at, kind, f"{CLIENTS}→{rng.choice(gateways)}", _span(rng, kind, 0.0)))
        at += faults[-1].seconds + rng.uniform(*_DOOR_PAUSE_SECONDS)
    return faults


def _span(rng: random.Random, kind: Kind, silence: float) -> float:
    """Seconds; longer than `silence` where that is given."""
    if silence:
        return _between(rng, 1.2 * silence, 2.2 * silence)
    longest = {Kind.CUT: 3.0, Kind.SWALLOW: 1.5, Kind.DELAY: 4.0}[kind]
    return _between(rng, longest / 4, longest)


def _between(rng: random.Random, least: float, most: float) -> float:
    return round(rng.uniform(least, most), 2)
