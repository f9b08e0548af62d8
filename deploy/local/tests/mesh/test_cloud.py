"""The simulated cloud: manners of a real one, with a process for each machine."""

import asyncio
import os
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx
import pytest

from lablet_local.cloud.addresses import NoAddress, loopback, next_address
from lablet_local.cloud.app import build_app
from lablet_local.cloud.records import MOVES, IllegalMove, Machine, State
from lablet_local.cloud.region import LaunchOrder, Pace, Region
from lablet_local.cloud.scenario import Scenario, ScenarioError, parse_scenario
from lablet_local.cloud.simulator import SimulatorOptions
from lablet_local.cloud.sizes import Size, SizesError, read_sizes

Eventually = Callable[..., Awaitable[None]]
Alive = Callable[[int], bool]
TOKEN = "let-me-in"
FAST = Pace(speed=600, boot_minutes=1, stop_minutes=0.5)
ORDER = {"clientToken": "t-1", "name": "default-001", "instanceType": "simulated", "tags": {"pool": "default"}}


@pytest.fixture
def machine_program(tmp_path: Path) -> tuple[str, ...]:
    """A stand-in for the simulator: notes its start in the witness log and waits."""
    program = tmp_path / "machine.py"
    program.write_text(
        textwrap.dedent("""
        import json, signal, sys
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        with open(options["--state"], "a") as log:
            log.write(json.dumps({"fact": "controller.started", "arguments": sys.argv[1:]}) + "\\n")
        signal.pause()
        """)
    )
    return (sys.executable, "-I", "-S", str(program))


Ask = Callable[[], Awaitable[httpx.Response]]
MakeRegion = Callable[..., Region]


@pytest.fixture
async def make_region(tmp_path: Path, machine_program: tuple[str, ...]) -> AsyncIterator[MakeRegion]:
    made: list[Region] = []

    def make(*, reboot: bool = False, **scenario: Any) -> Region:
        options = SimulatorOptions(speed=FAST.speed, command=machine_program)
        sizes = {"simulated": Size(8, 32, 100)}
        region = Region(tmp_path / "cloud", loopback(201), FAST, options, sizes=sizes, reboot=reboot)
        region.scenario = parse_scenario(scenario)
        made.append(region)
        return region

    yield make
    for region in made:
        await region.close()


def caller(region: Region, token: str = TOKEN, front: int | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=build_app(region, TOKEN, front))
    return httpx.AsyncClient(transport=transport, base_url="http://cloud", headers={"Authorization": f"Bearer {token}"})


def in_state(region: Region, name: str, state: State) -> Callable[[], bool]:
    return lambda: region.require(name).state is state


def witnessed(region: Region, name: str, facts: int = 1) -> Callable[[], bool]:
    """The machine's process has written so many facts: it runs when the cloud says so, and writes when it comes to it."""

    def look() -> bool:
        path = region.witness_path(region.require(name))
        return path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= facts

    return look


async def test_a_machine_is_launched_once_per_client_token(make_region: MakeRegion) -> None:
    async with caller(make_region()) as client:
        first = await client.post("/machines", json=ORDER)
        second = await client.post("/machines", json=ORDER)
        other = await client.post("/machines", json={**ORDER, "name": "default-002"})
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["id"] == second.json()["id"]
        assert first.json()["state"] == "pending"
        assert (other.status_code, other.json()["code"]) == (409, "IdempotencyMismatch")
        assert len((await client.get("/machines")).json()["items"]) == 1


async def test_a_machine_is_told_of_at_its_own_address_also_where_something_stands_before_its_api(
    make_region: MakeRegion,
) -> None:
    region = make_region()
    async with caller(region) as direct, caller(region, front=12_010) as through:
        machine = (await direct.post("/machines", json=ORDER)).json()
        assert machine["url"] == f"http://{machine['host']}:8080"
        told = [(await through.get(f"/machines/{machine['id']}")).json()]
        told += (await through.get("/machines")).json()["items"] + (await through.get("/witness")).json()["machines"]
        told.append((await through.post("/machines", json=ORDER)).json())
        assert {one["url"] for one in told} == {f"http://{machine['host']}:12010"}


