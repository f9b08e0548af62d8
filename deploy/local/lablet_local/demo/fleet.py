"""The demo's fleet: seven workers of twenty licensed nodes each, switched off after ten idle minutes, on ports that nothing
else on this machine listens on.

The simulated machines have addresses of their own, but a program that listens on every address (0.0.0.0) has its port on
those too. Not guaranteed: that no such program starts during the demo.
"""

import json
from pathlib import Path

from lablet_local.lab_ports import is_free

WORKERS = 7
_PORTS_EACH = 200
_FIRST, _LAST = 2000, 9999


class NoPorts(Exception):
    """So many ports in a row are not free on this machine."""


def free_block(first: int = _FIRST, last: int = _LAST, wanted: int = _PORTS_EACH) -> tuple[int, int]:
    """The first run of ports that can be bound, both ends included. Raises `NoPorts`."""
    run = 0
    for port in range(first, last + 1):
        run = run + 1 if is_free(port) else 0
        if run == wanted:
            return port - wanted + 1, port
    raise NoPorts(f"no {wanted} free ports in a row between {first} and {last}")


def write_templates(path: Path) -> Path:
    """Writes the worker template file (YAML, of which JSON is a part) and returns its path. Raises `NoPorts`."""
    start, end = free_block()
    template = {
        "name": "simulated",
        "description": "A worker of the demo, one CML simulator process on its own loopback address",
        "provider": "simulated",
        "instance_type": "sim.large",
        "capacity": {"cpu_cores": 48, "memory_gb": 64, "storage_gb": 500},
        "license_type": "ENTERPRISE",
        "max_nodes": 20,
        "port_range": {"start": start, "end": end},
        "drain_timeout_hours": 4,
        "startup_time_minutes": 15,  # 5 s at the demo's speed: a busy machine needs them to start seven simulators
        "cost_per_hour_usd": 3.5,
    }
    pool = {
        "name": "default",
        "template": "simulated",
        "min": 0,
        "max": WORKERS,
        "scale_down_grace_minutes": 10,
        "preparation_minutes": 10,
        "turnaround_minutes": 10,
    }
    agent = {
        "name": "agent",
        "description": "This machine, as one of two hosts that run labs of processes",
        "provider": "agent",
        "instance_type": "host",
        "capacity": {"cpu_cores": 1, "memory_gb": 1, "storage_gb": 1},
        "license_type": "EVALUATION",
        "max_nodes": 20,
        "startup_time_minutes": 0,
    }
    hosts = {
        "name": "agents",
        "template": "agent",
        "max": 2,
        "scale_down_grace_minutes": 0,
        "preparation_minutes": 10,
        "turnaround_minutes": 0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"templates": [template, agent], "pools": [pool, hosts]}, indent=1) + "\n", encoding="utf-8"
    )
    return path
