"""Which faults come when: drawn from a seed, the same for the same seed. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lablet_local.members import member_name, member_of

FIRST_SECONDS = 3.0
"""Load without faults, so that there is something to lose."""
_CALM_AFTER_ETCD = 4.0
"""After etcd was killed nothing is compacted for so long: the chronicle is to be back by then."""


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL; the supervisor starts it again."""
    PAUSE = "pause"
    """SIGSTOP beyond the lease's time to live, then SIGCONT: a service's replica wakes up and believes that it still owns; a
    server or a simulated worker is there and says nothing."""
    RESTART = "restart"
    """An orderly stop and start, of a replica or a server."""
    CUT = "cut"
    """Connections between one service, or one replica of it, and one server are broken, new ones refused for a while."""
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
    FULL = "full"
    """etcd's file is filled up to its quota, and emptied again, which takes a compaction."""
    LEADER = "leader"
    """Of three members, SIGKILL for the one that leads etcd, or a stream of NATS."""
    MINORITY = "minority"
    """One of three members is cut off from the others, and its clients still reach it."""
    ROLLING = "rolling"
    """Each of three members is stopped in order and started again, one after another."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`target` is a process (`scheduler-1`, `nats`, `cloud`), or `service→server` or `replica→server` for the network
    (`links` has more such pairs), or `leader of etcd` (or of a stream), or a server whose members are meant, or a simulated
    worker; real seconds."""

    at: float
    kind: Kind
    target: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Under which it is counted: its kind, and of those beside the plan what is broken (`cut doors`, `kill cloud`)."""
        caller, arrow, reached = self.target.partition("→")
        links = {
            AGENTS: arrow and caller.partition("-")[0] == AN_AGENT,
            DOORS: caller == CLIENTS,
            MACHINES: reached in (MACHINES, A_MACHINE),
            CLOUD: CLOUD in (caller, reached),
        }
        link = next((name for name in LINKS if links[name]), None)
        return f"{self.kind} {link}" if link else str(self.kind)

    @property
    def shakes(self) -> str | None:
        """The server of which a member does not work for a while: `etcd` or `nats`."""
        if self.kind not in _ON_MEMBERS:
            return None
        if self.target.startswith(LEADER_OF):
            return "etcd" if self.target == f"{LEADER_OF}etcd" else "nats"
        member = member_of(self.target)
        return member[0] if member else None


LEADER_OF = "leader of "
A_MACHINE = "a machine"
"""One of the simulated workers that run at that moment."""
SERVERS = ("etcd", "nats", "s3")
AN_AGENT, AGENTS, CLOUD, MACHINES = "agent", "agents", "cloud", "machines"
CLIENTS, DOORS = "clients", "doors"
LINKS = (CLOUD, MACHINES, AGENTS, DOORS)
"""Broken beside the plan, see `links` and `outages`: what the worker-controller has with the cloud (or the cloud itself), and
with the simulated workers' APIs; what agents have with their servers, and clients with the gateway's replicas."""
STREAMS = ("EVENTS", "INTENTS_SCHEDULER", "INTENTS_WORKER_CONTROLLER")
"""Whose leaders are looked for."""
FORGETFUL = (Kind.COMPACT, Kind.PURGE, Kind.FULL)
"""After which history or the stream of events is not whole."""
OF_MANY = (Kind.LEADER, Kind.MINORITY, Kind.ROLLING)
_ON_MEMBERS = (Kind.KILL, Kind.RESTART, Kind.PAUSE, *OF_MANY)
_CATCH_UP_SECONDS = 4.0
"""Between two faults of members of one server: any one may be lost, which is not to say two."""
_ROLLING_SECONDS = 8.0
_WEIGHTS = {
    Kind.KILL: 8, Kind.PAUSE: 4, Kind.RESTART: 2, Kind.CUT: 4, Kind.SWALLOW: 2, Kind.DELAY: 2, Kind.MACHINE: 2,
    Kind.COMPACT: 1, Kind.PURGE: 1, Kind.NO_SPACE: 1, Kind.FULL: 1, Kind.LEADER: 6, Kind.MINORITY: 4, Kind.ROLLING: 2,
}  # fmt: skip


def plan(
    seed: int,
    seconds: float,
    replicas: Sequence[str],
    lease_ttl: float,
    *,
    sound_etcd: bool,
    members: int = 1,
    agents: Sequence[str] = (),
    agent_ttl: float = 0.0,
) -> list[Fault]:
    """Faults for `seconds`, in the order of their time. `replicas` are the services' processes; `agents` are killed and
    paused, too. Without a sound etcd it is neither killed nor restarted: it could lose what it acknowledged. A seed either
    forgets history and purges events or does not, so that half of the runs can be held to every event. With several members
    no two of one server are hit at a time."""
    rng = random.Random(seed)
    forgetful = seed % 2 == 0
    left_out = (() if forgetful else FORGETFUL) + (() if members > 1 else OF_MANY)
    kinds = [kind for kind in Kind if kind not in left_out]
    callers = sorted({*replicas, *(name.rpartition("-")[0] for name in replicas)})
    faults: list[Fault] = []
    calm_until = 0.0
    whole_from = dict.fromkeys(SERVERS, 0.0)
    at = FIRST_SECONDS
    while at < seconds:
        kind = rng.choices(kinds, weights=[_WEIGHTS[one] for one in kinds])[0]
        fault = _draw(rng, at, kind, [*replicas, *agents], callers, lease_ttl, members, sound_etcd=sound_etcd)
        if fault.target in agents and kind is Kind.PAUSE:
            fault = replace(fault, seconds=round(fault.seconds * agent_ttl / lease_ttl, 2))
        if fault.target in agents and kind is Kind.RESTART:  # it would end its labs first
            fault = replace(fault, kind=Kind.KILL)
        server = fault.shakes
        wanted = kind not in (Kind.COMPACT, Kind.FULL) or at >= calm_until
        if server is not None and members > 1:
            wanted = at >= whole_from[server]
            if wanted:
                whole_from[server] = at + fault.seconds + _CATCH_UP_SECONDS
        if server == "etcd" and wanted:
            calm_until = at + fault.seconds + _CALM_AFTER_ETCD
        if wanted:
            faults.append(fault)
        at += rng.uniform(0.4, 2.2)
    return faults


def _draw(
    rng: random.Random,
    at: float,
    kind: Kind,
    replicas: list[str],
    callers: list[str],
    ttl: float,
    members: int,
    *,
    sound_etcd: bool,
) -> Fault:
    etcd, nats = ([member_name(server, one) for one in range(1, members + 1)] for server in ("etcd", "nats"))
    servers = [*(etcd if sound_etcd else []), *nats, "s3"]
    match kind:
        case Kind.KILL:
            return Fault(at, kind, rng.choice(replicas + servers))
        case Kind.RESTART:
            return Fault(at, kind, rng.choice(replicas + servers))
        case Kind.PAUSE:
            return Fault(at, kind, rng.choice([*replicas, *etcd, *nats, "s3", A_MACHINE]), _past(rng, ttl))
        case Kind.LEADER:
            led = ["etcd", *STREAMS] if sound_etcd else list(STREAMS)
            return Fault(at, kind, LEADER_OF + rng.choice(led))
        case Kind.MINORITY:
            cut_off = rng.choice([f"{LEADER_OF}etcd", f"{LEADER_OF}EVENTS", *etcd, *nats])
            return Fault(at, kind, cut_off, _past(rng, ttl))
        case Kind.ROLLING:
            return Fault(at, kind, rng.choice(("etcd", "nats") if sound_etcd else ("nats",)), _ROLLING_SECONDS)
        case Kind.CUT:
            return Fault(at, kind, _pair(rng, callers), round(rng.uniform(0.2, 3.0), 2))
        case Kind.SWALLOW:
            return Fault(at, kind, _pair(rng, callers), round(rng.uniform(0.2, 1.5), 2))
        case Kind.DELAY:
            return Fault(at, kind, _pair(rng, callers), round(rng.uniform(1.0, 4.0), 2))
        case Kind.NO_SPACE | Kind.FULL:
            return Fault(at, kind, "etcd", round(rng.uniform(0.5, 2.0), 2))
        case Kind.COMPACT | Kind.PURGE | Kind.MACHINE:
            return Fault(at, kind)


def _past(rng: random.Random, ttl: float) -> float:
    """Seconds for longer than a lease lives."""
    return round(ttl * rng.uniform(1.2, 2.2), 2)


def _pair(rng: random.Random, callers: list[str]) -> str:
    caller = rng.choice(callers)
    reached = [one for one in SERVERS if one != "s3" or not caller.startswith("scheduler")]
    return f"{caller}→{rng.choice(reached)}"
