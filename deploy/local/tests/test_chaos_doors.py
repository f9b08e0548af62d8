"""What comes beside the plan between clients and gateways, and of the simulated cloud's own process."""

import asyncio
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.faults import Injector
from lablet_local.chaos.links import plan_doors, plan_links
from lablet_local.chaos.load import Load
from lablet_local.chaos.network import Network
from lablet_local.chaos.outages import plan_outages
from lablet_local.chaos.run import service_replicas
from lablet_local.chaos.schedule import FIRST_SECONDS, Fault, Kind
from lablet_local.mesh import LocalMesh
from lablet_local.ports import PortBlock

REPLICAS = service_replicas()
SECONDS = 20.0
SEEDS = range(1, 201)
GATEWAYS = ["api-gateway-1", "api-gateway-2"]


def doors(seed: int) -> list[Fault]:
    return plan_doors(seed, SECONDS, REPLICAS)


def outages(seed: int) -> list[Fault]:
    return plan_outages(seed, SECONDS)


@pytest.mark.parametrize("drawn", [doors, outages])
def test_what_is_drawn_is_the_same_each_time_and_touches_no_other_stream(drawn: Callable[[int], list[Fault]]) -> None:
    state = random.getstate()
    assert [drawn(seed) for seed in SEEDS] == [drawn(seed) for seed in SEEDS]
    assert len({tuple(drawn(seed)) for seed in SEEDS}) > 50
    assert random.getstate() == state
    for seed in SEEDS:
        times = [fault.at for fault in drawn(seed)]
        assert times == sorted(times)
        assert all(FIRST_SECONDS <= at < SECONDS for at in times)


def test_it_is_drawn_from_streams_of_its_own() -> None:
    beside = {fault.at for seed in SEEDS for fault in plan_links(seed, SECONDS, REPLICAS)}
    assert not beside & {fault.at for seed in SEEDS for fault in (*doors(seed), *outages(seed))}


def test_every_kind_comes_at_every_door() -> None:
    drawn = [fault for seed in SEEDS for fault in doors(seed)]
    assert 3 <= len(drawn) / len(SEEDS) <= 6
    assert {fault.name for fault in drawn} == {"cut doors", "swallow doors", "delay doors"}
    assert {(fault.kind, fault.target) for fault in drawn} == {
        (kind, f"clients→{gateway}") for kind in (Kind.CUT, Kind.SWALLOW, Kind.DELAY) for gateway in GATEWAYS
    }
    assert plan_doors(1, SECONDS, ["scheduler-1"]) == []


def test_no_two_doors_are_broken_at_a_time() -> None:
    for seed in SEEDS:
        assert all(one.at + one.seconds < other.at for one, other in pairwise(doors(seed)))


def test_the_cloud_stands_still_in_some_seeds_and_is_lost_in_fewer_once_each() -> None:
    by_seed = [Counter(fault.name for fault in outages(seed)) for seed in SEEDS]
    together = sum(by_seed, Counter[str]())
    assert set(together) == {"pause cloud", "kill cloud"}
    assert 60 <= together["pause cloud"] <= 100
    assert 25 <= together["kill cloud"] <= 55
    assert all(count == 1 for counts in by_seed for count in counts.values())
    drawn = [fault for seed in SEEDS for fault in outages(seed)]
    assert {fault.target for fault in drawn} == {"cloud"}
    assert all(fault.at > 7 for fault in drawn if fault.kind is Kind.KILL), "there are labs to be lost"
    assert all(fault.seconds >= 2 for fault in drawn if fault.kind is Kind.PAUSE)


@asynccontextmanager
async def gateways(block: PortBlock) -> AsyncIterator[list[tuple[int, str]]]:
    """Two of a few lines; says who was asked under which key."""
    asked: list[tuple[int, str]] = []

    def serve(number: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            keys = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("idempotency-key")]
            asked.append((number, keys[0] if keys else ""))
            body = b'{"kind": "Definition", "metadata": {"id": "chaos"}}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()

        return one

    async with (
        await asyncio.start_server(serve(1), "127.0.0.1", block.gateway(1)),
        await asyncio.start_server(serve(2), "127.0.0.1", block.gateway(2)),
    ):
        yield asked


