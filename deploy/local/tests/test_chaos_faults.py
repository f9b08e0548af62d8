"""Faults of members are carried out on who leads at that moment, and ended."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import nats
import pytest
from nats.errors import TimeoutError as NatsTimeout

from lablet_local.chaos import faults
from lablet_local.chaos.chronicle import Chronicle
from lablet_local.chaos.faults import Injector
from lablet_local.chaos.network import Network
from lablet_local.chaos.schedule import A_MACHINE, Fault, Kind
from lablet_local.members import MANY, Members
from lablet_local.mesh import LocalMesh
from lablet_local.ports import PortBlock


class Mesh:
    """Three members of each, of which some lead; notes what is done to whom."""

    def __init__(self, etcd: str | None = "etcd-3", stream: str | None = "nats-2") -> None:
        self.members = Members(PortBlock(7400), MANY)
        self.done: list[tuple[str, str]] = []
        self.running: list[dict[str, Any]] = []
        self.looked = 0
        self._etcd, self._stream = etcd, stream

    async def etcd_leader(self) -> str | None:
        return self._etcd

    async def stream_leader(self, stream: str) -> str | None:
        return self._stream if stream == "EVENTS" else None

    def kill(self, name: str, number: int = 9) -> int:
        self.done.append(("kill", name))
        return number

    async def restart(self, name: str) -> None:
        self.done.append(("restart", name))

    @property
    def etcd_endpoint(self) -> str:
        return self.members.etcd_endpoints[0]

    def nats_login(self, user: str) -> tuple[str, str]:
        return user, "secret"

    async def machines(self) -> list[dict[str, Any]]:
        self.looked += 1
        return self.running

    async def kill_machine(self, machine: str) -> None:
        self.done.append(("kill machine", machine))


class Peers:
    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def cut_off(self, member: str) -> None:
        self.done.append(("cut off", member))

    def join(self, member: str) -> None:
        self.done.append(("join", member))


async def carried_out(mesh: Mesh, *faults: Fault) -> tuple[Injector, Peers]:
    network = Network(PortBlock(7400), MANY)
    peers = Peers()
    network.peers = cast("Any", peers)
    injector = Injector(cast("LocalMesh", mesh), network, Chronicle(["127.0.0.1:1"]), 1)
    await injector.run(faults)
    return injector, peers


@pytest.mark.parametrize(("led", "killed"), [("etcd", "etcd-3"), ("EVENTS", "nats-2")])
async def test_who_leads_at_that_moment_is_killed(led: str, killed: str) -> None:
    mesh = Mesh()
    injector, _ = await carried_out(mesh, Fault(0, Kind.LEADER, f"leader of {led}"))
    assert mesh.done == [("kill", killed)]
    assert injector.done[Kind.LEADER] == 1


async def test_where_nobody_leads_the_fault_is_counted_as_missed() -> None:
    mesh = Mesh(etcd=None)
    injector, _ = await carried_out(mesh, Fault(0, Kind.LEADER, "leader of etcd"))
    assert (mesh.done, injector.missed.total(), injector.done.total()) == ([], 1, 0)


async def test_a_member_that_was_cut_off_joins_the_others_again() -> None:
    _, peers = await carried_out(
        Mesh(), Fault(0, Kind.MINORITY, "leader of etcd", 0.01), Fault(0, Kind.MINORITY, "nats-3", 0.02)
    )
    assert peers.done == [("cut off", "etcd-3"), ("cut off", "nats-3"), ("join", "etcd-3"), ("join", "nats-3")]


async def test_members_are_restarted_in_turn() -> None:
    mesh = Mesh()
    await carried_out(mesh, Fault(0, Kind.ROLLING, "nats"))
    assert mesh.done == [("restart", "nats"), ("restart", "nats-2"), ("restart", "nats-3")]


async def test_a_simulated_worker_that_runs_stands_still_and_goes_on() -> None:
    mesh = Mesh()
    with subprocess.Popen(["sleep", "60"]) as process:
        mesh.running = [
            {"id": "m-1", "state": "stopped", "pid": None},
            {"id": "m-2", "state": "running", "pid": process.pid},
        ]
        pausing = asyncio.create_task(carried_out(mesh, Fault(0, Kind.PAUSE, A_MACHINE, 1.0)))
        await until(lambda: state_of(process.pid) == "T")
        injector, _ = await pausing
        await until(lambda: state_of(process.pid) == "S")
        process.kill()
    assert injector.hit == {A_MACHINE: 1}


async def test_a_simulated_worker_that_is_to_be_killed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early in a run none is on yet: half of these faults found nothing."""
    monkeypatch.setattr(faults, "_ROOM_SECONDS", 0.01)
    mesh = Mesh()
    killing = asyncio.create_task(carried_out(mesh, Fault(0, Kind.MACHINE)))
    await until(lambda: mesh.looked > 1)
    mesh.running = [{"id": "m-1", "state": "running", "pid": 7}]
    injector, _ = await killing
    assert mesh.done == [("kill machine", "m-1")]
    assert (injector.missed.total(), injector.done.total()) == (0, 1)


async def test_where_no_worker_runs_none_is_killed_or_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_MACHINE_SECONDS", 0.1)
    mesh = Mesh()
    injector, _ = await carried_out(mesh, Fault(0, Kind.MACHINE), Fault(0, Kind.PAUSE, A_MACHINE, 1.0))
    assert (injector.missed.total(), injector.done.total()) == (2, 0)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("heard", [True, False])
async def test_when_a_purge_was_is_found_out_also_where_its_answer_or_etcd_s_was_lost(
    heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Connection:
        def jetstream(self) -> "Connection":
            return self

        async def purge_stream(self, name: str) -> None:
            assert name == "EVENTS"
            if not heard:
                raise NatsTimeout

        async def close(self) -> None:
            pass

    async def connect(*_: object, **__: object) -> Connection:
        return Connection()

    answers: list[int | Exception] = [httpx.ConnectError("killed just now"), 712]

    async def head(_: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(nats, "connect", connect)
    monkeypatch.setattr(faults, "head", head)
    injector, _ = await carried_out(Mesh(), Fault(0, Kind.PURGE))
    assert (injector.purged_at, injector.done[Kind.PURGE], injector.missed[Kind.PURGE]) == (
        712,
        int(heard),
        int(not heard),
    )
