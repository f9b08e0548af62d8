"""One controller in memory on a manual clock, one as a real process, and the specification as a judge (where present)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from lablet_local.cml.app import App
from lablet_local.cml.clock import ManualClock
from lablet_local.cml.controller import Controller, Options
from lablet_local.cml.ios import Device
from lablet_local.cml.model import Node

SHARED = Path(__file__).resolve().parents[5] / "shared"
SPECIFICATION = SHARED / "reference" / "cml_openapi-2.9.json"

TWO_ROUTERS = """
lab: {title: Two routers, description: '', notes: '', version: 0.2.2}
nodes:
  - {id: n0, label: r1, node_definition: iosv, x: 0, y: 0, configuration: 'hostname r1', tags: ['serial:2001', core],
     interfaces: [{id: i0, label: Loopback0, type: loopback}, {id: i1, label: GigabitEthernet0/0, type: physical, slot: 0}]}
  - {id: n1, label: r2, node_definition: iosv, x: 100, y: 0, tags: ['serial:2002'], configuration: '',
     interfaces: [{id: i0, label: GigabitEthernet0/0, type: physical, slot: 0}]}
links:
  - {id: l0, n1: n0, i1: i1, n2: n1, i2: i0, label: r1-r2}
"""


class PaperConsoles:
    """Ports on paper: remembers who has which, refuses those named in `taken`."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.reserved: set[str] = set()
        self.opened: dict[str, Device] = {}

    def reserve(self, node: Node) -> str | None:
        if node.label in self.taken:
            return f"Port of node {node.label} cannot be opened: in use."
        self.reserved.add(node.label)
        return None

    def open(self, node: Node, device: Device, *, deaf: bool = False) -> str | None:
        if not deaf:
            self.opened[node.label] = device
        return None

    def close(self, node: Node) -> list[int]:
        self.reserved.discard(node.label)
        self.opened.pop(node.label, None)
        return []

    def log(self, node: Node) -> str:
        return ""

    def ports(self) -> dict[int, str]:
        return {}


@dataclass
class Desk:
    """A controller in memory with everything that a test may move, and a client that is logged in."""

    clock: ManualClock
    consoles: PaperConsoles
    controller: Controller
    http: httpx.AsyncClient
    judge: Callable[[httpx.Response], None]

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One API request, its answer held against the specification."""
        response = await self.http.request(method, path, **more)
        self.judge(response)
        return response

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        """The value of a request that must succeed."""
        response = await self.call(method, path, **more)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content and "json" in response.headers["content-type"] else response.text

    async def login(self, username: str = "admin", password: str = "secret") -> None:
        token = await self.ok("POST", "authenticate", json={"username": username, "password": password})
        self.http.headers["Authorization"] = f"Bearer {token}"

    async def license(self) -> None:
        await self.ok("POST", "licensing/registration", json={"token": "abc="})
        self.clock.advance(30)

    async def lab(self, text: str = TWO_ROUTERS) -> str:
        answer = await self.ok("POST", "import", content=text)
        key: str = answer["id"]
        return key


@dataclass
class Judge:
    """Checks answers against the specification; does nothing where there is none."""

    specification: dict[str, Any] | None
    exceptions: dict[str, str]
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        paths = (self.specification or {}).get("paths", {})
        self._paths = sorted(
            ((re.compile(re.sub(r"\{[^}]*\}", r"[^/]+", path)), path) for path in paths),
            key=lambda pair: pair[1].count("{"),
        )

    def __call__(self, response: httpx.Response) -> None:
        if self.specification is None or not response.request.url.path.startswith("/api/v0/"):
            return
        path = response.request.url.path.removeprefix("/api/v0")
        method = response.request.method
        template = next((path_ for pattern, path_ in self._paths if pattern.fullmatch(path)), None)
        name = f"{method} {template or path}"
        if isinstance(response.stream, httpx.SyncByteStream):
            response.read()
        if response.status_code >= 400:
            if response.status_code != 502:
                error = response.json()
                assert error["code"] == response.status_code
                assert error["description"]
            return
        if name in self.exceptions:
            return
        assert template is not None, f"{name} is outside the specification"
        operation = self.specification["paths"][template][method.lower()]
        answers = operation["responses"]
        assert str(response.status_code) in answers, f"{name}: status {response.status_code} is not specified"
        content = answers[str(response.status_code)].get("content", {})
        self.seen.add(name)
        if response.status_code in (202, 204):
            assert not response.content, f"{name}: a body with {response.status_code}"
            return
        schema = content["application/json"]["schema"]
        judge = jsonschema.Draft202012Validator({**schema, "components": self.specification["components"]})
        worst = jsonschema.exceptions.best_match(judge.iter_errors(response.json()))
        assert worst is None, f"{name}: {worst.message} at {worst.json_path}"


REALITY = {
    "GET /labs/{lab_id}/simulation_stats": "real controllers send maps by id, the specification says lists",
    "GET /labs/{lab_id}/download": "real controllers send the YAML itself, the specification says a JSON string",
    "GET /labs/{lab_id}/pyats_testbed": "as download",
    "GET /node_definitions/{def_id}": "YAML unless json=true, as the client's download expects",
    "GET /image_definitions/{def_id}": "as node definitions",
    "GET /labs/{lab_id}/interfaces": "asked for by newer clients, missing in the 2.9 specification",
}


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Accepts anything where the specification is not beside the checkout."""
    found = json.loads(SPECIFICATION.read_text()) if SPECIFICATION.exists() else None
    return Judge(found, REALITY)


@pytest.fixture
def two_routers() -> str:
    return TWO_ROUTERS


@pytest.fixture
def lab_files() -> list[Path]:
    files = sorted((SHARED / "labs").glob("*.yaml"))
    if not files:
        pytest.skip(f"no lab files at {SHARED / 'labs'}")
    return files


@pytest.fixture
def make_desk(judge: Judge) -> Callable[..., Desk]:
    """Makes controllers in memory; keyword arguments are those of `Options`."""

    def make(**options: Any) -> Desk:
        clock, consoles = ManualClock(), PaperConsoles()
        controller = Controller(clock, consoles, Options(password="secret", **options))
        transport = httpx.ASGITransport(App(controller), client=("127.0.0.1", 5000))
        http = httpx.AsyncClient(transport=transport, base_url="http://sim/api/v0/")
        return Desk(clock, consoles, controller, http, judge)

    return make


@pytest.fixture
async def desk(make_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """A licensed controller in memory with a client logged in as admin."""
    made = make_desk()
    await made.login()
    await made.license()
    yield made
    await made.http.aclose()


@dataclass
class Process:
    """A simulator of its own process."""

    popen: subprocess.Popen[str]
    url: str
    host: str
    password: str
    seconds: float = 0.0

    def side(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, f"{self.url}/sim/{path}", **more)
        answer.raise_for_status()
        return answer.json()

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


@pytest.fixture
def simulator() -> Iterator[Callable[..., Process]]:
    """Starts simulators as processes, on a loopback address of their own, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, host: str = "127.3.7.1") -> Process:
        command = [sys.executable, "-m", "lablet_local.cml", "--host", host, "--port", "0", "--die-with-parent"]
        popen = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(popen)
        assert popen.stdout is not None
        ready = json.loads(popen.stdout.readline())
        return Process(popen, ready["url"], host, ready.get("password", ""))

    yield start
    for popen in started:
        popen.kill()
        popen.wait()
        if popen.stdout is not None:
            popen.stdout.close()


@pytest.fixture
def free_port() -> Callable[[str], int]:
    def find(host: str) -> int:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
            return port

    return find
