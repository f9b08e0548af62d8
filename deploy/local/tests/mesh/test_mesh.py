"""The local mesh on real servers; the four services are small stand-ins."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from lablet_common.bus import Bus
from lablet_common.clock import load_clock
from lablet_common.objects import S3ObjectStore
from lablet_common.resources.kinds import Service
from lablet_common.settings import NatsSettings, StorageSettings
from lablet_common.store import EtcdStore
from lablet_local.chaos.run import kept_by_all
from lablet_local.folder import AlreadyRunning
from lablet_local.members import MANY
from lablet_local.mesh import LocalMesh
from lablet_local.supervisor import NotReady, Phase

pytestmark = pytest.mark.integration
Eventually = Callable[..., Awaitable[None]]
Alive = Callable[[int], bool]
MakeMesh = Callable[..., LocalMesh]


def pids(mesh: LocalMesh) -> list[int]:
    return [state.pid for state in mesh.processes if state.pid is not None]


def object_store(mesh: LocalMesh) -> S3ObjectStore:
    access, secret = mesh.s3_keys
    return S3ObjectStore(StorageSettings(endpoint=mesh.s3_url, access_key=access, secret_key=secret))


async def test_everything_runs_answers_and_ends(make_mesh: MakeMesh, alive: Alive) -> None:
    async with make_mesh(speed=60, replicas={"scheduler": 2}) as mesh:
        names = {state.process.name for state in mesh.processes}
        assert names == {
            "etcd", "nats", "s3", "cloud",
            "api-gateway-1", "scheduler-1", "scheduler-2", "worker-controller-1", "artifact-service-1",
        }  # fmt: skip
        assert all(state.phase is Phase.READY for state in mesh.processes)
        assert mesh.seconds_to_ready is not None
        assert mesh.seconds_to_ready < 10
        store = EtcdStore([mesh.etcd_endpoint])
        assert (await load_clock(store)).speed == 60
        await store.close()
        objects = object_store(mesh)
        await objects.put("a/b", b"kept")
        assert await objects.get("a/b") == b"kept"
        await objects.close()
        assert await mesh.machines() == []
        running = pids(mesh)
        assert len(running) == 9
    assert not any(map(alive, running))


async def test_what_was_kept_is_there_after_a_restart_at_the_same_addresses(make_mesh: MakeMesh) -> None:
    async with make_mesh(speed=30) as first:
        store = EtcdStore([first.etcd_endpoint])
        await store.put("/probe", b"kept")
        await store.close()
        objects = object_store(first)
        await objects.put("a/b", b"kept")
        await objects.close()
        url, token = first.url, first.token("learner")
    async with make_mesh() as second:
        assert (second.url, second.token("learner"), second.pace.speed) == (url, token, 30)
        store = EtcdStore([second.etcd_endpoint])
        kept = await store.get("/probe")
        assert kept is not None
        assert kept.value == b"kept"
        await store.close()
        objects = object_store(second)
        assert await objects.get("a/b") == b"kept"
        await objects.close()


async def test_each_server_and_service_that_is_killed_comes_back(make_mesh: MakeMesh) -> None:
    async with make_mesh() as mesh:
        for name in ("etcd", "nats", "s3", "cloud", "scheduler-1", "gateway-1"):
            await mesh.wait_ended(name, mesh.kill(name, signal.SIGKILL))
            await mesh.wait_ready(name)
            assert mesh.process(name).restarts == 1


async def test_secrets_reach_only_those_who_need_them_and_never_a_command_line(
    make_mesh: MakeMesh, tmp_path: Path
) -> None:
    async with make_mesh() as mesh:
        given = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "notes").glob("*.env")}
        secret_files = list((mesh.folder.secrets).iterdir())
        secrets = [line for path in secret_files for line in path.read_text().split() if len(line) >= 16]
        secrets += [mesh.token(role) for role in ("admin", "learner")]
        command_lines = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids(mesh)).decode()
    assert not [secret for secret in secrets if secret in command_lines]
    for environment in given.values():
        assert not [secret for secret in secrets if secret in environment.values()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secret_files)
    assert "API_TOKENS_FILE" in given["api-gateway-1"]
    assert "CLOUD_TOKEN_FILE" not in given["api-gateway-1"]
    assert "ARTIFACT_STORAGE_SECRET_KEY_FILE" not in given["scheduler-1"]
    assert {"CLOUD_TOKEN_FILE", "CML_PASSWORD_FILE", "SECRETS_KEY_FILE"} <= set(given["worker-controller-1"])
    assert len({environment["NATS_PASSWORD_FILE"] for environment in given.values()}) == 4


async def test_two_meshes_run_side_by_side(make_mesh: MakeMesh) -> None:
    async with asyncio.TaskGroup() as tasks:
        meshes = [make_mesh(name) for name in ("one", "two")]
        for mesh in meshes:
            tasks.create_task(mesh.start())
    try:
        first, second = meshes
        assert first.ports.base != second.ports.base
        assert first.ports.machine_net != second.ports.machine_net
        with pytest.raises(AlreadyRunning):
            await make_mesh("one").start()
        assert all(state.phase is Phase.READY for mesh in meshes for state in mesh.processes)
    finally:
        for mesh in meshes:
            await mesh.stop()


async def test_a_service_that_never_gets_ready_is_named_with_its_failing_check_and_nothing_is_left(
    make_mesh: MakeMesh, tmp_path: Path, alive: Alive
) -> None:
    (tmp_path / "notes" / "scheduler-1.unready").touch()
    mesh = make_mesh(ready_seconds=3)
    with pytest.raises(NotReady, match="scheduler-1: moon failed: new"):
        await mesh.start()
    assert not pids(mesh)
    assert mesh.folder.holder() is None


async def test_a_machine_of_the_mesh_can_be_killed_by_name(make_mesh: MakeMesh, eventually: Eventually) -> None:
    async with make_mesh(speed=200) as mesh:
        headers = {"Authorization": f"Bearer {mesh.cloud_token}"}
        order = {"clientToken": "t", "name": "default-001", "instanceType": "simulated"}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            assert (await client.post(f"{mesh.cloud_url}/machines", json=order)).status_code == 201

        async def state() -> tuple[str, str]:
            machine = (await mesh.machines())[0]
            return machine["state"], machine["reason"]

        async with asyncio.timeout(15):
            while await state() != ("running", ""):
                await asyncio.sleep(0.05)
            await mesh.kill_machine("default-001")
            while await state() != ("stopped", "lost"):
                await asyncio.sleep(0.05)
        assert [machine["name"] for machine in await mesh.witness()] == ["default-001"]


class Command:
    """The `lablet` commands as a person runs them, in an empty home."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.data = home / "data"
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "160", **environment}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lablet_local", *arguments, "--data", str(self.data),
            env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def run(self, *arguments: str) -> tuple[int, str]:
        process = await self.start(*arguments)
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    def running(self) -> list[int]:
        state = json.loads((self.data / "mesh.json").read_text())
        return [state["pid"], *(process["pid"] for process in state["processes"] if process["pid"])]


