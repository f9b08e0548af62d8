"""What comes beside the plan: the connections to the cloud, to the simulated workers and of agents are broken, too, and the
plan that a seed draws stays as it was. (Of clients and of the cloud itself: `test_chaos_doors`.)"""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from lablet_common.resources.kinds import Service
from lablet_local.agents import agent_processes, process_of
from lablet_local.chaos import faults
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.faults import Injector
from lablet_local.chaos.front import MachinesFront
from lablet_local.chaos.links import plan_doors, plan_links
from lablet_local.chaos.network import Network
from lablet_local.chaos.outages import plan_outages
from lablet_local.chaos.run import AGENT_LEASE_SECONDS, LEASE_TTL, agent_names, service_replicas
from lablet_local.chaos.schedule import A_MACHINE, CLOUD, MACHINES, Fault, Kind, plan
from lablet_local.cloud.addresses import CONTROLLER_PORT, addresses, loopback
from lablet_local.folder import DataFolder
from lablet_local.keyring import KeyRing
from lablet_local.members import Members
from lablet_local.mesh import LocalMesh
from lablet_local.ports import PortBlock, PortsBusy
from lablet_local.servers import Site, cloud_process

REPLICAS = service_replicas()
CONTROLLERS = ["worker-controller-1", "worker-controller-2"]
AGENTS = agent_names(2)
DOORS = ["doors of api-gateway-1", "doors of api-gateway-2"]
SECONDS = 20.0
NAMES = {f"{kind} {link}" for kind in (Kind.CUT, Kind.SWALLOW, Kind.DELAY) for link in (CLOUD, MACHINES, "agents")}


def drawn(seeds: int = 200, agents: Sequence[str] = ()) -> list[Fault]:
    return [
        fault
        for seed in range(1, seeds + 1)
        for fault in plan_links(seed, SECONDS, REPLICAS, agents=agents, agent_ttl=AGENT_LEASE_SECONDS)
    ]


WITH_AGENTS = {"agents": AGENTS, "agent_ttl": AGENT_LEASE_SECONDS}


def digest_of(drawn: Callable[[int], list[Fault]]) -> str:
    """Of the first 200 seeds."""
    told = [
        f"{seed} {fault.at!r} {fault.kind} {fault.target} {fault.seconds!r}"
        for seed in range(1, 201)
        for fault in drawn(seed)
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("more", "digest"),
    [({}, "efa025f15d32b03c"), (WITH_AGENTS, "1eb2154f93b54a38"), ({"members": 3}, "3e784568b0a8623f")],
)
def test_the_plan_of_the_first_200_seeds_is_the_one_with_which_they_are_recorded(
    more: dict[str, Any], digest: str
) -> None:
    """`bench/records/fault-runs.jsonl` is of these plans. Whoever changes this begins the record anew."""
    assert digest_of(lambda seed: plan(seed, SECONDS, REPLICAS, LEASE_TTL, sound_etcd=True, **more)) == digest


@pytest.mark.parametrize(("more", "digest"), [({}, "4252a7e1065b16e3"), (WITH_AGENTS, "b3ce31ed9639ef8f")])
def test_and_so_is_what_comes_beside_it(more: dict[str, Any], digest: str) -> None:
    assert digest_of(lambda seed: plan_links(seed, SECONDS, REPLICAS, **more)) == digest


def test_and_what_came_later() -> None:
    assert digest_of(lambda seed: plan_doors(seed, SECONDS, REPLICAS)) == "45144a0203460b43"
    assert digest_of(lambda seed: plan_outages(seed, SECONDS)) == "6ef67ce0ef5e0b86"


def test_what_comes_beside_the_plan_is_the_same_each_time_and_touches_no_other_stream() -> None:
    state = random.getstate()
    once, again, other = (plan_links(seed, SECONDS, REPLICAS) for seed in (3, 3, 4))
    assert once == again
    assert once != other
    assert random.getstate() == state
    assert [fault.at for fault in once] == sorted(fault.at for fault in once)


def test_there_are_few_and_every_kind_comes_on_every_link() -> None:
    without = drawn()
    assert 3 <= len(without) / 200 <= 6
    assert {fault.name for fault in without} == {name for name in NAMES if not name.endswith("agents")}
    assert {fault.name for fault in drawn(agents=AGENTS)} == NAMES
    callers = ("worker-controller", *CONTROLLERS)
    targets = {f"{caller}→{reached}" for caller in callers for reached in ("cloud", "machines", A_MACHINE)}
    assert {fault.target for fault in without} == targets
    targets |= {f"{caller}→{reached}" for caller in ("agent", *AGENTS) for reached in ("nats", "gateway")}
    assert {fault.target for fault in drawn(agents=AGENTS)} == targets


def test_what_the_plan_draws_is_counted_as_before() -> None:
    planned = [
        fault
        for seed in range(60)
        for fault in plan(seed, 60, REPLICAS, 2.0, sound_etcd=True, members=3, agents=AGENTS, agent_ttl=6)
    ]
    assert {fault.name for fault in planned} == set(Kind)


