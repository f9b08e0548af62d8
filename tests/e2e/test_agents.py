"""Agents on the whole mesh: jobs, an agent that dies and finds its labs again, a lost host, and a host that is cut off.

Every running lab writes a line with the time into a file, so that a test sees what really ran, when, and how often at once.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lablet_local.mesh import LocalMesh
from lablet_workers.agent.child import LAB_VARIABLE
from lablet_workers.agent.procfs import descendants, marked

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LEASE = 15
SPEED = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    folder = tmp_path_factory.mktemp("agents")
    async with LocalMesh(folder, speed=SPEED, agents=2, environment={"AGENT_LEASE_SECONDS": str(LEASE)}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(mesh: LocalMesh, open_door: Any) -> AsyncIterator[Any]:
    made = await open_door(mesh, SPEED)
    yield made
    await made.http.aclose()


@pytest.fixture
def trace() -> Any:
    """A file that any user may write to, and its lines as (worker, seconds)."""
    path = Path(f"/var/tmp/lablet-trace-{os.getpid()}-{time.monotonic_ns()}")
    path.touch()
    path.chmod(0o666)
    yield path
    path.unlink()


def lines(trace: Path) -> list[tuple[str, str, float]]:
    """(what, worker, when)."""
    found = [line.split() for line in trace.read_text().splitlines() if line.count(" ") == 2]
    return [(what, worker, float(when)) for what, worker, when in found]


async def publish(door: Any, name: str, manifest: str) -> str:
    answer = await door.call(
        "POST",
        f"/definitions?name={name}",
        content=manifest.encode(),
        headers={"content-type": "application/yaml", "prefer": "wait=10"},
    )
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["metadata"]["id"])


async def start_lab(door: Any, name: str, trace: Path) -> str:
    """A lab that runs until its slot ends; returns its instance's id."""
    script = f"echo start $LABLET_WORKER $(date +%s.%N) >> {trace}; trap '' TERM; "
    script += f"while true; do echo alive $LABLET_WORKER $(date +%s.%N) >> {trace}; sleep 0.1; done"
    definition = await publish(
        door, name, f'kind: ProcessLab\nnodes:\n  - name: a\n    command: ["/bin/sh", "-c", "{script}"]\n'
    )
    answer = await door.reserve({"definition": definition, "pool": "agents", "asap": True, "durationMinutes": 120})
    assert answer.status_code == 201, answer.text
    (seat,) = answer.json()["status"]["placement"]
    await door.until_phase(f"/instances/{seat['instance']}", "Running")
    return str(seat["instance"])


async def end(door: Any, instance: str) -> None:
    booking = (await door.get(f"/instances/{instance}"))["spec"]["reservation"]
    await door.call("DELETE", f"/reservations/{booking}")
    await door.until_phase(f"/instances/{instance}", "Terminated")
    assert marked(LAB_VARIABLE, instance) == []


def supervisor_of(instance: str) -> int:
    """The process that has the lab's others below it."""
    found = marked(LAB_VARIABLE, instance)
    return max(found, key=lambda pid: len(descendants(pid)))


async def test_a_job_runs_where_there_is_room_and_returns_its_exit_code(
    mesh: LocalMesh, door: Any, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: ProcessLab\nuntil: completed\nnodes:\n"
        "  - {name: a, command: 'echo to be seen; sleep 0.3; echo at once; exit 7'}\n"
    )
    done = await asyncio.to_thread(door.cli, "run", str(file))
    assert done.stdout == "to be seen\nat once\n", done.stderr
    assert done.returncode == 7


async def test_what_an_agents_host_uses_is_told_with_the_labs_that_run_there(door: Any, trace: Path) -> None:
    instance = await start_lab(door, "told", trace)
    worker = (await door.get(f"/instances/{instance}"))["spec"]["worker"]
    answer = await door.until(f"/workers/{worker}/load", lambda told: told.get("load", {}).get("nodes", 0) >= 1)
    memory = answer["load"]["memoryGb"]
    assert 0 < memory["used"] < memory["total"]
    await end(door, instance)


@pytest.mark.long
async def test_an_agent_that_is_killed_finds_its_labs_again(mesh: LocalMesh, door: Any, trace: Path) -> None:
    instance = await start_lab(door, "adopted", trace)
    worker = (await door.get(f"/instances/{instance}"))["spec"]["worker"]
    agent = f"agent-{worker.rpartition('-')[2]}"
    pid = mesh.kill(agent)
    await mesh.wait_ended(agent, pid)
    await mesh.wait_ready(agent)
    seen = len(lines(trace))
    await asyncio.sleep(LEASE + 1)  # longer than what was granted before
    now = lines(trace)
    assert len(now) > seen
    assert [what for what, *_ in now].count("start") == 1
    assert (await door.get(f"/instances/{instance}"))["status"]["phase"] == "Running"
    await end(door, instance)


@pytest.mark.long
@pytest.mark.parametrize("lost", [False, True], ids=["cut off", "lost"])
async def test_a_lab_whose_host_is_away_runs_elsewhere_and_never_twice(
    mesh: LocalMesh, door: Any, trace: Path, lost: bool
) -> None:
    """Cut off: the agent stands still, and the supervisor keeps the deadline alone. Lost: the supervisor is killed too."""
    instance = await start_lab(door, f"healed-{str(lost).lower()}", trace)
    first = (await door.get(f"/instances/{instance}"))["spec"]["worker"]
    agent = mesh.process(f"agent-{first.rpartition('-')[2]}")
    assert agent.pid is not None
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        if lost:
            os.kill(supervisor_of(instance), signal.SIGKILL)
        healed = await door.until(
            f"/instances/{instance}",
            lambda one: one["spec"]["worker"] != first and one["status"]["phase"] == "Running",
            seconds=90,
        )
        second = healed["spec"]["worker"]
        await asyncio.sleep(1)
        before = [when for _, worker, when in lines(trace) if worker == first]
        after = [when for _, worker, when in lines(trace) if worker == second]
        assert max(before) < min(after)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    await door.until_phase(f"/workers/{first}", "Ready", seconds=60)
    assert {worker for what, worker, _ in lines(trace) if what == "start"} == {first, second}
    assert [what for what, *_ in lines(trace)].count("start") == 2
    await end(door, instance)


@pytest.mark.long
async def test_a_mesh_that_is_away_for_a_moment_is_not_noticed_by_its_labs(
    mesh: LocalMesh, door: Any, trace: Path
) -> None:
    instance = await start_lab(door, "quiet", trace)
    for process in ("nats", "worker-controller-1"):
        await mesh.restart(process)
    await asyncio.sleep(LEASE + 1)
    assert [what for what, *_ in lines(trace)].count("start") == 1
    assert (await door.get(f"/instances/{instance}"))["status"]["phase"] == "Running"
    await end(door, instance)
