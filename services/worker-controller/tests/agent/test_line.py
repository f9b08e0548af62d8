"""Agents and mesh over a real NATS server: labs by the runtime port, heartbeats, and whose words an agent may speak."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from lablet_common.agents import Answer, Grant, Heartbeat, Question, heartbeat_subject, last_of, work_subject
from lablet_common.bus.connection import Connection
from lablet_common.bus.line import AgentSilent, NatsLine
from lablet_common.bus.permissions import agent_user, service_user
from lablet_common.process_lab import ProcessLab, render
from lablet_common.resources.kinds import Service
from lablet_common.settings import NatsSettings
from lablet_common.store import MemoryStore
from lablet_common.testing.nats import NatsServer
from lablet_workers.agent.capacity import Meter
from lablet_workers.agent.work import Work
from lablet_workers.agents.leases import Door, Leases
from lablet_workers.runtimes.port import LabMissing, RuntimeFault, RuntimeUnavailable
from lablet_workers.runtimes.process import ProcessRuntime

from .conftest import Host, sh

pytestmark = pytest.mark.integration
AGENTS = ("w1", "w2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    users = [service_user(Service.WORKERS, "pw"), *(agent_user(name, f"pw-{name}") for name in AGENTS)]
    with NatsServer.start(tmp_path_factory.mktemp("nats"), users=users) as running:
        yield running


class Net:
    """Connections to one server, closed at the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.open: list[Connection] = []

    async def connect(self, user: str, password: str) -> Connection:
        made = Connection(NatsSettings(url=self._url, user=user, password=SecretStr(password)), user)
        await made.open()
        self.open.append(made)
        return made

    async def agent(self, name: str) -> Connection:
        return await self.connect(f"agent-{name}", f"pw-{name}")

    async def mesh(self) -> Connection:
        return await self.connect(Service.WORKERS, "pw")


@pytest.fixture
async def net(server: NatsServer) -> AsyncIterator[Net]:
    made = Net(server.url)
    yield made
    for connection in made.open:
        await connection.close()


async def serve(connection: Connection, name: str, host: Host, permitted: bool = True) -> None:
    work = Work(host.driver, lambda: permitted, Meter(Path("/")).load)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(subject: str, payload: bytes) -> None:
        question = Question.model_validate_json(payload)
        said: Answer = await work.answer(last_of(subject), question)
        await connection.say(question.reply, said.to_json())

    async def hear(subject: str, payload: bytes) -> None:
        task = asyncio.create_task(answer(subject, payload))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await connection.listen(work_subject(name, "x").removesuffix("x") + ">", hear)


async def runtime(net: Net, host: Host, **more: Any) -> ProcessRuntime:
    await serve(await net.agent("w1"), "w1", host, **more)
    line = NatsLine(await net.mesh(), Service.WORKERS, "1")
    await line.open()
    return ProcessRuntime("w1", line)


def manifest(*nodes: dict[str, Any], **more: Any) -> bytes:
    lab = ProcessLab.model_validate({"kind": "ProcessLab", "nodes": list(nodes), **more})
    return render(lab, {}, seat=1, user="ada", worker="w1").to_json()


async def test_a_lab_by_the_runtime_port_from_import_to_removal(net: Net, host: Host) -> None:
    one = await runtime(net, host)
    assert (await one.info()).ready
    assert (await one.license()).in_compliance
    works = manifest(sh("echo works; exit 5"), until="completed")
    lab = await one.import_lab("ins-a-1", manifest(sh("of another attempt")))
    host.labs.append(lab)
    assert [await one.import_lab("ins-a-1", works) for _ in range(2)] == [lab, lab]
    assert await one.labs() == {lab: "ins-a-1"}
    assert (await one.progress(lab)).stopped
    await one.start(lab)
    async with asyncio.timeout(10):
        while not (progress := await one.progress(lab)).completed:
            await asyncio.sleep(0.02)
    assert (progress.exit_code, progress.converged, progress.nodes) == (5, True, {"a": "EXITED"})
    files = await one.configurations(lab)
    assert files["a.log"] == b"works\n"
    assert b'"exitCode": 5' in files["result.json"]
    await one.stop(lab)
    await one.remove(lab)
    await one.remove(lab)
    with pytest.raises(LabMissing):
        await one.progress(lab)


