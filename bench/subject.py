"""What the benchmarks of the whole system measure: a local mesh with a large pool, and what its processes use.

The pool has 200 logical workers of a template of its own; every reservation lies months ahead, so that no machine is
started and only deciding is measured. CPU and memory of a process come from /proc, bytes of the streams from NATS's own
monitoring, bytes of etcd from its status.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from load import Http

from lablet_local.mesh import LocalMesh

POOL = "default"
WORKERS = 200
DEFINITION = "ospf-basics"
AHEAD = timedelta(days=90)
SLOTS = 300
"""Different starts, two hours apart."""
PROCESSES = ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1", "etcd", "nats")
_LAB = Path(__file__).resolve().parents[1] / "examples" / "labs" / f"{DEFINITION}.yaml"
_TICK = os.sysconf("SC_CLK_TCK")
_SEEDS = f"""\
templates:
  - name: bench
    description: A worker that is only ever booked
    provider: simulated
    instance_type: sim.large
    capacity: {{cpu_cores: 48, memory_gb: 192, storage_gb: 1000}}
    license_type: ENTERPRISE
    max_nodes: 200
    startup_time_minutes: 5
pools:
  - name: {POOL}
    template: bench
    max: {WORKERS}
    turnaround_minutes: 10
"""


@asynccontextmanager
async def measured_mesh(
    folder: Path, replicas: Mapping[str, int] | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[LocalMesh]:
    """A mesh whose pool is filled with its workers and whose definition is published."""
    seeds = folder / "pools.yaml"
    seeds.write_text(_SEEDS, encoding="utf-8")
    more = {
        "WORKER_TEMPLATES_CONFIG_PATH": str(seeds),
        "GATEWAY_MAX_UNDECIDED": "1000000",  # what is measured is accepting, beyond what is decided meanwhile
        **(environment or {}),
    }
    async with LocalMesh(folder / "mesh", replicas=replicas, environment=more) as mesh:
        async with Http(mesh.ports.gateway(), mesh.token()) as http:
            await http.call(
                "POST",
                f"/definitions?name={DEFINITION}",
                _LAB.read_bytes(),
                {"Content-Type": "application/yaml", "Prefer": "wait=20"},
                expect=201,
            )
            while len(json.loads(await http.call("GET", "/workers?limit=1000", expect=200))["items"]) < WORKERS:
                pass  # each look is a request to the gateway, which is pause enough
        yield mesh


def booking(number: int, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The body of a reservation; consecutive numbers are spread over the slots."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + AHEAD + timedelta(hours=2 * (number % SLOTS))
    return {
        "definition": f"{DEFINITION}@1.0.0",
        "start": start.isoformat(),
        "durationMinutes": 90,
        "labels": dict(labels or {"course": f"course-{number % 20}"}),
    }


def intents(first: int, count: int) -> bytes:
    """A batch of CloudEvents, each asking for one reservation."""
    return json.dumps(
        [
            {
                "specversion": "1.0",
                "id": str(uuid4()),
                "source": "/bench",
                "type": "io.lablet.reservation.requested.v1",
                "datacontenttype": "application/json",
                "data": booking(number),
            }
            for number in range(first, first + count)
        ]
    ).encode()


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far."""

    cpu: Mapping[str, float]
    """Process → seconds."""
    etcd_bytes: int
    stream_bytes: int


def memory_mb(mesh: LocalMesh, process: str) -> float:
    """Resident now."""
    status = Path(f"/proc/{mesh.process(process).pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def cpu_seconds(mesh: LocalMesh, process: str) -> float:
    """User and system time of the process so far."""
    stat = Path(f"/proc/{mesh.process(process).pid}/stat").read_text(encoding="utf-8")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def usage(mesh: LocalMesh, etcd_bytes: int) -> Usage:
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(f"http://127.0.0.1:{mesh.ports.nats_monitor}/jsz")).json()
    return Usage({name: cpu_seconds(mesh, name) for name in PROCESSES}, etcd_bytes, int(told["bytes"]))


def short(process: str) -> str:
    """A process's name as it stands in a result line."""
    return process.removesuffix("-1").replace("-", "_")
