"""The whole local mesh under load: real etcd, NATS and S3, the four services, clients on the same machine.

What counts is what stands committed in etcd. First intents in batches, as many as it takes to see what is sustained:
from the first byte sent until the last reservation is Scheduled. Then single POSTs with `Prefer: wait` at 200 a second,
each timed from the moment it was due until its answer. Then, under a trickle of requests, the active scheduler is killed,
and its successor asked to end: the longest time in which nothing was decided.

    .venv/bin/python bench/bench_mesh.py [--reservations 9000] [--rate 200] [--seconds 10] [--no-failover]
"""

import argparse
import asyncio
import itertools
import json
import signal
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import uvloop
from load import Http, at, expect, paced, saturate
from report import options as common
from report import report
from subject import POOL, PROCESSES, booking, intents, measured_mesh, memory_mb, short, usage

from lablet_common.resources.kinds import RESERVATION, Service, ownership_key
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh

BATCH = 100
BATCHES_AT_ONCE = 4
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
TRICKLE_RATE = 25.0
TRICKLE_SECONDS = 12.0


async def reservations(store: EtcdStore) -> int:
    """How many stand in etcd."""
    return (await store.range(RESERVATION.prefix, limit=1, keys_only=True)).count


async def until_decided(store: EtcdStore, wanted: int) -> None:
    """Raises `TimeoutError` when nothing more is decided for a while."""
    stand, since = -1, time.perf_counter()
    while (now := await reservations(store)) < wanted:
        if now > stand:
            stand, since = now, time.perf_counter()
        elif time.perf_counter() - since > PATIENCE_SECONDS:
            raise TimeoutError(f"{now} of {wanted} reservations are decided, and no more for {PATIENCE_SECONDS} s")
        await asyncio.sleep(LOOK_SECONDS)


async def batches(mesh: LocalMesh, http: Http, store: EtcdStore, count: int) -> dict[str, object]:
    """Sustained decisions, and what each costs."""
    requests = [
        http.request("POST", "/events", intents(first, BATCH), {"Content-Type": "application/cloudevents-batch+json"})
        for first in range(0, count, BATCH)
    ]

    async def send(request: bytes) -> None:
        expect(await http.send(request), 202)

    already = await reservations(store)
    before = await usage(mesh, (await store.status()).db_bytes)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(saturate([partial(send, request) for request in requests], BATCHES_AT_ONCE))
        await until_decided(store, already + count)
        seconds = time.perf_counter() - began
    accept_seconds = accepting.result()
    await settled(mesh)
    after = await usage(mesh, (await store.status()).db_bytes)
    used = {name: (after.cpu[name] - before.cpu[name]) / count * 1000 for name in PROCESSES}
    cpu = {f"cpu_{short(name)}": f"{seconds:.2f}" for name, seconds in used.items()}
    return {
        "reservations": count,
        "accepted_per_second": f"{count / accept_seconds:.0f}",
        "decisions_per_second": f"{count / seconds:.0f}",
        "etcd_bytes_each": (after.etcd_bytes - before.etcd_bytes) // count,
        "stream_bytes_each": (after.stream_bytes - before.stream_bytes) // count,
        **cpu,
        "cpu_all": f"{sum(used.values()):.2f}",
    }


async def settled(mesh: LocalMesh) -> None:
    """Until the streams rest: what was decided has been published."""
    last = -1
    while (now := (await usage(mesh, 0)).stream_bytes) != last:
        last = now
        await asyncio.sleep(0.5)


async def latency(http: Http, count: int, rate: float) -> dict[str, object]:
    """From POST to Scheduled. Who waited in vain (10 s) is counted as late, with the time that they waited: a machine that
    is slower than the rate is a result."""
    headers = {"Content-Type": "application/json", "Prefer": "wait=10"}
    requests = [http.request("POST", "/reservations", json.dumps(booking(n)).encode(), headers) for n in range(count)]
    late = 0

    async def send(number: int) -> None:
        nonlocal late
        answer = await http.send(requests[number])
        expect(answer, 201, 202)
        late += answer.status == 202

    times = await paced(count, rate, send)
    return {
        "rate": f"{rate:g}",
        "decision_p50_ms": f"{at(50, times):.1f}",
        "decision_p99_ms": f"{at(99, times):.1f}",
        "decision_max_ms": f"{times[-1]:.1f}",
        "decisions_late": late,
    }


async def owner(store: EtcdStore) -> str:
    """The replica that decides for the pool."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (found := await store.get(ownership_key(Service.SCHEDULER, POOL))) is None:  # noqa: ASYNC110 - a look is enough
            await asyncio.sleep(LOOK_SECONDS)
    return found.value.decode()


async def gap(mesh: LocalMesh, http: Http, store: EtcdStore, *, graceful: bool) -> float:
    """The longest time without a decision when the active scheduler goes."""
    headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
    body = json.dumps(booking(0)).encode()
    decided: list[float] = []

    async def send(_: int) -> None:
        answer = await http.send(http.request("POST", "/reservations", body, headers))
        expect(answer, 201, 202)
        if answer.status == 201:
            decided.append(time.perf_counter())

    active = await owner(store)
    trickle = asyncio.create_task(paced(int(TRICKLE_RATE * TRICKLE_SECONDS), TRICKLE_RATE, send))
    await asyncio.sleep(2)
    if graceful:
        await mesh.stop_process(active)
    else:
        mesh.kill(active, signal.SIGKILL)
    await trickle
    await mesh.resume_process(active) if graceful else await mesh.wait_ready(active)
    return max(later - earlier for earlier, later in itertools.pairwise(decided))


async def measure(options: argparse.Namespace, folder: Path) -> Mapping[str, object]:
    figures: dict[str, object] = {}
    async with measured_mesh(folder, {"scheduler": 2}) as mesh:
        assert mesh.seconds_to_ready is not None
        assert mesh.etcd_binary is not None
        figures["etcd"] = mesh.etcd_binary.version
        figures["ready_seconds"] = f"{mesh.seconds_to_ready:.1f}"
        store = EtcdStore([mesh.etcd_endpoint])
        await mesh.stop_process("scheduler-2")  # one of each while speed is measured
        try:
            async with Http(mesh.ports.gateway(), mesh.token()) as http:
                await latency(http, 200, options.rate / 2)  # warm up
                await until_decided(store, 200)
                figures |= await batches(mesh, http, store, options.reservations)
                posts = int(options.rate * options.seconds)
                already = await reservations(store)
                figures |= await latency(http, posts, options.rate)
                await until_decided(store, already + posts)
                figures["live"] = await reservations(store)
                figures |= {f"rss_mb_{short(name)}": f"{memory_mb(mesh, name):.0f}" for name in PROCESSES}
                if options.failover:
                    await mesh.resume_process("scheduler-2")
                    await mesh.wait_ready("scheduler-2")
                    figures["failover_kill_seconds"] = f"{await gap(mesh, http, store, graceful=False):.2f}"
                    figures["failover_handover_seconds"] = f"{await gap(mesh, http, store, graceful=True):.2f}"
        finally:
            await store.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reservations", type=int, default=9000)
    parser.add_argument("--rate", type=float, default=200.0, help="POSTs a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--no-failover", dest="failover", action="store_false")
    options = common(parser).parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(measure(options, Path(folder)))
    report("mesh", {**figures, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json)


if __name__ == "__main__":
    main()