def test_a_worker_is_away_until_it_is_given_up_in_a_quarter_of_the_seeds() -> None:
    away = [fault for fault in drawn() if fault.seconds > 15 + 15 * 60 / 150]
    assert 30 <= len(away) <= 70
    assert {(fault.name, fault.target) for fault in away} == {("cut machines", f"{Service.WORKERS}→{A_MACHINE}")}


def test_agents_are_cut_off_for_less_and_for_longer_than_their_permission() -> None:
    cuts = [fault for fault in drawn(agents=AGENTS) if fault.kind is Kind.CUT and fault.target.endswith("→nats")]
    assert {fault.seconds > AGENT_LEASE_SECONDS for fault in cuts} == {True, False}


def test_agents_have_the_names_that_the_mesh_gives_them() -> None:
    assert AGENTS == [process_of(0), process_of(1)] == ["agent-1", "agent-2"]


async def test_replicas_and_agents_are_led_through_their_own_proxies() -> None:
    async with Network(PortBlock(20_100), replicas=REPLICAS, agents=AGENTS) as network:
        (cloud,) = network.between("worker-controller-2→cloud")
        assert network.environments["worker-controller-2"]["CLOUD_URL"] == f"http://{cloud.endpoint}"
        assert "CLOUD_URL" not in network.environments["scheduler-1"]
        assert set(network.environments) == set(REPLICAS)
        assert len(network.between("worker-controller→cloud")) == 2
        (nats,), (gateway,) = (network.between(f"agent-1→{server}") for server in ("nats", "gateway"))
        led = {"--nats": f"nats://{nats.endpoint}", "--join": f"http://{gateway.endpoint}"}
        assert network.agent_options["agent-1"] == led
        assert set(network.agent_options) == set(AGENTS)
        assert len(network.between("agent→nats")) == 2
        assert network.unused() == ["cloud", "machines", "agents", *DOORS]
    async with Network(PortBlock(20_100), replicas=["scheduler-1"]) as network:
        assert (network.machines.port, network.unused(), network.agent_options) == (None, [], {})


def test_the_mesh_tells_agents_and_cloud_what_they_are_led_through(tmp_path: Path) -> None:
    folder, block = DataFolder(tmp_path), PortBlock(20_700)
    folder.create()
    site = Site(folder, block, KeyRing(folder), httpx.AsyncClient(), Members(block, 1), machines_front=20_710)
    more = {"agent-2": {"--nats": "nats://127.0.0.1:1", "--join": "http://127.0.0.1:2"}}
    plain, led = (process.argv for process in agent_processes(site, ["local-1", "local-2"], "token", 1, more))
    assert [option_of(plain, name) for name in ("--nats", "--join")] == [
        "nats://127.0.0.1:20704",
        "http://127.0.0.1:20700",
    ]
    assert [option_of(led, name) for name in ("--nats", "--join")] == ["nats://127.0.0.1:1", "http://127.0.0.1:2"]
    assert option_of(cloud_process(site, 1, tmp_path).argv, "--front") == "20710"
    assert "--front" not in cloud_process(replace(site, machines_front=None), 1, tmp_path).argv


def option_of(argv: Sequence[str], name: str) -> str:
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]


async def machine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says where it was called."""
    while await reader.readline():
        writer.write(f"{writer.get_extra_info('sockname')[0]}\n".encode())


@asynccontextmanager
async def machines_behind(network: Network, block: PortBlock) -> AsyncIterator[list[str]]:
    """Two machines of which the second is called as if by another process."""
    hosts = list(islice(addresses(loopback(block.machine_net)), 2))
    async with AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(await asyncio.start_server(machine, host, CONTROLLER_PORT))
        await stack.enter_async_context(network)
        yield hosts


async def call(host: str, port: int) -> str:
    """What the machine says; empty: nothing, as it was broken off."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"who?\n")
        return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    except ConnectionError:
        return ""
    finally:
        writer.close()


async def test_machines_are_called_at_their_own_addresses_and_cut_off_from_one_caller_alone() -> None:
    block = PortBlock(20_200)
    network = Network(block, replicas=REPLICAS)
    async with machines_behind(network, block) as (first, second):
        port = network.machines.port
        assert port == block.machines_front
        assert [await call(host, port) for host in (first, second)] == [first, second]
        assert network.unused() == ["cloud", "machines", *DOORS], "nobody knows who called"

        network.machines.pids = lambda: {os.getpid(): "worker-controller-1"}
        (cut,) = network.between(f"worker-controller-1→{A_MACHINE}", first)
        cut.refuse = True
        assert [await call(host, port) for host in (first, second)] == ["", second]
        assert network.unused() == ["cloud", *DOORS]
        network.machines.pids = lambda: {os.getpid(): "worker-controller-2"}
        assert await call(first, port) == first
        for proxy in network.between("worker-controller→machines"):
            proxy.refuse = True
        assert [await call(host, port) for host in (first, second)] == ["", ""]
        network.heal()
        assert [await call(host, port) for host in (first, second)] == [first, second]


