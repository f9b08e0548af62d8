"""The three runtimes, each with what a test of the port needs to know about it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from lablet_common.agents import Answer, Question
from lablet_common.bus.line import AgentSilent
from lablet_common.process_lab import ProcessLab, render
from lablet_common.testing.etcd import free_ports
from lablet_workers.agent import permission
from lablet_workers.agent.capacity import Meter
from lablet_workers.agent.driver import ProcessDriver
from lablet_workers.agent.work import Work
from lablet_workers.runtimes.cml import CmlRuntime, CmlRuntimes
from lablet_workers.runtimes.memory import MemoryRuntime
from lablet_workers.runtimes.port import Runtime
from lablet_workers.runtimes.process import ProcessRuntime

HOST = "127.3.9.1"
SPEED = 60


def lab(port: int, title: str = "Two") -> bytes:
    nodes = [
        {
            "id": "n0",
            "label": "r1",
            "node_definition": "iosv",
            "x": 0,
            "y": 0,
            "tags": [f"serial:{port}"],
            "configuration": "hostname r1",
            "interfaces": [],
        },
        {
            "id": "n1",
            "label": "r2",
            "node_definition": "iosv",
            "x": 9,
            "y": 0,
            "tags": [],
            "configuration": "hostname r2",
        },
    ]
    return json.dumps({"lab": {"title": title, "version": "0.3.0"}, "nodes": nodes, "links": []}).encode()


class Machine:
    """One simulator process."""

    def __init__(self, tmp: Any, *more: str) -> None:
        secret = tmp / "password"
        secret.write_text("image-default\n", encoding="utf-8")
        command = [sys.executable, "-m", "lablet_local.cml", "--host", HOST, "--port", "0", "--die-with-parent"]
        options = ["--speed", str(SPEED), "--node-boot-seconds", "10", "--password-file", str(secret), *more]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def faults(self, **switches: Any) -> None:
        httpx.put(f"{self.url}/sim/faults", json=switches, trust_env=False).raise_for_status()

    def end(self) -> None:
        """Also of one that has ended."""
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def machine(tmp_path: Any) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
async def runtime(machine: Machine) -> AsyncIterator[CmlRuntime]:
    opened = CmlRuntimes("admin").open(machine.url, "ours")
    try:
        yield opened
    finally:
        await opened.close()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)
    return value


# -- one contract for all ----------------------------------------------------------------------------------------------

KINDS = ("memory", "cml", "process")


@dataclass
class Given:
    """One runtime, and what is its own about it."""

    runtime: Runtime
    topology: Callable[[], bytes]
    """A lab of two nodes that run until they are stopped."""
    labels: set[str]
    files: set[str]
    """What `configurations` gives of it."""
    away: Callable[[], None]
    """From now on it does not answer."""
    licensed: bool = True
    """It has a licence to give back."""

    async def begin(self) -> None:
        """The way that a worker goes before it is Ready."""
        await self.runtime.secure("image-default", "ours")
        await self.runtime.register("CML_Enterprise", "token")
        await until(self.complies)

    async def complies(self) -> bool:
        return (await self.runtime.license()).in_compliance

    async def started(self, title: str) -> str:
        """A lab that has converged."""
        lab = await self.runtime.import_lab(title, self.topology())
        await self.runtime.start(lab)
        await until(lambda: self._converged(lab))
        return lab

    async def stopped(self, lab: str) -> None:
        await self.runtime.stop(lab)
        await until(lambda: self._stopped(lab))

    async def _converged(self, lab: str) -> bool:
        return (await self.runtime.progress(lab)).converged

    async def _stopped(self, lab: str) -> bool:
        return (await self.runtime.progress(lab)).stopped


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Given]:
    runtime = MemoryRuntime(password="image-default")

    def away() -> None:
        runtime.up = False

    yield Given(runtime, lambda: b"a lab", {"r1"}, {"r1"}, away)


@asynccontextmanager
async def on_a_controller(tmp: Path) -> AsyncIterator[Given]:
    """A simulator process."""
    machine = Machine(tmp)
    opened = CmlRuntimes("admin").open(machine.url, "ours")
    port = iter(free_ports(8))
    try:
        yield Given(opened, lambda: lab(next(port)), {"r1", "r2"}, {"r1", "r2"}, machine.end)
    finally:
        await opened.close()
        machine.end()


@dataclass
class DirectLine:
    """A `Line` to one agent without a bus between; everything goes over the wire's form all the same."""

    work: Work
    silent: bool = field(default=False)

    async def ask(self, worker: str, verb: str, *, timeout: float = 10.0, **words: Any) -> Answer:
        if self.silent:
            raise AgentSilent(f"the agent {worker} did not answer {verb} within {timeout:g} s")
        question = Question.model_validate_json(Question(reply="here", **words).to_json())
        return Answer.model_validate_json((await self.work.answer(verb, question)).to_json())


@asynccontextmanager
async def on_an_agent(tmp: Path) -> AsyncIterator[Given]:
    """Real processes."""
    granted = tmp / "permission.json"
    permission.write_permission(granted, permission.Permission("e1", permission.now() + 60))
    driver = ProcessDriver(tmp / "labs", granted, None, grace_seconds=1.0)
    line = DirectLine(Work(driver, lambda: True, Meter(tmp).load))

    def away() -> None:
        line.silent = True

    nodes = [{"name": name, "command": "while true; do sleep 1; done"} for name in ("a", "b")]
    made = ProcessLab.model_validate({"kind": "ProcessLab", "nodes": nodes})
    manifest = render(made, {}, seat=1, user="ada", worker="w1").to_json()
    files = {"a.log", "b.log", "result.json"}
    try:
        yield Given(ProcessRuntime("w1", line), lambda: manifest, {"a", "b"}, files, away, licensed=False)
    finally:
        await driver.stop_everything()


@pytest.fixture(params=KINDS)
async def given(request: Any, tmp_path: Path) -> AsyncIterator[Given]:
    opened = {"memory": in_memory, "cml": on_a_controller, "process": on_an_agent}[request.param]
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(opened(tmp_path))
        await made.begin()
        yield made
