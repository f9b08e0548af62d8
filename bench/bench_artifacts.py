"""What the artifact-service does in a second: lab files published, rendered for seats, and collected work taken over.

One process, as in production, against a real etcd in memory (where there is a folder in memory) and a real S3 server on the
same machine. Published files are all different; each seat's work is four files of 16 KiB, all different. The 300-node file
is rendered alone, and meanwhile the event loop's longest pause is measured. Under 60 seconds; `--profile` shows where the
time of publishing goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from report import options as common
from report import report

from lablet_artifacts.keeper import CACHED, Keeper
from lablet_artifacts.leftovers import Leftovers
from lablet_artifacts.publishing import Publisher
from lablet_artifacts.rendering import Renderer
from lablet_artifacts.topology import render
from lablet_common.clock import ManualClock
from lablet_common.intake import Intake
from lablet_common.intents import INTENTS
from lablet_common.objects import S3ObjectStore, digest_of
from lablet_common.ownership import Fence
from lablet_common.references import follow_uses
from lablet_common.requests import accept, build_request, request_key
from lablet_common.requests import digest_of as body_digest
from lablet_common.resources.artifact import manifest_key, staging_key
from lablet_common.resources.instance import Instance, Staged
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, REQUEST, Service, ownership_key
from lablet_common.store import EtcdStore
from lablet_common.store.cache import Caches
from lablet_common.store.repository import Repository
from lablet_common.testing.etcd import EtcdServer
from lablet_common.testing.s3 import s3_server, settings_for

FILES = 80
SEATS = 160
LONGEST_SECONDS = 60
WORK_FILES = 4
WORK_BYTES = 16 * 1024
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
LAB = Path(__file__).resolve().parents[1] / "examples" / "labs" / "ospf-basics.yaml"
PORTS = {"r1_serial": 2001, "r2_serial": 2002, "sw1_serial": 2003}


@dataclass
class Bench:
    """The service's parts, and the words of the measurements."""

    store: EtcdStore
    objects: S3ObjectStore
    clock: ManualClock
    fence: Fence

    def all(self, kind: Any) -> Repository[Any]:
        return Repository(self.store, kind)

    async def publish(self) -> float:
        intent = INTENTS["io.lablet.definition.publish.requested.v1"]
        lab = LAB.read_bytes()
        for number in range(FILES):
            data = lab.replace(b"title:", f"title: {number}".encode(), 1)
            key = staging_key("uploads", "default", str(number))
            await self.objects.put(key, data)
            name = f"lab-{number}" if number else "lab"
            body = {
                "name": name,
                "staging": key,
                "digest": digest_of(data),
                "bytes": len(data),
            }
            request = build_request(
                intent, name, intent.body.model_validate(body), key=request_key("default", "b", "p", str(number)),
                tenant="default", principal="b", shard="-", digest=body_digest(body), at=NOON,
            )  # fmt: skip
            await accept(self.store, request)
        publisher = Publisher(self.store, self.objects)
        intake = Intake(
            Service.ARTIFACTS, "-", self.fence, lambda one: publisher.decide(one, NOON, "/bench"), store=self.store,
            clock=self.clock, source="/bench", resync_seconds=60,
        )  # fmt: skip

        async def done() -> bool:
            return all(one.is_final for one in (await self.all(REQUEST).list()).items)

        seconds = await timed(intake.run, done)
        assert all(one.status.problem is None for one in (await self.all(REQUEST).list()).items)
        return FILES / seconds

    async def render(self) -> float:
        for number in range(SEATS):
            await self.all(INSTANCE).create(seat(str(number), "Pending", 10 * number))

        async def done() -> bool:
            found = (await self.all(ARTIFACT).list()).items
            return bool(sum(r.role == "rendered" for one in found for r in one.status.references) >= SEATS)

        async with self.keeper() as keeper:
            return SEATS / await timed(keeper.run, done)

    async def collect(self) -> float:
        for number in range(SEATS):
            name, entries = f"ins-work{number}-1", []
            for file in range(WORK_FILES):
                data = f"{number}/{file}\n".encode() + os.urandom(WORK_BYTES // 2).hex().encode()
                key = staging_key("default", name, "1", "collected", f"r{file}.cfg")
                await self.objects.put(key, data)
                entries.append({"name": f"r{file}.cfg", "key": key, "digest": digest_of(data), "bytes": len(data),
                                "mediaType": "text/plain"})  # fmt: skip
            manifest = manifest_key("default", name, 1, "collected")
            await self.objects.put(manifest, json.dumps(entries).encode())
            staged = Staged(manifest=manifest, attempt=1, role="collected")
            await self.all(INSTANCE).create(seat(f"work{number}", "Collecting").observed(staged=staged))

        async def done() -> bool:
            found = (await self.all(ARTIFACT).list()).items
            return bool(
                sum(r.role == "collected" for one in found for r in one.status.references) >= SEATS * WORK_FILES
            )

        async with self.keeper() as keeper:
            return SEATS / await timed(keeper.run, done)

    @asynccontextmanager
    async def keeper(self) -> AsyncIterator[Keeper]:
        caches = Caches(self.store, list(CACHED))
        follow_uses(caches)
        async with caches:
            await caches.wait_synced()
            yield Keeper(
                self.fence, store=self.store, caches=caches, objects=self.objects, renderer=Renderer(self.objects),
                leftovers=Leftovers(), clock=self.clock, resync_seconds=3600,
            )  # fmt: skip


def seat(name: str, phase: str, offset: int = 0) -> Instance:
    spec = {"reservation": f"rsv-{name}", "seat": 1, "definition": "lab@1.0.0", "pool": "default", "worker": "default-001",
            "ports": {port: number + offset for port, number in PORTS.items()}, "start": NOON,
            "end": NOON + timedelta(hours=1)}  # fmt: skip
    metadata = {"id": f"ins-{name}-1", "uid": f"u-{name}", "owner": f"learner-{name}", "createdAt": NOON}
    return Instance.model_validate({"metadata": metadata, "spec": spec, "status": {"phase": phase}})


async def timed(work: Callable[[], Awaitable[None]], done: Callable[[], Awaitable[bool]]) -> float:
    """Seconds from the start of `work`, which has no end of its own, until `done`."""
    began = time.perf_counter()
    task = asyncio.ensure_future(work())
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not await done():
                if task.done():
                    task.result()
                await asyncio.sleep(0.1)
        return time.perf_counter() - began
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def large_render() -> tuple[float, float]:
    """Milliseconds of a 300-node file of a megabyte in its thread, and the loop's longest pause meanwhile."""
    text = "".join(
        f"  - id: n{k}\n    label: R{k}\n    node_definition: iosv\n    x: {k}\n    y: 0\n    interfaces: []\n"
        f"    tags:\n      - serial:${{PORT_R{k}}}\n    configuration: |-\n" + "      interface Loopback0\n" * 150
        for k in range(300)
    )
    data = f"lab:\n  version: 0.2.2\nlinks: []\nnodes:\n{text}".encode()
    ports = {f"r{k}": 2000 + k for k in range(300)}
    best, pause = float("inf"), 0.0
    for _ in range(3):
        task = asyncio.create_task(asyncio.to_thread(render, data, ports, {}))
        began = last = time.perf_counter()
        while not task.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pause, last = max(pause, now - last), now
        await task
        best = min(best, time.perf_counter() - began)
    return best * 1000, pause * 1000


async def measure(endpoint: str, s3: str) -> dict[str, float]:
    store, objects = EtcdStore([endpoint], prefix="/bench"), S3ObjectStore(settings_for(s3))
    await objects.ensure_bucket()
    key = ownership_key(Service.ARTIFACTS, "-")
    bench = Bench(store, objects, ManualClock(NOON), Fence(key, await store.put(key, b"bench")))
    try:
        render_ms, pause_ms = await large_render()
        return {
            "publish_per_s": await bench.publish(),
            "render_per_s": await bench.render(),
            "render_300_ms": render_ms,
            "loop_pause_ms": pause_ms,
            "collect_per_s": await bench.collect(),
        }
    finally:
        await objects.close()
        await store.close()


def main() -> None:
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() else None
    parser = common(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    options = parser.parse_args()
    profile = cProfile.Profile() if options.profile else None
    with tempfile.TemporaryDirectory(dir=place) as folder, EtcdServer.start(Path(folder) / "etcd") as etcd:
        (Path(folder) / "s3").mkdir()
        with s3_server(Path(folder) / "s3") as s3:
            began = time.process_time()
            if profile is not None:
                profile.enable()
            figures = uvloop.run(measure(etcd.endpoint, s3))
            if profile is not None:
                profile.disable()
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            cpu = time.process_time() - began
    told: dict[str, object] = {name: f"{value:.1f}" for name, value in figures.items()}
    report("artifacts", told | {"files": FILES, "seats": SEATS, "cpu_seconds": f"{cpu:.1f}"}, options.json)


if __name__ == "__main__":
    main()
