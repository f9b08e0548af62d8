"""One gateway process in the whole local mesh: reads, lists, single POSTs, batches, and clients of the event stream.

Everything is asked by clients on the same machine, which take their share of its cores. Reads go to etcd (linearizable).
POSTs are counted when they are accepted, which means: committed in etcd; they are decided meanwhile. The clients of the
event stream hear a steady rate of events; each must hear every one, and the delay is counted from the commit.

    .venv/bin/python bench/bench_api.py [--seconds 6] [--streams 300] [--rate 50]
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import uvloop
from load import Answer, Http, at, expect, for_seconds, paced, saturate
from report import options as common
from report import report
from subject import booking, cpu_seconds, intents, measured_mesh, memory_mb

from lablet_local.mesh import LocalMesh

AT_ONCE = 32
BATCH = 100
BATCHES = 20
KNOWN = 400
"""Reservations that are read."""
EVENTS_EACH = 3
"""A reservation tells: request accepted, reservation scheduled, request decided."""
_JSON = {"Content-Type": "application/json"}
_BATCH = {"Content-Type": "application/cloudevents-batch+json"}


class Listener:
    """One client of the event stream."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self.heard: dict[str, float] = {}
        """Event id → seconds since the instant that the event names."""
        self.listening = asyncio.Event()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        request = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        writer.write(request.encode())
        try:
            async for raw in reader:
                if raw.startswith(b": still here"):
                    self.listening.set()
                elif raw.startswith(b"data: {"):
                    self._hear(raw)
        finally:
            writer.close()

    def _hear(self, raw: bytes) -> None:
        """Cuts out what is wanted, instead of parsing: three hundred clients share one core."""
        now = time.time()
        told = _member(raw, b'"time"')
        happened = datetime.fromisoformat(told).timestamp()
        self.heard[_member(raw, b'"id"')] = now - happened


def _member(document: bytes, name: bytes) -> str:
    start = document.index(b'"', document.index(name) + len(name)) + 1
    return document[start : document.index(b'"', start)].decode()


async def streams(mesh: LocalMesh, http: Http, count: int, rate: float, seconds: float) -> dict[str, object]:
    listeners = [Listener(mesh.ports.gateway(), mesh.token()) for _ in range(count)]
    bookings = int(rate * seconds / EVENTS_EACH)

    async def send(number: int) -> None:
        answer = await http.send(http.request("POST", "/reservations", json.dumps(booking(number)).encode(), _JSON))
        expect(answer, 202)

    tasks = [asyncio.create_task(listener.run()) for listener in listeners]
    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(listener.listening.wait() for listener in listeners))
        before = cpu_seconds(mesh, "api-gateway-1")
        await paced(bookings, rate / EVENTS_EACH, send)
        for _ in range(50):
            if min(len(one.heard) for one in listeners) >= bookings * EVENTS_EACH:
                break
            await asyncio.sleep(0.1)
        used = cpu_seconds(mesh, "api-gateway-1") - before
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    everything = set().union(*(listener.heard for listener in listeners))
    missed = sum(len(everything - listener.heard.keys()) for listener in listeners)
    delays = sorted(delay * 1000 for listener in listeners for delay in listener.heard.values())
    return {
        "sse_clients": count,
        "sse_events": len(everything),
        "sse_expected": bookings * EVENTS_EACH,
        "sse_missed": missed,
        "sse_p99_ms": f"{at(99, delays):.0f}",
        "sse_max_ms": f"{delays[-1]:.0f}",
        "sse_gateway_cpu_pct": f"{100 * used / seconds:.0f}",
    }


async def decided(http: Http, count: int) -> list[str]:
    """Ids of so many Scheduled reservations."""
    results = json.loads(await http.call("POST", "/events", intents(0, count), _BATCH, expect=202))["results"]
    names = [result["resource"].partition("/")[2] for result in results]
    for name in names:
        for _ in range(1200):
            found = json.loads(await http.call("GET", f"/reservations/{name}", expect=200))
            if found["status"]["phase"] != "Pending":
                break
            await asyncio.sleep(0.05)
    return names


async def rested(http: Http) -> None:
    """Until the last accepted request is decided, so that the next measurement begins with an idle system."""
    last = await http.call("POST", "/reservations", json.dumps(booking(0)).encode(), _JSON, expect=202)
    address = f"/requests/{json.loads(last)['metadata']['id']}"
    async with asyncio.timeout(120):
        while json.loads(await http.call("GET", address, expect=200))["status"]["phase"] == "Accepted":  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def measure(options: argparse.Namespace, folder: Path) -> Mapping[str, object]:
    figures: dict[str, object] = {}
    async with measured_mesh(folder) as mesh, Http(mesh.ports.gateway(), mesh.token()) as http:
        names = await decided(http, KNOWN)
        reads = [http.request("GET", f"/reservations/{name}") for name in names]
        turn = iter(range(10**9))

        async def read() -> None:
            expect(await http.send(reads[next(turn) % len(reads)]), 200)

        courses = ",".join(f"course-{n}" for n in range(10))
        selectors = f"labelSelector=course+in+({courses})&fieldSelector=status.phase=Scheduled"
        page = http.request("GET", f"/reservations?limit=100&{selectors}")

        async def read_page() -> None:
            answer: Answer = await http.send(page)
            expect(answer, 200)
            if answer.body.count(b'"kind":"Reservation"') != 100:
                raise SystemExit("the list is not of 100 reservations")

        bodies = [json.dumps(booking(number)).encode() for number in range(300)]

        async def post() -> None:
            expect(await http.send(http.request("POST", "/reservations", bodies[next(turn) % 300], _JSON)), 202)

        figures["reads_per_second"] = f"{await for_seconds(options.seconds, AT_ONCE, read):.0f}"
        figures["lists_per_second"] = f"{await for_seconds(options.seconds, 8, read_page):.0f}"
        figures |= await streams(mesh, http, options.streams, options.rate, options.seconds)
        figures["posts_per_second"] = f"{await for_seconds(options.seconds, AT_ONCE, post):.0f}"
        await rested(http)
        batches = [http.request("POST", "/events", intents(n * BATCH, BATCH), _BATCH) for n in range(BATCHES)]

        async def send(request: bytes) -> None:
            expect(await http.send(request), 202)

        seconds = await saturate([partial(send, request) for request in batches], 4)
        figures["batch_intents_per_second"] = f"{BATCH * BATCHES / seconds:.0f}"
        figures["rss_mb_gateway"] = f"{memory_mb(mesh, 'api-gateway-1'):.0f}"
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--streams", type=int, default=300, help="clients of the event stream")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    options = common(parser).parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(measure(options, Path(folder)))
    report("api", {**figures, "seconds": f"{time.perf_counter() - began:.0f}"}, options.json)


if __name__ == "__main__":
    main()
