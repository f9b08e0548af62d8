"""A mesh as data, for `mesh.json`: where everything answers and how each process does."""

from collections.abc import Sequence
from typing import Any

from lablet_local import agents
from lablet_local.members import member_of
from lablet_local.pace import Pace
from lablet_local.ports import PortBlock
from lablet_local.process import ProcessState

_SERVERS = ("s3", "cloud", "spans")


def health_url(ports: PortBlock, process: str) -> str:
    """The internal address of a service's process, such as `scheduler-1`."""
    service, _, number = process.rpartition("-")
    return f"http://127.0.0.1:{ports.health(service, int(number))}"


def _has_health(state: ProcessState) -> bool:
    name = state.process.name
    return name not in _SERVERS and member_of(name) is None and not name.startswith("agent-")


def addresses_of(ports: PortBlock, states: Sequence[ProcessState]) -> dict[str, str]:
    """Process → the address at which it answers: a gateway's API, another service's internal port."""
    known = {
        "s3": f"http://127.0.0.1:{ports.s3}",
        "cloud": f"http://127.0.0.1:{ports.cloud}",
        "spans": f"http://127.0.0.1:{ports.spans}",
    }
    for name in (state.process.name for state in states):
        if (member := member_of(name)) is not None:
            server, number = member
            of_member = ports.of_member(number)
            etcd, nats = f"http://127.0.0.1:{of_member.etcd}", f"nats://127.0.0.1:{of_member.nats}"
            known[name] = etcd if server == "etcd" else nats
        elif name.startswith("api-gateway-"):
            known[name] = f"http://127.0.0.1:{ports.gateway(int(name.rpartition('-')[2]))}"
        elif name.startswith("agent-"):
            first, last = agents.ports_of(ports.base, int(name.rpartition("-")[2]) - 1)
            known[name] = f"127.0.0.1:{first}-{last}"
        elif name not in known:
            known[name] = health_url(ports, name)
    return known


def overview(ports: PortBlock, pace: Pace, states: Sequence[ProcessState]) -> dict[str, Any]:
    """What `lablet status` reads."""
    addresses = addresses_of(ports, states)
    return {
        "speed": pace.speed,
        "leaseTtlSeconds": pace.lease_ttl,
        "leadMinutes": pace.lead_minutes,
        "portBase": ports.base,
        "addresses": addresses,
        "processes": [
            {
                "name": state.process.name,
                "pid": state.pid,
                "phase": str(state.phase),
                "startedAt": state.started_at,
                "restarts": state.restarts,
                "lastEnd": state.last_end,
                "missing": state.missing,
                "address": addresses[state.process.name],
                "readyz": f"{health_url(ports, state.process.name)}/readyz" if _has_health(state) else None,
                "log": str(state.process.log),
            }
            for state in states
        ],
    }
