"""More replicas of one service over eight pools: how much more is done in a second, and what each unit costs.

Replicas of one service at a time; the rest of the mesh is one of each. All of it, the client too, shares this machine's
cores, so a curve bends as soon as these are full, whatever the code could do on more. CPU time for each unit of work, of
all replicas of the service together, tells what a further replica adds in overhead and is what counts on other machines.

- gateway: reads by id, the client's connections spread over the replicas;
- scheduler: decisions, from intents in batches over all pools (committed in etcd);
- worker-controller: labs brought up on 100 workers, see `controllers`; without a mesh around it.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from load import Http, expect, for_seconds, saturate
from subject import booking, cpu_seconds

from lablet_common.resources.kinds import RESERVATION, WORKER
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh
from scale import controllers

POOLS = tuple(f"pool-{number}" for number in range(1, 9))
WORKERS = {pool: 13 if number < 4 else 12 for number, pool in enumerate(POOLS)}
"""100 together."""
BATCH = 50
PATIENCE_SECONDS = 120.0
_LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
_PROCESS = {"gateway": "api-gateway", "scheduler": "scheduler"}
_JSON = {"Content-Type": "application/json"}
_TEMPLATE = """\
templates:
  - name: scale
    description: A worker that one lab takes whole
    provider: simulated
    instance_type: sim.large
    capacity: {cpu_cores: 3, memory_gb: 64, storage_gb: 1000}
    license_type: ENTERPRISE
    max_nodes: 200
    startup_time_minutes: 5
pools:
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One service with so many replicas."""

    service: str
    replicas: int
    per_second: float
    cpu_ms_each: float
    """Of the service's replicas together."""


@asynccontextmanager
async def eight_pools(replicas: Mapping[str, int]) -> AsyncIterator[tuple[LocalMesh, EtcdStore]]:
    """A mesh with its 100 workers and a definition."""
    async with AsyncExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory()))
        seeds = folder / "pools.yaml"
        pool = "  - {{name: {0}, template: scale, max: {1}, preparation_minutes: 2, turnaround_minutes: 5}}\n"
        seeds.write_text(_TEMPLATE + "".join(pool.format(*one) for one in WORKERS.items()), encoding="utf-8")
        environment = {"WORKER_TEMPLATES_CONFIG_PATH": str(seeds)}
        mesh = LocalMesh(folder / "mesh", replicas=replicas, environment=environment)
        await leaving.enter_async_context(mesh)
        store = EtcdStore([mesh.etcd_endpoint])
        leaving.push_async_callback(store.close)
        async with Http(mesh.ports.gateway(), mesh.token()) as http:
            headers = {"Content-Type": "application/yaml", "Prefer": "wait=20"}
            await http.call("POST", "/definitions?name=ospf-basics", _LAB.read_bytes(), headers, expect=201)
        await until_count(store, WORKER.prefix, sum(WORKERS.values()))
        yield mesh, store


async def until_count(store: EtcdStore, prefix: str, wanted: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await store.range(prefix, limit=1, keys_only=True)).count < wanted:  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.05)


def cpu(mesh: LocalMesh, service: str, replicas: int) -> float:
    return sum(cpu_seconds(mesh, f"{_PROCESS[service]}-{number}") for number in range(1, replicas + 1))


def events(bodies: Sequence[Mapping[str, Any]]) -> bytes:
    event = {"specversion": "1.0", "source": "/bench", "type": "io.lablet.reservation.requested.v1"}
    return json.dumps(
        [{**event, "id": str(uuid4()), "datacontenttype": "application/json", "data": body} for body in bodies]
    ).encode()


async def send_all(http: Http, bodies: Sequence[Mapping[str, Any]]) -> None:
    """In batches, four at a time."""
    headers = {"Content-Type": "application/cloudevents-batch+json"}

    async def send(request: bytes) -> None:
        expect(await http.send(request), 202)

    cut = [bodies[first : first + BATCH] for first in range(0, len(bodies), BATCH)]
    await saturate([partial(send, http.request("POST", "/events", events(part), headers)) for part in cut], 4)


def in_pool(number: int) -> dict[str, Any]:
    return {**booking(number), "pools": [POOLS[number % len(POOLS)]]}


async def gateways(replicas: int, seconds: float) -> Point:
    async with eight_pools({"gateway": replicas}) as (mesh, store), AsyncExitStack() as leaving:
        https = [
            await leaving.enter_async_context(Http(mesh.ports.gateway(number), mesh.token()))
            for number in range(1, replicas + 1)
        ]
        await send_all(https[0], [in_pool(number) for number in range(200)])
        await until_count(store, RESERVATION.prefix, 200)
        keys = (await store.range(RESERVATION.prefix, keys_only=True)).items
        names = [item.key.rpartition("/")[2] for item in keys]
        asked = 0

        async def read() -> None:
            nonlocal asked
            asked += 1
            http = https[asked % replicas]
            expect(await http.send(http.request("GET", f"/reservations/{names[asked % len(names)]}")), 200)

        await for_seconds(1.0, 32, read)
        used, asked = cpu(mesh, "gateway", replicas), 0
        rate = await for_seconds(seconds, 32, read)
        return Point("gateway", replicas, rate, (cpu(mesh, "gateway", replicas) - used) / asked * 1000)


async def schedulers(replicas: int, count: int) -> Point:
    async with eight_pools({"scheduler": replicas}) as (mesh, store):
        async with Http(mesh.ports.gateway(), mesh.token()) as http:
            await send_all(http, [in_pool(number) for number in range(200)])
            await until_count(store, RESERVATION.prefix, 200)
            bodies = [in_pool(number) for number in range(200, 200 + count)]
            used, began = cpu(mesh, "scheduler", replicas), time.perf_counter()
            await send_all(http, bodies)
            await until_count(store, RESERVATION.prefix, 200 + count)
            seconds = time.perf_counter() - began
        return Point("scheduler", replicas, count / seconds, (cpu(mesh, "scheduler", replicas) - used) / count * 1000)


async def workers(replicas: int) -> Point:
    rate, cpu_ms = await controllers.measure(replicas)
    return Point("workers", replicas, rate, cpu_ms)


async def curves(
    numbers: Sequence[int], told: Callable[[Point], None], *, seconds: float, decisions: int
) -> list[Point]:
    """Each service with each number of replicas, every point in a mesh of its own and told as soon as it is there."""
    points = []
    for measured in (partial(gateways, seconds=seconds), partial(schedulers, count=decisions), workers):
        for number in numbers:
            points.append(await measured(number))
            told(points[-1])
    return points
