"""What a process lab's nodes have written, over the API: from its agent while it is there, afterwards from the store."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from lablet_common.agents import Answer
from lablet_common.bus.line import AgentSilent
from lablet_common.objects import put_content
from lablet_common.resources.instance import ArtifactRef, Instance, InstancePhase, LabRef


@dataclass
class PlayedLine:
    """An agent that says what the test wants."""

    answer: Answer | None = None
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    async def ask(self, worker: str, verb: str, *, timeout: float = 10.0, **words: Any) -> Answer:
        self.asked.append((worker, verb, words))
        if self.answer is None:
            raise AgentSilent(f"the agent {worker} did not answer")
        return self.answer


@pytest.fixture
def line(world: Any) -> PlayedLine:
    made = PlayedLine()
    object.__setattr__(world.parts, "line", made)
    return made


async def put(world: Any, phase: InstancePhase, *, worker: str = "host-1", **status: Any) -> Instance:
    booking = world.reservation("rsv-a", owner="ina")
    await world.add(booking)
    made = world.instance(booking)
    changed = made.status.model_copy(
        update={"phase": phase, "lab": LabRef(id="ins-a-1", worker=worker, machine="m"), **status}
    )
    placed = made.spec.model_copy(update={"worker": worker})
    made = made.model_copy(update={"spec": placed, "status": changed})
    await world.add(made)
    return made


PATH = "/api/v1/instances/ins-a-1/output"


async def test_a_running_labs_output_comes_from_its_agent(world: Any, line: PlayedLine) -> None:
    await put(world, InstancePhase.RUNNING)
    line.answer = Answer(data={"start": 4, "data": base64.b64encode(b"hello").decode(), "over": False})
    answer = await world.client("ina").get(PATH, params={"node": "web", "position": 2, "wait": 5, "limit": 100})
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["start"], body["next"], body["over"], base64.b64decode(body["data"])) == (4, 9, False, b"hello")
    ((worker, verb, words),) = line.asked
    assert (worker, verb) == ("host-1", "output")
    assert (words["lab"], words["node"], words["position"], words["wait"]) == ("ins-a-1", "web", 2, 5)


async def test_what_was_collected_goes_on_where_the_agent_ended(world: Any, line: PlayedLine) -> None:
    content, result = b"the last words", json.dumps({"nodes": {"web": {"outputFrom": 100}}}).encode()
    refs = [
        ArtifactRef(role="collected", name=name, digest=await put_content(world.objects, "default", data, "text/plain"))
        for name, data in (("web.log", content), ("result.json", result))
    ]
    await put(world, InstancePhase.TERMINATED, artifacts=tuple(refs))
    client = world.client("ina")
    whole = (await client.get(PATH, params={"node": "web"})).json()
    assert (whole["start"], whole["next"], whole["over"]) == (100, 114, True)
    rest = (await client.get(PATH, params={"node": "web", "position": 109, "limit": 3})).json()
    assert (base64.b64decode(rest["data"]), rest["next"], rest["over"]) == (b"wor", 112, False)
    assert line.asked == []


async def test_a_lab_that_does_not_run_yet_has_said_nothing(world: Any, line: PlayedLine) -> None:
    await put(world, InstancePhase.PENDING, lab=None)
    body = (await world.client("ina").get(PATH, params={"node": "web", "position": 7})).json()
    assert (body["next"], body["over"], body["data"]) == (7, False, "")


async def test_a_silent_agent_is_a_503_and_an_unknown_node_a_404(world: Any, line: PlayedLine) -> None:
    await put(world, InstancePhase.RUNNING)
    client = world.client("ina")
    silent = await client.get(PATH, params={"node": "web"})
    assert (silent.status_code, silent.json()["dependency"]) == (503, "agent")
    line.answer = Answer(fault="missing", message="lab has no node x; there are web")
    unknown = await client.get(PATH, params={"node": "x"})
    assert unknown.status_code == 404
    assert "there are web" in unknown.json()["detail"]


async def test_another_users_output_is_not_there(world: Any, line: PlayedLine) -> None:
    await put(world, InstancePhase.RUNNING)
    assert (await world.client("learner@acme").get(PATH, params={"node": "web"})).status_code == 404
    assert line.asked == []


async def test_a_host_registers_in_its_own_name_only(world: Any) -> None:
    await world.add(world.pool("agents"))
    size = {"cpuCores": 4, "memoryGb": 8, "storageGb": 50}
    body = {"pool": "agents", "host": "10.0.0.5", "capacity": size}
    client = world.client("host@default")
    foreign = await client.post("/api/v1/workers/another/register", json=body)
    assert foreign.status_code == 403
    assert "this token is for the worker host@default" in foreign.json()["detail"]
    asked = await world.client("operator@default").post("/api/v1/workers/host-1/register", json=body)
    assert asked.status_code == 202, asked.text
    (request,) = await world.inbox("worker-controller", "agents")
    assert (request.spec.subject, request.spec.data["host"]) == ("worker/host-1", "10.0.0.5")
    nowhere = await world.client("operator@default").post("/api/v1/workers/h/register", json=body | {"pool": "x"})
    assert (nowhere.status_code, nowhere.json()["errors"][0]["path"]) == (422, "pool")


async def test_a_lab_of_devices_writes_to_its_consoles_and_no_agent_is_asked(world: Any, line: PlayedLine) -> None:
    """The world's worker runs devices."""
    await put(world, InstancePhase.RUNNING, worker="default-001")
    answer = await world.client("ina").get(PATH, params={"node": "R1"})
    assert (answer.status_code, "access" in answer.json()["detail"]) == (409, True)
    assert line.asked == []
