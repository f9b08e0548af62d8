"""Jobs on two agents of the local mesh: how many are accepted and queued, and how many are run from the request to the end.

Jobs are asked for by clients on the same machine, in batches of CloudEvents as a system does that sends many, and one by
one. Accepted is what is committed in etcd; queued is what the scheduler has decided upon (placed, or put onto the wait list
in order). The agents run some of them meanwhile, on the same cores. Every job is counted at the end: none may be lost, and
none of those that ended may have run twice.

    .venv/bin/python bench/bench_run.py [--jobs 10000] [--seconds 20]
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from uuid import uuid4

import uvloop
from load import Http, expect, for_seconds, saturate
from report import options as common
from report import report

from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, RESERVATION
from lablet_common.resources.reservation import Reservation
from lablet_common.store import EtcdStore
from lablet_common.store.repository import Repository
from lablet_local.mesh import LocalMesh

AT_ONCE = 16
BATCH = 100
PATIENCE_SECONDS = 600.0
_JSON = {"Content-Type": "application/json"}
_BATCH = {"Content-Type": "application/cloudevents-batch+json"}
_MANIFEST = b"""\
kind: ProcessLab
until: completed
nodes:
  - name: job
    command: ["/bin/echo", "done"]
    resources: {cpu: 0.25, memory: 64Mi, disk: 1Mi}
"""
_WISH = {"definition": "bench-job@1.0.0", "pool": "agents", "asap": True, "durationMinutes": 10}


def batch(count: int) -> bytes:
    """CloudEvents, each asking for one job."""
    kind = "io.lablet.reservation.requested.v1"
    common = {"specversion": "1.0", "source": "/bench", "type": kind, "datacontenttype": "application/json"}
    return json.dumps([common | {"id": str(uuid4()), "data": _WISH} for _ in range(count)]).encode()


async def phases(store: EtcdStore) -> Counter[str]:
    reservations: Repository[Reservation] = Repository(store, RESERVATION)
    return Counter(str(one.phase) for one in (await reservations.list()).items)


async def queued(store: EtcdStore, wanted: int) -> None:
    """Waits until all of them are decided."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await store.range(RESERVATION.prefix, keys_only=True)).count < wanted:  # noqa: ASYNC110 - a look is enough
            await asyncio.sleep(0.2)


async def measure(options: argparse.Namespace, folder: Path) -> Mapping[str, object]:
    figures: dict[str, object] = {"agents": 2}
    async with LocalMesh(folder, agents=2) as mesh, Http(mesh.ports.gateway(), mesh.token()) as http:
        store = EtcdStore([mesh.etcd_endpoint])
        try:
            headers = {"Content-Type": "application/yaml", "Prefer": "wait=20"}
            await http.call("POST", "/definitions?name=bench-job", _MANIFEST, headers, expect=201)

            async def one() -> None:
                expect(await http.send(http.request("POST", "/reservations", json.dumps(_WISH).encode(), _JSON)), 202)

            async def many(body: bytes) -> None:
                expect(await http.send(http.request("POST", "/events", body, _BATCH)), 202, 207)

            single = await for_seconds(5, AT_ONCE, one)
            figures["posts_per_s"] = f"{single:.0f}"
            earlier = round(single * 5)
            began = time.perf_counter()
            bodies = [batch(BATCH) for _ in range(options.jobs // BATCH)]
            accepted = await saturate([partial(many, body) for body in bodies], AT_ONCE)
            jobs = len(bodies) * BATCH
            figures |= {"jobs": jobs, "accepted_per_s": f"{jobs / accepted:.0f}"}
            await queued(store, jobs)
            figures["queued_per_s"] = f"{(jobs + earlier) / (time.perf_counter() - began + 5):.0f}"
            before, began = (await phases(store))["Completed"], time.perf_counter()
            await asyncio.sleep(options.seconds)
            done = await phases(store)
            figures["run_per_s"] = f"{(done['Completed'] - before) / (time.perf_counter() - began):.1f}"
            figures["completed"] = done["Completed"]
            figures["failed"] = done["Failed"] + done["Rejected"] + done["Expired"]
            figures["twice"] = await run_twice(store)
        finally:
            await store.close()
    return figures


async def run_twice(store: EtcdStore) -> int:
    """Jobs that have more than one attempt."""
    instances: Repository[Instance] = Repository(store, INSTANCE)
    return sum(1 for one in (await instances.list()).items if len(one.status.attempts) > 1)


def main() -> None:
    parser = common(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which the ends of jobs are counted")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(measure(options, Path(folder)))
    report("run", {**figures, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json)


if __name__ == "__main__":
    main()
