"""Which faults come when: drawn from a seed, the same for the same seed. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FIRST_SECONDS = 3.0
"""Load without faults, so that there is something to lose."""
_CALM_AFTER_ETCD = 4.0
"""After etcd was killed nothing is compacted for so long: the chronicle is to be back by then."""


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL; the supervisor starts it again."""
    PAUSE = "pause"
    """SIGSTOP beyond the lease's time to live, then SIGCONT: it wakes up and believes that it still owns."""
    RESTART = "restart"
    """An orderly stop and start."""
    CUT = "cut"
    """Connections between one service and one server are broken, new ones refused for a while."""
    SWALLOW = "swallow"
    """What the server answers does not arrive: the work is done and nobody knows."""
    DELAY = "delay"
    """Everything between a service and a server comes late."""
    MACHINE = "machine"
    """A simulated worker's process is killed."""
    COMPACT = "compact"
    """etcd forgets its history behind watchers."""
    PURGE = "purge"
    """The stream of events is emptied."""
    NO_SPACE = "no-space"
    """etcd says that its quota is full, and refuses to write."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`target` is a process (`scheduler-1`, `nats`), or `service→server` for the network; real seconds."""

    at: float
    kind: Kind
    target: str = ""
    seconds: float = 0.0


SERVERS = ("etcd", "nats", "s3")
_WEIGHTS = {
    Kind.KILL: 8, Kind.PAUSE: 4, Kind.RESTART: 2, Kind.CUT: 4, Kind.SWALLOW: 2, Kind.DELAY: 2, Kind.MACHINE: 2,
    Kind.COMPACT: 1, Kind.PURGE: 1, Kind.NO_SPACE: 1,
}  # fmt: skip


def plan(seed: int, seconds: float, replicas: Sequence[str], lease_ttl: float, *, sound_etcd: bool) -> list[Fault]:
    """Faults for `seconds`, in the order of their time. `replicas` are the services' processes. Without a sound etcd it is
    neither killed nor restarted: it could lose what it acknowledged. A seed either forgets history and purges events or
    does not, so that half of the runs can be held to every event."""
    rng = random.Random(seed)
    forgetful = seed % 2 == 0
    kinds = [kind for kind in Kind if forgetful or kind not in (Kind.COMPACT, Kind.PURGE)]
    services = sorted({name.rpartition("-")[0] for name in replicas})
    faults: list[Fault] = []
    calm_until = 0.0
    at = FIRST_SECONDS
    while at < seconds:
        kind = rng.choices(kinds, weights=[_WEIGHTS[one] for one in kinds])[0]
        fault = _draw(rng, at, kind, list(replicas), services, lease_ttl, sound_etcd=sound_etcd)
        if fault.target == "etcd" and kind in (Kind.KILL, Kind.RESTART):
            calm_until = at + _CALM_AFTER_ETCD
        if kind is not Kind.COMPACT or at >= calm_until:
            faults.append(fault)
        at += rng.uniform(0.4, 2.2)
    return faults


def _draw(
    rng: random.Random, at: float, kind: Kind, replicas: list[str], services: list[str], ttl: float, *, sound_etcd: bool
) -> Fault:
    servers = [one for one in SERVERS if sound_etcd or one != "etcd"]
    match kind:
        case Kind.KILL:
            return Fault(at, kind, rng.choice(replicas + servers))
        case Kind.RESTART:
            return Fault(at, kind, rng.choice(replicas))
        case Kind.PAUSE:
            return Fault(at, kind, rng.choice([*replicas, "nats"]), round(ttl * rng.uniform(1.2, 2.2), 2))
        case Kind.CUT:
            return Fault(at, kind, _pair(rng, services), round(rng.uniform(0.2, 3.0), 2))
        case Kind.SWALLOW:
            return Fault(at, kind, _pair(rng, services), round(rng.uniform(0.2, 1.5), 2))
        case Kind.DELAY:
            return Fault(at, kind, _pair(rng, services), round(rng.uniform(1.0, 4.0), 2))
        case Kind.NO_SPACE:
            return Fault(at, kind, "etcd", round(rng.uniform(0.5, 2.0), 2))
        case Kind.COMPACT | Kind.PURGE | Kind.MACHINE:
            return Fault(at, kind)


def _pair(rng: random.Random, services: list[str]) -> str:
    service = rng.choice(services)
    reached = [one for one in SERVERS if one != "s3" or service != "scheduler"]
    return f"{service}→{rng.choice(reached)}"