@pytest.fixture
def command(tmp_path: Path, stand_ins: dict[str, str]) -> Iterator[Command]:
    made = Command(tmp_path, stand_ins)
    yield made
    if (made.data / "mesh.json").exists():  # what a failed test left running
        for pid in made.running():
            if (
                Path(f"/proc/{pid}/cmdline").exists()
                and str(made.data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
            ):
                os.kill(pid, signal.SIGKILL)


async def until(process: asyncio.subprocess.Process, words: str) -> str:
    """What the command printed up to a line with these words."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(30):
        while words not in said:
            line = await process.stdout.readline()
            assert line, f"it ended without saying {words!r}:\n{said}"
            said += line.decode()
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_up_says_where_everything_is_and_stops_in_order_when_asked(
    command: Command, alive: Alive, number: int, tmp_path: Path
) -> None:
    up = await command.start("up")
    said = await until(up, "Ctrl-C stops it")
    assert "http://127.0.0.1:" in said
    assert "ready in" in said
    assert "etcd 3." in said
    pointer = tmp_path / ".config" / "lablet" / "connection.json"
    assert set(json.loads(pointer.read_text())) >= {"url", "token"}
    assert stat.S_IMODE(pointer.stat().st_mode) == 0o600
    running = command.running()
    up.send_signal(number)
    rest, _ = await up.communicate()
    assert up.returncode == 0
    assert "nothing is left running" in rest.decode()
    assert not any(map(alive, running))
    assert not pointer.exists()


async def test_nothing_is_left_when_the_mesh_itself_is_killed_and_it_starts_again(
    command: Command, alive: Alive, eventually: Eventually
) -> None:
    up = await command.start("up")
    await until(up, "Ctrl-C stops it")
    running = command.running()
    assert len(running) == 10
    up.kill()
    await up.wait()
    await eventually(lambda: not any(map(alive, running)), "every process of the mesh ends", 5)
    code, said = await command.run("up", "--detach")
    assert code == 0, said
    assert (await command.run("down"))[0] == 0


async def test_detached_it_can_be_looked_at_examined_and_stopped(command: Command, alive: Alive) -> None:
    code, said = await command.run("up", "--detach", "--speed", "60", "--replicas", "scheduler=2")
    assert code == 0, said
    running = command.running()
    assert all(map(alive, running))
    again, said = await command.run("up")
    assert again == 1
    assert "running" in said
    assert "lablet status" in said
    code, said = await command.run("status")
    assert code == 0
    assert "scheduler-2" in said
    code, said = await command.run("status", "-o", "json")
    assert json.loads(said)["ready"] is True
    code, said = await command.run("doctor")
    assert code == 0, said
    assert "everything is in order" in said
    before = json.loads((command.data / "connection.json").read_text())["tokens"]
    code, said = await command.run("token", "rotate", "learner")
    assert code == 0, said
    after = json.loads((command.data / "connection.json").read_text())["tokens"]
    assert [role for role in after if after[role] != before[role]] == ["learner"]
    code, said = await command.run("token", "rotate", "nobody")
    assert (code, "there are admin" in said) == (2, True)
    code, said = await command.run("down")
    assert (code, "stopped in" in said) == (0, True)
    assert not any(map(alive, running))
    assert (await command.run("status"))[0] == 1
    assert (await command.run("down"))[0] == 0


async def test_a_fault_is_found_by_status_and_doctor_with_what_to_do(command: Command, tmp_path: Path) -> None:
    code, said = await command.run("up", "--detach")
    assert code == 0, said
    try:
        (tmp_path / "notes" / "scheduler-1.unready").touch()
        (command.data / "secrets" / "cloud.token").chmod(0o644)
        code, said = await command.run("status")
        assert code == 1
        assert "moon failed: new" in said
        code, said = await command.run("doctor")
        assert code == 1
        assert "chmod 600" in said
        assert "moon failed: new" in said
    finally:
        code, said = await command.run("down")
    assert code == 0, said


async def test_wrong_wishes_are_refused_in_one_line(command: Command, tmp_path: Path) -> None:
    code, said = await command.run("up", "--speed", "1000")
    assert (code, "largest speed allowed is 262" in said) == (2, True)
    code, said = await command.run("up", "--replicas", "sheduler=2")
    assert (code, "sheduler" in said) == (2, True)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code, said = await command.run("up", "--port-base", str(port - 4))
    assert (code, "is taken" in said) == (1, True), said
    server.close()
    assert "Traceback" not in said


async def every_stream_is_kept_by_all(mesh: LocalMesh) -> None:
    """The streams as the gateway makes them of what the mesh tells it."""
    user, password = mesh.nats_login(Service.GATEWAY)
    told = int(mesh.members.settings["NATS_REPLICAS"])
    settings = NatsSettings(url=",".join(mesh.members.nats_urls), user=user, password=SecretStr(password))
    bus = Bus(settings, Service.GATEWAY, replicas=told)
    await bus.connect()
    await bus.close()
    check = kept_by_all(await mesh.stream_replicas(), MANY)
    assert check.ok, check.detail


async def test_of_three_members_the_one_that_leads_may_die_and_what_was_written_stays(make_mesh: MakeMesh) -> None:
    async with make_mesh(ha=True) as mesh:
        await every_stream_is_kept_by_all(mesh)
        store = EtcdStore(list(mesh.members.etcd_endpoints))
        leader = await mesh.etcd_leader()
        assert leader is not None
        await store.put("/probe", b"before")
        await mesh.stop_process(leader)
        await store.put("/probe", b"after")
        others = set(mesh.members.names("etcd")) - {leader}
        assert await mesh.etcd_leader() in others
        await mesh.resume_process(leader)
        kept = await store.get("/probe")
        assert kept is not None
        assert kept.value == b"after"
        await store.close()
        servers = json.loads(mesh.folder.state.read_text())["addresses"]
        assert {"etcd", "etcd-2", "etcd-3", "nats", "nats-2", "nats-3"} <= set(servers)