async def test_clients_go_through_a_door_of_their_own_to_each_gateway() -> None:
    block = PortBlock(20_800)
    async with gateways(block) as asked, Network(block, replicas=REPLICAS) as network:
        (first,), (second,) = (network.between(f"clients→{gateway}") for gateway in GATEWAYS)
        assert network.doors == [f"http://{first.endpoint}", f"http://{second.endpoint}"]
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            assert (await http.get(network.doors[1])).is_success
            assert [number for number, _ in asked] == [2]
            assert network.unused() == ["cloud", "machines", "doors of api-gateway-1"]
            assert (await http.get(network.doors[0])).is_success
        assert network.unused() == ["cloud", "machines"]
        assert set(network.environments) == set(REPLICAS), "clients are no process of the mesh"
        second.refuse = True
        network.heal()
        assert not second.refuse


@pytest.mark.parametrize("kind", [Kind.SWALLOW, Kind.CUT])
async def test_a_client_whose_answer_is_swallowed_asks_again_with_the_same_key(kind: Kind) -> None:
    block = PortBlock(20_900)
    async with gateways(block) as asked, Network(block, replicas=REPLICAS) as network:
        load = Load(network.doors[:1], "token", 1, 150.0, b"lab: {}\n")
        injector = Injector(cast("LocalMesh", Mesh()), network, Chronicle(["127.0.0.1:1"]), 1)
        breaking = asyncio.create_task(injector.run([Fault(0, kind, "clients→api-gateway-1", 0.5)]))
        await until(lambda: any((one.swallow_answers, one.refuse) for one in network.between("clients→api-gateway-1")))
        await load.publish_first()
        await breaking
        (told,) = load.seen.asked
        assert told.status == 200
        assert told.tries > 1
        assert len({key for _, key in asked}) == 1
        assert len(asked) == (2 if kind is Kind.SWALLOW else 1)
        assert injector.done == {f"{kind} doors": 1}


async def test_a_read_that_one_gateway_does_not_answer_is_asked_of_the_next() -> None:
    block = PortBlock(21_200)
    async with gateways(block) as asked, Network(block, replicas=REPLICAS) as network:
        load = Load(network.doors, "token", 1, 150.0, b"lab: {}\n")
        (first,), (second,) = (network.between(f"clients→{gateway}") for gateway in GATEWAYS)
        first.refuse = True
        assert [await load._read("/clock") is not None for _ in range(3)] == [True] * 3
        assert [number for number, _ in asked] == [2] * 3
        second.refuse = True
        assert await load._read("/clock") is None


async def test_what_is_watched_is_the_mesh_and_not_its_doors() -> None:
    """A mesh is not unavailable because somebody has shut the doors before it."""
    block = PortBlock(21_000)
    async with gateways(block) as asked, Network(block, replicas=REPLICAS) as network:
        for door in network.between("clients→api-gateway-1") + network.between("clients→api-gateway-2"):
            door.refuse = True
        began = asyncio.get_running_loop().time()
        themselves = [f"http://127.0.0.1:{block.gateway(number)}" for number in (1, 2)]
        load = Load(network.doors, "token", 1, 150.0, b"lab: {}\n", watched=themselves)
        watching = asyncio.create_task(load._watch_availability())
        await until(lambda: len(asked) >= 10)
        load.stop()
        await watching
        assert {number for number, _ in asked} == {1, 2}
        assert load.seen.longest_unavailable < (asyncio.get_running_loop().time() - began) / 2


class Mesh:
    """Its cloud is the process `pid`; notes who is killed."""

    def __init__(self, pid: int = 0) -> None:
        self.killed: list[str] = []
        self._pid = pid
        self.members = type("Members", (), {"etcd_endpoints": ("127.0.0.1:1",)})()

    def kill(self, name: str) -> None:
        self.killed.append(name)

    def process(self, name: str) -> Any:
        assert name == "cloud"
        return type("State", (), {"pid": self._pid})()


async def test_the_cloud_stands_still_for_its_time_and_is_killed() -> None:
    async with Network(PortBlock(21_100), replicas=["scheduler-1"]) as network:
        with subprocess.Popen(["sleep", "60"]) as process:
            mesh = Mesh(process.pid)
            injector = Injector(cast("LocalMesh", mesh), network, Chronicle(["127.0.0.1:1"]), 1)
            faults = [Fault(0, Kind.PAUSE, "cloud", 0.5), Fault(0.1, Kind.KILL, "cloud")]
            running = asyncio.create_task(injector.run(faults))
            await until(lambda: state_of(process.pid) == "T")
            await running
            await until(lambda: state_of(process.pid) == "S")
            process.kill()
    assert mesh.killed == ["cloud"]
    assert injector.done == {"pause cloud": 1, "kill cloud": 1}


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)