async def test_a_machine_goes_through_its_states_on_an_address_of_its_own(
    make_region: MakeRegion, eventually: Eventually, alive: Alive
) -> None:
    region = make_region()
    async with caller(region) as client:
        machine = (await client.post("/machines", json=ORDER)).json()
        second = (await client.post("/machines", json={**ORDER, "clientToken": "t-2", "name": "default-002"})).json()
        assert machine["host"].startswith("127.201.")
        assert machine["host"] != second["host"]
        await eventually(in_state(region, "default-001", State.RUNNING), "running")
        pid = region.require("default-001").pid
        assert pid is not None
        assert alive(pid)
        assert (await client.post(f"/machines/{machine['id']}/stop")).status_code == 202
        await eventually(in_state(region, "default-001", State.STOPPED), "stopped")
        assert not alive(pid)
        await client.post(f"/machines/{machine['id']}/start")
        await eventually(in_state(region, "default-001", State.RUNNING), "running again")
        again = (await client.get(f"/machines/{machine['id']}")).json()
        assert (again["host"], again["boots"]) == (machine["host"], 2)
        await client.delete(f"/machines/{machine['id']}")
        await eventually(lambda: region.require(machine["id"]).state is State.TERMINATED, "terminated")
        told = (await client.get(f"/machines/{machine['id']}")).json()
        assert [move["state"] for move in told["history"]] == [
            "running", "stopping", "stopped", "pending", "running", "shutting-down", "terminated",
        ]  # fmt: skip
        names = [one["name"] for one in (await client.get("/machines")).json()["items"]]
        assert names == ["default-002"]


async def test_the_simulator_gets_the_size_of_its_instance_type(
    make_region: MakeRegion, eventually: Eventually
) -> None:
    region = make_region()
    async with caller(region) as client:
        await client.post("/machines", json=ORDER)
        await eventually(lambda: region.witness_path(region.require("default-001")).exists(), "started")

        async def facts() -> list[dict[str, Any]]:
            return (await client.get("/witness")).json()["machines"][0]["facts"]

        await eventually(in_state(region, "default-001", State.RUNNING), "running")
        arguments = (await facts())[0]["arguments"]
        for option, value in (
            ("--cpus", "8"),
            ("--memory-gb", "32"),
            ("--disk-gb", "100"),
            ("--hostname", "default-001"),
        ):
            assert arguments[arguments.index(option) + 1] == value
        assert "--die-with-parent" in arguments


async def test_a_machine_whose_simulator_is_killed_is_stopped_and_lost(
    make_region: MakeRegion, eventually: Eventually
) -> None:
    region = make_region()
    async with caller(region) as client:
        await client.post("/machines", json=ORDER)
        await eventually(in_state(region, "default-001", State.RUNNING), "running")
        assert (await client.post("/machines/default-001/kill")).status_code == 202
        await eventually(in_state(region, "default-001", State.STOPPED), "stopped")
        machine = (await client.get("/machines/default-001")).json()
        assert (machine["reason"], machine["pid"]) == ("lost", None)
        assert (await client.post("/machines/default-001/kill")).json()["code"] == "NotReady"


async def test_machines_that_were_on_are_lost_with_the_cloud_and_can_be_started_again(
    make_region: MakeRegion, eventually: Eventually
) -> None:
    before = make_region()
    async with caller(before) as client:
        await client.post("/machines", json=ORDER)
        await eventually(in_state(before, "default-001", State.RUNNING), "running")
    await before.close()
    after = make_region()
    await after.open()
    machine = after.require("default-001")
    assert (machine.state, machine.reason, machine.pid) == (State.STOPPED, "lost", None)
    after.start("default-001")
    await eventually(in_state(after, "default-001", State.RUNNING), "running again")


async def test_machines_that_were_on_can_come_back_with_the_cloud_and_the_witness_remembers(
    make_region: MakeRegion, eventually: Eventually
) -> None:
    before = make_region()
    async with caller(before) as client:
        for number in (1, 2):
            body = {**ORDER, "clientToken": f"t-{number}", "name": f"default-00{number}"}
            await client.post("/machines", json=body)
            await eventually(in_state(before, body["name"], State.RUNNING), "running")
            await eventually(witnessed(before, body["name"]), "witnessed")
        ended = before.terminate("default-002").id
        await eventually(lambda: before.require(ended).state is State.TERMINATED, "terminated")
    await before.close()
    after = make_region(reboot=True)
    await after.open()
    await eventually(in_state(after, "default-001", State.RUNNING), "running again")
    await eventually(witnessed(after, "default-001", 2), "witnessed again")
    machine = after.require("default-001")
    assert machine.history[-2].reason == "restarted with the cloud"
    assert machine.boots == 2
    async with caller(after) as client:
        witness = (await client.get("/witness")).json()["machines"]
        assert {one["name"]: len(one["facts"]) for one in witness} == {"default-001": 2, "default-002": 1}
        relaunched = await client.post("/machines", json=ORDER)
        assert (relaunched.status_code, relaunched.json()["id"]) == (200, machine.id)


