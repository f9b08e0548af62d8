"""Lablet: its whole local mesh, asked through its API; what counts is committed in etcd (fsync before each answer).

A worker is as large as one lab, so that a lab takes a whole host. Three ways: one POST after the other, each waiting for
its decision (as Blazar's caller and scontrol wait); the same accepted straight into etcd, as the gateway accepts it, so
that only the scheduler's path is measured; and intents in batches. Each goes on where the one before has stopped. What
stands before is asked for in batches too.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from load import Http, expect
from subject import PROCESSES, cpu_seconds

from lablet_common.intents import INTENTS, ReservationRequested
from lablet_common.requests import accept, build_request, digest_of, new_ids
from lablet_common.resources.kinds import RESERVATION, WORKER
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh
from peers.workload import LENGTH, Ask, Workload

POOL = "default"
LAB = Path(__file__).resolve().parents[2] / "examples" / "labs" / "ospf-basics.yaml"
DEFINITION = "ospf-basics@1.0.0"
BATCH = 100
LOOK_SECONDS = 0.02
LOOK_ONE_SECONDS = 0.002
PATIENCE_SECONDS = 300.0
_JSON = {"Content-Type": "application/json"}
_SEEDS = f"""\
templates:
  - name: whole
    description: A host that one lab takes whole
    provider: simulated
    instance_type: sim.large
    capacity: {{{{cpu_cores: 3, memory_gb: 64, storage_gb: 1000}}}}
    license_type: ENTERPRISE
    max_nodes: 40
    startup_time_minutes: 5
pools:
  - name: {POOL}
    template: whole
    max: {{hosts}}
    turnaround_minutes: 10
"""


@asynccontextmanager
async def mesh_of(hosts: int) -> AsyncIterator[tuple[LocalMesh, Http, EtcdStore]]:
    """A mesh with so many free hosts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = folder / "pools.yaml"
        seeds.write_text(_SEEDS.format(hosts=hosts), encoding="utf-8")
        async with LocalMesh(folder / "mesh", environment={"WORKER_TEMPLATES_CONFIG_PATH": str(seeds)}) as mesh:
            store = EtcdStore([mesh.etcd_endpoint])
            try:
                async with Http(mesh.ports.gateway(), mesh.token()) as http:
                    headers = {"Content-Type": "application/yaml", "Prefer": "wait=20"}
                    path = "/definitions?name=ospf-basics"
                    await http.call("POST", path, LAB.read_bytes(), headers, expect=201)
                    await until_count(store, WORKER.prefix, hosts)
                    yield mesh, http, store
            finally:
                await store.close()


async def until_count(store: EtcdStore, prefix: str, wanted: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await store.range(prefix, limit=1, keys_only=True)).count < wanted:  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(LOOK_SECONDS)


_OVERLOADED, _PAUSE_SECONDS = 503, 0.1


def body(ask: Ask) -> dict[str, Any]:
    return {"definition": DEFINITION, "start": f"{ask.start}:00Z", "end": f"{ask.end}:00Z", "labels": {"ask": ask.name}}


def batch(asks: Sequence[Ask]) -> bytes:
    event = {"specversion": "1.0", "source": "/bench", "type": "io.lablet.reservation.requested.v1"}
    return json.dumps(
        [{**event, "id": str(uuid4()), "datacontenttype": "application/json", "data": body(ask)} for ask in asks]
    ).encode()


async def in_batches(http: Http, store: EtcdStore, asks: Sequence[Ask], stand: int) -> None:
    """Until all are decided; `stand` reservations are there already. Where too much waits to be decided, a batch waits."""
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    for first in range(0, len(asks), BATCH):
        request = http.request("POST", "/events", batch(asks[first : first + BATCH]), headers)
        answer = await http.send(request)
        while answer.status == _OVERLOADED:
            await asyncio.sleep(_PAUSE_SECONDS)
            answer = await http.send(request)
        expect(answer, 202)
    await until_count(store, RESERVATION.prefix, stand + len(asks))


async def straight(store: EtcdStore, ask: Ask) -> None:
    """Accepted as the gateway does it, and followed until the request has its outcome."""
    intent = INTENTS["io.lablet.reservation.requested.v1"]
    key = uuid4()
    _, resource = new_ids(intent.kind, key)
    asked = ReservationRequested(
        id=resource,
        owner="bench",
        definition=DEFINITION,
        pools=(POOL,),
        seats=1,
        start=datetime.fromisoformat(f"{ask.start}:00+00:00"),
        end=datetime.fromisoformat(f"{ask.end}:00+00:00"),
        duration_minutes=LENGTH // timedelta(minutes=1),
        labels={"ask": ask.name},
    )
    digest = digest_of(body(ask))
    at = datetime.now(UTC)
    request = build_request(
        intent, resource, asked, key=key, tenant="default", principal="bench", shard=POOL, digest=digest, at=at
    )
    await accept(store, request)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.get(RESERVATION.key(resource)) is None:  # noqa: ASYNC110 - a key, not an event
            await asyncio.sleep(LOOK_ONE_SECONDS)


async def paced(
    asks: Sequence[Ask], budget: float, mesh: LocalMesh, make: Callable[[Ask], Awaitable[None]]
) -> dict[str, Any]:
    """One after the other until the budget is spent."""
    done = 0
    used, began = cpu(mesh), time.perf_counter()
    for ask in asks:
        await make(ask)
        done += 1
        if time.perf_counter() - began > budget:
            break
    return {"done": done, "seconds": time.perf_counter() - began, "refused": 0, "cpu_seconds": cpu(mesh) - used}


def cpu(mesh: LocalMesh) -> float:
    return sum(cpu_seconds(mesh, name) for name in PROCESSES)


async def measure(work: Workload) -> dict[str, dict[str, Any]]:
    """Way → figures."""
    async with mesh_of(work.hosts) as (mesh, http, store):
        await in_batches(http, store, work.before, 0)
        third = len(work.asked) // 3

        async def post(ask: Ask) -> None:
            headers = {**_JSON, "Prefer": "wait=10"}
            answer = await http.send(http.request("POST", "/reservations", json.dumps(body(ask)).encode(), headers))
            expect(answer, 201)

        one = await paced(work.asked[:third], work.budget, mesh, post)
        two = await paced(work.asked[third : 2 * third], work.budget, mesh, lambda ask: straight(store, ask))
        stand = len(work.before) + one["done"] + two["done"]
        rest = work.asked[2 * third :]
        used, began = cpu(mesh), time.perf_counter()
        await in_batches(http, store, rest, stand)
        seconds = time.perf_counter() - began
        three = {"done": len(rest), "seconds": seconds, "refused": 0, "cpu_seconds": cpu(mesh) - used}
        return {"post": one, "scheduler": two, "batch": three}
