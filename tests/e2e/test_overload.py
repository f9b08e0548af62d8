"""Five times what it can do: what is too much is sent away at once, what was accepted is decided and booked exactly once, no
process ever takes much more memory, and when the rush is over a single request is as quick as before.

How much the mesh can do is measured first, by patient clients who keep it busy. Then calls come at five times that rate,
whatever becomes of those before them (an open loop), most of them from one caller. So that seconds are enough and the clients
have a processor left, capacity is small: the scheduler's etcd is far away, it decides few requests at a time, and its inbox
is short.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lablet_common.testing.proxy import FaultyProxy
from lablet_local.members import Members
from lablet_local.mesh import LocalMesh
from lablet_local.ports import PortBlock, PortsBusy

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

TIMES = 5
CLIENTS = 24
"""Who keep it busy while it is measured: more than it decides at a time."""
MEASURED_SECONDS = 3.0
RUSH_SECONDS = 8.0
RECOVERED_SECONDS = 10.0
FAR_SECONDS = 0.01
SCARCE = {"SCHEDULER_BATCH_SIZE": "4"}
DEEPEST = 50
GATEWAY = {
    "GATEWAY_MAX_UNDECIDED": str(DEEPEST),
    "GATEWAY_MAX_UNDERWAY": "60",
    "GATEWAY_RATE_LIMIT": "50",
    "GATEWAY_RATE_BURST": "100",
}
MOST_GROWTH_MB = 100
"""Of one process: from what it has before the rush to the most that it ever had."""
DECIDED = {"Scheduled", "Waitlisted"}
"""Phases of a booking whose slot is a month away and which nobody has cancelled."""
PROCESSES = ("api-gateway-1", "scheduler-1", "worker-controller-1", "artifact-service-1", "etcd", "nats")
POOL = """\
templates:
  - {name: large, provider: simulated, instance_type: sim.large, capacity: {cpu_cores: 48, memory_gb: 192, storage_gb: 1000},
     license_type: ENTERPRISE, max_nodes: 200, startup_time_minutes: 5}
pools:
  - {name: default, template: large, max: 50, turnaround_minutes: 10}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any
    seconds: float
    """From the time at which it was due."""


class Clients:
    """HTTP/1.1 on kept connections, with as little work for each call as can be: they share the machine with the mesh."""

    def __init__(self, port: int, tokens: list[str]) -> None:
        self._port = port
        self._tokens = itertools.cycle(tokens)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.accepted: list[Answer] = []
        """Of the calls that reserve, whoever waited for the outcome or not."""

    async def call(self, method: str, path: str, body: bytes = b"", *headers: str) -> Answer:
        began = time.perf_counter()
        reader, writer = await self._connection()
        lines = [
            f"{method} /api/v1{path} HTTP/1.1", "Host: mesh", f"Authorization: Bearer {next(self._tokens)}",
            "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", "",
        ]  # fmt: skip
        writer.write("\r\n".join(lines).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        named = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(named["content-length"]))
        self._free.append((reader, writer))
        return Answer(int(head[0].split()[1]), named, json.loads(raw), time.perf_counter() - began)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the server closes what rests for some seconds
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def reserve(self, number: int, wait: int = 0) -> Answer:
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=30, hours=number % 600)
        body = {"definition": "ospf-basics", "start": start.isoformat(), "durationMinutes": 45}
        headers = [f"Idempotency-Key: overload-{number}", *([f"Prefer: wait={wait}"] if wait else [])]
        answer = await self.call("POST", "/reservations", json.dumps(body).encode(), *headers)
        if answer.status in (200, 201, 202):
            self.accepted.append(answer)
        return answer

    async def read(self, path: str) -> Any:
        """As somebody who comes back when told to."""
        while (answer := await self.call("GET", path)).status == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]))
        assert answer.status == 200, answer.body
        return answer.body

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    folder = tmp_path_factory.mktemp("overload")
    (folder / "pool.yaml").write_text(POOL)
    for _ in range(10):
        block = PortBlock(random.randrange(20_000, 31_000, 100))
        async with FaultyProxy(Members(block, 1).etcd_endpoints[0]) as far:
            made = LocalMesh(
                folder / "mesh",
                port_base=block.base,
                environment={"WORKER_TEMPLATES_CONFIG_PATH": str(folder / "pool.yaml")},
                environments={"api-gateway": GATEWAY, "scheduler": {"ETCD_ENDPOINTS": far.endpoint, **SCARCE}},
            )
            try:
                await made.start()
            except PortsBusy:
                continue
            far.delay_seconds = FAR_SECONDS
            try:
                yield made
            finally:
                far.delay_seconds = 0.0
                await made.stop()
            return
    pytest.fail("no block of ports was free")