async def test_a_shortage_refuses_launches_and_starts_until_there_is_room(
    make_region: MakeRegion, eventually: Eventually
) -> None:
    region = make_region(capacity={"simulated": 1})
    async with caller(region) as client:
        await client.post("/machines", json=ORDER)
        refused = await client.post("/machines", json={**ORDER, "clientToken": "t-2", "name": "default-002"})
        assert (refused.status_code, refused.json()["code"]) == (503, "InsufficientCapacity")
        await client.post("/machines/default-001/stop")
        await eventually(in_state(region, "default-001", State.STOPPED), "stopped")
        assert (await client.post("/machines", json={**ORDER, "clientToken": "t-2", "name": "default-002"})).is_success
        assert (await client.post("/machines/default-001/start")).json()["code"] == "InsufficientCapacity"


async def test_a_boot_that_fails_ends_stopped_with_its_reason(make_region: MakeRegion, eventually: Eventually) -> None:
    region = make_region(failMachines=["default-001"])
    async with caller(region) as client:
        await client.post("/machines", json=ORDER)
        await eventually(in_state(region, "default-001", State.STOPPED), "stopped")
        assert region.require("default-001").reason == "boot failed"


async def test_a_machine_can_be_lost_by_the_scenario(make_region: MakeRegion, eventually: Eventually) -> None:
    region = make_region()
    async with caller(region) as client:
        assert (
            await client.put("/scenario", json={"lose": [{"machine": "default-001", "afterMinutes": 1}]})
        ).is_success
        await client.post("/machines", json=ORDER)
        await eventually(lambda: region.require("default-001").reason == "lost", "lost")


async def test_calls_are_throttled_when_the_scenario_says_so(make_region: MakeRegion) -> None:
    async with caller(make_region(throttle={"probability": 1.0})) as client:
        answer = await client.get("/machines")
        assert (answer.status_code, answer.json()["code"]) == (429, "Throttled")
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/witness")).status_code == 200


async def test_nobody_comes_in_without_the_token(make_region: MakeRegion) -> None:
    async with caller(make_region(), token="wrong") as client:
        for method, path in (("GET", "/machines"), ("POST", "/machines"), ("GET", "/witness"), ("PUT", "/scenario")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (401, "Unauthorized")
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**ORDER, "colour": "red"}, "colour"),
        ({**ORDER, "name": ""}, "name"),
        ({**ORDER, "tags": {"n": 1}}, "tags"),
        ([], "object"),
    ],
)
async def test_a_bad_order_is_refused_naming_the_field(make_region: MakeRegion, body: Any, named: str) -> None:
    async with caller(make_region()) as client:
        answer = await client.post("/machines", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "InvalidRequest")
        assert named in answer.json()["message"]


async def test_machines_are_found_by_tag_and_unknown_ones_are_404(make_region: MakeRegion) -> None:
    async with caller(make_region()) as client:
        await client.post("/machines", json=ORDER)
        found = [
            len((await client.get("/machines", params={"tag": tag})).json()["items"])
            for tag in ("pool=default", "pool", "pool=x")
        ]
        assert found == [1, 1, 0]
        assert (await client.get("/machines/m-none")).json()["code"] == "NotFound"
        assert (await client.post("/machines/default-001/start")).status_code == 202
        await client.delete("/machines/default-001")
        gone = (await client.get("/machines?terminated=true")).json()["items"][0]["id"]
        assert (await client.post(f"/machines/{gone}/start")).json()["code"] == "NotReady"


async def test_a_stop_during_the_boot_leaves_no_process(
    make_region: MakeRegion, eventually: Eventually, alive: Alive
) -> None:
    region = make_region(bootMinutes=600)
    async with caller(region) as client:
        await client.post("/machines", json=ORDER)
        await eventually(lambda: region.require("default-001").pid is not None, "booting")
        pid = region.require("default-001").pid
        assert pid is not None
        await client.delete("/machines/default-001")
        await eventually(lambda: not alive(pid), "the process ends")


def test_only_lawful_moves_are_made() -> None:
    machine = Machine("m-1", "t", "n", "simulated", "", "", {}, "127.9.1.1", 8080, "now")
    for state in set(State) - MOVES[State.PENDING]:
        with pytest.raises(IllegalMove, match=f"pending and cannot become {state}"):
            machine.moved(state)