async def test_a_machine_that_is_not_there_breaks_the_connection_off() -> None:
    async with MachinesFront(PortBlock(20_300), CONTROLLERS) as front:
        host = next(addresses(loopback(PortBlock(20_300).machine_net)))
        assert front.port is not None
        assert await call(host, front.port) == ""


async def test_a_block_in_which_somebody_listens_already_is_not_taken() -> None:
    async with MachinesFront(PortBlock(20_400), CONTROLLERS):
        with pytest.raises(PortsBusy, match="20410"):
            async with Network(PortBlock(20_400), replicas=REPLICAS):
                pass


class Mesh:
    """Has one machine that is off, and those that run."""

    def __init__(self, *hosts: str, on_for: float | None = None) -> None:
        self.hosts = list(hosts)
        came_on = datetime.now(UTC) - timedelta(seconds=on_for or 0)
        self._state = {"state": "running" if on_for else "pending", "history": [{"at": came_on.isoformat()}]}
        self.asked = 0
        self.members = type("Members", (), {"etcd_endpoints": ("127.0.0.1:1",)})()

    async def machines(self) -> list[dict[str, Any]]:
        self.asked += 1
        off = {"id": "m-0", "state": "stopped", "pid": None, "host": "127.99.1.9"}
        return [off, *({"id": host, "pid": 1, "host": host, **self._state} for host in self.hosts)]


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with Network(PortBlock(20_500), replicas=REPLICAS) as made:
        yield made


def injector_on(network: Network, mesh: Mesh) -> Injector:
    return Injector(cast("LocalMesh", mesh), network, Chronicle(["127.0.0.1:1"]), 1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_machine_that_is_on_is_cut_off_for_its_time_and_counted_by_its_link(network: Network) -> None:
    """It is waited for."""
    mesh = Mesh()
    injector = injector_on(network, mesh)
    running = asyncio.create_task(injector.run([Fault(0, Kind.CUT, f"worker-controller-1→{A_MACHINE}", 0.2)]))
    await until(lambda: mesh.asked > 0)
    host = next(addresses(loopback(PortBlock(20_500).machine_net)))
    mesh.hosts.append(host)
    (one,) = network.between(f"worker-controller-1→{A_MACHINE}", host)
    others = [proxy for proxy in network.machines if proxy is not one]
    await until(lambda: one.refuse)
    assert not any(proxy.refuse for proxy in others)
    await running
    assert not one.refuse
    assert injector.done == {"cut machines": 1}


@pytest.mark.parametrize(("on_for", "chosen"), [(9.0, True), (1.0, False)])
async def test_who_is_given_up_is_a_machine_that_has_labs_by_now(
    network: Network, on_for: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_MACHINE_SECONDS", 0.1)
    monkeypatch.setattr(faults, "_SHORT_SECONDS", 0.1)
    mesh = Mesh(next(addresses(loopback(PortBlock(20_500).machine_net))), on_for=on_for)
    injector = injector_on(network, mesh)
    await injector.run([Fault(0, Kind.CUT, f"worker-controller→{A_MACHINE}", 0.2)])
    assert (injector.done.total(), injector.missed.total()) == (int(chosen), int(not chosen))


async def test_where_no_machine_comes_up_the_fault_is_missed(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_MACHINE_SECONDS", 0.1)
    injector = injector_on(network, Mesh())
    await injector.run([Fault(0, Kind.DELAY, f"worker-controller→{A_MACHINE}", 0.1)])
    assert (injector.done.total(), injector.missed.total()) == (0, 1)


async def test_a_short_fault_inside_a_longer_one_does_not_end_it(network: Network) -> None:
    injector = injector_on(network, Mesh())
    (proxy,) = network.between("worker-controller-1→cloud")
    short = Fault(0, Kind.CUT, "worker-controller→cloud", 0.1)
    running = asyncio.create_task(injector.run([Fault(0, Kind.CUT, "worker-controller-1→cloud", 0.6), short]))
    await until(lambda: injector.hit["worker-controller→cloud"] == 1)
    assert proxy.refuse
    await running
    assert not proxy.refuse
    assert injector.done == {"cut cloud": 2}


async def test_http_goes_through_and_is_swallowed() -> None:
    """As the worker-controller calls: a request that arrives and is not answered."""
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    block = PortBlock(20_600)
    async with (
        await asyncio.start_server(serve, "127.0.0.1", block.cloud),
        Network(block, replicas=REPLICAS) as network,
    ):
        url = network.environments["worker-controller-1"]["CLOUD_URL"]
        async with httpx.AsyncClient(trust_env=False, timeout=0.3) as http:
            assert (await http.get(url)).status_code == 204
        arrived.clear()
        network.between("worker-controller-1→cloud")[0].swallow_answers = True
        async with httpx.AsyncClient(trust_env=False, timeout=0.3) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get(url)
        assert arrived.is_set()