@pytest.fixture(scope="module")
def crowd(mesh: LocalMesh) -> Iterator[Clients]:
    """Three of four calls come from one caller."""
    made = Clients(mesh.ports.gateway(), [mesh.token(role) for role in ("admin", "admin", "admin", "instructor")])
    yield made
    made.close()


@pytest.fixture(scope="module")
def clients(mesh: LocalMesh) -> Iterator[Clients]:
    made = Clients(mesh.ports.gateway(), [mesh.token(role) for role in ("admin", "instructor", "operator")])
    yield made
    made.close()


@pytest.fixture(scope="module")
def later(mesh: LocalMesh) -> Iterator[Clients]:
    """Who asks when the rush is over."""
    made = Clients(mesh.ports.gateway(), [mesh.token(role) for role in ("instructor", "operator")])
    yield made
    made.close()


async def test_beyond_capacity_it_sheds_and_loses_nothing_and_recovers(
    mesh: LocalMesh, clients: Clients, crowd: Clients, later: Clients, open_door: Any
) -> None:
    door = await open_door(mesh, 1.0)
    await door.publish("ospf-basics")
    numbers = itertools.count()
    rate, usual = await _sustainable(clients, numbers)
    before = {name: _memory_mb(mesh, name) for name in PROCESSES}

    answers, seconds = await _rush(crowd, numbers, rate * TIMES)
    recovery = await _recovered(later, numbers, usual)
    grown = {name: round(_memory_mb(mesh, name, "VmHWM") - before[name]) for name in PROCESSES}
    statuses = Counter(answer.status for answer in answers)
    waits = sorted(answer.seconds for answer in answers if answer.status != 202)
    print(
        f"sustainable {rate:.0f}/s, alone {usual * 1000:.0f} ms; offered {len(answers) / seconds:.0f}/s for {seconds:.1f} s: "
        f"{dict(statuses)}, sent away after {waits[len(waits) // 2] * 1000:.0f} ms, at most {waits[-1] * 1000:.0f} ms; "
        f"recovered after {recovery:.1f} s; at its peak grown by {grown} MB"
    )

    assert len(answers) / seconds > rate * TIMES * 0.8, "the clients did not keep their rate: nothing was proven"
    assert {202, 503} <= set(statuses) <= {202, 429, 503}
    shed = [answer for answer in answers if answer.status != 202]
    assert len(shed) > len(answers) / 2, "most of it cannot be done"
    for answer in shed:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.body["type"].rpartition("/")[2] == {429: "too-many-requests", 503: "overloaded"}[answer.status]
    assert waits[len(waits) // 2] < 1.0, "who is sent away is so at once"
    accepted = {answer.body["metadata"]["id"] for answer in answers if answer.status == 202}
    assert len(accepted) == statuses[202], "each has a request of its own"
    assert len(accepted) > rate * seconds / 2, "what is sent away does not keep from work"
    promised = [await _promised(later, answer) for answer in (*clients.accepted, *crowd.accepted, *later.accepted)]
    assert faults(promised, [booking async for booking in _booked(later)]) == []
    assert recovery < RECOVERED_SECONDS
    assert max(grown.values()) < MOST_GROWTH_MB, grown


async def _sustainable(clients: Clients, numbers: Iterator[int]) -> tuple[float, float]:
    """Decisions a second while so many clients wait for theirs and ask again, and the usual time of one alone."""
    decided = 0
    began = time.perf_counter()

    async def client() -> None:
        nonlocal decided
        while time.perf_counter() < began + MEASURED_SECONDS:
            answer = await clients.reserve(next(numbers), wait=20)
            assert answer.status in (200, 201), answer.body
            decided += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    rate = decided / (time.perf_counter() - began)
    alone = sorted([(await clients.reserve(next(numbers), wait=20)).seconds for _ in range(7)])
    return rate, alone[len(alone) // 2]


async def _rush(clients: Clients, numbers: Iterator[int], rate: float) -> tuple[list[Answer], float]:
    """Calls at that rate, each at its time; the answers, and for how long calls were made."""
    began = time.perf_counter()
    calls: list[asyncio.Task[Answer]] = []
    for number in range(int(rate * RUSH_SECONDS)):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        calls.append(asyncio.create_task(clients.reserve(next(numbers))))
    seconds = time.perf_counter() - began
    return await asyncio.gather(*calls), seconds


async def _recovered(clients: Clients, numbers: Iterator[int], usual: float) -> float:
    """Seconds from now until a single request is decided as quickly as before, give or take."""
    began = time.monotonic()
    while True:
        answer = await clients.reserve(next(numbers), wait=20)
        since = time.monotonic() - began
        if (answer.status in (200, 201) and answer.seconds < max(3 * usual, 0.3)) or since > RECOVERED_SECONDS:
            return since


async def _promised(clients: Clients, answer: Answer) -> tuple[str, str, str]:
    """An accepted call: its request or booking, what became of it, and the start that was asked for."""
    named = answer.body["metadata"]["id"]
    if answer.status != 202:
        return named, f"reservation/{named}", answer.body["spec"]["start"]
    async with asyncio.timeout(30):
        while (request := await clients.read(f"/requests/{named}"))["status"]["phase"] == "Accepted":
            await asyncio.sleep(0.1)
    made = request["status"].get("resource") if request["status"]["phase"] == "Decided" else None
    return named, made or request["status"]["phase"], request["spec"]["data"]["start"]


def faults(promised: Iterable[tuple[str, str, str]], booked: Iterable[tuple[str, str, str]]) -> list[str]:
    """Where what was promised (name, `reservation/<id>`, start) and the bookings (id, phase, start) do not go together one by
    one."""
    of: dict[str, list[tuple[str, str]]] = {}
    for name, phase, start in booked:
        of.setdefault(f"reservation/{name}", []).append((phase, start))
    said: list[str] = []
    taken: Counter[str] = Counter()
    for name, resource, start in promised:
        taken[resource] += 1
        if taken[resource] > 1:
            said.append(f"{name}: {resource} was made for another one already")
        elif [at for _, at in of.get(resource, [])] != [start]:
            said.append(f"{name}: {resource} at {start} is to be there once: {of.get(resource, [])}")
        elif (phase := of[resource][0][0]) not in DECIDED:
            said.append(f"{name}: {resource} is {phase}")
    return said + [f"{resource}: nobody asked for it" for resource in sorted(of.keys() - taken.keys())]


async def _booked(clients: Clients) -> AsyncIterator[tuple[str, str, str]]:
    page = await clients.read("/reservations?limit=500")
    while True:
        for item in page["items"]:
            yield item["metadata"]["id"], item["status"]["phase"], item["spec"]["start"]
        if not page.get("nextCursor"):
            return
        page = await clients.read(f"/reservations?limit=500&cursor={page['nextCursor']}")


PROMISED = ("req-a", "reservation/rsv-a", "09:00")
BOOKED = ("rsv-a", "Scheduled", "09:00")


@pytest.mark.parametrize(
    ("promised", "booked", "said"),
    [
        ([PROMISED], [BOOKED], ""),
        ([PROMISED], [], "req-a: reservation/rsv-a at 09:00 is to be there once: []"),
        ([PROMISED], [BOOKED, BOOKED], "is to be there once"),
        ([PROMISED], [("rsv-a", "Scheduled", "10:00")], "is to be there once"),
        ([PROMISED], [("rsv-a", "Pending", "09:00")], "reservation/rsv-a is Pending"),
        ([PROMISED], [BOOKED, ("rsv-b", "Scheduled", "09:00")], "reservation/rsv-b: nobody asked for it"),
        (
            [PROMISED, ("req-b", "reservation/rsv-a", "09:00")],
            [BOOKED],
            "req-b: reservation/rsv-a was made for another",
        ),
        ([PROMISED, ("req-b", "Refused", "09:00")], [BOOKED, ("rsv-b", "Scheduled", "09:00")], "req-b: Refused at"),
    ],
)
async def test_one_that_is_lost_or_doubled_is_found(
    promised: list[tuple[str, str, str]], booked: list[tuple[str, str, str]], said: str
) -> None:
    found = faults(promised, booked)
    assert found == [] if not said else said in found[0]


def _memory_mb(mesh: LocalMesh, process: str, what: str = "VmRSS") -> float:
    """What it has now; or `VmHWM`: the most that it has ever had."""
    status = Path(f"/proc/{mesh.process(process).pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(f"{what}:")).split()[1]) / 1024