def test_an_address_on_which_somebody_listens_is_not_given() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.202.1.1", 8080))
        squatter.listen()
        assert next_address(loopback(202), []) == "127.202.1.2"
    assert next_address(loopback(202), ["127.202.1.1", "127.202.1.2"]) == "127.202.1.3"


async def test_a_machine_of_another_network_gets_an_address_of_this_one(
    make_region: MakeRegion, eventually: Eventually, tmp_path: Path
) -> None:
    region = make_region()
    await region.open()
    machine, _ = region.launch(LaunchOrder("t-1", "default-001", "simulated", "", "", {}))
    await region.close()
    (record,) = (tmp_path / "cloud").rglob("machine.json")
    record.write_text(record.read_text().replace(machine.host, "172.31.129.1"))
    region = make_region(reboot=True)
    await region.open()
    await eventually(in_state(region, "default-001", State.RUNNING), "running")
    assert region.require("default-001").host.startswith("127.201.")


def test_a_small_net_is_used_up_and_then_says_so() -> None:
    small = IPv4Network("127.203.0.0/23")
    hosts = [f"127.203.1.{last}" for last in range(1, 255)]
    assert next_address(small, hosts[:-1]) == hosts[-1]
    with pytest.raises(NoAddress, match=r"127\.203\.0\.0/23"):
        next_address(small, hosts)


def test_the_same_seed_draws_the_same_faults() -> None:
    one, two = Scenario(seed=7, fail_boot_probability=0.5), Scenario(seed=7, fail_boot_probability=0.5)
    first = [one.boot_fails("a") for _ in range(50)]
    assert first == [two.boot_fails("a") for _ in range(50)]
    assert len(set(first)) == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [({"weather": 1}, "weather"), ({"failBoot": {"probability": 2}}, "failBoot"), ({"lose": [{}]}, "machine")],
)
def test_a_bad_scenario_is_refused_naming_the_field(body: dict[str, Any], named: str) -> None:
    with pytest.raises(ScenarioError, match=named):
        parse_scenario(body)


def test_sizes_come_from_the_worker_templates(tmp_path: Path) -> None:
    path = tmp_path / "templates.yaml"
    path.write_text(
        "templates: [{name: a, instance_type: t, capacity: {cpu_cores: 4, memory_gb: 8, storage_gb: 50}},"
        " {name: b, instance_type: t, capacity: {cpu_cores: 2, memory_gb: 16, storage_gb: 50}}]"
    )
    assert read_sizes(path) == {"t": Size(4, 16, 50)}
    path.write_text("templates: [{}]")
    with pytest.raises(SizesError, match="instance_type"):
        read_sizes(path)


@pytest.mark.integration
async def test_a_real_simulator_answers_on_the_machines_address_and_dies_with_the_cloud(
    tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    token, password, port = tmp_path / "token", tmp_path / "password", 0
    token.write_text(TOKEN)
    password.write_text("correct horse")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lablet_local.cloud", "--port", str(port), "--data", str(tmp_path / "cloud")]
    command += ["--net", "203", "--speed", "240", "--token-file", str(token), "--cml-password-file", str(password)]
    cloud = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONSAFEPATH": "1"})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    pid = 0
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:

            async def poll(ask: Ask, good: Callable[[httpx.Response], bool]) -> httpx.Response:
                async with asyncio.timeout(15):
                    while True:
                        try:
                            answer = await ask()
                            if good(answer):
                                return answer
                        except httpx.TransportError:
                            pass
                        await asyncio.sleep(0.05)

            await poll(lambda: client.get("/healthz"), lambda answer: answer.is_success)
            machine = (await client.post("/machines", json=ORDER)).json()
            running = await poll(
                lambda: client.get(f"/machines/{machine['id']}"), lambda answer: answer.json()["state"] == "running"
            )
            pid = running.json()["pid"]
            login = {"username": "admin", "password": "correct horse"}
            granted = await poll(
                lambda: client.post(f"{machine['url']}/api/v0/authenticate", json=login),
                lambda answer: answer.status_code == 200,
            )
            assert granted.json()
            witness = (await client.get("/witness")).json()["machines"]
            assert witness[0]["facts"][0]["fact"] == "controller.started"
            cloud.kill()
            await cloud.wait()
            await eventually(lambda: not alive(pid), "the simulator ends with the cloud")
    finally:
        if cloud.returncode is None:
            cloud.kill()
            await cloud.wait()