async def test_a_lab_that_will_never_be_up_says_why(net: Net, host: Host) -> None:
    one = await runtime(net, host)
    lab = await one.import_lab("ins-b-1", manifest(sh("exit 9"), sh("sleep 60", "b")))
    host.labs.append(lab)
    await one.start(lab)
    async with asyncio.timeout(10):
        while not (progress := await one.progress(lab)).failed:
            await asyncio.sleep(0.02)
    assert progress.failed == "a ended with 9"
    await one.stop(lab)


async def test_without_a_permission_nothing_is_started(net: Net, host: Host) -> None:
    one = await runtime(net, host, permitted=False)
    lab = await one.import_lab("ins-c-1", manifest(sh("true")))
    assert not (await one.info()).ready
    with pytest.raises(RuntimeUnavailable, match="no permission"):
        await one.start(lab)
    assert (await one.progress(lab)).stopped


async def test_a_manifest_that_is_none_is_refused(net: Net, host: Host) -> None:
    one = await runtime(net, host)
    with pytest.raises(RuntimeFault, match="nodes"):
        await one.import_lab("ins-d-1", b'{"lab": {"kind": "ProcessLab", "nodes": []}}')


async def test_an_agent_that_is_away_is_unavailable_and_not_gone(net: Net) -> None:
    line = NatsLine(await net.mesh(), Service.WORKERS, "1")
    await line.open()
    with pytest.raises(AgentSilent, match="w2 did not answer labs"):
        await line.ask("w2", "labs", timeout=0.2)


async def test_heartbeats_are_granted_over_the_bus(net: Net) -> None:
    door = Door(await net.mesh(), Leases(MemoryStore(), 8.0, lambda _: True))
    await door.open()
    agent, granted = await net.agent("w1"), asyncio.get_running_loop().create_future()

    async def hear(_: str, payload: bytes) -> None:
        if not granted.done():
            granted.set_result(Grant.model_validate_json(payload))

    await agent.listen(work_subject("w1", "grant"), hear)
    async with asyncio.timeout(5):
        while not granted.done():
            await agent.say(heartbeat_subject("w1"), Heartbeat(epoch="epoch-one", number=4, first=True).to_json())
            await asyncio.wait({granted}, timeout=0.1)
    assert (granted.result().seconds, granted.result().number) == (8.0, 4)


async def test_an_agent_cannot_report_for_another_nor_hear_its_work(net: Net) -> None:
    mesh, w1, w2 = await net.mesh(), await net.agent("w1"), await net.agent("w2")
    heard: list[tuple[str, str]] = []

    async def at_mesh(subject: str, _: bytes) -> None:
        heard.append(("mesh", subject))

    async def at_w2(subject: str, _: bytes) -> None:
        heard.append(("w2", subject))

    await mesh.listen("lablet.agent.>", at_mesh)
    await w2.listen(work_subject("w1", "start"), at_w2)
    await w2.listen("lablet.agent-work.>", at_w2)
    await w2.say(heartbeat_subject("w1"), b"{}")
    await w2.say("lablet.agent.w1.reply.worker-controller.1.1", b"{}")
    await w2.say("lablet.agent-work.w1.stop", b"{}")
    await w2.say("lablet.event.default.worker.agents.w1", b"{}")
    await mesh.say(work_subject("w1", "start"), b"{}")
    await mesh.client.flush()
    await w2.client.flush()
    # what is allowed comes through, and after it nothing of the above is still to come
    await w2.say(heartbeat_subject("w2"), b"{}")
    await w1.say(heartbeat_subject("w1"), b"{}")
    async with asyncio.timeout(5):
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    assert sorted(heard) == [("mesh", heartbeat_subject("w1")), ("mesh", heartbeat_subject("w2"))]


async def test_an_answer_counts_only_from_the_one_who_was_asked(net: Net) -> None:
    line = NatsLine(await net.mesh(), Service.WORKERS, "1")
    await line.open()
    w2 = await net.agent("w2")
    asking = asyncio.create_task(line.ask("w1", "info", timeout=0.5))
    await asyncio.sleep(0.05)
    for number in range(5):
        await w2.say(f"lablet.agent.w2.reply.worker-controller.1.{number}", Answer().to_json())
    with pytest.raises(AgentSilent):
        await asking
