"""What tracing costs the path of a decision: three meshes side by side, without tracing, with a tenth of the stories kept,
and with all of them.

They take turns, so that whatever else the machine does meets all three alike: each round sends the same POSTs to each and
waits until all are decided and published. Compared are decisions a second and the CPU time of the mesh's processes for each,
round by round; the median of the rounds counts. Spans go to a receiver in this process that answers and throws away.

    .venv/bin/python bench/bench_tracing.py [--rounds 5] [--each 1000]
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import uvloop
from load import Http, expect, saturate
from receiver import Receiver
from report import options, report
from subject import booking, cpu_seconds, measured_mesh

from lablet_common.resources.kinds import RESERVATION
from lablet_common.store import EtcdStore
from lablet_local.mesh import LocalMesh

AT_ONCE = 32
PATIENCE_SECONDS = 120.0
SERVICES = ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1")
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "off": {},
    "tenth": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "all": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
}


@dataclass(frozen=True, slots=True)
class Round:
    per_second: float
    cpu_ms: float
    """Of the four services, for each decision."""


class Subject:
    """One mesh that takes its turns."""

    def __init__(self, mesh: LocalMesh, http: Http, store: EtcdStore) -> None:
        self._mesh, self._http, self._store = mesh, http, store

    async def turn(self, each: int) -> Round:
        headers = {"Content-Type": "application/json"}
        requests = [
            self._http.request("POST", "/reservations", json.dumps(booking(n)).encode(), headers) for n in range(each)
        ]

        async def send(request: bytes) -> None:
            expect(await self._http.send(request), 202)

        wanted = await self._count() + each
        cpu, began = self._cpu(), time.perf_counter()
        await saturate([partial(send, request) for request in requests], AT_ONCE)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._count() < wanted:  # noqa: ASYNC110 - a count has no event to wait for
                await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        await self._rest()
        return Round(each / seconds, (self._cpu() - cpu) / each * 1000)

    async def _count(self) -> int:
        return (await self._store.range(RESERVATION.prefix, limit=1, keys_only=True)).count

    def _cpu(self) -> float:
        return sum(cpu_seconds(self._mesh, name) for name in SERVICES)

    async def _rest(self) -> None:
        """Until what was decided has been published and told: nobody has anything to do."""
        last = -1.0
        while (now := self._cpu()) - last > 0.05:
            last = now
            await asyncio.sleep(0.5)


def cost(rounds: Mapping[str, list[Round]], variant: str, of: Callable[[Round], float]) -> float:
    """Per cent by which the figure is above that without tracing, in the median round."""
    pairs = zip(rounds[variant], rounds["off"], strict=True)
    return (median(of(one) / of(off) for one, off in pairs) - 1) * 100


async def measure(rounds: int, each: int) -> dict[str, object]:
    receiver, found = Receiver(), defaultdict[str, list[Round]](list)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(receiver.serve, "127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-tracing-")))
        subjects = {}
        for name, chosen in VARIANTS.items():
            more = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, **chosen} if chosen else {}
            (folder / name).mkdir()
            mesh = await stack.enter_async_context(measured_mesh(folder / name, environment=more))
            http = await stack.enter_async_context(Http(mesh.ports.gateway(), mesh.token()))
            store = EtcdStore([mesh.etcd_endpoint])
            stack.push_async_callback(store.close)
            subjects[name] = Subject(mesh, http, store)
        for subject in subjects.values():  # warm up
            await subject.turn(each)
        names = list(subjects)
        for number in range(rounds):
            for name in names[number % 3 :] + names[: number % 3]:
                found[name].append(await subjects[name].turn(each))
                print(f"{name:>6}  {found[name][-1].per_second:6.0f}/s  {found[name][-1].cpu_ms:6.2f} ms", flush=True)
    return {
        "rounds": rounds,
        "each": each,
        **{f"{name}_per_second": f"{median(r.per_second for r in found[name]):.0f}" for name in VARIANTS},
        **{f"{name}_cpu_ms": f"{median(r.cpu_ms for r in found[name]):.2f}" for name in VARIANTS},
        **{f"{name}_cost_pct": f"{-cost(found, name, lambda r: r.per_second):.1f}" for name in ("tenth", "all")},
        **{f"{name}_cpu_cost_pct": f"{cost(found, name, lambda r: r.cpu_ms):.1f}" for name in ("tenth", "all")},
        "span_kb": receiver.received // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=1000)
    given = options(parser).parse_args()
    report("tracing", uvloop.run(measure(given.rounds, given.each)), given.json)


if __name__ == "__main__":
    main()
